"""One run directory as its readers see it: its files, and its numbers as text."""

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pyarrow import Table, parquet

# What a summary holds where a number has no meaning.
NOT_APPLICABLE = "not applicable"
# The page of a run, in its directory; and that of a report, in its folder.
REPORT_FILE = "report.md"


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory. A run may have ended at any step: what it did not write is empty here. What
    no report on many runs asks for is read when it is asked for, and tables that it asks for are
    left as they lie in their files: making pandas' own of them takes longer than reading them."""

    folder: Path
    config: dict[str, Any]
    overrides: list[str]
    manifest: dict[str, Any]
    status: dict[str, Any]
    summary: dict[str, float | str]
    curves: list[dict[str, Any]]
    panel: Table | None
    attribution: Table | None

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Raises FileNotFoundError for a folder that no run wrote to, ValueError for a file that
        holds something else than a run writes."""
        if not (folder / "status.json").is_file():
            raise FileNotFoundError(f"{folder}: no status.json; expected the directory of a run")
        return cls(
            folder=folder,
            config=_mapping(folder / "config.yaml", _yaml(folder / "config.yaml") or {}),
            overrides=_yaml(folder / "overrides.yaml") or [],
            manifest=_json(folder / "manifest.json"),
            status=_json(folder / "status.json"),
            summary=_json(folder / "summary.json"),
            curves=_json_lines(folder / "metrics.jsonl"),
            panel=_parquet(folder / "panel.parquet"),
            attribution=_parquet(folder / "attribution.parquet"),
        )

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        return _json_lines(self.folder / "samples.jsonl")

    @cached_property
    def identified(self) -> pd.DataFrame | None:
        return self.frame("identified.parquet")

    @cached_property
    def findings(self) -> pd.DataFrame | None:
        return self.frame("findings.parquet")

    def frame(self, name: str) -> pd.DataFrame | None:
        """A table of the run's own, if it wrote one."""
        table = _parquet(self.folder / name)
        return None if table is None else table.to_pandas()

    def curve(self, step: str, name: str) -> tuple[list[int], list[float]]:
        """(global steps, values) of one logged name of one step; both empty if there is none."""
        records = [r for r in self.curves if r["step"] == step and name in r]
        return [r["global_step"] for r in records], [r[name] for r in records]

    @property
    def controls(self) -> list[str]:
        """The controls that the summary knows, in its order."""
        names = (name.split("/") for name in self.summary if name.startswith("control/"))
        return list(dict.fromkeys(parts[1] for parts in names))

    # --- numbers as text ----------------------------------------------------------------------

    def text(self, name: str, interval: bool = True) -> str:
        """`0.953 [0.941, 0.964]`, without brackets where there is no interval; "" if missing."""
        if name not in self.summary:
            return ""
        value = self.summary[name]
        return number(value) + (self.interval(name, value) if interval else "")

    def interval(self, name: str, value: float | str) -> str:
        """` [low, high]` of a number of the summary, if `value` is that number; else ""."""
        known, low, high = (self.summary.get(name + end) for end in ("", "_low", "_high"))
        if isinstance(value, str) or not isinstance(known, float) or low is None or high is None:
            return ""
        same = math.isclose(value, known, abs_tol=1e-6)
        return f" [{number(low)}, {number(high)}]" if same else ""

    def fill(self, sentence: str) -> str:
        """The sentence with each {name} as `text(name)`; "" if one is missing or has no meaning."""
        names = re.findall(r"{(.+?)}", sentence)
        if any(self.summary.get(name, NOT_APPLICABLE) == NOT_APPLICABLE for name in names):
            return ""
        return re.sub(r"{(.+?)}", lambda match: self.text(match[1]), sentence)

    @property
    def brackets(self) -> str:
        """What the brackets around numbers mean."""
        level = self.config.get("evaluation", {}).get("level")
        share = f"{level:.0%} " if level else ""
        return f"Brackets: {share}bootstrap intervals over prompts."


def number(value: float | str) -> str:
    """At most three significant digits and three decimals; texts and counts as they are."""
    if isinstance(value, str | int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if value == 0 or abs(value) >= 99.95:
        return f"{value:.0f}"
    text = f"{value:#.3g}" if abs(value) >= 0.9995 else f"{value:.3f}"
    return text if float(text) else text.removeprefix("-")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file is said with its name."""
    try:
        yield
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with _naming(path):
        found = json.loads(path.read_text(encoding="utf-8"))
    return _mapping(path, found)


def _mapping(path: Path, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{path.name}: expected names with values")
    return found


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """A last line without its end was being written when the run was killed: it is left out."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines, _naming(path):
        return [json.loads(line) for line in lines if line.endswith("\n")]


def _parquet(path: Path) -> Table | None:
    """In this thread: for files of some kilobytes, others cost more than they save."""
    if not path.is_file():
        return None
    with _naming(path):
        return parquet.ParquetFile(path, pre_buffer=False).read(use_threads=False)


def _yaml(path: Path) -> Any:
    """Key by key where it is a mapping, and each with its values once for all files: a sweep has a
    thousand of them, which differ in a few places. Treat what it returns as read-only."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    try:
        parts = [_parsed(part) for part in re.split(r"^(?=\w)", text, flags=re.MULTILINE) if part]
    except yaml.YAMLError:  # what holds over several keys, or an error: to be seen as a whole
        parts = []
    if parts and all(isinstance(part, dict) for part in parts):
        return {key: value for part in parts for key, value in part.items()}
    with _naming(path):
        return _parsed(text)


@cache
def _parsed(text: str) -> Any:
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
