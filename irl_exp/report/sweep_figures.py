"""The figures of many runs: rewards side by side, their distances, curves along what varied."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from irl_exp.report.collect import Mean
from irl_exp.report.curves import BEFORE, MEASURES, Curves
from irl_exp.report.distances import Matrix
from irl_exp.report.epochs import MEASURES as EPOCH_MEASURES
from irl_exp.report.epochs import Epochs
from irl_exp.report.style import (
    CONTROLS,
    QUIET,
    RECOVERED,
    RECOVERED_SIGN,
    STYLE,
    TOXIC,
    TRUTH,
    TRUTH_SIGN,
)

COLOURS = (TRUTH, TOXIC, RECOVERED, *CONTROLS)
# Runs up to which a cell of the matrix has its number in it, and a name beside it.
NUMBERED, NAMED = 20, 60
LARGEST = 14  # inches
# Of zlib: beyond it the matrix of a thousand runs takes three times as long for 5 % of its size.
COMPRESSION = 4


def png(figure: Figure) -> bytes:
    """By the canvas itself: `savefig` draws everything twice."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        buffer = BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"compress_level": COMPRESSION})
        return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Texts as paths, so that it looks the same wherever it is shown; equal for equal figures."""
    with rc_context(STYLE | {"svg.hashsalt": "irl_exp"}):  # type: ignore[arg-type]
        buffer = BytesIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
        return buffer.getvalue()


def heat_map(matrix: Matrix) -> Figure:
    """A cell for every two runs, by their places; in the last row and column, R*."""
    n = len(matrix.runs) + 1
    cells = np.zeros((n, n))
    cells[:-1, :-1] = matrix.between
    cells[-1, :-1] = cells[:-1, -1] = matrix.to_truth
    np.fill_diagonal(cells, np.nan)  # of no pair
    floors = matrix.floor[~np.isnan(matrix.floor)]
    top = max(np.nanmax(cells), *floors, 1e-9)
    size = 0.46 if n <= NUMBERED else 0.24 if n <= NAMED else min(0.12, LARGEST / n)
    with rc_context(STYLE):  # type: ignore[arg-type]
        beside = 0.075 * max(map(len, matrix.labels)) if n <= NAMED else 0
        figure = Figure(figsize=(size * n + beside + 2.2, size * n + 1))
        axes = figure.add_subplot()
        image = axes.imshow(cells, cmap="viridis_r", vmin=0, vmax=top)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.axhline(n - 1.5, color="white", linewidth=4)
        axes.axvline(n - 1.5, color="white", linewidth=4)
        places = [str(place) for place in range(1, n)] if n <= NAMED else []
        names = [f"{name}   {place}" for name, place in zip(matrix.labels, places, strict=False)]
        axes.set_xticks([*range(len(places)), n - 1], [*places, TRUTH_SIGN])
        axes.set_yticks([*range(len(names)), n - 1], [*names, TRUTH_SIGN])
        axes.tick_params(length=0, labelsize=9 if n <= NUMBERED else 6)
        if n <= NUMBERED:
            for (row, column), distance in np.ndenumerate(cells):
                if row != column:
                    colour = "white" if distance > top / 2 else "#222222"
                    text = f"{distance:.2f}".removeprefix("0")
                    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, label="STARC distance")
        bar.outline.set_visible(False)  # type: ignore[operator]
        if floors.size:
            bar.ax.axhline(floors.mean(), color="white", linewidth=2)
            bar.ax.annotate(
                f"second {TRUTH_SIGN}",
                (0, floors.mean()),
                xytext=(-3, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8,
            )
        axes.set_title(f"How far apart the rewards {RECOVERED_SIGN} of {n - 1} runs are")
    return figure


def by_epoch(epochs: Epochs) -> Figure:
    """A panel for each measure: a row a run, a column an epoch."""
    runs, columns = next(iter(epochs.grids.values())).shape
    named = runs <= NAMED
    height = 0.26 * runs if named else min(0.12 * runs, LARGEST)
    beside = 0.075 * max(map(len, epochs.labels)) if named else 0
    with rc_context(STYLE):  # type: ignore[arg-type]
        wide = max(0.3 * columns, 1.6) + 0.9
        figure = Figure(figsize=(wide * len(epochs.grids) + beside, height + 1.1))
        panels = figure.subplots(1, len(epochs.grids), squeeze=False, sharey=True)[0]
        for axes, (measure, grid) in zip(panels, epochs.grids.items(), strict=True):
            colours = "viridis_r" if measure == "starc" else "viridis"  # bright: better
            image = axes.imshow(grid, cmap=colours, aspect="auto", interpolation="nearest")
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
            axes.set(title=EPOCH_MEASURES[measure], xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            bar = figure.colorbar(image, ax=axes)
            bar.outline.set_visible(False)  # type: ignore[operator]
        panels[0].set_yticks(range(runs) if named else [], epochs.labels if named else [])
    return figure


def along(curves: Curves) -> Figure:
    """A panel for each measure; a line for each configuration, and faintly every run."""
    columns = min(len(curves.lines), 4)
    rows = -(-len(curves.lines) // columns)
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(3.7 * columns, 0.2 + 3.3 * rows))
        panels = figure.subplots(rows, columns, squeeze=False).flat
        row, unused = panels[: len(curves.lines)], panels[len(curves.lines) :]
        for axes in unused:
            axes.set_visible(False)
        labels = list(dict.fromkeys(name for lines in curves.lines.values() for name in lines))
        for axes, (measure, lines) in zip(row, curves.lines.items(), strict=True):
            for name, points in lines.items():
                colour = COLOURS[labels.index(name) % len(COLOURS)]
                x, y = ([getattr(p, part) for p in points] for part in ("at", "mean"))
                runs = np.array([run for point in points for run in point.runs])
                axes.scatter(*runs.T, s=14, color=colour, alpha=0.45, linewidths=0)
                axes.errorbar(
                    [mean.mean for mean in x],
                    [mean.mean for mean in y],
                    xerr=[[m.mean - m.low for m in x], [m.high - m.mean for m in x]],
                    yerr=[[m.mean - m.low for m in y], [m.high - m.mean for m in y]],
                    color=colour,
                    marker="o",
                    markersize=4,
                    capsize=2.5,
                    elinewidth=1,
                    label=name,
                )
            if measure == "recovery/starc" and curves.floor is not None:
                axes.axhline(curves.floor, color=QUIET, linestyle=":")
                axes.annotate(
                    f"second {TRUTH_SIGN}",
                    (1, curves.floor),
                    xycoords=("axes fraction", "data"),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="right",
                    fontsize=8,
                    color="#555555",
                )
            low, high = axes.get_ylim()  # no measure leaves [0, 1], though an interval may
            axes.set_ylim(max(low, -0.02), min(high, 1.02))
            axes.set(title=(MEASURES | BEFORE)[measure], xlabel=curves.x)
            if curves.logarithmic:
                axes.set_xscale("log")
                ticks = sorted({p.at.mean for points in lines.values() for p in points})
                axes.set_xticks(ticks, [_short(tick) for tick in ticks], rotation=30)
                axes.minorticks_off()
        if len(labels) > 1:
            handles: dict[str, Artist] = {}
            for axes in row:
                drawn, names = axes.get_legend_handles_labels()
                handles |= dict(zip(names, drawn, strict=True))
            figure.legend([*handles.values()], [*handles], loc="outside lower center", ncols=3)
    return figure


def _short(value: float) -> str:
    """`0.25`, `50.3k`, `1.57M`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.4g}"


