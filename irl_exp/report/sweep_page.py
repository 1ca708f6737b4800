"""What many runs found: tables, a matrix of distances, curves; as files, and in the terminal.

`report(runs)` is what there is to say, in sections; `files(...)` writes it down, as report.md with
its figures and the tables behind them; `show(...)` prints its tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from irl_exp.report import sweep_figures
from irl_exp.report.collect import Mean, Runs, axes, configurations, numbers, results, value
from irl_exp.report.curves import Curves, curves
from irl_exp.report.distances import SEVERAL, SOURCES, Matrix, Pair, Spread, matrices
from irl_exp.report.page import REPORT_FILE, escape
from irl_exp.report.run import Run, number
from irl_exp.report.tables import MISSING, Table

# Name in the summary -> what a reader sees.
COLUMNS = {
    "recovery/pair_accuracy": "pair accuracy",
    "recovery/starc": "STARC",
    "recovery/auc": "AUC",
    "recovery/identified_fraction": "identified",
    "recovery/starc_floor": "floor",
    "time/recover_seconds": "recover, s",
}

BESIDE = (
    "Rewards by their mean STARC distance to R*, the nearest on top; R̂ in green. Dots: runs. "
    "Points: means over them with 95 % t-intervals, which do not see that runs are paired: the "
    "table's differences do."
)


@dataclass(frozen=True)
class Picture:
    name: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class Section:
    """A title, and below it texts (Markdown), tables and pictures in their order."""

    title: str
    body: list[str | Table | Picture]


@dataclass(frozen=True)
class Report:
    """All that is said of some runs; `tables` are files: name -> rows."""

    runs: Runs
    sections: list[Section]
    tables: dict[str, pd.DataFrame]


def report(runs: Runs) -> Report:
    done = runs.done
    shared, alone = matrices(done)
    tables = {"results": results(runs.all)}
    tables |= {f"starc-{matrix.digest}": _square(matrix) for matrix in shared}
    pairs = [(matrix.digest, pair) for matrix in shared for pair in matrix.pairs()]
    if pairs:
        tables["starc-pairs"] = _pair_rows(pairs)
    sections = [
        Section("Runs", _what_is_there(runs)),
        Section("Means over seeds", _means(done)),
        *_reward_sections(done),
        *(_matrix_section(matrix) for matrix in shared),
        Section("Panels of their own", _alone(alone)),
        *(_curve_section(each) for each in curves(done)),
    ]
    return Report(runs, [section for section in sections if section.body], tables)


# --- sections -------------------------------------------------------------------------------------


def _what_is_there(runs: Runs) -> list[str | Table | Picture]:
    said = f"{len(runs.all)} runs, of which {len(runs.done)} are done. All below is of these."
    body: list[str | Table | Picture] = [said]
    rows = [[str(run.folder), run.status["status"], _error(run)] for run in runs.others]
    rows += [[str(folder), "unreadable", why] for folder, why in runs.unreadable.items()]
    rows += [[str(f), "repeated", f"the study of {first}"] for f, first in runs.repeats.items()]
    if rows:
        note = "A run that is running may have been killed. A study counts once."
        body.append(Table(["not counted", "status", "why"], rows, note))
    return body


def _error(run: Run) -> str:
    return " ".join(run.status.get("error", "").split()) or MISSING


def _means(done: Sequence[Run]) -> list[str | Table | Picture]:
    if not done:
        return []
    named = axes(done)
    groups = configurations(done, named)
    columns = {name: title for name, title in COLUMNS.items() if numbers(done, name)}
    rows = []
    for name, runs in groups.items():
        means = [Mean.of(numbers(runs, column)) for column in columns]
        cells = [mean.text(len(runs)) if mean else MISSING for mean in means]
        rows.append([name, str(len(runs)), *cells])
    varied = [axis.name for axis in named if axis.seed]
    note = (
        f"Means over runs that differ in seeds alone ({_listed(varied)}), ± half the width of the "
        "95 % t-interval: what these seeds draw, and nothing else."
        if varied
        else "No two runs differ in seeds alone: one run says nothing about the spread."
    )
    if len(varied) > 1:
        note += (
            " Runs that have one of these seeds in common are not independent: where they are "
            "crossed, the interval is too narrow."
        )
    if "time/recover_seconds" in columns:
        note += " A recovery that the store had takes next to no time."
    return [Table(["runs", "n", *columns.values()], rows, note)]


def _reward_sections(done: Sequence[Run]) -> list[Section]:
    """For each configuration: R̂ and the controls beside it, which share seeds and demonstrations.

    So that differences can be taken within a seed, where what the seeds draw falls out.
    """
    sections: list[Section] = []
    for name, runs in configurations(done, axes(done)).items():
        controls = list(dict.fromkeys(c for run in runs for c in run.controls))
        if len(runs) < 2 or not controls:
            continue
        rewards = {f"control/{c}": (c, f"control_{c}") for c in controls}
        rewards = {"recovery": (f"R̂ ({runs[0].config['solver']['name']})", "recover")} | rewards
        rows = [[title, *_reward(runs, of, step)] for of, (title, step) in rewards.items()]
        header = ["reward", "pair accuracy", "STARC", "sd", "less R̂'s", "AUC", "seconds"]
        note = (
            f"Means over {len(runs)} runs that differ in seeds alone, ± half the width of the 95 % "
            "t-interval; sd is STARC's over these runs. Less R̂'s: STARC of the reward minus that "
            "of R̂ in the same run; below zero it is nearer to R* than R̂. Seconds of recoveries "
            "that the store had are next to none."
        )
        body: list[str | Table | Picture] = [Table(header, rows, note)]
        found = {title: _measured(runs, of) for of, (title, _) in rewards.items()}
        found = {title: measures for title, measures in found.items() if measures["STARC distance"]}
        if found:
            figure = sweep_figures.png(sweep_figures.side_by_side(found, rows[0][0]))
            body.append(Picture(f"rewards-{len(sections) + 1}", figure, BESIDE))
        sections.append(Section(f"R̂ and controls, {name}", body))
    return sections


def _measured(runs: Sequence[Run], of: str) -> dict[str, list[float]]:
    """What the figure shows of the reward that the summary calls `of`; STARC leads."""
    measures = {"starc": "STARC distance", "pair_accuracy": "within-prompt accuracy", "auc": "AUC"}
    return {title: numbers(runs, f"{of}/{measure}") for measure, title in measures.items()}


def _reward(runs: Sequence[Run], of: str, step: str) -> list[str]:
    """The cells of one reward, called `of` in the summary; it comes from the step `step`."""
    starc = numbers(runs, f"{of}/starc")
    pairs = [(value(run, f"{of}/starc"), value(run, "recovery/starc")) for run in runs]
    less = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    cells = {
        "pair accuracy": numbers(runs, f"{of}/pair_accuracy"),
        "STARC": starc,
        "less R̂'s": less if of != "recovery" else [],
        "AUC": numbers(runs, f"{of}/auc"),
        "seconds": numbers(runs, f"time/{step}_seconds"),
    }
    means = {title: Mean.of(found) for title, found in cells.items()}
    texts = {title: mean.text(len(runs)) if mean else MISSING for title, mean in means.items()}
    sd = number(Spread.of(starc).sd) if len(starc) > 1 else MISSING
    return [texts["pair accuracy"], texts["STARC"], sd, *list(texts.values())[2:]]


def _matrix_section(matrix: Matrix) -> Section:
    name = f"starc-{matrix.digest}"
    caption = (
        "STARC distance of R̂ on the reference's completions in the panel: 0, the same but for an "
        "offset per prompt and a scale; 0.707, unrelated. The last row and column are R*"
        + ("." if matrix.one_truth else ", each run's own: they are not all the same.")
    )
    picture = Picture(name, sweep_figures.png(sweep_figures.heat_map(matrix)), caption)
    return Section(
        f"How far apart the rewards are, panel {matrix.digest}",
        [picture, _spread(matrix), *_split(matrix.pairs())],
    )


def _spread(matrix: Matrix) -> Table:
    """A row a configuration: distances to R*, between its runs, and the floor of both."""
    of = [matrix.configuration(run) for run in matrix.runs]
    rows = []
    for name in dict.fromkeys(of):
        mine = [place for place, configuration in enumerate(of) if configuration == name]
        pairs = [pair for pair in matrix.pairs() if pair.configuration == name]
        floor = [x for x in matrix.floor[mine].tolist() if x == x]
        own = numbers([matrix.runs[place] for place in mine], "recovery/starc_floor")
        rows.append(
            [
                name,
                str(len(mine)),
                *_cells(matrix.to_truth[mine].tolist()),
                *_cells([pair.distance for pair in pairs]),
                *(_cells(distances)[0] for distances in ([p.unshared for p in pairs], floor, own)),
            ]
        )
    return Table(
        ["runs", "n", "to R*", "sd", "between", "sd", "unshared", "floor", "starc_floor"],
        rows,
        "To R*, and between runs that differ in seeds alone. Unshared: the distance between runs "
        "if their errors had nothing in common; below it, they share one that no seed removes. "
        "Floor: R* from a second R* by the same recipe, on this panel; starc_floor: the same on "
        "the completions of both policies.",
    )


def _split(pairs: list[Pair]) -> list[str | Table | Picture]:
    """Distances between runs by what varied; last those of runs that differ in several ways."""
    found: dict[tuple[str, str], list[float]] = {}
    for pair in sorted(pairs, key=lambda pair: [*SOURCES.values(), SEVERAL].index(pair.source)):
        found.setdefault((pair.source, pair.configuration), []).append(pair.distance)
    if not found:
        return []
    rows = []
    for (source, configuration), distances in found.items():
        rows.append([source, configuration, str(len(distances)), *_cells(distances)])
    note = (
        "Distances between runs that differ in these seeds and in nothing else. One run is in "
        "several pairs, so that sd is no standard error."
    )
    return [Table(["what varied", "runs", "pairs", "mean", "sd"], rows, note)]


def _cells(distances: Sequence[float]) -> list[str]:
    """Mean and standard deviation, as far as there are any."""
    if not distances:
        return [MISSING, MISSING]
    spread = Spread.of(distances)
    return [number(spread.mean), number(spread.sd) if spread.n > 1 else MISSING]


def _alone(runs: Sequence[Run]) -> list[str | Table | Picture]:
    if not runs:
        return []
    folders = ", ".join(escape(run.folder.name) for run in runs)
    return [f"No other run has the panel of {folders}: no distance between them can be taken."]


def _curve_section(found: Curves) -> Section:
    caption = (
        "Dots: runs. Points: means over runs that differ in seeds alone, with 95 % t-intervals, "
        "which a single run has not."
    )
    picture = Picture(f"curve-{found.name}", sweep_figures.png(sweep_figures.along(found)), caption)
    return Section(f"Along {found.x}", [picture])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


# --- tables behind the figures --------------------------------------------------------------------


def _square(matrix: Matrix) -> pd.DataFrame:
    """The matrix with its labels and folders; R* last."""
    names = [*matrix.labels, "R*"]
    cells = np.zeros((len(names), len(names)))
    cells[:-1, :-1] = matrix.between
    cells[-1, :-1] = cells[:-1, -1] = matrix.to_truth
    table = pd.DataFrame(cells, columns=names)
    table.insert(0, "run", names)
    table.insert(1, "folder", [*(str(run.folder) for run in matrix.runs), ""])
    return table


def _pair_rows(pairs: list[tuple[str, Pair]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "panel": digest,
            "runs": pair.configuration,
            "first": pair.first,
            "second": pair.second,
            "varied": pair.source,
            "starc": pair.distance,
            "unshared": pair.unshared,
        }
        for digest, pair in pairs
    )


# --- files and terminal ---------------------------------------------------------------------------


def files(found: Report) -> dict[str, bytes]:
    """Name -> content of everything that is to be written."""
    written = {
        f"{name}.csv": rows.to_csv(index=False).encode() for name, rows in found.tables.items()
    }
    buffer = BytesIO()
    found.tables["results"].to_parquet(buffer, index=False)
    written["results.parquet"] = buffer.getvalue()
    for section in found.sections:
        for part in section.body:
            if isinstance(part, Picture):
                written[f"figures/{part.name}.png"] = part.png
    written[REPORT_FILE] = _markdown(found, sorted(written)).encode()
    return written


def _markdown(found: Report, beside: Sequence[str]) -> str:
    parts = ["# Report"]
    for section in found.sections:
        parts.append(f"## {section.title}")
        for part in section.body:
            match part:
                case Picture(name=name, caption=caption):
                    parts.append(f"![{name}](figures/{name}.png)\n\n{caption}")
                case Table():
                    rows = [[cell.replace("|", r"\|") for cell in row] for row in part.rows]
                    parts.append(replace(part, rows=rows).markdown())
                case text:
                    parts.append(text)
    listed = "\n".join(f"- [{name}]({name})" for name in beside if not name.endswith(".png"))
    return "\n\n".join([*parts, f"## Files\n\n{listed}"]) + "\n"


def show(found: Report, folder: Path) -> None:
    """Print the tables; the last line is `report: PATH`, in one piece."""
    console = Console(markup=False, emoji=False, highlight=False)
    for section in found.sections:
        parts = [part for part in section.body if not isinstance(part, Picture)]
        if parts:
            console.print(section.title, style="bold")
        for part in parts:
            if isinstance(part, Table):
                console.print(part.terminal())
                console.print(part.note)
            else:
                console.print(part)
            console.print()
    print(f"report: {folder / REPORT_FILE}")
