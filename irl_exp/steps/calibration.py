"""What every reward gets before it is used: a threshold, a unit, intervals of its numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from irl_exp.config import EvaluationConfig
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.metrics import agreement
from irl_exp.metrics.statistics import cluster_bootstrap, cluster_counts, percentiles
from irl_exp.models.reward_model import Facts, Normalizer, Reward
from irl_exp.steps.pretrain import CALIBRATION_FILE
from irl_exp.store import Artifact


def unit_texts(reference: Artifact, pairs: Artifact | None) -> tuple[list[str], list[str]]:
    """(prompts, completions) of the reference that fix a reward's unit: of calibration prompts, and
    where all that it wrote is in a file of pairs, those of the validation split."""
    path = reference.path / CALIBRATION_FILE
    if path.is_file():
        table = pd.read_parquet(path)
        return table["prompt"].tolist(), table["completion"].tolist()
    assert pairs is not None
    return Demonstrations.load(pairs.path).split("validation").reference_texts()


def save_calibrated(
    reward: Reward,
    folder: Path,
    comments: Comments,
    texts: tuple[list[str], list[str]],
    origin: dict[str, Any],
    must_vary: bool = True,
) -> Facts:
    """Save a reward with its unit, from `texts` of the reference, and its threshold, from the
    labels of the calibration split (without labels it has none). A reward that is the same for
    all of these texts is an InputError, or (`must_vary=False`) has its own unit."""
    threshold = None
    if comments.labelled:
        calibration = comments.split("calibration")
        scores = reward.score(calibration.table["prompt"].tolist(), calibration.completions)
        threshold = agreement.fit_threshold(scores.numpy(), calibration.labels)
    scores = reward.score(*texts)
    varies = must_vary or float(scores.std(correction=0)) > 0
    facts = Facts(
        kind=reward.kind,
        normalizer=Normalizer.fit(scores) if varies else Normalizer(float(scores.mean()), 1.0),
        origin=origin,
        threshold=threshold,
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


# (a measure, the same of counts [draws, n] and the arrays: metrics/resampled.py)
Measure = tuple[Callable[..., float], Callable[..., NDArray[np.float64]]]


def bootstrap_at_once(
    config: EvaluationConfig,
    measures: Mapping[str, Measure],
    clusters: NDArray[np.integer] | None,
    *arrays: NDArray[Any],
) -> dict[str, float]:
    """The same, of measures that need not see one draw after the other."""
    names = np.arange(len(arrays[0])) if clusters is None else clusters
    values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in measures}
    for counts in cluster_counts(names, draws=config.draws, rng=np.random.default_rng(0)):
        for name, (_, of_draws) in measures.items():
            values[name].append(of_draws(counts, *arrays))
    numbers: dict[str, float] = {}
    for name, (measure, _) in measures.items():
        numbers[name] = measure(*arrays)
        low, high = percentiles([v for part in values[name] for v in part], config.level)
        if not np.isnan(low):
            numbers |= {f"{name}_low": low, f"{name}_high": high}
    return numbers