def dots(
    axes: Axes, rows: Mapping[float, Sequence[float]], colour: str, label: str | None = None
) -> None:
    """Row -> what was found: every run faintly, and their mean with its 95 % t-interval. Rows of
    one colour are best drawn at once: an artist costs the same for one point and for many."""
    means = {at: mean for at, found in rows.items() if (mean := Mean.of(found))}
    if not means:
        return
    # No measure leaves [0, 1], though an interval over two runs may.
    low = [m.mean - max(m.low, min(0, *rows[at])) for at, m in means.items()]
    high = [min(m.high, max(1, *rows[at])) - m.mean for at, m in means.items()]
    x, y = np.array([(found, at) for at in means for found in rows[at]]).T
    axes.scatter(x, y, s=14, color=colour, alpha=0.45, lw=0)
    axes.errorbar(
        [mean.mean for mean in means.values()],
        list(means),
        xerr=[low, high],
        color=colour,
        marker="o",
        markersize=4.5,
        linestyle="none",
        capsize=2.5,
        label=label,
    )


def side_by_side(rewards: Mapping[str, Mapping[str, Sequence[float]]], recovered: str) -> Figure:
    """A row for each reward, a panel for each measure: faintly every run, and the mean with its
    95 % t-interval. The first measure orders the rows, least on top, and every reward has it."""
    known = [(title, found) for numbers in rewards.values() for title, found in numbers.items()]
    measures = list(dict.fromkeys(title for title, found in known if found))
    order = sorted(rewards, key=lambda name: float(np.mean(rewards[name][measures[0]])))
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(2.6 + 2.6 * len(measures), 1.1 + 0.27 * len(order)))
        row = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
        for axes, measure in zip(row, measures, strict=True):
            for place, name in enumerate(order):
                colour = RECOVERED if name == recovered else TRUTH
                dots(axes, {place: rewards[name][measure]}, colour)
            axes.set_title(measure)
            axes.grid(axis="y", visible=False)
        row[0].set_yticks(range(len(order)), order)
        row[0].set_ylim(len(order) - 0.5, -0.5)
    return figure
