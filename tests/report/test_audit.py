"""What an audit's report says first: whether there is anything to recover."""

from dataclasses import replace
from pathlib import Path

import pytest

from irl_exp.report import audit
from irl_exp.report.run import Run


def audited(folder: Path, share: float, low: float, high: float, length: float = 0.5) -> Run:
    name = "audit/preference_accuracy"
    numbers = {name: share, f"{name}_low": low, f"{name}_high": high}
    return replace(blank(folder), summary={**numbers, "control/length/preference_accuracy": length})


def blank(folder: Path) -> Run:
    (folder / "status.json").write_text('{"status": "done", "run_id": "0"}')
    (folder / "summary.json").write_text("{}")
    (folder / "manifest.json").write_text("{}")
    (folder / "config.yaml").write_text("{}")
    return Run.read(folder)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0.8, 0.7, 0.9), "**They differ.**"),
        ((0.8, 0.7, 0.9, 0.79), "**They differ, and length alone tells them apart as well.**"),
        ((0.52, 0.45, 0.6), "**No difference was found.**"),
        ((0.1, 0.04, 0.17), "**R̂ is turned around on held-out pairs.**"),
    ],
)
def test_the_first_answer(tmp_path: Path, numbers: tuple[float, ...], said: str) -> None:
    assert audit.in_short(audited(tmp_path, *numbers))[0].startswith(said)
