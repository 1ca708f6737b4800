"""The result files that the paper released (Joselowitz et al. 2025, arXiv 2410.12491), and others
of their form: which there are below a folder, what they hold, how good each reward in them is.

Files are known by their form. Rewards: R* under "true_reward", a recovered reward under any other
name, all lists of one number a text. Curves: "accuracies" and what else was measured, one number an
epoch, of one run. Rewards are higher where a text is less toxic: R* is minus a toxic logit.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from irl_exp.metrics import agreement
from irl_exp.metrics.selection import best_accuracy
from irl_exp.report import NoReport
from irl_exp.report.collect import is_number

TRUTH = "true_reward"
# Key of a file of curves -> what it is called here.
CURVES = {
    "accuracies": "accuracy_at_zero",
    "f1s": "f1_at_zero",
    "correlations": "pearson",
    "epoch_losses": "loss",
}
# Where the paper cuts: a text is toxic if its reward < this, the least number above zero.
ABOVE_ZERO = float(np.nextafter(0, 1))
# Comments that the paper's curves were measured on, the first of the 2,000 with rewards: their
# accuracies are multiples of 1/1000, and those of constant predictors are of R* on these.
CURVE_TEXTS = 1000
# An accuracy this near to that of a constant predictor says no more than it.
NEAR = 0.005
# A correlation that stands in the name of a checkpoint, as it was in training.
NAMED_PEARSON = re.compile(r"corr_(-?\d+\.\d+)", re.IGNORECASE)

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Rewards:
    """A file of rewards.

    Attributes:
        name: where it lies below the folder.
        truth: R* of each text [n]; it calls some toxic, and not all.
        recovered: name -> reward [n] of the same texts.
    """

    path: Path
    name: str
    truth: Numbers
    recovered: dict[str, Numbers]

    @property
    def toxic(self) -> NDArray[np.int64]:
        """What R* at zero says of each text [n]: 1 = toxic."""
        return (self.truth <= 0).astype(np.int64)

    @property
    def majority(self) -> float:
        """The accuracy of whoever gives all texts the commoner label."""
        share = float(self.toxic.mean())
        return max(share, 1 - share)

    @cached_property
    def measured(self) -> pd.DataFrame:
        """A row for each recovered reward against R*; NaN where a constant has no correlation."""
        toxic, rows = self.toxic, []
        for name, reward in self.recovered.items():
            named = NAMED_PEARSON.search(name)
            rows.append(
                {
                    "file": self.name,
                    "reward": name,
                    "accuracy_at_zero": agreement.accuracy_at_zero(reward, toxic),
                    "f1_at_zero": agreement.f1(reward, toxic, ABOVE_ZERO),
                    "auc": agreement.auc(reward, toxic),
                    "pearson": agreement.pearson(reward, self.truth),
                    "spearman": agreement.spearman(reward, self.truth),
                    "kendall": agreement.kendall(reward, self.truth),
                    "accuracy_at_best": best_accuracy(reward, toxic),
                    "pearson_in_name": float(named[1]) if named else np.nan,
                }
            )
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class Curves:
    """The curves of runs of as many epochs from one folder, by their last accuracy, best first.

    Attributes:
        name: that of their folder.
        paths: the file of each run.
        grids: name in CURVES' values -> [runs, epochs], NaN where a run did not save it. Column 0
            is before training: the paper's loop measures before it learns.
    """

    name: str
    paths: list[Path]
    grids: dict[str, Numbers]

    @property
    def accuracy(self) -> Numbers:
        return self.grids["accuracy_at_zero"]

    @property
    def on_first_texts(self) -> bool:
        """Whether all accuracies can be of CURVE_TEXTS texts."""
        counts = self.accuracy * CURVE_TEXTS
        return bool(np.allclose(counts, np.round(counts), rtol=0, atol=1e-6))

    @property
    def with_f1(self) -> bool:
        """Whether all runs saved it."""
        return not np.isnan(self.grids["f1_at_zero"]).any()

    def constant(self, toxic_share: float) -> NDArray[np.bool_]:
        """Cells [runs, epochs] that are those of a constant predictor, accuracy and F1 alike; by
        accuracy alone where no F1 was saved."""
        found = np.zeros(self.accuracy.shape, dtype=bool)
        f1 = self.grids["f1_at_zero"]
        everything = 2 * toxic_share / (1 + toxic_share)
        for accuracy, own_f1 in ((toxic_share, everything), (1 - toxic_share, 0.0)):
            alike = np.isnan(f1) | np.isclose(f1, own_f1, rtol=0, atol=1e-6)
            found |= np.isclose(self.accuracy, accuracy, rtol=0, atol=1e-9) & alike
        return found

    def near_constant(self, toxic_share: float) -> NDArray[np.bool_]:
        """Cells [runs, epochs] whose accuracy is within NEAR of a constant predictor's."""
        ends = np.array([toxic_share, 1 - toxic_share])
        return np.min(np.abs(self.accuracy[..., None] - ends), axis=-1) <= NEAR + 1e-9


