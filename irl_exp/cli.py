"""irl-exp: the entry point, and the only file that knows Hydra."""

import argparse
import atexit
import difflib
import gc
import importlib
import json
import logging
import math
import os
import pickle
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from irl_exp import full_disk
from irl_exp.config import (
    SCHEMAS,
    STEPS,
    CheckpointModel,
    CheckpointRLHF,
    ClassifierGroundTruth,
    Config,
    ForeignError,
    InputError,
    RewardGroundTruth,
    SolverConfig,
    TrainerConfig,
    WandbTracker,
    before_tuning,
    innermost,
)
from irl_exp.identity import (
    SWEPT,
    axis,
    by_model,
    inputs,
    is_done,
    run_folder,
    run_id,
    sweep_name,
    swept,
)
from irl_exp.sweep import DONE, FAILED, INTERRUPTED, SKIPPED, Progress, note
from irl_exp.tracking import RunInUse, Tracker, Wandb
from irl_exp.unicode import is_unicode, printable
from irl_exp.validation import validate

log = logging.getLogger(__name__)

# In a checkout conf/ stands beside the package, in a wheel inside it.
PACKAGE = Path(__file__).parent
CONF = next(p for p in (PACKAGE / "conf", PACKAGE.parent / "conf") if p.is_dir())

# Keys of a plug-in's options are the user's own: `solver.options.x=1` needs no + to be new.
_OPTION = re.compile(r"(solver|evaluation\.controls\.\w+)\.options[.=]")

# Where torchrun and srun say of how many processes this is one.
LAUNCHED = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")

STOPPED = "irl-exp: interrupted; the same command goes on from here"


def main() -> None:
    """Console script: Hydra's run or multirun, with errors as one clear line."""
    usage = argparse.ArgumentParser.error
    argparse.ArgumentParser.error = _refuse_usage  # type: ignore[assignment, method-assign]
    Sweep.progress = None
    Sweep.composed.clear()
    logging.raiseExceptions = False  # who reads us may have seen enough: that is no error
    unreadable = next((word for word in sys.argv[1:] if not is_unicode(word)), None)
    if unreadable is not None:  # which no file of a run could hold
        sys.exit(f"irl-exp: {unreadable!a}: not UTF-8; expected text, and names of files in it")
    # Shells expand no ~ behind a =. Flags first: Hydra takes no override on both sides of one.
    words = [word.replace("=~/", f"={Path.home()}/") for word in sys.argv[1:]]
    words = [f"++{word}" if _OPTION.match(word) else word for word in words]
    sys.argv[1:] = sorted(words, key=lambda word: "=" in word and not word.startswith("-"))
    try:
        os.getcwd()
    except FileNotFoundError:
        sys.exit("irl-exp: the current folder has been removed; expected one to work in")
    before = signal.signal(signal.SIGTERM, _terminate)
    condensed = os.environ.get("HYDRA_FULL_ERROR") != "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through, so that they can be condensed
    tab = "-sc" in sys.argv and "COMP_LINE" in os.environ  # a shell asks what may come next
    if tab:  # Hydra takes the line apart itself, and knows no quotes
        os.environ["COMP_LINE"] = re.sub("[\"']", "", os.environ["COMP_LINE"])
    try:
        with _beside_others():
            try:
                app()
            finally:
                Sweep.conclude()
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except SystemExit as end:
        # During training Lightning answers Ctrl-C itself, by leaving without a word.
        interrupted = isinstance(end.__context__, KeyboardInterrupt)
        sys.exit(STOPPED if interrupted else end.code)
    except BrokenPipeError:
        # Who reads us has seen enough: leave without a word, also when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not condensed:
            raise
        # No words into a line that is being typed.
        sys.exit(1 if tab else f"irl-exp: {Sweep.failures() or condense(error)}")
    finally:
        argparse.ArgumentParser.error = usage  # type: ignore[method-assign]
        os.environ.pop(SWEPT, None)
        signal.signal(signal.SIGTERM, before)
        if condensed:
            del os.environ["HYDRA_FULL_ERROR"]


