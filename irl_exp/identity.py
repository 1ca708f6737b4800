"""Which run this is: its id, the name of its directory, and whether it has been done.

The id hashes the resolved study configuration, so equal studies have equal ids wherever they run
and whatever they are called. What the configuration only names, the user's own files, is compared
by content before a run is taken to be done.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from irl_exp.config import ADAPTER_FILE, SCHEMAS, InputError
from irl_exp.store import content_digest
from irl_exp.tracking import read_status

log = logging.getLogger(__name__)

# What does not decide a run's results, and so is no part of its identity.
NOT_IDENTITY = ("hydra", "paths", "tracker", "name", "tags", "extra_tags", "rerun", "objective")

# Environment variable with the keys that a sweep varies: its jobs may run in other processes.
SWEPT = "IRL_EXP_SWEPT"
# Characters of a label.
LONGEST = 60


def run_id(*, _root_: DictConfig) -> str:
    """Eight hex digits of the resolved study config: equal for equal studies, wherever they run."""
    study = OmegaConf.create(
        {key: _root_._get_node(key) for key in _root_ if key not in NOT_IDENTITY},
    )
    plain = OmegaConf.to_container(study, resolve=True)
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def sweep_name(*, _root_: DictConfig) -> str:
    """`name`; or the choice of +sweep, and of +debug, whose runs are no part of it; or adhoc."""
    name = str(_root_.get("name") or "")
    if name:
        require_name(name)
        return name
    chosen = _root_.hydra.runtime.choices
    if not chosen.get("sweep"):
        return "adhoc"
    return "-".join(chosen[group] for group in ("sweep", "debug") if chosen.get(group))


def require_name(name: str) -> None:
    """Raises InputError where no folder should be called so."""
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise InputError(f"name={name}: expected a name for a folder, without / and first dots")


def run_folder(*, _root_: DictConfig) -> str:
    """<label>-<id>; of a study that the sweep has already, under whatever label, its folder."""
    identity = run_id(_root_=_root_)
    known = sorted(Path(_root_.hydra.sweep.dir).glob(f"*-{identity}"))
    return known[0].name if known else f"{run_label(_root_=_root_)}-{identity}"


def run_label(*, _root_: DictConfig) -> str:
    """What was varied, short enough for a folder name: seed=3 model.layers=2 -> seed-3_layers-2.

    What the sweep varies comes first; what all of its runs share follows as far as there is room.
    """
    typed = [str(override).lstrip("+~").partition("=") for override in _root_.hydra.overrides.task]
    swept = os.environ.get(SWEPT, "").split(",")
    label = ""
    for key, _, value in sorted(typed, key=lambda part: part[0] not in swept):
        word = re.sub(r"[^\w.]+", "-", f"{key.split('.')[-1]}-{value}").strip("-_.")
        fits = len(label) + len(word) < LONGEST or not label
        if key.split(".")[0] not in (*NOT_IDENTITY, "sweep") and fits:
            label += f"_{word[:LONGEST]}" if label else word[:LONGEST]
    return label or "default"


def axis(full: str, small: str, *, _root_: DictConfig) -> str:
    """The values of a key in the file of a sweep: beside +debug the small ones."""
    return small if _root_.hydra.runtime.choices.get("debug") else full


def by_model(model: str, published: Any, small: Any) -> Any:
    """A choice or value in the file of an experiment: beside a model from random weights (neox-*)
    the small one, which needs neither a hub nor a long context."""
    return small if model.startswith("neox-") else published


def swept(overrides: Iterable[str]) -> str:
    """The keys of those overrides that a sweep expands, with commas between: the value of SWEPT."""
    several = re.compile(r"(range|choice|glob|interval)\(|^[^\[{('\"]*,")
    parts = (override.lstrip("+~").partition("=") for override in overrides)
    return ",".join(key for key, _, value in parts if several.search(value))


def is_done(folder: Path, identity: str, config: DictConfig) -> bool:
    """Whether the directory holds this very study, finished, of files that are still the same."""
    status = read_status(folder)
    if config.rerun or status.get("status") != "done" or status.get("run_id") != identity:
        return False
    try:
        manifest, _ = (
            json.loads((folder / name).read_text()) for name in ("manifest.json", "summary.json")
        )
    except (OSError, ValueError):
        log.info("%s is done and damaged: run again", folder)
        return False
    if manifest.get("inputs", {}) == inputs(config):
        return True
    log.info("%s was done with other files: run again", folder)
    return False


def inputs(config: DictConfig) -> dict[str, str]:
    """Digests of the user's own files and folders; the run's id knows their names alone."""
    paths = {f"{group}.path": config[group].get("path") for group in SCHEMAS}
    paths["model.base"] = config.model.get("base")
    paths["evaluation.second_classifier"] = config.evaluation.second_classifier
    solvers = {f"evaluation.controls.{n}": c for n, c in config.evaluation.controls.items()}
    solvers["solver"] = config.solver
    paths |= {f"{where}.file": solver.get("file") for where, solver in solvers.items()}
    places = {key: Path(path).expanduser() for key, path in paths.items() if path}
    for key in ("model.path", "rlhf.path"):
        if key in places and (places[key] / ADAPTER_FILE).is_file():
            from irl_exp import hub  # takes a while that most runs need not wait

            places[f"{key}, adapted"] = Path(hub.adapted(places[key])[0]).expanduser()
    return {key: content_digest(place) for key, place in places.items() if place.exists()}
