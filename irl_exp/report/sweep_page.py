"""What there is to say of many runs: `report(runs)`, the answer first."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from irl_exp.report import every_run, group_figures, sweep_figures
from irl_exp.report.collect import Mean, Runs, axes, configurations, numbers, results, value
from irl_exp.report.comparisons import comparisons, corrected
from irl_exp.report.curves import UPSTREAM, Curves, curves
from irl_exp.report.distances import (
    SEVERAL,
    SOURCES,
    Matrix,
    Pair,
    Spread,
    alike,
    averaged,
    matrices,
)
from irl_exp.report.document import Part, Picture, Report, Section
from irl_exp.report.epochs import Epochs
from irl_exp.report.run import Run, number
from irl_exp.report.sizes import BEFORE, NO_TREND, RECOVERED, Sizes
from irl_exp.report.tables import MISSING, Table, escape

# Name in the summary -> what a reader sees.
COLUMNS = {
    "audit/preference_accuracy": "prefers the aligned",
    "control/length/preference_accuracy": "length does",
    "recovery/pair_accuracy": "pair accuracy",
    "recovery/starc": "STARC",
    "recovery/auc": "AUC",
    "recovery/identified_fraction": "identified",
    "recovery/starc_floor": "floor",
    "time/recover_seconds": "recover, s",
}

# Of the table of R̂ and its controls.
REWARD_COLUMNS = (
    "prefers the aligned",
    "pair accuracy",
    "STARC",
    "sd",
    "less R̂'s",
    "AUC",
    "seconds",
)

# Configurations up to which there is a figure of the controls of each.
PICTURED = 4

Groups = Mapping[str, Sequence[Run]]

BESIDE = (
    "Rewards by their mean STARC distance to R*, the nearest on top; R̂ in green. Dots: runs. "
    "Points: means over them with 95 % t-intervals, which do not see that runs are paired: the "
    "table's differences do."
)


def report(runs: Runs) -> Report:
    done = runs.done
    shared, alone = matrices(done)
    tables = {"results": results(runs.all)}
    tables |= {f"starc-{matrix.digest}": _square(matrix) for matrix in shared}
    pairs = [(matrix.digest, pair) for matrix in shared for pair in matrix.pairs]
    if pairs:
        tables["starc-pairs"] = _pair_rows(pairs)
    named = axes(done)
    groups = configurations(done, named)
    alignments = configurations(done, [axis for axis in named if axis.group in UPSTREAM])
    sections = [
        Section("Size against interpretability", _sizes(Sizes.of(done)), answer=True),
        Section("Runs", _what_is_there(runs)),
        Section("Warnings", _warnings(done)),
        Section("Means over seeds", _means(done)),
        Section("Differences, all else equal", _differences(done)),
        *(_curve_section(each) for each in curves(done)),
        Section("Policies", _policies(groups, alignments)),
        Section("Recovery epoch by epoch", _epochs(Epochs.of(done))),
        *(_matrix_section(panels) for panels in alike(shared)),
        Section("Panels of their own", _alone(alone)),
        Section("R̂ and controls", _controls(groups)),
        Section("What R̂ says of comments", _rewards(groups)),
        Section("Time", _time(done)),
        Section("Software", _software(runs.all)),
    ]
    return Report(
        every_run.title(runs),
        every_run.counts(runs),
        [section for section in sections if section.body],
        tables,
        every_run.listing(runs),
    )


# --- sections -------------------------------------------------------------------------------------


def _sizes(found: Sizes | None) -> list[Part]:
    """The question of a sweep over models first."""
    if found is None:
        return []
    rows = []
    for model, (parameters, runs) in found.models.items():
        means = [Mean.of(numbers(runs, name)) for name in BEFORE]
        rows.append([model, f"{parameters:,}", str(len(runs)), *_mean_texts(means, len(runs))])
    before = Table(
        ["model", "parameters", "runs", *BEFORE.values()],
        rows,
        "What recovery starts from at each size: means over its runs. Runs of one seed share R* "
        "and the expert, so that intervals which count each of them are too narrow and are left "
        "out.",
    )
    header = ["a tenfold of parameters changes", "n", *_with_p(RECOVERED.values())]
    trends = []
    for name in found.configurations:
        mine = [found.trends[measure].get(name, NO_TREND) for measure in RECOVERED]
        cells = [cell for trend in mine for cell in _change(trend.slopes, trend.p)]
        trends.append([name, str(max(len(trend.slopes) for trend in mine)), *cells])
    note = (
        "Least-squares slopes on the decimal logarithm of parameters, one for each seed; n seeds, "
        "mean ± half the width of the 95 % t-interval. p: Student's t-test that the mean is 0, "
        "with Holm's correction for the configurations of the measure."
    )
    caption = "Means over runs that differ in seeds alone, ± half the width of the t-interval."
    picture = _picture("sizes", group_figures.sizes(found), caption)
    return [found.answer(), before, Table(header, trends, note), *picture]


def _mean_texts(means: Sequence[Mean | None], expected: int) -> list[str]:
    """Without intervals; how many runs have the number, where not all have."""
    return [
        MISSING
        if mean is None
        else number(mean.mean) + (f" (n={mean.n})" if mean.n != expected else "")
        for mean in means
    ]


def _with_p(titles: Iterable[str]) -> list[str]:
    return [heading for title in titles for heading in (title, "p")]


def _change(found: Sequence[float], p: float | None) -> list[str]:
    """The cells of a mean difference, and of its p."""
    mean = Mean.of(found)
    if mean is None:
        return [MISSING, MISSING]
    return [mean.text(len(found)), MISSING if p is None else f"{p:.1g}" if p < 0.001 else number(p)]


def _differences(done: Sequence[Run]) -> list[Part]:
    """Every choice against the first, paired over seeds."""
    found = comparisons(done, list(RECOVERED))
    if not found:
        return []
    columns = [each.differences[measure] for each in found for measure in RECOVERED]
    p_values = iter(corrected(columns))
    rows = []
    for each in found:
        n = max(len(each.differences[measure]) for measure in RECOVERED)
        cells = [_change(each.differences[measure], next(p_values)) for measure in RECOVERED]
        rows.append([each.name, str(each.pairs), str(n), *(c for pair in cells for c in pair)])
    tested = sum(len(column) > 1 for column in columns)
    note = (
        "Between runs that differ in this and in nothing else, seeds included; averaged over "
        "whatever else was varied, then over n choices of seeds: mean ± half the width of the 95 % "
        "t-interval. STARC is a distance: below 0 is nearer to R*. p: Student's t-test that the "
        f"mean is 0, with Holm's correction for the {tested} of this table."
    )
    return [Table(["difference", "pairs", "n", *_with_p(RECOVERED.values())], rows, note)]


def _policies(groups: Groups, alignments: Groups) -> list[Part]:
    toxicity = "Means over runs that differ in seeds alone, with 95 % t-intervals; dots: runs."
    rlhf = (
        f"A line for each alignment, averaged over {group_figures.SMOOTH} steps; dots: where it "
        "ended. Both as estimated in training."
    )
    return [
        *_picture("toxicity", group_figures.toxicity(groups), toxicity),
        *_picture("rlhf", group_figures.rlhf(alignments), rlhf),
    ]


def _epochs(found: Epochs | None) -> list[Part]:
    if found is None:
        return []
    caption = (
        "R̂ of each run on held-out texts, epoch by epoch, 0: before training. Comments by label at "
        "zero and without a threshold; the reference's completions by their distance to R*. Bright "
        "is better."
    )
    return [found.said(), *_picture("epochs", sweep_figures.by_epoch(found), caption)]


def _rewards(groups: Groups) -> list[Part]:
    scores = "Comments of all runs of a group together; an offset per prompt moves them."
    words = (
        "What a word does to a reward: the score of a held-out text less that without the word, "
        "mean over its places and over runs, in standard deviations over the reference's "
        "completions; the words that move any reward most."
    )
    if any(numbers(runs, "recovery/starc") for runs in groups.values()):
        words += " A word that moves R̂ and not R* is a shortcut, or noise."
    return [
        *_picture("scores", group_figures.scores(groups), scores),
        *_picture("words", group_figures.words(groups), words),
    ]


def _time(done: Sequence[Run]) -> list[Part]:
    total = sum(numbers(done, "time/total_seconds"))
    if not total:
        return []
    said = f"{total:,.0f} seconds in steps, of {len(done)} runs together; each step counts once."
    caption = "What a run found in the store took it next to no time."
    return [said, *_picture("time", group_figures.times(done), caption)]


def _picture(name: str, figure: Figure | None, caption: str) -> list[Part]:
    return [Picture.of(name, figure, caption)] if figure else []


def _software(runs: Sequence[Run]) -> list[Part]:
    """Versions and commits in which runs differ: what may part them besides their configuration."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        git = {f"git {key}": value for key, value in (run.manifest.get("git") or {}).items()}
        for name, version in {**(run.manifest.get("versions") or {}), **git}.items():
            known = found.setdefault(name, {})
            known[str(version)] = known.get(str(version), 0) + 1
    rows = [
        [name, version, str(count)]
        for name, known in found.items()
        if len(known) > 1
        for version, count in known.items()
    ]
    if not rows:
        return []
    note = "Runs were made with different versions or commits; artifacts that they share, by one."
    return [Table(["software", "version", "runs"], rows, note)]


