"""A problem with a known answer: a linear reward planted on correlated Gaussian features."""

from dataclasses import dataclass

import torch
from torch import Tensor

# The world is the same for all seeds, which decide what is drawn in it.
WORLD = 0


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
        return float(found @ self.w / (found.norm() * self.w.norm()))

    def correlation(self, found: Tensor) -> float:
        """The same in the metric of the covariance: of both rewards' scores, over the reference."""
        half = torch.linalg.cholesky(self.covariance)
        a, b = found @ half, self.w @ half
        return float(a @ b / (a.norm() * b.norm()))


def plant(n: int, k: int = 4, d: int = 32, beta: float = 0.5, seed: int = 0) -> Planted:
    """Variances of 1/4 to 4 along d orthogonal directions that are no feature's own."""
    world, draws = (torch.Generator().manual_seed(s) for s in (WORLD, seed + 1))

    def normal(*shape: int, generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    axes = torch.linalg.qr(normal(d, d, generator=world))[0]
    variances = torch.logspace(-1, 1, d, base=4.0, dtype=torch.float64)
    covariance = axes @ variances.diag() @ axes.T
    w = normal(d, generator=world)
    w *= beta / w.norm()
    phi = normal(n, 2 * k, d, generator=draws) @ torch.linalg.cholesky(covariance).T
    phi[:, :k] += covariance @ w / beta
    return Planted(phi, w, beta, covariance)
