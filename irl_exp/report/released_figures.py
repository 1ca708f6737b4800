"""The figures of released results: what the best is the best of, accuracy against what needs no
threshold, runs by epochs."""

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from irl_exp.metrics.selection import best_of
from irl_exp.report.released import CURVE_TEXTS, Curves, Rewards
from irl_exp.report.style import QUIET, RECOVERED, STYLE, TOXIC
from irl_exp.report.sweep_figures import COLOURS

BINS = np.linspace(0, 1, 51)


def best(files: Mapping[str, Rewards]) -> Figure:
    """A row for each file: how its rewards spread, and how high the best of N of them gets."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(9.6, 0.6 + 2.7 * len(files)))
        rows = figure.subplots(len(files), 2, squeeze=False)
        for (left, right), (name, each) in zip(rows, files.items(), strict=True):
            accuracy = each.measured["accuracy_at_zero"].to_numpy()
            left.hist(accuracy, BINS, color=RECOVERED, alpha=0.7)
            left.set_xlim(max(0, accuracy.min() - 0.05), min(1, accuracy.max() + 0.05))
            left.set(title=f"{len(accuracy)} rewards, {name}", ylabel="rewards")
            left.set_xlabel("accuracy at zero")
            left.yaxis.set_major_locator(MaxNLocator(integer=True))
            draws = np.unique(np.geomspace(1, max(100, len(accuracy)), 40).round().astype(int))
            mean, low, high = np.array([best_of(accuracy, int(n)) for n in draws]).T
            right.fill_between(draws, low, high, color=RECOVERED, alpha=0.2, lw=0)
            right.plot(draws, mean, color=RECOVERED, label="expected, with 5 to 95 %")
            right.set(title="The best of N of these", xlabel="N", xscale="log")
            right.set_ylabel("accuracy at zero")
            for draw in (left.axvline, right.axhline):
                draw(accuracy.max(), color=TOXIC, linestyle="--", label="the best")
                draw(each.majority, color=QUIET, linestyle=":", label="majority class")
            right.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
            right.minorticks_off()
            right.legend(loc="lower right")
    return figure


def agreement(files: Mapping[str, Rewards]) -> Figure:
    """A dot for each reward: its accuracy at zero against correlation and AUC on the same texts."""
    panels = {"pearson": "Pearson's r with R*", "auc": "AUC"}
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(9.6, 4.2))
        for axes, (measure, title) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            for place, (name, each) in enumerate(files.items()):
                rows = each.measured
                colour = COLOURS[place % len(COLOURS)]
                label = name if measure == "pearson" else None
                shape = {"s": 22, "alpha": 0.65, "linewidths": 0, "color": colour}
                axes.scatter(rows["accuracy_at_zero"], rows[measure], label=label, **shape)
            for majority in {each.majority for each in files.values()}:
                axes.axvline(majority, color=QUIET, linestyle=":")
            if measure == "auc":
                axes.axhline(0.5, color=QUIET, linestyle=":")
            axes.set(title=title, xlabel="accuracy at zero")
        figure.legend(loc="outside lower center", ncols=1)
    return figure


def heat_map(curves: Curves, toxic_share: float | None) -> Figure:
    """Accuracy of each run, best at its end on top, before each epoch; a dot in the cells of a
    constant predictor, and in the colour bar where these lie."""
    runs, epochs = curves.accuracy.shape
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(max(0.28 * epochs, 3) + 1.6, max(0.26 * runs, 1.2) + 1.1))
        axes = figure.add_subplot()
        image = axes.imshow(curves.accuracy, cmap="viridis", aspect="auto")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_yticks(range(runs), [str(run) for run in range(1, runs + 1)])
        axes.set(title=f"Accuracy at zero, {curves.name}", xlabel="epochs", ylabel="run")
        bar = figure.colorbar(image, ax=axes)
        bar.outline.set_visible(False)  # type: ignore[operator]
        if toxic_share is not None:
            row, column = np.nonzero(curves.constant(toxic_share))
            axes.scatter(column, row, s=10, color="white", edgecolors="#222222", linewidths=0.6)
            for constant in (toxic_share, 1 - toxic_share):
                bar.ax.axhline(constant, color="white", linewidth=2)
            bar.ax.set_xlabel(f"lines: constant\npredictors of\n{CURVE_TEXTS:,} texts", fontsize=7)
    return figure
