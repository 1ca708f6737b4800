"""How far apart two rewards are, once everything that no policy can notice is taken away.

For a language model an episode is one step: a prompt, then a completion. An offset per prompt moves
no KL-regularized optimal policy, and a positive scale is exchanged for the KL coefficient, so two
rewards that differ by no more than these are the same reward. `tabular_distance` has the distances
of processes of more than one step, which come to this one there.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def centred(scores: ArrayLike) -> NDArray[np.float64]:
    """The scores less their mean over each prompt's completions.

    This is the canonical form c(R)(x, y) = R(x, y) - E_y' R(x, y') which the canonicalizations of
    EPIC (Gleave et al., arXiv 2006.13900), DARD (Wulfe et al., arXiv 2201.10081) and STARC (Skalse
    et al., arXiv 2309.15257) come to in one step, with y' drawn like the prompt's completions.

    Args:
        scores: rewards [n, m] of m >= 2 completions of each of n prompts.

    Returns:
        float64 [n, m]; every row has mean 0. A constant row becomes exactly 0.

    Raises:
        ValueError: for an array of another shape, or with a NaN or infinite entry.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(
            f"scores: expected [prompts, completions >= 2], not empty; got shape {array.shape}"
        )
    if not np.all(np.isfinite(array)):
        where = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"scores: got {array[tuple(where)]} at index {where.tolist()}")
    # The mean of equal floats need not equal them; the mean of their zero differences does.
    canonical: NDArray[np.float64] = array - array[:, :1]
    canonical -= canonical.mean(axis=1, keepdims=True)
    return canonical


def starc(a: ArrayLike, b: ArrayLike) -> float:
    """The STARC distance of two rewards: sqrt((1 - rho) / 2).

    rho is Pearson's correlation of the per-prompt centred scores, pooled over all prompts. With two
    completions per prompt it is the cosine between the two vectors of within-pair differences.

    STARC (Skalse et al., arXiv 2309.15257) standardizes s(R) = c(R) / |c(R)|, with s(R) = 0 where
    c(R) = 0, and measures |s(a) - s(b)|; with the L2 norm and a factor of one half,

        |s(a) - s(b)| / 2 = sqrt(1 - 2 rho + 1) / 2 = sqrt((1 - rho) / 2),

    which is also EPIC's Pearson distance. It obeys the triangle inequality. Sampling noise in
    either reward inflates it, so read it beside the distance of two fits of one reward.

    Args:
        a: scores [n, m] of m >= 2 completions of each of n prompts.
        b: scores [n, m] of the same completions.

    Returns:
        A number in [0, 1]. 0: the same up to a positive scale and an offset per prompt;
        sqrt(1/2): uncorrelated; 1: reversed. A reward that is constant on every prompt (s = 0) is
        at 1/2 from any that is not, as |s| / 2 = 1/2, and at 0 from another constant one.

    Raises:
        ValueError: for shapes that differ or are not [n, m >= 2], or a NaN or infinite score.
    """
    first, second = centred(a), centred(b)
    if first.shape != second.shape:
        raise ValueError(f"b: expected shape {first.shape}, got {second.shape}")
    return standardized_distance(first, second)


def starc_matrix(rewards: ArrayLike) -> NDArray[np.float64]:
    """`starc` of every two of r rewards: float64 [r, r], symmetric, 0 on the diagonal.

    Args:
        rewards: scores [r, n, m] of m >= 2 completions of each of n prompts.

    Raises:
        ValueError: see `centred`.
    """
    rows = [centred(scores).ravel() for scores in np.asarray(rewards, dtype=np.float64)]
    unit = np.array([row / (float(np.linalg.norm(row)) or 1.0) for row in rows])
    distances = np.zeros((len(unit), len(unit)))
    for i in range(len(unit) - 1):
        distances[i, i + 1 :] = np.linalg.norm(unit[i + 1 :] - unit[i], axis=1) / 2
    return distances + distances.T


def standardized_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Half the L2 distance of two canonical rewards of one shape, each first scaled to length 1
    unless it is 0. That is sqrt((1 - rho) / 2), rho their cosine, but exact near rho = 1."""
    first, second = (
        canonical / size if (size := float(np.linalg.norm(canonical))) > 0 else canonical
        for canonical in (a, b)
    )
    return min(float(np.linalg.norm(first - second)) / 2, 1.0)
