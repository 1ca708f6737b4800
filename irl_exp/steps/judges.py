"""Who says what is toxic: R*, and a second classifier that has not learned from the same comments.

A judge has a threshold, below which it calls a text toxic, and knows how likely a text of some
score is to be toxic; both from human labels of comments that it has not learned from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from irl_exp.data.comments import Comments
from irl_exp.metrics import agreement
from irl_exp.models.reward_model import Facts
from irl_exp.models.saved_rewards import load_reward
from irl_exp.models.word_classifier import WordClassifier
from irl_exp.steps.bench import Bench
from irl_exp.store import Artifact

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """`score(prompts, completions)` gives n texts float64 [n], higher = less toxic; `platt` is
    (a, b) with P(toxic | score) = 1 / (1 + exp(a * score - b))."""

    score: Callable[[Sequence[str], Sequence[str]], Scores]
    threshold: float
    platt: tuple[float, float]

    def calls_toxic(self, scores: Scores) -> NDArray[np.bool_]:
        return scores < self.threshold

    def probability(self, scores: Scores) -> Scores:
        slope, shift = self.platt
        return expit(shift - slope * scores)


def saved_judge(bench: Bench, reward: Artifact, comments: Comments) -> Judge:
    """A saved reward, with its threshold; R* and a classifier of the user's alike."""
    network = load_reward(reward.path, bench.config.trainer.score_batch_size, bench.device)
    threshold = Facts.load(reward.path).threshold
    assert threshold is not None

    def score(prompts: Sequence[str], completions: Sequence[str]) -> Scores:
        return network.score(prompts, completions).numpy().astype(np.float64)

    calibration = comments.split("calibration")
    scores = score(calibration.table["prompt"].tolist(), calibration.completions)
    return Judge(score, threshold, agreement.fit_probability(scores, calibration.labels))


def word_judge(comments: Comments) -> Judge:
    """TF-IDF and logistic regression, from the labels of validation and calibration comments.

    R* learns from the train split: what it makes of a quirk there, a classifier of the same
    comments would share. Those of the other two splits (15 % of all by default) are fewer, so all
    of them teach words, and threshold and probabilities are found from scores that each gets from
    a classifier that has not seen it.
    """
    splits = ["validation", "calibration"]
    held_out = Comments(comments.table[comments.table["split"].isin(splits)])
    classifier = WordClassifier.fit(held_out.texts, held_out.labels)
    unseen = WordClassifier.cross_scores(held_out.texts, held_out.labels)

    def score(prompts: Sequence[str], completions: Sequence[str]) -> Scores:
        return classifier.score([p + c for p, c in zip(prompts, completions, strict=True)])

    return Judge(
        score,
        agreement.fit_threshold(unseen, held_out.labels),
        agreement.fit_probability(unseen, held_out.labels),
    )
