"""What the figures of single runs show, for groups of runs: each takes label -> runs that differ in
seeds alone, and is None where no run has what it needs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pyarrow import Table, concat_tables

from irl_exp.report.collect import Mean, numbers
from irl_exp.report.run import Run, number
from irl_exp.report.sizes import RECOVERED as MEASURES
from irl_exp.report.sizes import Sizes
from irl_exp.report.style import (
    CLEAN,
    QUIET,
    RECOVERED,
    RECOVERED_SIGN,
    STYLE,
    TOXIC,
    TRUTH,
    TRUTH_SIGN,
    WORD_LETTERS,
)
from irl_exp.report.sweep_figures import COLOURS, dots

Groups = Mapping[str, Sequence[Run]]

POLICIES = {"reference": QUIET, "aligned": TRUTH, "realigned": RECOVERED}
JUDGES = {
    "toxicity_rate": f"toxic by {TRUTH_SIGN}, share",
    "toxicity_rate_second": "toxic by a second classifier, share",
}
# Groups up to which each has a panel of its own.
PANELS = 12
# Groups up to which each has a row.
ROWS = 40
# Words in the figure of words.
WORDS = 16
# Steps of RLHF over which a curve is averaged.
SMOOTH = 5


def sizes(found: Sizes) -> Figure | None:
    """A cell for each size and configuration, a panel for each measure; None for one row of
    cells, which is a curve."""
    if len(found.configurations) < 2:
        return None
    names, models = list(found.configurations), list(found.models)
    with rc_context(STYLE):  # type: ignore[arg-type]
        wide, high = 2.2 + 1.05 * len(models), 1.4 + 0.45 * len(names)
        figure = Figure(figsize=(wide * len(MEASURES), high))
        row = figure.subplots(1, len(MEASURES), squeeze=False, sharey=True)[0]
        for axes, (measure, title) in zip(row, MEASURES.items(), strict=True):
            means = [
                [
                    Mean.of(numbers((r for r in runs if r in found.models[model][1]), measure))
                    for model in models
                ]
                for runs in found.configurations.values()
            ]
            _cells(axes, means, nearer_is_less=measure.endswith("starc"))
            labels = [f"{model}\n{found.models[model][0]:,}" for model in models]
            axes.set_xticks(range(len(models)), labels, fontsize=8)
            axes.set_title(title)
        row[0].set_yticks(range(len(names)), names)
    return figure


def _cells(axes: Axes, means: Sequence[Sequence[Mean | None]], *, nearer_is_less: bool) -> None:
    values = np.array([[m.mean if m else np.nan for m in row] for row in means])
    axes.imshow(values, cmap="viridis_r" if nearer_is_less else "viridis", aspect="auto")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0, 0)
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        at = (value - low) / (high - low) if high > low else 0.0
        dark = at > 0.5 if nearer_is_less else at <= 0.5
        mean = means[row][column]
        assert mean is not None
        half = f"\n±{number(mean.high - mean.mean)}" if mean.n > 1 else ""
        colour = "white" if dark else "#222222"
        text = f"{number(mean.mean)}{half}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def toxicity(groups: Groups) -> Figure | None:
    """A row for each group: what share of each policy's completions is toxic, means over runs with
    95 % t-intervals, and faintly every run."""
    judges = {
        judge: title
        for judge, title in JUDGES.items()
        if any(numbers(r, f"policy/{p}/{judge}") for r in groups.values() for p in POLICIES)
    }
    if not judges or len(groups) > ROWS:
        return None
    with rc_context(STYLE):  # type: ignore[arg-type]
        beside = 0.07 * max(map(len, groups))
        figure = Figure(figsize=(beside + 4.2 * len(judges), 1.5 + 0.42 * len(groups)))
        row = figure.subplots(1, len(judges), squeeze=False, sharey=True)[0]
        for axes, (judge, title) in zip(row, judges.items(), strict=True):
            for place, (policy, colour) in enumerate(POLICIES.items()):
                found = [numbers(runs, f"policy/{policy}/{judge}") for runs in groups.values()]
                rows = {at + 0.2 * (place - 1): shares for at, shares in enumerate(found)}
                dots(axes, rows, colour, policy)
            axes.set(title=title, ylim=(len(groups) - 0.5, -0.5))
            axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
            axes.grid(axis="y", visible=False)
        row[0].set_yticks(range(len(groups)), list(groups))
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def rlhf(groups: Groups) -> Figure | None:
    """Reward over KL as RLHF with R* goes on: a line for each alignment, once."""
    lines: dict[str, list[tuple[list[float], list[float]]]] = {}
    seen = set()
    for name, runs in groups.items():
        for run in runs:
            made = run.manifest.get("steps", {}).get("align")
            scores, kl = (run.curve("align", f"objective/{n}")[1] for n in ("scores", "kl"))
            if made in seen or len(scores) < SMOOTH or len(kl) != len(scores):
                continue
            seen.add(made)
            lines.setdefault(name, []).append((_smooth(kl), _smooth(scores)))
    if not lines:
        return None
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(6.6, 4.4))
        axes = figure.add_subplot()
        for place, (name, curves) in enumerate(lines.items()):
            colour = COLOURS[place % len(COLOURS)]
            for at, (kl, scores) in enumerate(curves):
                label = name if at == 0 else None
                axes.plot(kl, scores, color=colour, alpha=0.7, linewidth=1.2, label=label)
                axes.plot(kl[-1], scores[-1], "o", color=colour, markersize=4)
        axes.set(
            title=f"What RLHF with {TRUTH_SIGN} gains for the KL that it spends",
            xlabel="KL from the reference (nats per completion)",
            ylabel=f"mean {TRUTH_SIGN} (sd of reference completions)",
        )
        if 1 < len(lines) <= PANELS:
            axes.legend(loc="best")
    return figure


def _smooth(values: Sequence[float]) -> list[float]:
    return list(np.convolve(values, np.ones(SMOOTH) / SMOOTH, mode="valid"))


def scores(groups: Groups) -> Figure | None:
    """R̂ of held-out comments by label, a panel for each group, in each run's standard deviations;
    None for more groups than there is room for."""
    panels = {name: parts for name, runs in groups.items() if (parts := _by_label(runs))}
    if not panels or len(panels) > PANELS:
        return None
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(3.2 * columns, 0.5 + 2.2 * rows))
        all_axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes in all_axes.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (name, (clean, toxic)) in zip(all_axes.flat, panels.items(), strict=False):
            bins = np.linspace(-3.5, 3.5, 43)
            for part, label, colour in ((clean, "not toxic", CLEAN), (toxic, "toxic", TOXIC)):
                weights = np.full(len(part), 1 / max(len(part), 1))
                shape = {"weights": weights, "histtype": "stepfilled", "linewidth": 1.2}
                axes.hist(part, bins, fc=(colour, 0.35), ec=colour, label=label, **shape)
            axes.set_title(name, fontsize=8.5)
            axes.set_yticks([])
        figure.supxlabel(f"{RECOVERED_SIGN} of held-out comments, standardized", fontsize=9)
        handles, labels = all_axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


def _by_label(runs: Sequence[Run]) -> tuple[list[float], list[float]] | None:
    """R̂ of (non-toxic, toxic) held-out comments, pooled over runs."""
    clean: list[float] = []
    toxic: list[float] = []
    for run in runs:
        if run.panel is None or not {"recovered", "toxic", "kind"} <= set(run.panel.column_names):
            continue
        labels = run.panel["toxic"].to_numpy().astype(np.float64)  # NaN where there is none
        comments = (run.panel["kind"].to_numpy() == "comment") & ~np.isnan(labels)
        scores = run.panel["recovered"].to_numpy().astype(np.float64)[comments]
        spread = scores.std(ddof=1) if len(scores) > 1 else 0.0
        if not spread > 0:
            continue
        standard = (scores - scores.mean()) / spread
        clean += standard[labels[comments] == 0].tolist()
        toxic += standard[labels[comments] == 1].tolist()
    return (clean, toxic) if clean or toxic else None


def words(groups: Groups) -> Figure | None:
    """What the words that move rewards most do to R*, where it is known, and to R̂ of each group:
    means over runs."""
    tables = {
        name: [run.attribution for run in runs if run.attribution is not None]
        for name, runs in groups.items()
    }
    tables = {name: found for name, found in tables.items() if found}
    if not tables or len(tables) > 2 * PANELS:
        return None
    columns = {name: _by_word(found, "recovered") for name, found in tables.items()}
    known = [t for found in tables.values() for t in found if "truth" in t.column_names]
    truth = {TRUTH_SIGN: _by_word(known, "truth")} if known else {}
    table = pd.DataFrame({**truth, **columns}).dropna()
    if table.empty:  # no word that all of them speak of
        return None
    chosen = table.abs().max(axis=1).nlargest(WORDS).index
    table = table.loc[table.loc[chosen].mean(axis=1).sort_values().index]
    with rc_context(STYLE):  # type: ignore[arg-type]
        beside = 0.07 * max(map(len, columns))
        wide, high = 2.4 + 0.55 * len(table.columns), 1.6 + 0.24 * len(table)
        figure = Figure(figsize=(wide + beside / 2, high + beside))
        axes = figure.add_subplot()
        top = float(table.abs().to_numpy().max()) or 1.0
        image = axes.imshow(table.to_numpy(), cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        if truth:
            axes.axvline(0.5, color="white", linewidth=4)
        axes.set_xticks(range(len(table.columns)), list(table.columns), rotation=45, ha="right")
        axes.set_yticks(range(len(table)), [str(word)[:WORD_LETTERS] for word in table.index])
        axes.tick_params(length=0, labelsize=8.5)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, label="with the word less without it")
        bar.outline.set_visible(False)  # type: ignore[operator]
        axes.set_title("What words do to rewards")
    return figure


def _by_word(tables: Sequence[Table], reward: str) -> pd.Series:
    """Means over the tables that have a word."""
    columns = [table.select(["word", reward]) for table in tables]
    found = concat_tables(columns, promote_options="permissive").to_pandas()
    return found.groupby("word", sort=False)[reward].mean()


def times(runs: Sequence[Run]) -> Figure | None:
    """Seconds by step, over all runs: what the store had took next to none."""
    totals: dict[str, float] = {}
    for run in runs:
        for name, value in run.summary.items():
            step = name.removeprefix("time/").removesuffix("_seconds")
            if name.startswith("time/") and step != "total" and isinstance(value, int | float):
                totals[step] = totals.get(step, 0.0) + value
    totals = {step: seconds for step, seconds in totals.items() if seconds >= 0.5}
    if not totals:
        return None
    order = sorted(totals, key=totals.__getitem__)
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(6.4, 1.0 + 0.24 * len(order)))
        axes = figure.add_subplot()
        axes.barh(range(len(order)), [totals[step] for step in order], color=TRUTH)
        axes.set_yticks(range(len(order)), order)
        axes.grid(axis="y", visible=False)
        axes.set(title="Where the time went", xlabel=f"seconds, {len(runs)} runs together")
    return figure