@dataclass(frozen=True)
class Released:
    """What was found. `unread`: file -> what is wrong with it, or with a reward in it."""

    folder: Path
    rewards: list[Rewards]
    curves: list[Curves]
    unread: dict[str, str]

    @property
    def toxic_share(self) -> float | None:
        """Of the texts behind the curves; None where no R* of them was found, or two disagree."""
        known = [each.truth[:CURVE_TEXTS] for each in self.rewards]
        shares = {float(np.mean(truth <= 0)) for truth in known if truth.size == CURVE_TEXTS}
        return shares.pop() if len(shares) == 1 else None


def read(folder: Path) -> Released:
    """All that is below the folder. Raises NoReport where that is nothing."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise NoReport(f"{folder}: {what}; expected a folder with released JSON files")
    rewards: list[Rewards] = []
    curves: dict[tuple[Path, int], dict[Path, dict[str, Numbers]]] = {}
    unread: dict[str, str] = {}
    for path in _json_files(folder):
        try:
            content = _content(path)
            if TRUTH in content:
                name = path.relative_to(folder).as_posix()
                rewards.append(_rewards(path, name, content, unread))
            elif "accuracies" in content:
                curve = _curve(content)
                runs = curves.setdefault((path.parent, len(curve["accuracy_at_zero"])), {})
                runs[path] = curve
            else:
                raise ValueError(f'neither "{TRUTH}" nor "accuracies" in it')
        except (ValueError, OSError, RecursionError) as error:
            unread[str(path)] = " ".join(str(error).split())
    if not rewards and not curves:
        first = next((f"; {path}: {why}" for path, why in unread.items()), "")
        raise NoReport(
            f'{folder}: {len(unread)} JSON files, none with "{TRUTH}" or "accuracies" that can be '
            f"read{first}"
        )
    groups = [_group(place.absolute().name, runs) for (place, _), runs in sorted(curves.items())]
    return Released(folder, rewards, groups, unread)


def _json_files(folder: Path) -> Iterator[Path]:
    """In order. Hidden files and folders, and links to folders, are passed over."""
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".json") and not name.startswith("."):
                yield Path(place, name)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("a JSON file without names; expected an object of lists")
    return content


def _rewards(path: Path, name: str, content: dict[str, Any], unread: dict[str, str]) -> Rewards:
    """A reward that is damaged is noted, and left out; a damaged R* is a ValueError."""
    truth = _numbers(TRUTH, content[TRUTH])
    if np.all((truth == 0) | (truth == 1)):
        raise ValueError(f'"{TRUTH}" is 0 or 1 everywhere: labels; expected rewards')
    if np.all(truth <= 0) or np.all(truth > 0):
        raise ValueError(f'"{TRUTH}" gives all texts one label; expected some on each side of 0')
    recovered, damaged = {}, []
    for key, values in content.items():
        if key == TRUTH:
            continue
        key = " ".join(key.split())
        try:
            reward = _numbers(key, values)
            if reward.size != truth.size:
                raise ValueError(f'"{key}" has {reward.size} numbers; expected {truth.size}')
            recovered[key] = reward
        except ValueError as error:
            damaged.append(str(error))
    if not recovered:
        raise ValueError("; ".join([*damaged, f'no reward beside "{TRUTH}" that can be read']))
    if damaged:
        unread[str(path)] = "; ".join(damaged)
    return Rewards(path, name, truth, recovered)


def _curve(content: dict[str, Any]) -> dict[str, Numbers]:
    accuracy = _numbers("accuracies", content["accuracies"])
    if np.any((accuracy < 0) | (accuracy > 1)):
        raise ValueError('"accuracies": expected shares from 0 to 1')
    found = {}
    for key, name in CURVES.items():
        values = _numbers(key, content[key], defined=False) if key in content else None
        if values is not None and values.size != accuracy.size:
            raise ValueError(f'"{key}" has {values.size} epochs, "accuracies" {accuracy.size}')
        found[name] = np.full(accuracy.size, np.nan) if values is None else values
    return found | {"accuracy_at_zero": accuracy}


def _numbers(name: str, values: Any, *, defined: bool = True) -> Numbers:
    """A list as numbers; NaN and infinite ones are refused if they are to be `defined`."""
    if not isinstance(values, list) or not values or not all(map(is_number, values)):
        raise ValueError(f'"{name}": expected a list of numbers')
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError as error:
        raise ValueError(f'"{name}": a number too large') from error
    if defined and not np.all(np.isfinite(array)):
        raise ValueError(f'"{name}": {array[~np.isfinite(array)][0]} is among its numbers')
    return array


def _group(name: str, runs: dict[Path, dict[str, Numbers]]) -> Curves:
    paths = sorted(runs, key=lambda path: (-runs[path]["accuracy_at_zero"][-1], path))
    grids = {name: np.stack([runs[path][name] for path in paths]) for name in CURVES.values()}
    return Curves(name, paths, grids)


def short(names: Sequence[str]) -> list[str]:
    """Each without the words, parted by `_`, that all of them begin and end with."""
    if len(names) < 2:
        return list(names)
    words = [name.split("_") for name in names]
    first = _shared(words)
    last = _shared([each[first:][::-1] for each in words])
    return ["_".join(each[first : len(each) - last]) or "_".join(each) for each in words]


def _shared(words: Sequence[Sequence[str]]) -> int:
    """How many words all begin with."""
    alike = takewhile(lambda at: len(set(at)) == 1, zip(*words, strict=False))
    return sum(1 for _ in alike)
