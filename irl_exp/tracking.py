"""The run directory: what a run was, how it went, and what came out of it.

Complete without any tracking service; a service only mirrors it. Files that are rewritten are
replaced atomically, so that a reader never sees half of one.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

LIBRARIES = ("irl-exp", "torch", "pytorch-lightning", "transformers", "trl", "hydra-core", "numpy")
# What a summary says where a number has no meaning.
NOT_APPLICABLE = "not applicable"

Value = float | int | str


class Tracker:
    """One run directory; `with Tracker(...)` turns its status to done, failed or interrupted."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder = folder
        self.run_id = run_id
        self.summary: dict[str, Value] = {}
        self.warnings: list[str] = []
        self.steps: dict[str, str] = {}
        self.started = time.time()

    # --- life of a run ------------------------------------------------------------------------

    def start(self, config: Mapping[str, Any], config_yaml: str, overrides: list[str]) -> None:
        """Write what was asked for; what an earlier, unfinished attempt left here is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.jsonl", "samples.jsonl", "summary.json"):
            (self.folder / name).unlink(missing_ok=True)
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
        self._write_status("running")

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._write_status("done")
        elif isinstance(error, KeyboardInterrupt | SystemExit):  # Ctrl-C, or SIGTERM
            self._write_status("interrupted")
        else:
            self._write_status("failed", error=f"{type(error).__name__}: {error}")

    def warn(self, text: str) -> None:
        """Something a reader of the results must know; shown in the table and the report."""
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
        self._append("metrics.jsonl", ({"step": step, **record} for record in records))

    def sample(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append prompts with completions and what was thought of them."""
        self._append("samples.jsonl", records)

    def summarize(self, numbers: Mapping[str, Value]) -> None:
        """Add to the summary: flat name -> number, or NOT_APPLICABLE."""
        self.summary.update(numbers)
        ordered = dict(sorted(self.summary.items()))
        _replace(self.folder / "summary.json", json.dumps(ordered, indent=2) + "\n")

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
            facts["error"] = error
        facts |= {"warnings": self.warnings, "seconds": round(time.time() - self.started, 1)}
        _replace(self.folder / "status.json", json.dumps(facts, indent=2) + "\n")


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
