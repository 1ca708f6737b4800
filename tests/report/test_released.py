"""Released result files: known by their form, measured by hand and by others' functions."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from irl_exp.report import NoReport, published, released, released_page
from irl_exp.report.document import Report
from irl_exp.report.tables import Table

# R* calls the last two toxic.
TRUTH = [2.0, 1.0, -1.0, -2.0]
FIRST, CONSTANT = [1, -1.0, -1, 0], [-1.0, -1, -1, -1]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two rewards of four texts, and curves of two runs with F1 and one without."""
    rewards = {"true_reward": TRUTH, "rm_corr_0.50_1_x.pt": FIRST, "rm_corr_-0.25_2_x.pt": CONSTANT}
    write(tmp_path / "deep" / "er" / "any name.json", rewards)
    # 300 of its first 1,000 texts are toxic, and all of the others.
    truth = [-1.0] * 300 + [1.0] * 700 + [-1.0] * 10
    write(tmp_path / "longer.json", {"true_reward": truth, "one": truth})
    everything = 2 * 0.3 / 1.3
    low = {"accuracies": [0.3, 0.7, 0.304], "f1s": [everything, 0.5, 0.4]}
    high = {"accuracies": [0.7, 0.31, 0.8], "f1s": [0.0, 0.4, 0.9], "correlations": [0, 0.1, 0.6]}
    write(tmp_path / "both" / "a.json", low)
    write(tmp_path / "both" / "b.json", high)
    write(tmp_path / "neither" / "c.json", {"accuracies": [0.7], "epoch_losses": [-3.5]})
    return tmp_path


def test_rewards_by_hand(small: Path) -> None:
    found = released.read(small)
    longer, deep = found.rewards
    assert (deep.name, longer.name) == ("deep/er/any name.json", "longer.json")
    assert (deep.majority, longer.majority) == (0.5, 700 / 1010)
    first, constant = deep.measured.to_dict("records")
    assert first == {
        **{"file": deep.name, "reward": "rm_corr_0.50_1_x.pt"},
        **{"accuracy_at_zero": 0.75, "f1_at_zero": 0.8, "auc": 0.625},
        "pearson": pytest.approx(2 / 27.5**0.5),
        "spearman": pytest.approx(stats.spearmanr(FIRST, TRUTH).statistic),
        "kendall": pytest.approx(stats.kendalltau(FIRST, TRUTH).statistic),
        **{"accuracy_at_best": 0.75, "pearson_in_name": 0.5},
    }
    assert constant["accuracy_at_zero"] == 0.5 and constant["f1_at_zero"] == pytest.approx(2 / 3)
    assert constant["auc"] == 0.5 and np.isnan(constant["pearson"])
    assert constant["accuracy_at_best"] == 0.5 and constant["pearson_in_name"] == -0.25


def test_curves_by_hand(small: Path) -> None:
    found = released.read(small)
    assert found.toxic_share == 0.3 and found.unread == {}
    both, neither = found.curves
    assert (both.name, neither.name) == ("both", "neither")
    assert [path.name for path in both.paths] == ["b.json", "a.json"]  # the best at its end
    assert both.accuracy.tolist() == [[0.7, 0.31, 0.8], [0.3, 0.7, 0.304]]
    assert both.grids["pearson"][0].tolist() == [0, 0.1, 0.6]
    assert np.isnan(both.grids["pearson"][1]).all() and np.isnan(both.grids["loss"]).all()
    assert both.constant(0.3).tolist() == [[True, False, False], [True, False, False]]
    assert both.near_constant(0.3).tolist() == [[True, False, False], [True, True, True]]
    assert both.with_f1 and not neither.with_f1
    assert neither.constant(0.3).tolist() == [[True]]  # no F1 says otherwise
    assert both.on_first_texts and neither.on_first_texts


