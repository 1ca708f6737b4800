"""What an ensemble of rewards does not agree on.

Scores are [n, m, 2k]: of n prompts, m members, k completions of the aligned policy and then k of
the reference. All functions raise ValueError for other shapes, for fewer than two members, and for
scores that are not finite.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irl_exp.metrics.reward_distance import centred


def agreed_signs(members: ArrayLike) -> NDArray[np.int8]:
    """Of R(aligned) - R(reference) of all k^2 pairs of a prompt, int8 [n, k^2]: 1 or -1 where it
    is that sign for every member, 0 where one says otherwise or is undecided."""
    aligned, reference = np.split(_scores(members), 2, axis=2)
    signs = np.sign(aligned[..., :, None] - reference[..., None, :]).astype(np.int8)
    first = signs[:, 0]
    same: NDArray[np.int8] = np.where((signs == first[:, None]).all(axis=1), first, 0)
    return same.reshape(len(same), -1)


def disagreement(members: ArrayLike) -> float:
    """The standard deviation over members (unbiased, of their variance), mean over texts, in
    standard deviations of their mean.

    Within prompts, all of it: from each member's scores its mean over the prompt's completions is
    taken away first, for what members add to all completions of a prompt is no disagreement. 0
    where all are the same; NaN where their mean does not vary.
    """
    scores = _scores(members)
    n, m, width = scores.shape
    residual = centred(scores.reshape(n * m, width)).reshape(n, m, width)
    spread = float(residual.std(axis=1, ddof=1).mean())
    unit = float(np.sqrt(np.mean(residual.mean(axis=1) ** 2)))
    return spread / unit if unit else float("nan")


def _scores(members: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(members, dtype=np.float64)
    if array.ndim != 3 or array.shape[1] < 2 or array.shape[2] % 2 or array.size == 0:
        raise ValueError(f"members: expected [prompts, members >= 2, 2k], got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError("members: expected finite scores")
    return array
