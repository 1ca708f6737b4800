"""identify: what the demonstrations decide, whatever solver one likes, and what noise decides.

Of rewards that are linear in the reference's frozen features: which held-out pairs of completions
do all those order alike that the demonstrations do not reject? Beside it the same of demonstrations
in which there is nothing to find.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from irl_exp.config import EvaluationConfig
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.metrics import agreement
from irl_exp.metrics.identifiability import RewardSet, identification, slack
from irl_exp.metrics.statistics import mean_interval
from irl_exp.models.network_reward import from_body
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.solvers.choice import choice_loss, choice_slopes, most_likely, roughness
from irl_exp.solvers.linear import Features
from irl_exp.steps.bench import Bench, write_summary
from irl_exp.steps.calibration import bootstrap
from irl_exp.store import Artifact
from irl_exp.tracking import NOT_APPLICABLE, Value

VERSION = 2
IDENTIFIED_FILE = "identified.parquet"
# One draw of noise points in one direction, which may by chance agree with the labels or with their
# opposite; several on average with neither.
CONTROL_DRAWS = 8
# Pairs, the first of them, of which each draw is asked; draws, not pairs, make its interval narrow.
CONTROL_PAIRS = 60

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


def identify(
    bench: Bench,
    comments: Artifact,
    pairs: Artifact,
    reference: Artifact,
    truth: Artifact | None,
    recovered: Artifact,
) -> Artifact:
    """Artifact: the numbers recovery/...identified..., placebo/... and shuffled/..., and
    `identified.parquet`, a row a held-out pair. Without R* nobody knows whether they are right."""
    config, trainer = bench.config.evaluation, bench.config.trainer

    def compute(folder: Path) -> None:
        demonstrations = Demonstrations.load(pairs.path)
        body = from_body(reference.path, torch.Generator(), trainer.score_batch_size)
        features = Features.read(body, demonstrations, bench.device)
        pools, rng = features.pool("test"), np.random.default_rng(0)
        rows, first, second = _places(rng, pools.shape[:2], config.identify_pairs)
        deltas = (pools[rows, first] - pools[rows, second]).numpy()

        table = _texts(demonstrations.split("test"), rows, first, second)
        for name, artifact in (("truth", truth), ("recovered", recovered)):
            if artifact is None:
                continue
            reward = load_normalized(artifact.path, trainer.score_batch_size, bench.device)
            prompts, *ends = (table[c].tolist() for c in ("prompt", "first", "second"))
            scores = [reward.score(prompts, end).numpy().astype(np.float64) for end in ends]
            table[name] = scores[0] - scores[1]
        rewards = _not_rejected(config, features.train)
        table["low"], table["high"] = rewards.intervals(deltas)
        table["sign"] = rewards.signs(deltas)
        jointly = replace(rewards, slack=slack(config.level, deltas.shape[1]))
        table["joint_sign"] = jointly.signs(deltas)
        table.to_parquet(folder / IDENTIFIED_FILE, index=False)

        numbers: dict[str, Value] = {"recovery/held_out_pairs": len(table)}
        numbers |= _identified(config, table, rows)
        numbers |= _certified(config, rewards, pools)
        labelled = _labelled(features, Comments.load(comments.path).split("test"))
        for name, noise in (("placebo", _placebo), ("shuffled", _shuffled)):
            asked = deltas[:CONTROL_PAIRS]
            numbers |= _control(config, name, noise, features.train, asked, labelled)
        write_summary(folder, numbers)

    artifact = bench.do(
        "identify",
        VERSION,
        compute,
        config={
            "pairs": config.identify_pairs,
            "prior_scale": config.identify_prior_scale,
            "draws": config.draws,
            "level": config.level,
        },
        inputs={
            "comments": comments,
            "pairs": pairs,
            "reference": reference,
            "truth": truth,
            "recovered": recovered,
        },
        seed=0,
    )
    bench.report(artifact)
    shutil.copyfile(artifact.path / IDENTIFIED_FILE, bench.tracker.folder / IDENTIFIED_FILE)
    return artifact


def _labelled(features: Features, test: Comments) -> tuple[Floats, NDArray[np.int64]] | None:
    """Held-out comments and their labels, if somebody has given them any."""
    if not test.labelled:
        return None
    return features.texts(test.table["prompt"].tolist(), test.completions).numpy(), test.labels


# --- held-out pairs -------------------------------------------------------------------------------


def _places(
    rng: np.random.Generator, shape: tuple[int, ...], n: int
) -> tuple[Places, Places, Places]:
    """(prompt, first, second) of up to n pairs of completions of one prompt, in pools of the shape
    [prompts, 2k], blind to who wrote which: one of every prompt, then a second one of each, and so
    on."""
    prompts, width = shape
    ends = np.array(list(combinations(range(width), 2)))
    order = rng.permuted(np.tile(np.arange(len(ends)), (prompts, 1)), axis=1)
    rows = np.tile(rng.permutation(prompts), len(ends))[:n]
    ranks = np.repeat(np.arange(len(ends)), prompts)[:n]
    first, second = rng.permuted(ends[order[rows, ranks]], axis=1).T
    return rows, first, second


def _texts(pool: Demonstrations, rows: Places, first: Places, second: Places) -> pd.DataFrame:
    prompts, completions = (np.array(texts, dtype=object) for texts in pool.pool())
    start = rows * 2 * pool.k
    columns = {"prompt": prompts[start]}
    columns |= {"first": completions[start + first], "second": completions[start + second]}
    return pd.DataFrame(columns)


# --- what is not rejected -------------------------------------------------------------------------


def _not_rejected(config: EvaluationConfig, phi: Tensor) -> RewardSet:
    """The rewards that pools [n, 2k, d] do not reject, each pair's interval covering on its own. A
    prompt's pool is one observation, so that completions of one prompt are not counted twice."""
    d = phi.shape[-1]
    prior = np.zeros(d), np.eye(d) / config.identify_prior_scale**2
    loss = choice_loss(phi, *prior)
    best = most_likely(phi, config.identify_prior_scale)
    rough = roughness(phi, loss(best)[2])
    return RewardSet.of(loss, best, slack(config.level, 1), rough, choice_slopes(phi, *prior))


