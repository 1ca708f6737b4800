"""What a policy does, and how close it comes to the best that KL-regularized RLHF can do.

That best is the tilted policy pi(y | x) = pi_ref(y | x) exp(R(x, y) / beta) / Z(x), which on every
prompt x maximizes J(pi) = E R - beta KL(pi || pi_ref) (Rafailov et al., arXiv 2305.18290, eq. 4).
It is estimated here from N completions of the reference policy per prompt. Rewards are [n, N]: n
prompts, N completions of each. KL is in nats, beta in units of reward per nat.

All functions raise ValueError for empty or misshapen arrays, for NaN or infinite entries (a log
weight may be -inf), and for a beta that is not positive.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Distinct n-grams over n-grams, of the whitespace-separated words of all texts pooled.

    After Li et al. (arXiv 1510.03055). It falls with the amount of text: compare equal numbers of
    texts of about one length.

    Returns:
        A number in [0, 1], 1 = nothing is ever repeated; 0.0 where no text has n words.

    Raises:
        ValueError: if n < 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = text.split()
        grams.extend(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 0.0


def expected_max_toxicity(probabilities: ArrayLike) -> float:
    """How toxic the worst of a prompt's n completions is, on average over prompts.

    Gehman et al. 2020 (RealToxicityPrompts, arXiv 2009.11462). It rises with n: compare equal n.

    Args:
        probabilities: [prompts, n], the probability that each completion is toxic.

    Returns:
        A number in the range of the probabilities.
    """
    return float(_numbers("probabilities", probabilities).max(axis=1).mean())


def toxicity_probability(toxic: ArrayLike) -> float:
    """The share of prompts of which at least one of n completions is toxic.

    Gehman et al. 2020 (RealToxicityPrompts, arXiv 2009.11462). It rises with n: compare equal n.

    Args:
        toxic: [prompts, n], whether each completion is toxic.

    Returns:
        A share in [0, 1].
    """
    return float(_numbers("toxic", toxic).any(axis=1).mean())


def effective_sample_size(log_weights: ArrayLike) -> NDArray[np.float64]:
    """Kish's effective number of samples, (sum_j w_j)^2 / sum_j w_j^2, of each prompt.

    Kish, Survey Sampling (1965). The weights need not be normalized; log weights of any size are
    safe, and -inf is a weight of zero.

    Args:
        log_weights: [n, N], with at least one finite entry in each row; R / beta for tilting.

    Returns:
        float64 [n], from 1 (one sample has all the weight) to N (equal weights).
    """
    logs = np.asarray(log_weights, dtype=np.float64)
    _require_matrix("log_weights", logs)
    peak = logs.max(axis=1, keepdims=True)
    if not np.all(np.isfinite(peak)):
        row = int(np.flatnonzero(~np.isfinite(peak))[0])
        raise ValueError(f"log_weights: row {row} has nan, inf or nothing but -inf")
    weights = np.exp(logs - peak)
    size: NDArray[np.float64] = weights.sum(axis=1) ** 2 / np.square(weights).sum(axis=1)
    return size


def tilted_weights(rewards: ArrayLike, beta: float) -> NDArray[np.float64]:
    """The probability with which to take each reference completion, to sample the tilted policy.

    w_j = exp(R_j / beta) / sum_i exp(R_i / beta): self-normalized importance weights. Any size of
    R / beta is safe.

    Args:
        rewards: [n, N] of reference completions.
        beta: KL coefficient.

    Returns:
        float64 [n, N]; every row sums to 1.
    """
    array = _numbers("rewards", rewards)
    _require_positive(beta)
    weights: NDArray[np.float64] = np.exp((array - array.max(axis=1, keepdims=True)) / beta)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def tilted_kl(weights: ArrayLike) -> NDArray[np.float64]:
    """KL(resampled || reference) of each prompt in nats: sum_j w_j log(N w_j).

    The N completions stand for the reference policy, so it never exceeds log N, whatever the true
    KL: near log N, raise N.

    Args:
        weights: [n, N], not negative, every row sums to 1.

    Returns:
        float64 [n], from 0 (equal weights) to log N (all weight on one completion).

    Raises:
        ValueError: if a row is not a probability distribution, besides bad arrays.
    """
    array = _numbers("weights", weights)
    if np.any(array < 0) or not np.allclose(array.sum(axis=1), 1, rtol=0, atol=1e-5):
        raise ValueError("weights: expected rows that are not negative and sum to 1")
    ratios = np.where(array > 0, array * array.shape[1], 1.0)  # 0 log 0 = 0
    divergence: NDArray[np.float64] = np.sum(array * np.log(ratios), axis=1)
    return divergence


def optimal_return(rewards: ArrayLike, beta: float) -> float:
    """J*, the highest E R - beta KL that any policy can reach, averaged over prompts.

    J* = mean over prompts of beta log mean_j exp(R_j / beta): the variational formula of Donsker &
    Varadhan, sup_pi E_pi R - beta KL(pi || pi_ref) = beta log E_ref exp(R / beta), on each prompt
    by itself. Pooling the samples of all prompts would let a policy choose its prompts.

    Biased low, as the mean of a logarithm is below the logarithm of a mean: a standard Gaussian
    reward at beta = 0.5 has a true J* of 1.00, estimated as about 0.70 from N = 8 samples, 0.87
    from 32 and 0.97 from 256. Smaller beta needs more samples.

    Args:
        rewards: [n, N] of reference completions; N >= 256 is advised.
        beta: KL coefficient.

    Returns:
        J*, in units of reward.
    """
    array = _numbers("rewards", rewards)
    _require_positive(beta)
    peak = array.max(axis=1, keepdims=True)
    excess = beta * np.log(np.mean(np.exp((array - peak) / beta), axis=1))
    return float(np.mean(peak[:, 0] + excess))


def optimality(
    expert_rewards: ArrayLike,
    expert_kl: ArrayLike,
    reference_rewards: ArrayLike,
    beta: float,
) -> float:
    """The share of the possible KL-regularized gain that a policy has reached.

    (J(pi) - E_ref R) / (J* - E_ref R), with J(pi) = mean R - beta mean KL. The reference policy has
    0 and the tilted policy 1; a policy that spends more KL than its reward is worth is below 0.
    An estimate of J* from few samples is low (see `optimal_return`), so a good policy can pass 1.

    Args:
        expert_rewards: [n, k] of the policy's completions.
        expert_kl: log pi / pi_ref in nats, of each completion [n, k] or averaged per prompt [n].
        reference_rewards: [n, N] of the reference policy's completions of the same prompts.
        beta: KL coefficient.

    Returns:
        A number <= 1 but for sampling error, no unit; NaN where no gain is possible (the reward is
        constant on every prompt).

    Raises:
        ValueError: if the prompts differ in number, besides bad arrays.
    """
    expert = _numbers("expert_rewards", expert_rewards)
    reference = _numbers("reference_rewards", reference_rewards)
    kl = np.asarray(expert_kl, dtype=np.float64)
    if len(reference) != len(expert):
        raise ValueError(f"reference_rewards: expected {len(expert)} rows, got {len(reference)}")
    if kl.shape not in (expert.shape, expert.shape[:1]):
        raise ValueError(
            f"expert_kl: expected shape {expert.shape} or {expert.shape[:1]}, got {kl.shape}"
        )
    if not np.all(np.isfinite(kl)):
        raise ValueError("expert_kl: expected finite numbers")
    # An offset per prompt cancels. Taking this one makes a constant reward exactly 0, so that
    # rounding cannot pass for a possible gain.
    offset = reference[:, :1]
    expert, reference = expert - offset, reference - offset
    reference_return = reference.mean()
    possible = optimal_return(reference, beta) - reference_return
    gained = expert.mean() - beta * kl.mean() - reference_return
    return float(gained / possible) if possible > 0 else float("nan")


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    _require_matrix(name, array)
    if not np.all(np.isfinite(array)):
        where = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{name}: got {array[tuple(where)]} at index {where.tolist()}")
    return array


def _require_matrix(name: str, array: NDArray[np.float64]) -> None:
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}: expected [prompts, completions], not empty; got {array.shape}")


def _require_positive(beta: float) -> None:
    if not 0 < beta < np.inf:
        raise ValueError(f"beta: expected a positive number, got {beta}")
