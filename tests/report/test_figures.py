"""Figures of a made-up run: drawn where there is data, left out where there is none."""

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from irl_exp.report import figures
from irl_exp.report.run import Run

ALL = ["losses", "alignment", "toxicity", "scores", "roc", "identified", "attribution"]


def keep_curves(folder: Path, *steps: str) -> None:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["step"] in steps))


def legend(axes: Axes) -> list[str]:
    shown = axes.get_legend()
    assert shown is not None
    return [text.get_text() for text in shown.get_texts()]


def test_a_whole_run_gives_every_figure(run_folder: Path) -> None:
    drawn = figures.draw(run_folder)

    assert list(drawn) == ALL
    for name, path in drawn.items():
        assert path == run_folder / "figures" / f"{name}.png"
        pixels = matplotlib.image.imread(path)
        height, width, _ = pixels.shape
        assert min(height, width) >= 300, name
        inked = (pixels[..., :3].min(axis=-1) < 0.9).mean()
        assert 0.01 < inked < 0.9, f"{name} is blank or black"


def test_a_folder_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"status\.json"):
        figures.draw(tmp_path)


def test_a_run_that_ended_after_pretraining_has_one_panel(run_folder: Path) -> None:
    keep_curves(run_folder, "pretrain")
    for name in ("summary.json", "samples.jsonl"):
        (run_folder / name).unlink()
    for name in ("panel", "identified", "attribution"):
        (run_folder / f"{name}.parquet").unlink()

    assert list(figures.draw(run_folder)) == ["losses"]
    figure = figures.losses(Run.read(run_folder))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["The reference learns to write comments"]


def test_figures_of_an_earlier_attempt_are_removed(run_folder: Path) -> None:
    figures.draw(run_folder)
    for name in ("panel", "identified", "attribution"):
        (run_folder / f"{name}.parquet").unlink()

    assert list(figures.draw(run_folder)) == ["losses", "alignment", "toxicity"]
    left = {path.name for path in (run_folder / "figures").iterdir()}
    assert left == {"losses.png", "alignment.png", "toxicity.png"}


def test_loss_curves_are_the_logged_numbers(run_folder: Path) -> None:
    run = Run.read(run_folder)
    figure = figures.losses(run)
    assert figure is not None
    training, validation = figure.axes[0].get_lines()

    assert np.array_equal(training.get_xydata(), np.column_stack(run.curve("pretrain", "loss")))
    logged = np.column_stack(run.curve("pretrain", "validation_loss"))
    assert np.array_equal(validation.get_xydata(), logged)
    assert legend(figure.axes[0]) == ["training", "validation"]


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        (("align", "realign"), ["RLHF with R*", f"RLHF with {figures.RECOVERED_SIGN}"]),
        (("align",), ["RLHF with R*"]),
    ],
)
def test_alignment_has_a_line_for_each_rlhf(
    run_folder: Path, steps: tuple[str, ...], labels: list[str]
) -> None:
    keep_curves(run_folder, *steps)
    run = Run.read(run_folder)
    figure = figures.alignment(run)
    assert figure is not None

    assert legend(figure.axes[0]) == labels
    for axes, name in zip(
        figure.axes,
        ("objective/scores", "objective/kl", "completion/length"),
        strict=True,
    ):
        for line, step in zip(axes.get_lines(), steps, strict=True):
            assert np.array_equal(line.get_xydata(), np.column_stack(run.curve(step, name)))


def test_a_tilted_expert_needs_no_training_curves(run_folder: Path) -> None:
    keep_curves(run_folder, "pretrain", "recover")
    assert figures.alignment(Run.read(run_folder)) is None


def test_toxicity_bars_are_as_high_as_the_rates(run_folder: Path) -> None:
    run = Run.read(run_folder)
    figure = figures.toxicity(run)
    assert figure is not None
    axes = figure.axes[0]

    measures = ("toxicity_rate", "toxicity_rate_second")
    expected = [run.summary[f"policy/{p}/{m}"] for m in measures for p in figures.POLICIES]
    assert [bar.get_height() for bar in axes.patches] == expected  # type: ignore[attr-defined]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(figures.POLICIES)