def test_two_truths_of_the_curves_texts_are_none(small: Path) -> None:
    truth = [-1.0] * 400 + [1.0] * 600
    write(small / "other.json", {"true_reward": truth, "one": truth})
    assert released.read(small).toxic_share is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not JSON: Expecting property name"),
        ([1, 2], "a JSON file without names; expected an object of lists"),
        ({"lr": 1}, 'neither "true_reward" nor "accuracies" in it'),
        ({"true_reward": [1, "2"], "a": [1, 2]}, '"true_reward": expected a list of numbers'),
        ({"true_reward": [1, True], "a": [1, 2]}, '"true_reward": expected a list of numbers'),
        ({"true_reward": [1, 2], "a": [1, 2]}, '"true_reward" gives all texts one label'),
        ({"true_reward": [0, 1], "a": [1, 0]}, '"true_reward" is 0 or 1 everywhere: labels'),
        ({"true_reward": [1, -1]}, 'no reward beside "true_reward" that can be read'),
        ({"true_reward": [1, -1], "a": [1]}, '"a" has 1 numbers; expected 2; no reward beside'),
        ('{"true_reward": [1, -1], "a": [1, NaN]}', '"a": nan is among its numbers; no reward'),
        ({"true_reward": [1, -(10**400)], "a": [1, 2]}, '"true_reward": a number too large'),
        ({"accuracies": [0.5, 1.5]}, '"accuracies": expected shares from 0 to 1'),
        ({"accuracies": [0.5], "f1s": [0, 1]}, '"f1s" has 2 epochs, "accuracies" 1'),
        ({"accuracies": []}, '"accuracies": expected a list of numbers'),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: Any, why: str) -> None:
    path = write(tmp_path / "odd.json", content)
    with pytest.raises(NoReport) as refused:
        released.read(tmp_path)
    [line] = str(refused.value).splitlines()
    assert line.startswith(f"{tmp_path}: 1 JSON files, none with") and why in line
    write(tmp_path / "good.json", {"accuracies": [0.5]})
    found = released.read(tmp_path)
    assert [*found.unread] == [str(path)] and found.unread[str(path)].startswith(why)
    assert len(found.curves) == 1


def test_a_damaged_reward_is_left_out_alone(tmp_path: Path) -> None:
    content = {"true_reward": TRUTH, "good": FIRST, "short": [1], "none": None}
    path = write(tmp_path / "some.json", content)
    found = released.read(tmp_path)
    assert [*found.rewards[0].recovered] == ["good"]
    assert found.unread == {
        str(path): '"short" has 1 numbers; expected 4; "none": expected a list of numbers'
    }


def test_hidden_files_are_passed_over(small: Path) -> None:
    write(small / ".hidden.json", "{")
    write(small / ".git" / "x.json", "{")
    assert released.read(small).unread == {}


def test_short_names() -> None:
    assert released.short(["rm_ep_1_x.pt", "rm_ep_11_x.pt"]) == ["1", "11"]
    assert released.short(["a_b", "a_b_c"]) == ["a_b", "c"]  # none without a name
    assert released.short(["a_b"]) == ["a_b"]


# --- what is said ---------------------------------------------------------------------------------


def cells(found: Report, first: str, second: str) -> dict[str, dict[str, str]]:
    """The rows of the table with these first headings: name -> heading -> cell."""
    parts = [part for section in found.sections for part in section.body]
    [table] = [p for p in parts if isinstance(p, Table) and p.header[:2] == [first, second]]
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def texts(found: Report) -> str:
    return "\n".join(p for section in found.sections for p in section.body if isinstance(p, str))


def test_what_is_said_of_small_files(small: Path) -> None:
    found = released_page.report(released.read(small))
    assert found.counts == "3 rewards in 2 files, curves of 3 runs."
    row = cells(found, "file", "n")["deep/er/any name"]
    assert row == {
        **{"file": "deep/er/any name", "n": "2", "mean": "0.625", "sd": "0.177"},
        **{"min": "0.500", "max": "0.750", "majority class": "0.500"},
        **{"share at or above it": "1.00", "0.80 or more": "0"},
    }
    best = cells(found, "file", "best")["deep/er/any name"]
    assert best["best"] == "0.50_1" and best["F1 at zero"] == "0.800"
    alone = cells(found, "file", "n")["longer"]
    assert (alone["n"], alone["sd"], alone["max"], alone["0.80 or more"]) == ("1", "–", "1.00", "1")
    without = cells(found, "file", "AUC, mean")["deep/er/any name"]
    assert (without["AUC, mean"], without["points over zero"]) == ("0.562", "+0.0")
    said = texts(found)
    assert "**both**: 2 runs of 3 epochs. Accuracy at zero is 0.500 before training" in said
    assert "2 of 6 run-epochs (33 %) are exactly one of them (accuracy and F1)" in said
    assert "4 (67 %) within 0.005 of one, and 50 % are below the majority class" in said
    assert "(accuracy; F1 was not saved by all runs)" in said
    assert [picture.name for picture in found.pictures] == [
        *("best", "agreement", "epochs-1", "epochs-2")
    ]
    assert found.tables["curves"]["constant"].tolist() == [
        *(True, False, False, True, False, False, True)
    ]
    assert len(found.tables["rewards"]) == len(found.listing.items) == 3


