"""What there is to say of released results: `report(found)`, the answer first."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from irl_exp.metrics.selection import best_of
from irl_exp.report import published, released_figures
from irl_exp.report.document import Item, Listing, Part, Picture, Report, Section
from irl_exp.report.released import CURVE_TEXTS, NEAR, Curves, Released, Rewards, short
from irl_exp.report.run import number
from irl_exp.report.tables import MISSING, Table, escape

# The accuracy that the paper's abstract speaks of (arXiv 2410.12491v1).
HEADLINE = 0.80
DRAWS = (1, 10, 100)
RULE = "A text is toxic if its reward is 0 or less; the labels are R*'s by the same rule."
LISTED = {
    "accuracy_at_zero": "accuracy at zero",
    "f1_at_zero": "F1 at zero",
    "auc": "AUC",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "kendall": "Kendall",
    "accuracy_at_best": "accuracy, best threshold",
}


Files = Mapping[str, Rewards]


def report(found: Released) -> Report:
    names = short([each.name.removesuffix(".json") for each in found.rewards])
    files = dict(zip(names, found.rewards, strict=True))
    tables = {"toxicity": pd.DataFrame(published.tests())}
    if found.rewards:
        tables["rewards"] = pd.concat([each.measured for each in found.rewards])
    if found.curves:
        tables["curves"] = pd.concat([_rows(each, found.toxic_share) for each in found.curves])
    sections = [
        Section("What the best is the best of", _answer(files), answer=True),
        Section("Accuracy at zero", _accuracy(files)),
        Section("The best of N", _best(files)),
        Section("Without a threshold", _threshold_free(files)),
        Section("Accuracy and correlation", _agreement(files)),
        Section("Epoch by epoch", _epochs(found)),
        Section("Toxicity, as published", [*published.toxicity()]),
        Section("Files", _unread(found)),
    ]
    rewards = sum(len(each.recovered) for each in found.rewards)
    runs = sum(len(each.paths) for each in found.curves)
    counts = f"{rewards} rewards in {len(found.rewards)} files, curves of {runs} runs"
    counts += f"; {len(found.unread)} left out." if found.unread else "."
    sections = [section for section in sections if section.body]
    return Report(
        f"Released results: {found.folder.absolute().name}",
        counts,
        sections,
        tables,
        _listing(files),
    )


# --- rewards --------------------------------------------------------------------------------------


def _answer(files: Files) -> list[Part]:
    said = []
    for each in files.values():
        accuracy = each.measured["accuracy_at_zero"]
        reach = int((accuracy >= HEADLINE).sum())
        said.append(
            f"**{escape(each.name)}**: the best of {len(accuracy)} rewards has accuracy "
            f"{number(accuracy.max())} at zero. Their mean is {number(accuracy.mean())}"
            f"{_sd(accuracy)}, that of calling all texts alike {number(each.majority)}; "
            f"{reach} of {len(accuracy)} reach {HEADLINE:.2f}."
        )
    return ["\n\n".join(said)] if said else []


def _sd(values: "pd.Series[float]") -> str:
    return f" (sd {number(float(values.std()))})" if len(values) > 1 else ""


def _accuracy(files: Files) -> list[Part]:
    if not files:
        return []
    rows, best = [], []
    for name, each in files.items():
        measured = each.measured
        accuracy = measured["accuracy_at_zero"]
        numbers = (accuracy.mean(), accuracy.std(), accuracy.min(), accuracy.max(), each.majority)
        above = float((accuracy >= each.majority).mean())
        reach = str(int((accuracy >= HEADLINE).sum()))
        cells = [*map(_text, numbers), number(above), reach]
        rows.append([name, str(len(accuracy)), *cells])
        place = int(accuracy.argmax())
        of = short(list(each.recovered))[place]
        best.append([name, of, *(_text(measured[column].iloc[place]) for column in LISTED)])
    header = ["file", "n", "mean", "sd", "min", "max", "majority class", "share at or above it"]
    counts = [f"{int(each.toxic.sum()):,} of {each.toxic.size:,}" for each in files.values()]
    toxic = ", ".join(dict.fromkeys(counts))
    spread = Table(
        [*header, f"{HEADLINE:.2f} or more"],
        rows,
        f"Accuracy at zero of all rewards of a file. {RULE} R* calls {toxic} texts toxic.",
    )
    note = (
        "The reward of each file with the highest accuracy, chosen on the very texts that it is "
        "reported on. Names without what all of a file share; rewards.csv has them whole."
    )
    return [spread, Table(["file", "best", *LISTED.values()], best, note)]


def _best(files: Files) -> list[Part]:
    if not files:
        return []
    rows = []
    for name, each in files.items():
        accuracy = each.measured["accuracy_at_zero"].to_numpy()
        for draws in sorted({*DRAWS, len(accuracy)}):
            mean, low, high = best_of(accuracy, draws)
            rows.append([name, str(draws), number(mean), f"{number(low)} to {number(high)}"])
    note = (
        "How high the best of N gets if N are drawn, with replacement, from what was released: the "
        "mean over draws, and where 90 % of them lie. The method is the same in all rows: what N "
        "adds to the first of a file is what choosing adds."
    )
    caption = (
        "Left: accuracy at zero of all rewards. Right: what the best of N of them has. Dashed: the "
        "best; dotted: calling all texts alike."
    )
    table = Table(["file", "N", "expected best", "5 to 95 %"], rows, note)
    return [table, Picture.of("best", released_figures.best(files), caption)]


def _threshold_free(files: Files) -> list[Part]:
    if not files:
        return []
    rows = []
    for name, each in files.items():
        auc, oracle = each.measured["auc"], each.measured["accuracy_at_best"]
        gain = float((oracle - each.measured["accuracy_at_zero"]).mean())
        low, high = np.quantile(auc, [0.05, 0.95])
        cells = [*map(_text, (auc.mean(), auc.std())), f"{number(low)} to {number(high)}"]
        cells += [number(float((auc < 0.5).mean())), number(float(auc.max()))]
        rows.append([name, *cells, number(float(oracle.mean())), f"{100 * gain:+.1f}"])
    header = ["file", "AUC, mean", "sd", "5 to 95 %", "share below 0.5", "max"]
    note = (
        "AUC needs no threshold. The best threshold of each reward is chosen on the texts that it "
        "is measured on: what its zero costs, at most."
    )
    return [Table([*header, "accuracy, best threshold", "points over zero"], rows, note)]


def _agreement(files: Files) -> list[Part]:
    if not files:
        return []
    rows = []
    for name, each in files.items():
        measured = each.measured
        accuracy, auc = measured["accuracy_at_zero"], measured["auc"]
        chosen = float(auc.iloc[int(accuracy.argmax())])
        cells = [_r(accuracy, measured[name]) for name in ("pearson", "auc", "pearson_in_name")]
        cells += [number(chosen), number(float(auc.max())), number(float(auc.max()) - chosen)]
        rows.append([name, *cells])
    header = ["file", "r with Pearson", "r with AUC", "r with Pearson in names"]
    note = (
        "Over a file's rewards, accuracy at zero correlates with Pearson's r to R* and with AUC, "
        "all on the same texts, as the columns r say. Names of checkpoints may hold a correlation "
        "of training, which is of other texts: the paper's figure of accuracy against correlation "
        "draws that one. Last: what choosing by accuracy at zero costs in AUC."
    )
    caption = "A dot a reward, all measures of the same texts. Dotted: the majority class, chance."
    table = Table([*header, "AUC of the most accurate", "best AUC", "lost"], rows, note)
    return [table, Picture.of("agreement", released_figures.agreement(files), caption)]


def _r(first: "pd.Series[float]", second: "pd.Series[float]") -> str:
    """Pearson's r where both have at least three numbers that differ."""
    both = first.notna() & second.notna()
    if both.sum() < 3 or first[both].nunique() < 2 or second[both].nunique() < 2:
        return MISSING
    return number(float(stats.pearsonr(first[both], second[both]).statistic))