@pytest.mark.filterwarnings("error", "ignore::DeprecationWarning")
def test_a_rate_that_is_nan_or_has_no_meaning_breaks_nothing(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    rates = {
        "policy/aligned/toxicity_rate": float("nan"),
        "policy/aligned/toxicity_rate_low": float("nan"),
        "policy/aligned/toxicity_rate_high": float("nan"),
        "policy/aligned/toxicity_rate_second": "not applicable",
    }
    rewrite(run_folder / "summary.json", **rates)

    figure = figures.toxicity(Run.read(run_folder))
    assert figure is not None
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["0.512", "NaN", "0.104", "0.478", "0.168"]
    assert "toxicity" in figures.draw(run_folder)


def test_roc_names_every_reward_with_its_auc(run_folder: Path) -> None:
    run = Run.read(run_folder)
    figure = figures.roc(run)
    assert figure is not None

    names = {
        f"{figures.RECOVERED_SIGN}, recovered": "recovery/auc",
        "R*, ground truth": "ground_truth/auc",
        "length": "control/length/auc",
        "untrained": "control/untrained/auc",
        "oracle": "control/oracle/auc",
    }
    expected = [f"{label}: {run.text(name)}" for label, name in names.items()]
    assert legend(figure.axes[0]) == expected
    assert all("[" in entry for entry in expected)


def test_roc_of_a_perfect_reward_goes_through_the_corner(run_folder: Path) -> None:
    panel = pd.read_parquet(run_folder / "panel.parquet")
    panel["truth"] = 1.0 - 2.0 * panel["toxic"].fillna(0).astype(float)
    panel.to_parquet(run_folder / "panel.parquet")

    figure = figures.roc(Run.read(run_folder))
    assert figure is not None
    truth = figure.axes[0].get_lines()[2]  # after the diagonal and R̂
    assert str(truth.get_label()).startswith("R*, ground truth: 1.00")
    assert [0.0, 1.0] in np.asarray(truth.get_xydata()).tolist()


def test_labels_of_one_kind_leave_no_roc(run_folder: Path) -> None:
    panel = pd.read_parquet(run_folder / "panel.parquet")
    panel.loc[panel["kind"] == "comment", "toxic"] = 0
    panel.to_parquet(run_folder / "panel.parquet")

    assert list(figures.draw(run_folder)) == [name for name in ALL if name != "roc"]


def test_scatter_is_r_star_against_r_hat_of_comments_alone(run_folder: Path) -> None:
    run = Run.read(run_folder)
    figure = figures.scores(run)
    assert figure is not None and run.panel is not None
    scatter = figure.axes[2]

    panel = run.panel.to_pandas()
    comments = panel[panel["kind"] == "comment"]
    points = np.asarray(scatter.collections[0].get_offsets())
    assert np.allclose(points, comments[["truth", "recovered"]])
    assert scatter.get_title() == f"Spearman {run.text('recovery/spearman')}"


def test_histograms_of_each_label_sum_to_one(run_folder: Path) -> None:
    figure = figures.scores(Run.read(run_folder))
    assert figure is not None
    for axes in figure.axes[:2]:
        for polygon in axes.patches:
            outline = polygon.get_xy()  # type: ignore[attr-defined]
            # Each bin's height is held over its width: a step at the left edge, then at the right.
            tops = outline[1 : 2 * 36 + 1 : 2, 1]
            assert tops.sum() == pytest.approx(1)


def drawn_intervals(axes: Axes) -> dict[str, np.ndarray]:
    """Kind of a pair -> (place, low, high) of its lines [n, 3]."""
    found = {}
    for lines, label in zip(axes.collections, legend(axes), strict=True):
        ends = [np.asarray(path.vertices) for path in lines.get_paths()]
        found[label] = np.array([(e[0, 0], e[0, 1], e[1, 1]) for e in ends])
    return found


def test_identified_pairs_are_turned_as_r_star_has_them(run_folder: Path) -> None:
    run = Run.read(run_folder)
    figure = figures.identified(run)
    assert figure is not None and run.identified is not None
    left, right = figure.axes
    shown, pairs = drawn_intervals(left), run.identified
    agrees = pairs["sign"] * np.sign(pairs["truth"])

    kinds = {"as R* has it": agrees > 0, "against R*": agrees < 0, "ambiguous": agrees == 0}
    for (name, chosen), (label, lines) in zip(kinds.items(), shown.items(), strict=True):
        assert name in label and label.endswith(f"{chosen.mean():.3f}")
        assert len(lines) == chosen.sum() > 0
    right_ones, wrong_ones, open_ones = shown.values()
    assert (right_ones[:, 1] > 0).all() and (wrong_ones[:, 2] < 0).all()
    assert (open_ones[:, 1] <= 0).all() and (open_ones[:, 2] >= 0).all()
    everything = np.concatenate(list(shown.values()))
    everything = everything[everything[:, 0].argsort()]
    assert everything[:, 0].tolist() == list(range(len(pairs)))
    assert (np.diff(everything[:, 1:].mean(axis=1)) >= 0).all()
    lengths = np.sort(everything[:, 2] - everything[:, 1])
    assert np.allclose(lengths, np.sort(pairs["high"] - pairs["low"]))

    names = [f"{n}/identified_fraction" for n in ("recovery", "placebo", "shuffled")]
    heights = [bar.get_height() for bar in right.patches]  # type: ignore[attr-defined]
    assert heights == [run.summary[name] for name in names]


@pytest.mark.filterwarnings("error", "ignore::DeprecationWarning")
def test_identified_pairs_that_tie_and_shares_that_have_no_meaning(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    rewrite(run_folder / "summary.json", **{"placebo/identified_fraction": "not applicable"})
    path = run_folder / "identified.parquet"
    table = pd.read_parquet(path)
    table.loc[table["sign"] != 0, "truth"] = 0.0
    table.to_parquet(path)
    figure = figures.identified(Run.read(run_folder))
    assert figure is not None
    left, right = figure.axes
    assert [label.partition(":")[0] for label in drawn_intervals(left)] == [
        "identified, a tie in R*",
        "ambiguous",
    ]
    assert len(right.patches) == 2
    assert "n/a" in [text.get_text() for text in right.texts]


def words_of(axes: Axes) -> list[str]:
    """From above."""
    top, bottom = axes.get_ylim()[::-1]
    assert top < bottom
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_attribution_shows_both_ends_of_r_hat_with_r_star_beside_it(run_folder: Path) -> None:
    run = Run.read(run_folder)
    figure = figures.attribution(run)
    assert figure is not None and run.attribution is not None
    axes = figure.axes[0]
    table = run.attribution.to_pandas().sort_values("recovered", ascending=False)
    shown = pd.concat([table[:10], table[-10:]])

    assert words_of(axes) == shown["word"].tolist()
    assert words_of(axes)[0] == "please"
    for name, bars, lines in zip(
        ("recovered", "truth"), axes.containers, axes.collections, strict=True
    ):
        assert [bar.get_width() for bar in bars] == shown[name].tolist()  # type: ignore[attr-defined]
        ends = [np.asarray(path.vertices)[:, 0].tolist() for path in lines.get_paths()]
        assert ends == shown[[f"{name}_low", f"{name}_high"]].to_numpy().tolist()
    assert legend(axes) == [figures.RECOVERED_SIGN, "R*"]


def test_no_word_stands_at_both_ends(run_folder: Path) -> None:
    path = run_folder / "attribution.parquet"
    table = pd.read_parquet(path)[:5]
    table.to_parquet(path)
    figure = figures.attribution(Run.read(run_folder))
    assert figure is not None
    assert words_of(figure.axes[0]) == table["word"].tolist()[:2:-1] + table["word"].tolist()[1::-1]

    for rows in (1, 0):
        table[:rows].to_parquet(path)
        assert "attribution" not in figures.draw(run_folder)


@pytest.mark.filterwarnings("error", "ignore::DeprecationWarning")
def test_any_word_can_be_drawn(run_folder: Path) -> None:
    """Words of other scripts, of any length, and a mean without an interval."""
    path = run_folder / "attribution.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "word"] = "donaudampfschifffahrtsgesellschaft"
    table.loc[1, "word"] = "ünïcödé"
    table.loc[0, ["recovered_low", "recovered_high"]] = np.nan
    table.to_parquet(path)
    assert "attribution" in figures.draw(run_folder)
    figure = figures.attribution(Run.read(run_folder))
    assert figure is not None
    assert words_of(figure.axes[0])[-2:] == ["ünïcödé", "donaudampfschifffa…"]


def frontier_numbers() -> dict[str, float]:
    """Two more realigned policies: R̂ overdone where it is let go furthest."""
    found = {"0.5": (1.2, 0.8, 0.75), "2": (6.9, 1.7, 0.4)}
    return {
        f"policy/realigned_{times}/{name}": value
        for times, values in found.items()
        for name, value in zip(("kl", "mean_recovered", "mean_reward"), values, strict=True)
    }


def test_the_frontier_goes_from_the_reference_to_the_furthest(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    assert figures.frontier(Run.read(run_folder)) is None  # one realigned policy is no frontier
    rewrite(run_folder / "summary.json", **frontier_numbers())
    figure = figures.frontier(Run.read(run_folder))
    assert figure is not None
    recovered, aligned_recovered, truth, aligned_truth = figure.axes[0].get_lines()
    assert recovered.get_xydata().tolist() == [[0, 0.021], [1.2, 0.8], [3.77, 1.31], [6.9, 1.7]]
    assert truth.get_xydata().tolist() == [[0, -0.012], [1.2, 0.75], [3.77, 0.981], [6.9, 0.4]]
    assert aligned_recovered.get_xydata().tolist() == [[3.41, 0.914]]
    assert aligned_truth.get_xydata().tolist() == [[3.41, 1.13]]
    assert "frontier" in figures.draw(run_folder)
