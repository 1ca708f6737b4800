"""irl-exp: the entry point, and the only file that knows Hydra."""

import hashlib
import json
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from irl_exp.config import SCHEMAS, Config, InputError, validate
from irl_exp.tracking import Tracker, read_status

log = logging.getLogger(__name__)

# In a checkout conf/ stands beside the package, in a wheel inside it.
PACKAGE = Path(__file__).parent
CONF = next(p for p in (PACKAGE / "conf", PACKAGE.parent / "conf") if p.is_dir())
# What does not decide a run's results, and so is no part of its identity.
NOT_IDENTITY = ("hydra", "paths", "tracker", "name", "tags", "extra_tags", "rerun", "objective")


def main() -> None:
    """Console script: Hydra's run or multirun, with errors as one clear line."""
    register()
    before = signal.signal(signal.SIGTERM, _terminate)
    condensed = os.environ.get("HYDRA_FULL_ERROR") != "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through, so that they can be condensed
    try:
        app()
    except KeyboardInterrupt:
        sys.exit("irl-exp: interrupted")
    except SystemExit as end:
        # During training Lightning answers Ctrl-C itself, by leaving without a word.
        interrupted = isinstance(end.__context__, KeyboardInterrupt)
        sys.exit("irl-exp: interrupted" if interrupted else end.code)
    except BrokenPipeError:
        # Who reads us has seen enough: leave without a word, also when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not condensed:
            raise
        sys.exit(f"irl-exp: {condense(error)}")
    finally:
        signal.signal(signal.SIGTERM, before)
        if condensed:
            del os.environ["HYDRA_FULL_ERROR"]


def _terminate(signum: int, frame: object) -> None:
    """SIGTERM unwinds the run, so that its status says how it ended."""
    sys.exit("irl-exp: terminated")


def register() -> None:
    """The schemas, and the resolvers that conf/hydra/ uses."""
    # Hydra announces a failed job on standard error before it raises; main says it, in one line.
    JobReturn.return_value = property(_return_value, JobReturn.return_value.fset)  # type: ignore
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    # Outside the groups, so that none stands among the options that --help and <Tab> offer.
    for schemas in SCHEMAS.values():
        for name, schema in schemas.items():
            store.store(name=f"{name}_schema", node=schema)
    for name, resolver in (
        ("run_id", run_id),
        ("sweep_name", sweep_name),
        ("run_label", run_label),
    ):
        OmegaConf.register_new_resolver(f"irl_exp.{name}", resolver, replace=True)


def _return_value(job: JobReturn) -> Any:
    if job.status == JobStatus.FAILED:
        raise job._return_value
    return job._return_value


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def app(config: DictConfig) -> float | None:
    """One run. Returns the objective, for sweepers."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    identity = run_id(_root_=config)
    status = read_status(folder)
    if status.get("status") == "done" and status.get("run_id") == identity and not config.rerun:
        log.info("%s is done already: skipped", folder)
        return _objective(config, json.loads((folder / "summary.json").read_text()))
    try:
        with Tracker(folder, identity) as tracker:
            _start(config, tracker)
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # the others go on: say now which failed
            log.error("%s: %s", folder.name, condense(error))
        raise
    _show(folder)
    return _objective(config, tracker.summary)


def _start(config: DictConfig, tracker: Tracker) -> None:
    plain: dict[str, Any]
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore
    tracker.start(plain, OmegaConf.to_yaml(config, resolve=True), _overrides())
    typed = OmegaConf.to_object(config)
    assert isinstance(typed, Config)
    _refuse_unknown(plain, asdict(typed))
    validate(typed)
    _run(typed, tracker)


def _refuse_unknown(found: dict[Any, Any], known: dict[Any, Any], above: str = "") -> None:
    """Hydra's `+key=value` adds to any node, past its schema."""
    for key, value in found.items():
        if key not in known:
            raise InputError(_unknown(f"{above}{key}", known))
        if isinstance(value, dict):
            _refuse_unknown(value, known[key], f"{above}{key}.")