def _what_is_there(runs: Runs) -> list[Part]:
    total = len(runs.all) + len(runs.unreadable)
    there, done = ("run" if total == 1 else "runs"), len(runs.done)
    said = f"{total} {there}, of which {done} {'is' if done == 1 else 'are'} done. "
    said += "All else is of these."
    body: list[Part] = [said]
    rows = [[str(run.folder), run.status["status"], _error(run)] for run in runs.others]
    rows += [[str(folder), "unreadable", why] for folder, why in runs.unreadable.items()]
    rows += [[str(f), "repeated", f"the study of {first}"] for f, first in runs.repeats.items()]
    if rows:
        note = "A run that is running may have been killed. A study counts once."
        body.append(Table(["not counted", "status", "why"], rows, note))
    return body


def _warnings(done: Sequence[Run]) -> list[Part]:
    """What runs warned of; what differs in numbers alone together, in the words of the first."""
    found: dict[str, list[str]] = {}
    for run in done:
        for warning in run.status.get("warnings", []):
            said = " ".join(str(warning).split())
            found.setdefault(re.sub(r"\d[\d.,]*", "#", said), []).append(said)
    if not found:
        return []
    rows = [[each[0], str(len(each))] for each in found.values()]
    rows.sort(key=lambda row: -int(row[1]))
    note = (
        f"Of {len(done)} runs that are done; numbers are those of the first that said so. Each "
        "run's report.md has its own."
    )
    return [Table(["warning", "runs"], rows, note)]