def _text(value: float) -> str:
    return MISSING if np.isnan(value) else number(float(value))


# --- curves, files ----------------------------------------------------------------------------


def _epochs(found: Released) -> list[Part]:
    body: list[Part] = []
    for place, curves in enumerate(found.curves, start=1):
        share = found.toxic_share if curves.on_first_texts else None
        body.append(_said(curves, share))
        caption = (
            "A row a run, the best at its end on top, a column an epoch, 0 before training. "
            f"Measured on the first {CURVE_TEXTS:,} comments, by what the authors' files show, and "
            "not on the 2,000 of the rewards above. Dots: cells of a constant predictor."
        )
        figure = released_figures.heat_map(curves, share)
        body.append(Picture.of(f"epochs-{place}", figure, caption))
    return body


def _said(curves: Curves, share: float | None) -> str:
    accuracy = curves.accuracy
    last = accuracy[:, -1]
    spread = f" ± {number(float(last.std(ddof=1)))} (sd over runs)" if len(last) > 1 else ""
    said = (
        f"**{escape(curves.name)}**: {accuracy.shape[0]} runs of {accuracy.shape[1]} "
        f"epochs. Accuracy at zero is {number(float(accuracy[:, 0].mean()))} before training and "
        f"{number(float(last.mean()))}{spread} in the last epoch; over all run-epochs "
        f"{number(float(accuracy.min()))} to {number(float(accuracy.max()))}. "
    )
    if share is None:
        return said + (
            "What a constant predictor would get is not known: that takes R* of the texts behind "
            "these curves, in a file of rewards beside them."
        )
    majority = max(share, 1 - share)
    constant, near = curves.constant(share), curves.near_constant(share)
    measures = "accuracy and F1" if curves.with_f1 else "accuracy; F1 was not saved by all runs"
    return said + (
        f"Constant predictors get {number(min(share, 1 - share))} and {number(majority)}. "
        f"{int(constant.sum())} of {constant.size} run-epochs ({_percent(constant)}) are exactly "
        f"one of them ({measures}), {int(near.sum())} ({_percent(near)}) within {NEAR} of one, and "
        f"{_percent(accuracy < majority - 1e-9)} are below the majority class."
    )


