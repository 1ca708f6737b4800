"""Many runs side by side: which there are, what differs between them, and which belong together."""

import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from yaml import YAMLError

from irl_exp.metrics.statistics import mean_interval
from irl_exp.report import NoReport
from irl_exp.report.run import NOT_APPLICABLE, Run, number
from irl_exp.unicode import is_unicode

# What decides no result, and so makes no two studies differ.
NOT_STUDY = ("hydra", "paths", "tracker", "name", "tags", "extra_tags", "rerun", "objective")
# What draws random numbers, from the first step to the last, and where its seed comes from in a run
# that does not set it apart. `seed` and `seeds.recovery` only hand their value on.
DRIVERS = {
    "data": "data",
    "policy": "policy",
    "alignment": "policy",
    "demonstrations": "policy",
    "initialization": "recovery",
    "order": "recovery",
}
# Seeds that move together, as a user calls them.
TOGETHER = {
    frozenset(DRIVERS): "seed",
    frozenset({"policy", "alignment", "demonstrations"}): "policy",
    frozenset({"initialization", "order"}): "recovery",
}
LEVEL = 0.95
# The number in a summary that says how large a run's model is.
SIZE = "model/parameters"

Values = dict[str, Hashable]


@dataclass(frozen=True)
class Runs:
    """What was found below some folders.

    Attributes:
        all: every run once, by folder.
        repeats: folder of a run that was left out -> that of the same study, which is counted.
        unreadable: folder -> what is wrong with it.
    """

    all: list[Run]
    repeats: dict[Path, Path]
    unreadable: dict[Path, str]

    @property
    def done(self) -> list[Run]:
        return [run for run in self.all if run.status["status"] == "done"]

    @property
    def others(self) -> list[Run]:
        """Failed, interrupted, and running or killed."""
        return [run for run in self.all if run.status["status"] != "done"]


def collect(folders: Iterable[Path]) -> Runs:
    """The runs at or below the folders. Raises NoReport where a folder is missing, has none, or has
    one with a name that is no text."""
    places: dict[Path, Path] = {}  # resolved -> as it was named
    for folder in folders:
        if not folder.is_dir():
            what = "a file" if folder.exists() else "no such folder"
            raise NoReport(f"{folder}: {what}; expected runs or sweeps")
        found = list(run_directories(folder))
        if not found:
            raise NoReport(f"{folder}: no run in it; expected a folder with a status.json below")
        for path in found:
            if not is_unicode(str(path)):
                raise NoReport(f"{str(path)!a}: not UTF-8; expected a name that a page can show")
        places |= {path.resolve(): path for path in found if path.resolve() not in places}
    runs: list[Run] = []
    unreadable: dict[Path, str] = {}
    for path in places.values():
        try:
            runs.append(_usable(Run.read(path)))
        except (OSError, ValueError, YAMLError) as error:
            unreadable[path] = " ".join(str(error).split())
    if not runs:
        place, why = next(iter(unreadable.items()))
        raise NoReport(f"{place}: {why}; expected a run that can be read")
    counted: dict[Any, Run] = {}
    repeats: dict[Path, Path] = {}
    for run in runs:
        if run.status["status"] == "done":
            first = counted.setdefault(_study(run), run)
            if first is not run:
                repeats[run.folder] = first.folder
    return Runs([run for run in runs if run.folder not in repeats], repeats, unreadable)


def _usable(run: Run) -> Run:
    """The run, if it says what a report asks of it. Raises ValueError."""
    if not isinstance(run.status.get("status"), str):
        raise ValueError("status.json does not say how the run went")
    if not all(isinstance(run.config.get(group, {}), dict) for group in ("seeds", "solver")):
        raise ValueError("config.yaml: expected the configuration of a run")
    for name in ("config.yaml", "summary.json"):
        if run.status["status"] == "done" and not (run.folder / name).is_file():
            raise ValueError(f"done, and yet it has no {name}")
    return run


def run_directories(folder: Path) -> Iterator[Path]:
    """At or below a folder, in order. Hidden folders and links are passed over."""
    if (folder / "status.json").is_file():
        yield folder
        return
    for below in sorted(folder.iterdir()):
        if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
            yield from run_directories(below)


def _study(run: Run) -> tuple[str, str]:
    """Equal for two runs of one study: as seeds, they would count one draw twice."""
    inputs = json.dumps(run.manifest.get("inputs", {}), sort_keys=True)
    return run.status.get("run_id", str(run.folder)), inputs


# --- what differs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """Something in which runs differ: a key of the configuration, or seeds that move together."""

    name: str
    key: str
    seed: bool

    @property
    def group(self) -> str:
        """The group of the configuration that it belongs to."""
        return self.key.split(".")[0]

    def of(self, run: Run) -> Hashable:
        return values(run).get(self.key)


@cache
def values(run: Run) -> Values:
    """Dotted key -> value of what decides a run's results; of seeds, what each of DRIVERS gets."""
    left_out = (*NOT_STUDY, "seed", "seeds")
    study = {key: value for key, value in run.config.items() if key not in left_out}
    return dict(_leaves(study)) | {f"seeds.{d}": seed for d, seed in seeds(run).items()}


@cache
def seeds(run: Run) -> Values:
    """The seed of each of DRIVERS."""
    given = run.config.get("seeds", {})
    return {driver: given.get(driver, given.get(source)) for driver, source in DRIVERS.items()}


def _leaves(node: dict[str, Any], above: str = "") -> Iterator[tuple[str, Hashable]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value) if isinstance(value, list) else value