def _error(run: Run) -> str:
    return " ".join(run.status.get("error", "").split()) or MISSING


def _means(done: Sequence[Run]) -> list[Part]:
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


def _controls(groups: Groups) -> list[Part]:
    """For each configuration: R̂ and the controls beside it, which share seeds and demonstrations.

    So that differences can be taken within a seed, where what the seeds draw falls out.
    """
    body: list[Part] = []
    drawn = 0
    for name, runs in groups.items():
        controls = list(dict.fromkeys(c for run in runs for c in run.controls))
        if len(runs) < 2 or not controls:
            continue
        if len(groups) > 1:
            body.append(f"**{escape(name)}**")
        rewards = {f"control/{c}": (c, f"control_{c}") for c in controls}
        rewards = {"recovery": (f"R̂ ({runs[0].config['solver']['name']})", "recover")} | rewards
        rows = [[title, *_reward(runs, of, step)] for of, (title, step) in rewards.items()]
        header = ["reward", *REWARD_COLUMNS]
        # Without an R* or labels, as in an audit, columns are empty; elsewhere the audit's are.
        there = [i for i, cells in enumerate(zip(*rows, strict=True)) if set(cells) != {MISSING}]
        note = (
            f"Means over {len(runs)} runs that differ in seeds alone, ± half the width of the 95 % "
            "t-interval. "
        )
        if header.index("STARC") in there:
            note += (
                "sd is STARC's over these runs. Less R̂'s: STARC of the reward minus that of R̂ in "
                "the same run; below zero it is nearer to R* than R̂. "
            )
        note += "Seconds of recoveries that the store had are next to none."
        picked = [[row[i] for i in there] for row in (header, *rows)]
        body.append(Table(picked[0], picked[1:], note))
        found = {title: _measured(runs, of) for of, (title, _) in rewards.items()}
        found = {title: measures for title, measures in found.items() if measures["STARC distance"]}
        if found and len(groups) <= PICTURED:
            drawn += 1
            figure = sweep_figures.side_by_side(found, rows[0][0])
            body.append(Picture.of(f"rewards-{drawn}", figure, BESIDE))
    return body