class Sweep(Callback):
    """The sweep that this process launched; conf/hydra/ names it, Hydra calls it."""

    progress: Progress | None = None
    # Runs that were composed to see whether they can be, pickled, by what was typed for each.
    composed: ClassVar[dict[tuple[str, ...], bytes]] = {}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        axes = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        words = [*axes, *config.hydra.overrides.task]
        os.environ[SWEPT] = swept(words)
        if config.hydra.launcher._target_.endswith("LocalLauncher"):
            # It starts all runs at once.
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        with suppress(OmegaConfBaseException):  # said again, as an error, when it is needed
            # Other sweepers may come back to a run that they have made.
            basic = config.hydra.sweeper._target_.endswith("BasicSweeper")
            total = count(words) if basic else None
            Sweep.progress = Progress(Path(config.hydra.sweep.dir), total)
            Sweep.progress.start()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """What launchers keep of each run until the last has ended is no more than how it ended."""
        if config.hydra.mode == RunMode.MULTIRUN:
            job_return.cfg = job_return.hydra_cfg = None

    @classmethod
    def conclude(cls) -> None:
        """Say what became of its runs, if it came to any."""
        if cls.progress:
            said = cls.progress.conclude()
            if DONE in cls.progress.ended.values():
                print(f"to compare: irl-report {shlex.quote(str(cls.progress.path.parent))}")
            if cls.progress.ended:
                print(said, flush=True)

    @classmethod
    def failures(cls) -> str:
        """A line for each run of this launch that failed, wherever the launcher ran it; or ""."""
        if cls.progress is None:
            return ""
        runs, failed = cls.progress.path.parent, cls.progress.failed
        lines = [f"\n  {runs / run}: {error}" for run, error in failed.items()]
        count = "1 run failed" if len(lines) == 1 else f"{len(lines)} runs failed"
        head = f"{count}; launched again, the sweep runs what is missing"
        return "".join([head, *lines]) if lines else ""


def count(overrides: list[str]) -> int | None:
    """How many runs these make, of two for one key the last; None if that takes the sweeper."""
    values: dict[str, int] = {}
    try:
        for override in OverridesParser.create().parse_overrides(overrides):
            several = override.is_sweep_override()
            many = len(list(override.sweep_string_iterator())) if several else 1
            values[override.get_key_element()] = many
    except Exception:  # what is wrong with it the sweeper will say
        return None
    return math.prod(values.values())


def _beside_others() -> AbstractContextManager[None]:
    """The group of processes, where torchrun or srun started several. Only the first comes back:
    the others help it, and end with it."""
    if not any(name in os.environ for name in LAUNCHED):
        return nullcontext()
    from irl_exp import processes

    place = processes.launched()
    if place and place.rank > 0:
        processes.serve(place)
        sys.exit()
    return processes.joined(place) if place else nullcontext()


