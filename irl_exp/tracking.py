"""The run directory: what a run was, how it went, and what came out of it.

Complete without any tracking service; wandb only mirrors it. Files that are rewritten are
replaced atomically, so that a reader never sees half of one.
"""

import contextlib
import fcntl
import json
import logging
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from irl_exp import full_disk
from irl_exp.config import InputError, WandbTracker

log = logging.getLogger(__name__)

LIBRARIES = ("irl-exp", "torch", "pytorch-lightning", "transformers", "trl", "hydra-core", "numpy")
# What Hydra has begun before the run; conf/hydra/ names it.
LOG_FILE = "irl-exp.log"
# What a summary says where a number has no meaning.
NOT_APPLICABLE = "not applicable"

Value = float | int | str


class RunInUse(InputError):
    """Another process runs in this run directory."""


class Tracker:
    """One run directory; `with Tracker(...)` turns its status to done, failed or interrupted."""

    def __init__(
        self, folder: Path, run_id: str, describe: Callable[[BaseException], str] = str
    ) -> None:
        self.folder = folder
        self.run_id = run_id
        self.describe = describe
        self.summary: dict[str, Value] = {}
        self.warnings: list[str] = []
        self.steps: dict[str, str] = {}
        self.mirror: Wandb | None = None
        self.started = time.monotonic()

    # --- life of a run ------------------------------------------------------------------------

    def start(self, config: Mapping[str, Any], config_yaml: str, overrides: list[str]) -> None:
        """Write what was asked for; what an earlier, unfinished attempt left here is replaced."""
        for name in ("metrics.jsonl", "samples.jsonl", "summary.json", "traceback.txt"):
            (self.folder / name).unlink(missing_ok=True)
        self._write_status("running")  # first: it makes the folder a run's
        (self.folder / "config.yaml").write_text(config_yaml)
        (self.folder / "overrides.yaml").write_text(
            "".join(f"- {json.dumps(override)}\n" for override in overrides)
        )
        self.facts = {
            "run_id": self.run_id,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seeds": config["seeds"],
            "git": git_state(),
            "versions": {"python": platform.python_version()} | {n: version(n) for n in LIBRARIES},
        }
        self._write_manifest()

    def __enter__(self) -> "Tracker":
        """Raises `RunInUse` where another process is at it; that lasts until it ends or dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._refuse_strangers()  # before anything is written there
        self.lock = (self.folder / ".lock").open("a")
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # what "locked" is called varies
            self.lock.close()
            said = "another process runs in it; expected a directory of its own"
            raise RunInUse(f"{self.folder}: {said}") from error
        try:
            self._refuse_strangers()
        except InputError:
            self.lock.close()
            raise
        return self

    def _refuse_strangers(self) -> None:
        """A finished run is not written over by another study, nor what is no run's at all."""
        status = read_status(self.folder)
        there = {path.name for path in self.folder.iterdir()} - {".lock", ".status.json", LOG_FILE}
        if status.get("status") == "done" and status["run_id"] != self.run_id:
            what = f"holds the finished run {status['run_id']}"
        elif there and not status:
            what = f"holds {min(there)}, which is no run's"
        else:
            return
        raise InputError(f"{self.folder}: {what}; expected a new or an empty folder")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self.lock:
            try:
                with full_disk.named(self.folder):
                    self._conclude(error)
            except (InputError, OSError) as unwritten:
                if error is None:
                    raise
                log.warning("how it ended could not be noted: %s", unwritten)

    def _conclude(self, error: BaseException | None) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt | SystemExit):  # Ctrl-C, or SIGTERM
            self._write_status("interrupted")
        else:
            self._write_status("failed", error=self.describe(error))
            if not isinstance(error, InputError):
                where = "".join(traceback.format_exception(error))
                (self.folder / "traceback.txt").write_text(where, encoding="utf-8")

    def finish(self) -> None:
        """All numbers are there."""
        self._write_status("done")

    def warn(self, text: str) -> None:
        """Something a reader of the results must know: said at once, and in table and report."""
        log.warning("warning: %s", text)
        self.warnings.append(text)
        self._write_status("running")

    # --- what a run says ----------------------------------------------------------------------

    def used(self, label: str, fingerprint: str) -> None:
        """Note which artifact the step called `label` gave."""
        self.steps[label] = fingerprint
        self._write_manifest()

    def note(self, **facts: Any) -> None:
        """Add to the manifest."""
        self.facts.update(facts)
        self._write_manifest()

    def log(self, step: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Append curves: {step, global_step, name: value, ...} a line."""
        records = list(records)
        self._append("metrics.jsonl", ({"step": step, **record} for record in records))
        if self.mirror:
            self.mirror.log(step, records)

    def sample(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append prompts with completions and what was thought of them."""
        self._append("samples.jsonl", records)

    def summarize(self, numbers: Mapping[str, Value]) -> None:
        """Add to the summary: flat name -> number, or NOT_APPLICABLE."""
        self.summary.update(numbers)
        ordered = dict(sorted(self.summary.items()))
        _replace(self.folder / "summary.json", json.dumps(ordered, indent=2) + "\n")
        if self.mirror:
            self.mirror.summarize(numbers)

    # --- files --------------------------------------------------------------------------------

    def _append(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        with (self.folder / name).open("a") as lines:
            lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def _write_manifest(self) -> None:
        text = json.dumps({**self.facts, "steps": self.steps}, indent=2)
        _replace(self.folder / "manifest.json", text + "\n")

    def _write_status(self, status: str, error: str | None = None) -> None:
        facts: dict[str, Any] = {"status": status, "run_id": self.run_id}
        if error:
            # What names a file can have bytes in it that no text has.
            facts["error"] = error.encode(errors="backslashreplace").decode()
        facts |= {"warnings": self.warnings, "seconds": round(time.monotonic() - self.started, 1)}
        _replace(self.folder / "status.json", json.dumps(facts, indent=2) + "\n")


class Wandb:
    """One run at wandb, open from `with` to its end, whatever that is.

    Nothing that goes wrong there can fail the run: it costs a warning, and what was still to be
    mirrored. Runs of a sweep follow each other in one process, so every run is begun apart from
    those before it (`create_new`), and ended here with the exit code it deserves.
    """

    def __init__(
        self,
        config: WandbTracker,
        tracker: Tracker,
        plain: Mapping[str, Any],
        group: str | None,
        job_type: str,
    ) -> None:
        self.config, self.tracker = config, tracker
        self.plain, self.group, self.job_type = plain, group, job_type
        self.run: Any = None
        self.curves: set[str] = set()

    def __enter__(self) -> "Wandb":
        with self._forgiven():
            # wandb reads these as it begins; else it would wait at the end for as long as it takes.
            os.environ.setdefault("WANDB_FINISH_TIMEOUT", "600")
            os.environ.setdefault("WANDB_FINISH_TIMEOUT_RAISES", "true")
            import wandb

            if self.config.mode == "online":
                log.info("wandb: connecting")
            self.run = wandb.init(
                project=self.config.project,
                entity=self.config.entity,
                mode=self.config.mode,  # type: ignore[arg-type]
                name=self.tracker.folder.name,
                group=self.group,
                job_type=self.job_type,
                tags=[*self.plain["tags"], *self.plain["extra_tags"]],
                config={**self.plain, "run_id": self.tracker.run_id},
                dir=self.tracker.folder,
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", save_code=False),
            )
            online = self.config.mode == "online"
            folder = Path(self.run.dir).parent
            where = self.run.url if online else f"offline; to upload: wandb sync {folder}"
            log.info("wandb: %s", where)
            self.tracker.note(wandb={"id": self.run.id, "url": self.run.url if online else None})
            self.tracker.mirror = self
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # wandb's own __exit__ would print a traceback.
        with self._forgiven():
            if self.run is not None:
                if self.config.mode == "online":
                    log.info("wandb: uploading the rest")
                self.run.finish(exit_code=0 if kind is None else 1)
        self.tracker.mirror = None

    def log(self, step: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Curves as `STEP/NAME` over `STEP/global_step`."""
        with self._forgiven():
            for record in records:
                if step not in self.curves:
                    self.curves.add(step)
                    self.run.define_metric(f"{step}/global_step", hidden=True, summary="none")
                    self.run.define_metric(
                        f"{step}/*", step_metric=f"{step}/global_step", summary="none"
                    )
                self.run.log({f"{step}/{name}": value for name, value in record.items()})

    def summarize(self, numbers: Mapping[str, Value]) -> None:
        with self._forgiven():
            self.run.summary.update(dict(numbers))

    def files(self, reward: Path | None) -> None:
        """What a finished run directory shows: samples as a table, figures; `reward` if asked."""
        with self._forgiven():
            import wandb

            folder = self.tracker.folder
            shown: dict[str, Any] = {
                f"figures/{path.stem}": wandb.Image(str(path))
                for path in sorted((folder / "figures").glob("*.png"))
            }
            if (folder / "samples.jsonl").is_file():
                lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
                records = [json.loads(line) for line in lines]
                columns = list(dict.fromkeys(name for record in records for name in record))
                rows = [[record.get(name) for name in columns] for record in records]
                shown["samples"] = wandb.Table(columns=[*columns], data=[*rows])
            if shown:
                self.run.log(shown)
            if self.config.log_rewards and reward is not None:
                artifact = wandb.Artifact(f"recovered-reward-{self.tracker.run_id}", type="reward")
                artifact.add_dir(str(reward))
                self.run.log_artifact(artifact)

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.tracker.mirror = None
            reason = " ".join(str(error).split()) or type(error).__name__
            rest = f"; to upload it: wandb sync {Path(self.run.dir).parent}" if self.run else ""
            self.tracker.warn(f"wandb has this run in part or not at all: {reason}{rest}")


def read_status(folder: Path) -> dict[str, Any]:
    """status.json of a run directory; empty if there is none."""
    path = folder / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def git_state() -> dict[str, Any]:
    """Commit and whether the checkout differs from it; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    os.replace(temporary, path)