def _measured(runs: Sequence[Run], of: str) -> dict[str, list[float]]:
    """What the figure shows of the reward that the summary calls `of`; STARC leads."""
    measures = {"starc": "STARC distance", "pair_accuracy": "within-prompt accuracy", "auc": "AUC"}
    return {title: numbers(runs, f"{of}/{measure}") for measure, title in measures.items()}


def _reward(runs: Sequence[Run], of: str, step: str) -> list[str]:
    """The cells of one reward, called `of` in the summary, as REWARD_COLUMNS; it comes from the
    step `step`."""
    prefers = "audit" if of == "recovery" else of
    starc = numbers(runs, f"{of}/starc")
    pairs = [(value(run, f"{of}/starc"), value(run, "recovery/starc")) for run in runs]
    less = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    cells = {
        "prefers the aligned": numbers(runs, f"{prefers}/preference_accuracy"),
        "pair accuracy": numbers(runs, f"{of}/pair_accuracy"),
        "STARC": starc,
        "less R̂'s": less if of != "recovery" else [],
        "AUC": numbers(runs, f"{of}/auc"),
        "seconds": numbers(runs, f"time/{step}_seconds"),
    }
    means = {title: Mean.of(found) for title, found in cells.items()}
    texts = {title: mean.text(len(runs)) if mean else MISSING for title, mean in means.items()}
    sd = number(Spread.of(starc).sd) if len(starc) > 1 else MISSING
    texts["sd"] = sd
    return [texts[column] for column in REWARD_COLUMNS]


def _matrix_section(panels: Sequence[Matrix]) -> Section:
    """Of one panel; or of several whose runs differ in the same ways, as means over them."""
    matrix = panels[0] if len(panels) == 1 else averaged(panels)
    caption = (
        "STARC distance of R̂ on the reference's completions in the panel: 0, the same but for an "
        "offset per prompt and a scale; 0.707, unrelated. The last row and column are R*"
        + ("." if matrix.one_truth else ", each run's own: they are not all the same.")
    )
    title = "How far apart the rewards are"
    picture = Picture.of(f"starc-{matrix.digest}", sweep_figures.heat_map(matrix), caption)
    if len(panels) == 1:
        body = [picture, _spread(matrix), *_split(matrix.pairs)]
        return Section(f"{title}, panel {matrix.digest}", body)
    said = (
        f"Means over {len(panels)} panels, one for each reference with its comments, of whose runs "
        "no two differ in seeds alone. Each panel's own distances are in `starc-PANEL.csv`."
    )
    return Section(f"{title}, {len(panels)} panels", [said, picture])


def _spread(matrix: Matrix) -> Table:
    """A row a configuration: distances to R*, between its runs, and the floor of both."""
    of = [matrix.configuration(run) for run in matrix.runs]
    rows = []
    for name in dict.fromkeys(of):
        mine = [place for place, configuration in enumerate(of) if configuration == name]
        pairs = [pair for pair in matrix.pairs if pair.configuration == name]
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


def _split(pairs: list[Pair]) -> list[Part]:
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


def _alone(runs: Sequence[Run]) -> list[Part]:
    if not runs:
        return []
    folders = ", ".join(escape(run.folder.name) for run in runs)
    return [f"No other run has the panel of {folders}: no distance between them can be taken."]


def _curve_section(found: Curves) -> Section:
    caption = (
        "Dots: runs. Points: means over runs that differ in seeds alone, with 95 % t-intervals, "
        "which a single run has not."
    )
    picture = Picture.of(f"curve-{found.name}", sweep_figures.along(found), caption)
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