def seeds_apart(a: Run, b: Run) -> frozenset[str]:
    """The DRIVERS of which two runs have different seeds."""
    mine, other = seeds(a), seeds(b)
    return frozenset(driver for driver in DRIVERS if mine[driver] != other[driver])


def axes(runs: Sequence[Run]) -> list[Axis]:
    """In what the runs differ, seeds last.

    Where the choice of a group differs, it stands for the values that come with it; seeds that
    always move together are one axis.
    """
    return [*_axes(tuple(runs))]


@cache
def _axes(runs: tuple[Run, ...]) -> list[Axis]:
    """Every section asks for those of the same runs."""
    table = [values(run) for run in runs]
    keys = dict.fromkeys(key for row in table for key in row)
    columns = {key: [row.get(key) for row in table] for key in keys}
    differing = {key: column for key, column in columns.items() if len(set(column)) > 1}
    found = [
        Axis(key.removesuffix(".name"), key, seed=False)
        for key, column in differing.items()
        if not key.startswith("seeds.") and not _comes_with_choice(key, column, differing)
    ]
    together: dict[tuple[Hashable, ...], list[str]] = {}
    for driver in DRIVERS:
        if (key := f"seeds.{driver}") in differing:
            together.setdefault(tuple(differing[key]), []).append(driver)
    for drivers in together.values():
        name = TOGETHER.get(frozenset(drivers), "+".join(drivers))
        found.append(Axis(name, f"seeds.{drivers[0]}", seed=True))
    return found


def _comes_with_choice(
    key: str, column: list[Hashable], differing: dict[str, list[Hashable]]
) -> bool:
    choice = f"{key.partition('.')[0]}.name"
    if key == choice or choice not in differing:
        return False
    return len(set(zip(differing[choice], column, strict=True))) == len(set(differing[choice]))


def label(run: Run, named: Iterable[Axis]) -> str:
    """`solver=hinge, demonstrations.k=4`."""
    return ", ".join(f"{axis.name}={shown(axis.of(run))}" for axis in named) or "all runs"


def shown(value: Hashable) -> str:
    return "null" if value is None else str(value)


def ordered(runs: Sequence[Run], named: Sequence[Axis]) -> list[Run]:
    """By the axes, the first one outermost, on each in the order of `order`."""
    ranks = {axis.name: {v: place for place, v in enumerate(order(axis, runs))} for axis in named}
    return sorted(runs, key=lambda run: [ranks[a.name][a.of(run)] for a in named])


def order(axis: Axis, runs: Sequence[Run]) -> list[Hashable]:
    """The values of an axis: models from the smallest, as far as all have told their size; of all
    else the commonest first, then by size."""
    column = [axis.of(run) for run in runs]
    sizes = {axis.of(run): size for run in runs if (size := value(run, SIZE)) is not None}
    if axis.name == "model" and sizes.keys() == set(column):
        return sorted(sizes, key=sizes.__getitem__)
    first = usual(column)
    return [first, *sorted(set(column) - {first}, key=_by_size)]


def usual(column: Sequence[Hashable]) -> Hashable:
    """The commonest value; of several, the smallest."""
    return max(sorted(set(column), key=_by_size), key=column.count)


def _by_size(value: Hashable) -> tuple[bool, Any]:
    """Numbers in their order, before all else."""
    return (False, value) if is_number(value) else (True, shown(value))


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def configurations(runs: Sequence[Run], named: Sequence[Axis]) -> dict[str, list[Run]]:
    """Label -> the runs that agree in all but seeds."""
    choices = [axis for axis in named if not axis.seed]
    found: dict[str, list[Run]] = {}
    for run in ordered(runs, choices):
        found.setdefault(label(run, choices), []).append(run)
    return found


# --- numbers --------------------------------------------------------------------------------------


def numbers(runs: Iterable[Run], name: str) -> list[float]:
    """Of the runs that have it: the number of the summary called `name`. NaN is passed over, as is
    what is not applicable."""
    found = (value(run, name) for run in runs)
    return [x for x in found if x is not None]


def value(run: Run, name: str) -> float | None:
    x = run.summary.get(name)
    return float(x) if is_number(x) and x == x else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Mean:
    """A mean over runs with the ends of its t-interval, which are the mean itself where n = 1."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, found: Sequence[float]) -> "Mean | None":
        if not found:
            return None
        if len(found) == 1:
            return cls(found[0], found[0], found[0], 1)
        return cls(*mean_interval(found, LEVEL), len(found))

    def text(self, expected: int) -> str:
        """`0.842±0.011`, and the number of runs where it is not `expected`."""
        half = f"±{number(self.high - self.mean)}" if self.n > 1 else ""
        return number(self.mean) + half + (f" (n={self.n})" if self.n != expected else "")


def results(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a run: its folder, how it went, what makes it differ, and all numbers of its summary.

    A number that is missing, or not applicable, is empty.
    """
    named = axes(runs)
    rows = []
    for run in runs:
        row: dict[str, Any] = {"folder": str(run.folder), "status": run.status["status"]}
        row["error"] = " ".join(run.status.get("error", "").split())
        row |= {axis.name: axis.of(run) for axis in named}
        row |= {n: None if v == NOT_APPLICABLE else v for n, v in sorted(run.summary.items())}
        rows.append(row)
    table = pd.DataFrame(rows)
    for column in table.columns:
        if table[column].dtype.kind in "if":  # what pandas took for numbers, as nearly all are
            continue
        present = table[column].dropna()
        if present.map(is_number).all():
            table[column] = pd.to_numeric(table[column])
        else:  # one column, one type
            table[column] = table[column].map(lambda v: None if v is None else shown(v))
    return table
