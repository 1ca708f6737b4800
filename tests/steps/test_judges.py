"""Judges: whom they learn from, what they say, and that a word judge knows no training comment."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irl_exp.data import synthetic
from irl_exp.data.comments import Comments, LabelledText, curate
from irl_exp.metrics import agreement
from irl_exp.models.reward_kinds import ClosedFormReward
from irl_exp.models.word_classifier import WordClassifier
from irl_exp.steps.bench import Bench
from irl_exp.steps.judges import saved_judge, word_judge
from irl_exp.store import Artifact, Store
from irl_exp.tracking import Tracker
from tests.materials import save_reward
from tests.test_step_versions import studies

SHARES = {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}


@pytest.fixture(scope="module")
def comments() -> Comments:
    rows = [LabelledText(text, bool(toxic)) for text, toxic in synthetic.generate(2000, seed=3)]
    rng = np.random.default_rng(0)
    options = {"prompt_words": 4, "max_comments": None, "balance": True}
    return curate(rows, shares=SHARES, rng=rng, **options)[0]  # type: ignore[arg-type]


def test_words_are_learned_from_none_of_the_comments_of_r_star(comments: Comments) -> None:
    table = comments.table.copy()
    train = table["split"] == "train"
    table.loc[train, "toxic"] = 1 - table.loc[train, "toxic"]
    test = comments.split("test")
    texts = (test.table["prompt"].tolist(), test.completions)
    ours, turned = (word_judge(c) for c in (comments, Comments(table)))
    np.testing.assert_array_equal(ours.score(*texts), turned.score(*texts))
    assert (ours.threshold, ours.platt) == (turned.threshold, turned.platt)


def test_words_know_toxic_comments_and_how_surely(comments: Comments) -> None:
    judge, test = word_judge(comments), comments.split("test")
    scores = judge.score(test.table["prompt"].tolist(), test.completions)
    toxic = test.labels == 1
    assert np.mean(judge.calls_toxic(scores) == toxic) > 0.75
    sure = judge.probability(scores)
    for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        there = (sure >= low) & (sure <= high)
        assert toxic[there].mean() == pytest.approx(sure[there].mean(), abs=0.15)


def test_cross_scores_are_of_texts_that_were_not_learned() -> None:
    """Labels that mean nothing are learned by heart, and not foretold."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*"abcdefghij"], 6) + str(i)) for i in range(400)]
    labels = rng.integers(0, 2, 400)
    assert agreement.auc(WordClassifier.fit(texts, labels).score(texts), labels) > 0.99
    assert 0.4 < agreement.auc(WordClassifier.cross_scores(texts, labels), labels) < 0.6
    # The least that curation leaves: two comments of either label.
    few = WordClassifier.cross_scores(["you fool", "my thanks", "a fool", "thanks"], [1, 0, 1, 0])
    assert few.shape == (4,) and few[1] > few[2]


def test_a_reward_judges_by_its_threshold_and_calibration_labels(
    comments: Comments, tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir()
    reward = Artifact("r", "r", save_reward(ClosedFormReward(), tmp_path / "r"), False, 0.0)
    config = studies(tmp_path / "store")["ppo"]
    with Tracker(tmp_path / "run", "judge") as tracker:
        tracker.start({"seeds": {}}, "", [])
        judge = saved_judge(Bench(config, Store(tmp_path / "store"), tracker), reward, comments)
    calibration = comments.split("calibration")
    scores = judge.score(calibration.table["prompt"].tolist(), calibration.completions)
    np.testing.assert_allclose(scores, [synthetic.reward(t) for t in calibration.texts], rtol=1e-6)
    assert judge.calls_toxic(np.array([0.24, 0.25])).tolist() == [True, False]
    # As many are toxic as the probabilities say; the smoothed targets leave a little.
    sure = judge.probability(scores)
    assert sure.mean() == pytest.approx(calibration.labels.mean(), abs=0.01)
    assert pd.Series(sure).corr(pd.Series(scores), method="spearman") == pytest.approx(-1)