def test_curves_alone_are_drawn_and_not_judged(tmp_path: Path) -> None:
    write(tmp_path / "only" / "a.json", {"accuracies": [0.25, 0.75]})
    found = released_page.report(released.read(tmp_path))
    assert "What a constant predictor would get is not known" in texts(found)
    assert [section.title for section in found.sections] == [
        *("Epoch by epoch", "Toxicity, as published")
    ]
    assert "constant" not in found.tables["curves"] and found.listing.items == []


def test_fisher_as_by_the_hypergeometric_distribution() -> None:
    """p: all tables with these margins that are no likelier than the one that was seen."""
    for row in published.tests():
        toxic_a, texts_a, toxic_b, texts_b = (
            int(row[name])
            for name in ("first_toxic", "first_texts", "second_toxic", "second_texts")
        )
        law = stats.hypergeom(texts_a + texts_b, toxic_a + toxic_b, texts_a)
        chances = law.pmf(np.arange(toxic_a + toxic_b + 1))
        expected = chances[chances <= law.pmf(toxic_a) * (1 + 1e-9)].sum()
        assert row["p"] == pytest.approx(expected)


# --- the paper's files ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper() -> released.Released:
    real = os.environ.get("IRL_EXP_REAL_DATA")
    if real is None:
        pytest.skip("IRL_EXP_REAL_DATA is not set: no released results to read")
    return released.read(Path(real) / "released_results")


def test_the_headline_is_that_of_the_paper(paper: released.Released) -> None:
    [file] = [each for each in paper.rewards if "78_reps" in each.name]
    assert (int(file.toxic.sum()), file.toxic.size) == (931, 2000)
    assert len(file.recovered) == 78
    rows = file.measured
    best = rows.loc[rows["reward"].str.contains("_repeated_58_", regex=False)].iloc[0]
    assert best["accuracy_at_zero"] == rows["accuracy_at_zero"].max()
    assert best["accuracy_at_zero"] == pytest.approx(0.8040, abs=1e-9)
    assert best["f1_at_zero"] == pytest.approx(0.7839029768, abs=1e-9)
    assert best["auc"] == pytest.approx(0.816, abs=5e-4)
    assert best["pearson"] == pytest.approx(0.627, abs=5e-4)
    assert best["spearman"] == pytest.approx(0.531, abs=5e-4)


def test_every_reward_is_measured_as_by_others(paper: released.Released) -> None:
    for file in paper.rewards:
        toxic = file.truth <= 0
        for row in file.measured.itertuples():
            reward = file.recovered[str(row.reward)]
            called = reward <= 0
            expected = [accuracy_score(toxic, called), f1_score(toxic, called)]
            expected += [roc_auc_score(toxic, -reward), np.corrcoef(reward, file.truth)[0, 1]]
            mine = [row.accuracy_at_zero, row.f1_at_zero, row.auc, row.pearson]
            assert mine == pytest.approx(expected, abs=1e-6)


def test_the_claims_of_the_figures(paper: released.Released) -> None:
    """Known from an analysis of the same files: what the figures of accuracy rest on."""
    found = released_page.report(paper)
    epochs = cells(found, "file", "r with Pearson")["epochs_1_30"]
    assert (epochs["r with Pearson"], epochs["r with Pearson in names"]) == ("0.864", "0.488")
    [curves] = paper.curves
    assert curves.accuracy.shape == (15, 30) and paper.toxic_share == 0.458
    assert curves.constant(0.458).mean() == pytest.approx(0.10, abs=0.005)
    assert curves.accuracy[:, -1].mean() == pytest.approx(0.600, abs=5e-4)
    assert curves.accuracy[:, 0].mean() == pytest.approx(0.469, abs=5e-4)
    assert curves.accuracy.max() == 0.836