def _refuse_usage(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """One line and exit status 1, as for any other bad input."""
    sys.exit(f"irl-exp: {message}; irl-exp --help shows what there is")


def _terminate(signum: int, frame: object) -> None:
    """SIGTERM unwinds the run, so that its status says how it ended."""
    sys.exit("irl-exp: terminated; the same command goes on from here")


def register() -> None:
    """The schemas, and the resolvers that conf/hydra/ uses."""
    # Hydra announces a failed job on standard error before it raises; main says it, in one line.
    JobReturn.return_value = property(_return_value, JobReturn.return_value.fset)  # type: ignore
    # What it does again and again: copy all schemas, though it hands out copies of them (for
    # --help a hundred times), parse and merge what is the same, compose a sweep's run twice.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    loader: Any = ConfigLoaderImpl
    ConfigRepository.load_config = _once(ConfigRepository.load_config, _part)  # type: ignore
    merge = loader._compose_config_from_defaults_list
    loader._compose_config_from_defaults_list = _once(merge, _parts)
    loader.load_sweep_config = _composed_once(loader.load_sweep_config)
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    # Outside the groups, so that none stands among the options that --help and <Tab> offer.
    for schemas in SCHEMAS.values():
        for name, schema in schemas.items():
            store.store(name=f"{name}_schema", node=schema)
    for resolver in (run_id, sweep_name, run_folder, axis, by_model):
        OmegaConf.register_new_resolver(f"irl_exp.{resolver.__name__}", resolver, replace=True)


def _return_value(job: JobReturn) -> Any:
    if job.status == JobStatus.FAILED:
        raise job._return_value
    return job._return_value


def _once(compute: Callable[..., Any], key: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    """What it gave for this key before; pickled, as Hydra changes what it is given."""
    known: dict[tuple[Any, ...], bytes] = {}

    def method(*words: Any, **named: Any) -> Any:
        what = key(*words, **named)
        if what not in known:
            found = compute(*words, **named)
            if isinstance(found, DictConfig):
                OmegaConf.clear_cache(found)  # what it is ${now:} is not what it will be
            known[what] = pickle.dumps(found)
        return pickle.loads(known[what])

    return method


def _part(repository: Any, config_path: str) -> tuple[Any, ...]:
    """Where a part of the configuration can be, the first place that has it wins, and how old."""
    places = [source.path for source in repository.get_sources()]
    return config_path, *places, *(_state(Path(place, config_path)) for place in places)


def _parts(loader: Any, defaults: list[ResultDefault], repo: Any) -> tuple[Any, ...]:
    """Of what it is made, in this order."""
    return repr(defaults), *(_part(repo, str(default.config_path)) for default in defaults)


def _state(path: Path) -> tuple[int, int] | None:
    """Changes with a file's content."""
    with suppress(OSError):
        found = path.with_name(f"{path.name.removesuffix('.yaml')}.yaml").stat()
        return found.st_mtime_ns, found.st_size
    return None


def _composed_once(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """A sweep's run as the sweeper composed it to see that it can, when the launcher asks."""

    def load_sweep_config(
        loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        words = tuple(sweep_overrides)
        if words in Sweep.composed:
            config: DictConfig = pickle.loads(Sweep.composed.pop(words))
            OmegaConf.copy_cache(from_config=master_config, to_config=config)
        else:
            config = compose(loader, master_config, sweep_overrides)
            Sweep.composed[words] = pickle.dumps(config)
        return config

    return load_sweep_config


register()  # not in main: a launcher's processes know this module and never call main


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def app(config: DictConfig) -> float | None:
    """One run. Returns the objective, for sweepers."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    if settings.mode != RunMode.MULTIRUN:
        return _run_in(folder, config)[0]
    how, why = INTERRUPTED, None
    try:
        objective, how = _run_in(folder, config)
    except Exception as error:
        how, why = FAILED, condense(error)
        log.error("%s: %s", folder.name, why)  # the others go on: say now which failed
        raise
    finally:
        try:
            note(Path(settings.sweep.dir), os.path.relpath(folder, settings.sweep.dir), how, why)
        except OSError as full:  # what happened to the run counts more
            log.error("%s: %s", settings.sweep.dir, full.strerror)
    return objective


def study(words: list[str]) -> Path:
    """One run by these overrides in this process; its directory. Raises InputError.

    For irl_exp.run: what is composed, where it is kept and what is printed are the same.
    """
    several = next((word for word in words if word.startswith(("-", "+sweep="))), None)
    if several:
        raise InputError(f"{several}: expected overrides of one run; `irl-exp` makes sweeps")
    words = [f"++{word}" if _OPTION.match(word) else word for word in words]
    try:
        with initialize_config_dir(str(CONF), job_name="irl-exp", version_base="1.3"):
            job = GlobalHydra.instance().hydra.run("config", app.__wrapped__, words)  # type: ignore
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(condense(error)) from error
    return Path(job.hydra_cfg.hydra.runtime.output_dir)  # type: ignore[union-attr]


def _run_in(folder: Path, config: DictConfig) -> tuple[float | None, str]:
    """The objective, and how the run ended."""
    identity = run_id(_root_=config)
    if is_done(folder, identity, config):
        log.info("%s is done already: skipped", folder)
        return _objective(config, json.loads((folder / "summary.json").read_text())), SKIPPED
    try:
        with Tracker(folder, identity, describe=condense) as tracker, full_disk.named(folder):
            _start(config, tracker)
        with full_disk.named("standard output"):
            _show(folder)
    except RunInUse:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise
        log.info("%s: another process is at it: skipped", folder)
        return None, SKIPPED
    return _objective(config, tracker.summary), DONE


def _start(config: DictConfig, tracker: Tracker) -> None:
    plain: dict[str, Any]
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore
    tracker.start(plain, OmegaConf.to_yaml(config, resolve=True), _overrides())
    tracker.note(inputs=inputs(config))
    typed = OmegaConf.to_object(config)
    assert isinstance(typed, Config)
    _refuse_unknown(plain, asdict(typed))
    validate(typed)
    with _mirror(typed, plain, tracker):
        _run(typed, tracker)
        tracker.finish()
        _write_page(tracker.folder)
        if tracker.mirror:
            recovered = tracker.steps.get("recover")
            store = Path(typed.paths.store)
            tracker.mirror.files(store / "recover" / recovered if recovered else None)


def _mirror(config: Config, plain: dict[str, Any], tracker: Tracker) -> AbstractContextManager:
    """The run at wandb, if that is wanted: beside the others of its sweep, named for what it is."""
    if not isinstance(config.tracker, WandbTracker):
        return nullcontext()
    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    chosen = hydra_config.runtime.choices
    return Wandb(
        config.tracker,
        tracker,
        plain,
        group=Path(hydra_config.sweep.dir).name if in_sweep else config.name,
        job_type=str(chosen.get("experiment") or chosen.get("debug") or "study"),
    )


def _refuse_unknown(found: dict[Any, Any], known: dict[Any, Any], above: str = "") -> None:
    """Hydra's `+key=value` adds to any node, past its schema."""
    for key, value in found.items():
        if key not in known:
            raise InputError(_unknown(f"{above}{key}", known))
        if isinstance(value, dict):
            _refuse_unknown(value, known[key], f"{above}{key}.")


def _run(config: Config, tracker: Tracker) -> None:
    """Import what is heavy only now, so that --help and bad options answer at once."""
    _import_study()
    from irl_exp import experiment, processes
    from irl_exp.steps.bench import Bench
    from irl_exp.store import Store

    processes.require(config.trainer.processes, _shares_its_process())
    require_device(config.trainer)
    require_sources(config)
    require_solvers(config)
    store = Store(Path(config.paths.store))
    tracker.note(store=str(store.root))
    with store.in_use(), processes.helped(config.trainer.processes):
        processes.everywhere(reset_process_state, config)
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


def _import_study() -> None:
    """What takes seconds to import stays until the end. So the collector of garbage need not look
    through it: not meanwhile, a fifth of the time, nor later, a third of a second at each go."""
    if "irl_exp.experiment" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        importlib.import_module("irl_exp.experiment")
        gc.freeze()
        # What then is left at the end of the process triton, of torch for CUDA, calls leaks, aloud.
        if "triton" in sys.modules:
            atexit.register(gc.unfreeze)
    finally:
        gc.enable()


def require_sources(config: Config) -> None:
    """Refuse a model or classifier that is not there before hours are spent on what precedes it."""
    from irl_exp import hub

    named = CheckpointModel | CheckpointRLHF | ClassifierGroundTruth | RewardGroundTruth
    against_base = getattr(config.demonstrations, "against", None) == "base"
    rlhf = config.rlhf
    given = rlhf if isinstance(rlhf, CheckpointRLHF) and rlhf.path else None
    for step, key, group in (
        ("pretrain", "model.path", config.model),
        ("demonstrate", "model.base", before_tuning(config.model) if against_base else None),
        ("ground_truth", "ground_truth.path", innermost(config.ground_truth)),
        ("align", "rlhf.path", given),
        ("align", "evaluation.second_classifier", config.evaluation.second),
    ):
        wanted = config.until is None or STEPS.index(config.until) >= STEPS.index(step)
        if wanted and isinstance(group, named):
            try:
                hub.resolve(str(group.path), group.revision, "model")
            except InputError as error:
                raise InputError(f"{key}={error}") from error


def require_solvers(config: Config) -> None:
    """Refuse a solver that is not there, or a file of the user's that can't be run, likewise."""
    from irl_exp import solvers

    if config.until is None or STEPS.index(config.until) >= STEPS.index("recover"):
        wanted: dict[str, SolverConfig] = {"solver": config.solver}
        wanted |= {f"evaluation.controls.{n}": c for n, c in config.evaluation.controls.items()}
        for where, solver in wanted.items():
            solvers.require(solver, where)


def _shares_its_process() -> bool:
    """Whether this is a run of a multirun that Hydra makes where it was typed."""
    settings = HydraConfig.get()
    basic = settings.launcher._target_.endswith("BasicLauncher")
    return settings.mode == RunMode.MULTIRUN and basic


def require_device(trainer: TrainerConfig) -> None:
    """Raises InputError where the device that is asked for is missing."""
    import torch

    from irl_exp import processes

    accelerator = trainer.accelerator
    there = {"cpu": True, "mps": torch.backends.mps.is_available()}
    if not there.get(accelerator, torch.cuda.is_available()):
        raise InputError(f"trainer.accelerator={accelerator}: there is none here; expected cpu")
    devices = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and processes.size() == 1 and devices < trainer.processes:
        raise InputError(
            f"trainer.processes={trainer.processes}: there are {devices} CUDA devices here; "
            "expected one for each process"
        )


def reset_process_state(config: Config) -> None:
    """Jobs of one multirun share a process: what one set must not reach the next."""
    import torch
    from pytorch_lightning import seed_everything
    from transformers.utils import logging as transformers_logging

    from irl_exp import memory, processes

    memory.keep_freed()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its font cache
    warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning")
    # What torch 2.9 says of the call below; its new settings are not in every release.
    warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision(config.trainer.matmul_precision)
    cores = len(os.sched_getaffinity(0)) // processes.local_size()
    asked = os.environ.get("OMP_NUM_THREADS", "")  # as everything that computes takes it
    torch.set_num_threads(
        config.trainer.threads or (int(asked) if asked.isdecimal() else 0) or max(1, cores)
    )
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    if config.deterministic:  # else matrix products on CUDA differ from run to run
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Filling new memory with NaN guards against reading it unset; here it only costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Library code draws from generators of its own; this is for what libraries draw unasked.
    seed_everything(config.seed, verbose=False)
    # Else Lightning would set it again at the start of each training by several processes.
    del os.environ["PL_GLOBAL_SEED"]


def _write_page(folder: Path) -> None:
    from irl_exp.report import page

    page.write(folder)


def _show(folder: Path) -> None:
    from irl_exp.report import page

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


# --- errors -------------------------------------------------------------------------------------

_UNSET = re.compile(r"Environment variable '(\w+)' not found")
_SEVERAL = re.compile(r"Ambiguous value for argument '(.*?)' 1\.|Sweep parameters '(.*?)' requires")
_NODE = re.compile(r"str is not a subclass of (\w+Config)\. value: (\S+)")
_RESOLVER = re.compile(r"InputError raised while resolving interpolation: (.*)")
_PART = re.compile(r"In '(.+)/(.+?)': ConfigKeyError .* Key '.+' not in .* full_key: (\S+)")
_OVERLAY = re.compile(r"Could not override '(\w+)'\. No match in the defaults list")


def condense(error: BaseException) -> str:
    """One line that says what, where, and what was expected."""
    return printable(" ".join(_said(error).split()))


def _said(error: BaseException) -> str:
    cause = error
    while cause.__cause__ and not isinstance(cause, InputError | ForeignError):
        cause = cause.__cause__  # Hydra wraps what OmegaConf says
    line = " ".join(str(cause).split())
    match cause:
        case InputError():
            return line
        case ForeignError():
            return f"{line} (traceback.txt in the run's directory shows how it got there)"
        case MissingConfigException(missing_cfg_file=str(name), options=list(options)):
            group, _, choice = name.rpartition("/")
            return f"{group}={choice}: expected one of {', '.join(options)}"
        case OverrideParseException():
            return f"{cause.override}: not an override; expected KEY=VALUE, quoted for your shell"
        case MissingConfigException():
            return line.split(" Check that")[0]
        case HydraException() if several := _SEVERAL.search(line):
            typed = several[1] or several[2]
            return f"{typed}: several values; expected -m beside it, or [...] around a list"
        case HydraException() if overlay := _OVERLAY.search(line):
            return f"{overlay[1]}: not a group of the default run; expected +{overlay[1]}=..."
        case HydraException() if part := _PART.search(line):
            group = part[3].split(".")[0]
            said = f"sets {part[3]}, and {group} as chosen beside it has no such key"
            return f"{part[1]}={part[2]}: {said}; expected another {group}, or neither"
        case HydraException():
            return line
        case ConfigAttributeError() | ConfigKeyError():
            return _unknown(cause.full_key or str(cause.key), cause.parent_node or ())
        case MissingMandatoryValue():
            return f"{cause.full_key}: a value is required"
        case OmegaConfBaseException(full_key=str(key)) if unset := _UNSET.search(line):
            return f"{key}: the environment variable {unset[1]} is not set"
        case OmegaConfBaseException() if mine := _RESOLVER.search(str(cause).splitlines()[0]):
            return mine[1]
        case OmegaConfBaseException(full_key=str(key)) if node := _NODE.search(line):
            group = node[1].lower().removesuffix("config")  # SolverConfig: the group solver
            return f"{key}: an option of {group}; expected {group}@{key}={node[2]}"
        case OmegaConfBaseException(full_key=str(key)) if "does not support deletion" in line:
            return f"{key}: cannot be left out; expected a value, or null where that has a meaning"
        case OmegaConfBaseException(full_key=str(key)) if "is not a ListConfig" in line:
            return f"{key}: expected a list, as '{key}=[first,second]'"
        case OmegaConfBaseException(full_key=str(key)):
            return f"{key}: {str(cause).splitlines()[0]}"
        case FileExistsError(filename=str(path)) | NotADirectoryError(filename=str(path)):
            return f"{path}: no folder; expected one, or a name that is free"
        case OSError(filename=str(path), strerror=str(reason)):
            return f"{path}: {reason}"
    return f"{type(cause).__name__}: {line} (HYDRA_FULL_ERROR=1 shows where)"


def _unknown(key: str, known: Iterable[Any]) -> str:
    names = [str(name) for name in known if name != "hydra"]
    close = difflib.get_close_matches(key.split(".")[-1], names, n=1)
    hint = f"did you mean {close[0]}? There are" if close else "expected one of"
    return f"{key}: no such key; {hint} {', '.join(names)}"


if __name__ == "__main__":
    main()