def _percent(cells: NDArray[np.bool_]) -> str:
    return f"{100 * cells.mean():.0f} %"


def _rows(curves: Curves, share: float | None) -> pd.DataFrame:
    """A row for each run and epoch."""
    runs, epochs = curves.accuracy.shape
    rows: dict[str, object] = {
        "file": np.repeat([str(path) for path in curves.paths], epochs),
        "run": np.repeat(np.arange(1, runs + 1), epochs),
        "epoch": np.tile(np.arange(epochs), runs),
    }
    rows |= {name: grid.ravel() for name, grid in curves.grids.items()}
    if share is not None and curves.on_first_texts:
        rows["constant"] = curves.constant(share).ravel()
    return pd.DataFrame(rows)


def _unread(found: Released) -> list[Part]:
    rows = [[place, why] for place, why in found.unread.items()]
    note = f"{len(rows)} left out; all else is of what could be read."
    return [Table(["left out", "why"], rows, note)] if rows else []


def _listing(files: Files) -> Listing:
    items = []
    for file, each in files.items():
        rows = each.measured.to_dict("records")
        for name, row in zip(short(list(each.recovered)), rows, strict=True):
            side = "below" if row["accuracy_at_zero"] < each.majority else "above"
            items.append(Item(name, each.path, side, [file, *(row[of] for of in LISTED)]))
    said = (
        f"{RULE} A heading sorts; a reward's name leads to its file. Above: at or above the "
        "majority class."
    )
    header = ["reward", "majority class", "file", *LISTED.values()]
    return Listing("Every reward", said, "rewards", header, items)