def _identified(config: EvaluationConfig, table: pd.DataFrame, rows: Places) -> dict[str, Value]:
    """How many pairs are identified, how many of them as R* has it, and what R̂ makes of them."""

    def share(name: str) -> Callable[[Floats, Floats], float]:
        return lambda signs, differences: identification(signs, differences)[name]

    fraction, accuracy = share("identified_fraction"), share("identified_accuracy")
    # How many are identified is the same whatever they are held against.
    known = "truth" if "truth" in table else "recovered"
    questions: dict[str, tuple[Callable[[Floats, Floats], float], str, str]] = {
        "identified_fraction": (fraction, "sign", known),
        "identified_accuracy": (accuracy, "sign", "truth"),
        "ambiguous_fraction": (share("ambiguous_fraction"), "sign", known),
        "jointly_identified_fraction": (fraction, "joint_sign", known),
        "jointly_identified_accuracy": (accuracy, "joint_sign", "truth"),
        "contradicted_fraction": (lambda s, r: 1 - accuracy(s, r), "sign", "recovered"),
    }
    numbers: dict[str, Value] = {}
    for name, (statistic, signs, differences) in questions.items():
        if differences not in table:
            numbers[f"recovery/{name}"] = NOT_APPLICABLE
            continue
        columns = table[signs].to_numpy(), table[differences].to_numpy()
        if np.isnan(statistic(*columns)):  # of no pair
            numbers[f"recovery/{name}"] = NOT_APPLICABLE
        else:
            numbers |= bootstrap(config, {f"recovery/{name}": statistic}, rows, *columns)
    return numbers


def _certified(config: EvaluationConfig, rewards: RewardSet, pools: Tensor) -> dict[str, float]:
    """The share of all pairs of one prompt's completions that the cheap bound alone settles."""
    first, second = np.array(list(combinations(range(pools.shape[1]), 2))).T
    low, high = rewards.bounds((pools[:, first] - pools[:, second]).flatten(0, 1).numpy())
    settled = ((low > 0) | (high < 0)).reshape(len(pools), -1).mean(axis=1)
    mean: Callable[[Floats], float] = lambda shares: float(np.mean(shares))  # noqa: E731
    return bootstrap(config, {"recovery/certified_fraction": mean}, None, settled)


# --- demonstrations in which there is nothing to find ---------------------------------------------

Noise = Callable[[Tensor, np.random.Generator], Tensor | None]


def _placebo(phi: Tensor, rng: np.random.Generator) -> Tensor | None:
    """Reference against reference: its k completions of each prompt, parted at random into two
    halves (of an odd k, one stays out). None for k = 1."""
    k = phi.shape[1] // 2
    return _drawn(phi[:, k:], k - k % 2, rng) if k > 1 else None


def _shuffled(phi: Tensor, rng: np.random.Generator) -> Tensor:
    """Which k of a prompt's 2k completions are called the expert's is drawn at random."""
    return _drawn(phi, phi.shape[1], rng)


def _drawn(phi: Tensor, width: int, rng: np.random.Generator) -> Tensor:
    """`width` of each prompt's completions in an order of its own."""
    order = rng.permuted(np.tile(np.arange(phi.shape[1]), (len(phi), 1)), axis=1)[:, :width]
    return phi[torch.arange(len(phi)).unsqueeze(1), torch.from_numpy(order)]


def _control(
    config: EvaluationConfig,
    name: str,
    noise: Noise,
    phi: Tensor,
    deltas: Floats,
    labelled: tuple[Floats, NDArray[np.int64]] | None,
) -> dict[str, Value]:
    """Means over draws of noise, with t-intervals: labels that mean nothing can be swapped, which
    turns AUC a into 1 - a, so that its mean is 0.5 exactly; and each pair is identified with a
    probability of at most 1 - level, about."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"identified_fraction": [], "auc": []}
    for _ in range(CONTROL_DRAWS):
        drawn = noise(phi, rng)
        if drawn is None:
            return {f"{name}/{measure}": NOT_APPLICABLE for measure in found}
        rewards = _not_rejected(config, drawn)
        found["identified_fraction"].append(float(np.mean(rewards.signs(deltas) != 0)))
        if labelled:
            found["auc"].append(agreement.auc(labelled[0] @ rewards.best, labelled[1]))
    numbers: dict[str, Value] = {}
    for measure, values in found.items():
        if not values:
            numbers[f"{name}/{measure}"] = NOT_APPLICABLE
            continue
        mean, low, high = mean_interval(values, config.level)
        # Shares; an interval that assumes a Gaussian does not know that.
        ends = {"": mean, "_low": max(low, 0.0), "_high": min(high, 1.0)}
        numbers |= {f"{name}/{measure}{end}": value for end, value in ends.items()}
    return numbers
