"""Problems with a known answer: a linear reward planted on Gaussian features."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# The world is the same for all seeds, which decide what is drawn in it.
WORLD = 0


def planted(
    rng: np.random.Generator, w: np.ndarray, n: int, k: int = 4, root: np.ndarray | None = None
) -> Tensor:
    """n pools [n, 2k, d]: features N(0, root root^T), the first k tilted by exp(w . phi), which
    moves their mean by root root^T w and changes nothing else. w [d] is that of R/beta."""
    root = np.eye(w.size) if root is None else root
    phi = rng.normal(size=(n, 2 * k, w.size)) @ root.T
    phi[:, :k] += root @ (root.T @ w)
    return torch.from_numpy(phi)


def direction(rng: np.random.Generator, d: int) -> np.ndarray:
    w = rng.normal(size=d)
    return w / np.linalg.norm(w)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@dataclass(frozen=True)
class Planted:
    """Pools of an expert that is exactly pi_ref exp(R/beta)/Z, with R = w . phi and |w|/beta = 1.

    Reference completions have features N(0, S), so the expert's are N(S w/beta, S), S the
    covariance [d, d]. phi: float64 [n, 2k, d], the expert's k completions first; w: [d].
    """

    phi: Tensor
    w: Tensor
    beta: float
    covariance: Tensor

    @property
    def kl_coef(self) -> float:
        """beta in the unit of rewards: standard deviations of R over the reference."""
        return self.beta / float((self.w @ self.covariance @ self.w).sqrt())

    def cosine(self, found: Tensor) -> float:
        return cosine(found.numpy(), self.w.numpy())

    def correlation(self, found: Tensor) -> float:
        """The same in the metric of the covariance: of both rewards' scores, over the reference."""
        half = torch.linalg.cholesky(self.covariance)
        return cosine((found @ half).numpy(), (self.w @ half).numpy())


def plant(n: int, k: int = 4, d: int = 32, beta: float = 0.5, seed: int = 0) -> Planted:
    """Variances of 1/4 to 4 along d orthogonal directions that are no feature's own."""
    world = torch.Generator().manual_seed(WORLD)
    axes, w = (
        torch.randn(*shape, dtype=torch.float64, generator=world) for shape in ((d, d), (d,))
    )
    axes, w = torch.linalg.qr(axes)[0], w / w.norm()
    variances = torch.logspace(-1, 1, d, base=4.0, dtype=torch.float64)
    covariance = axes @ variances.diag() @ axes.T
    root = torch.linalg.cholesky(covariance).numpy()
    phi = planted(np.random.default_rng(seed + 1), w.numpy(), n, k, root)
    return Planted(phi, beta * w, beta, covariance)
