"""What every reward gets before it is used: a threshold, a unit, intervals of its numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irl_exp.config import EvaluationConfig
from irl_exp.data.comments import Comments
from irl_exp.metrics import agreement
from irl_exp.metrics.statistics import cluster_bootstrap
from irl_exp.models.reward_model import Facts, Normalizer, Reward
from irl_exp.steps.pretrain import calibration_texts
from irl_exp.store import Artifact


def save_calibrated(
    reward: Reward, folder: Path, comments: Comments, reference: Artifact, origin: dict[str, Any]
) -> Facts:
    """Save a reward with its threshold, from the labels of the calibration split, and its unit,
    from the reference's completions of calibration prompts."""
    calibration = comments.split("calibration")
    scores = reward.score(calibration.table["prompt"].tolist(), calibration.completions)
    facts = Facts(
        kind=reward.kind,
        normalizer=Normalizer.fit(reward.score(*calibration_texts(reference))),
        origin=origin,
        threshold=agreement.fit_threshold(scores.numpy(), calibration.labels),
        extra=reward.save(folder),
    )
    facts.save(folder)
    return facts


def bootstrap(
    config: EvaluationConfig,
    statistics: Mapping[str, Callable[..., float]],
    clusters: NDArray[np.integer] | None,
    *arrays: NDArray[Any],
) -> dict[str, float]:
    """Each statistic with its percentile interval over prompts: name, name_low, name_high.

    Without these two where one prompt, or a single draw that is defined, says nothing of a spread.
    """
    numbers: dict[str, float] = {}
    for name, statistic in statistics.items():
        rng = np.random.default_rng(0)  # the same draws for every statistic: comparable intervals
        low, high = cluster_bootstrap(
            statistic, clusters, *arrays, draws=config.draws, level=config.level, rng=rng
        )
        numbers[name] = statistic(*arrays)
        if not np.isnan(low):
            numbers |= {f"{name}_low": low, f"{name}_high": high}
    return numbers