def _run(config: Config, tracker: Tracker) -> None:
    """Import what is heavy only now, so that --help and bad options answer at once."""
    from irl_exp import experiment
    from irl_exp.steps.bench import Bench
    from irl_exp.store import Store

    reset_process_state(config)
    store = Store(Path(config.paths.store))
    with store.in_use():
        store.register(tracker.folder)
        experiment.run(Bench(config, store, tracker))
    tracker.summarize(
        {
            "store/hits": store.hits,
            "store/misses": store.misses,
            "time/total_seconds": sum(
                float(value) for name, value in tracker.summary.items() if name.startswith("time/")
            ),
        }
    )


def reset_process_state(config: Config) -> None:
    """Jobs of one multirun share a process: what one set must not reach the next."""
    import torch
    from pytorch_lightning import seed_everything
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning")
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision(config.trainer.matmul_precision)
    torch.set_num_threads(config.trainer.threads or len(os.sched_getaffinity(0)))
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    # Filling new memory with NaN guards against reading it unset; here it only costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Library code draws from generators of its own; this is for what libraries draw unasked.
    seed_everything(config.seed, verbose=False)


def _show(folder: Path) -> None:
    from irl_exp.report import page

    page.write(folder)
    page.show(folder)


def _objective(config: DictConfig, summary: dict[str, Any]) -> float | None:
    """The number a sweeper optimizes; None where `until` ended the run before it."""
    value = summary.get(config.objective)
    if value is None and config.until is None:
        known = ", ".join(sorted(name for name in summary if name.startswith("validation/")))
        raise InputError(f"objective={config.objective}: expected one of {known}")
    return None if value is None else float(value)


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task)


# --- resolvers: the names of run directories ----------------------------------------------------


def run_id(*, _root_: DictConfig) -> str:
    """Eight hex digits of the resolved study config: equal for equal studies, wherever they run."""
    study = OmegaConf.create(
        {key: _root_._get_node(key) for key in _root_ if key not in NOT_IDENTITY},
    )
    plain = OmegaConf.to_container(study, resolve=True)
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def sweep_name(*, _root_: DictConfig) -> str:
    """`name`, or the +sweep choice, or adhoc."""
    if _root_.get("name"):
        return str(_root_.name)
    return str(_root_.hydra.runtime.choices.get("sweep") or "adhoc")


def run_label(*, _root_: DictConfig) -> str:
    """What was varied, short enough for a folder name: seed=3 model.layers=2 -> seed-3_layers-2."""
    words = []
    for override in _root_.hydra.overrides.task:
        key, _, value = str(override).lstrip("+~").partition("=")
        if key.split(".")[0] not in (*NOT_IDENTITY, "sweep"):
            words.append(re.sub(r"[^\w.-]+", "-", f"{key.split('.')[-1]}-{value}"))
    return "_".join(words)[-60:].lstrip("-_.") or "default"


# --- errors -------------------------------------------------------------------------------------

_UNSET = re.compile(r"Environment variable '(\w+)' not found")


def condense(error: BaseException) -> str:
    """One line that says what, where, and what was expected."""
    cause = error
    while cause.__cause__ and not isinstance(cause, InputError):  # Hydra wraps what OmegaConf says
        cause = cause.__cause__
    line = " ".join(str(cause).split())
    match cause:
        case InputError():
            return line
        case MissingConfigException(missing_cfg_file=str(name), options=list(options)):
            group, _, choice = name.rpartition("/")
            return f"{group}={choice}: expected one of {', '.join(options)}"
        case OverrideParseException():
            return f"{cause.override}: not an override; expected KEY=VALUE, quoted for your shell"
        case HydraException():
            return line
        case ConfigAttributeError() | ConfigKeyError():
            return _unknown(cause.full_key or str(cause.key), cause.parent_node or ())
        case MissingMandatoryValue():
            return f"{cause.full_key}: a value is required"
        case OmegaConfBaseException(full_key=str(key)) if unset := _UNSET.search(line):
            return f"{key}: the environment variable {unset[1]} is not set"
        case OmegaConfBaseException(full_key=str(key)):
            return f"{key}: {str(cause).splitlines()[0]}"
    return f"{type(cause).__name__}: {line} (HYDRA_FULL_ERROR=1 shows where)"


def _unknown(key: str, known: Iterable[Any]) -> str:
    names = ", ".join(str(name) for name in known if name != "hydra")
    return f"{key}: no such key; expected one of {names}"


if __name__ == "__main__":
    main()
