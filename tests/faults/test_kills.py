"""A study or a sweep killed at any moment, or at any change to a file, ends as if it had not been.

IRL_EXP_KILLS=50 kills each of the two as often, and IRL_EXP_DEFAULT_STUDY=1 the study without
arguments five times (docs/reliability.md); without them a few times.
"""

import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.conftest import SMALL_STUDY

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("IRL_EXP_KILLS", "3"))
KILLED = 128 + 9
RUN = (*SMALL_STUDY, "hydra.run.dir=run")
SWEEP = (*SMALL_STUDY, "-m", "solver=hinge,svm", "until=evaluate")


def launch(folder: Path, words: tuple[str, ...], fault: str) -> int:
    """The exit status of the command, typed in ``folder``, with that fault (see inject.py)."""
    line = [warm.command("irl-exp"), *words, f"paths.store={folder}/store"]
    environment = {**os.environ, "IRL_EXP_FAULT": fault}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True).returncode


def artifacts(folder: Path) -> dict[str, dict[str, str]]:
    """step/fingerprint -> file -> SHA-256 of what is on disk, which must be what was published."""
    found = {}
    for manifest in folder.glob("store/[!.]*/[!.]*/manifest.json"):
        said = json.loads(manifest.read_text())["files"]
        for name, digest in said.items():
            data = (manifest.parent / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest, (manifest, name)
        found[f"{manifest.parent.parent.name}/{manifest.parent.name}"] = said
    # A folder without a dot before its name is an artifact: whole, or not there.
    assert len(found) == len(list(folder.glob("store/[!.]*/[!.]*")))
    return found


def results(folder: Path) -> dict[str, Any]:
    """run directory -> its numbers and curves. What was found, and how long it took, is chance."""
    found = {}
    for path in folder.rglob("config.yaml"):
        path = path.with_name("summary.json")
        summary = json.loads(path.read_text())
        numbers = {k: v for k, v in summary.items() if not k.startswith(("time/", "store/"))}
        curves = (path.parent / "metrics.jsonl").read_text()
        found[str(path.parent.relative_to(folder))] = (numbers, curves)
    return found


def leavings(folder: Path) -> list[str]:
    """What is left in a store of attempts, without what was about to be removed."""
    return [
        str(path)
        for path in folder.glob("store/[!.]*/.*")
        if not path.name.startswith((".lock-", ".old-"))
    ]


@pytest.mark.parametrize("words", [RUN, SWEEP], ids=["study", "sweep"])
def test_killed_twice_and_launched_again(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    start = time.monotonic()
    assert launch(whole, words, "count changes") == 0
    seconds, changes = time.monotonic() - start, int((whole / "changes").read_text())
    expected = results(whole), artifacts(whole)
    assert len(expected[0]) == (2 if words == SWEEP else 1)

    chance = random.Random(0)
    faults = iter_faults(chance, seconds, changes)
    kills = attempts = 0
    while kills < KILLS:
        folder = tmp_path / str(attempts)
        folder.mkdir()
        attempts += 1
        for _ in range(2):
            status = launch(folder, words, next(faults))
            assert status in (0, KILLED)
            kills += status == KILLED
            artifacts(folder)
        assert launch(folder, words, "after 1e6") == 0
        assert (results(folder), artifacts(folder)) == expected
        assert leavings(folder) == []
    with capsys.disabled():
        print(f"\n{kills} kills, {attempts} studies, {changes} changes in {seconds:.0f} s")


@pytest.mark.skipif("IRL_EXP_DEFAULT_STUDY" not in os.environ, reason="takes ten minutes")
def test_the_default_study_killed_five_times(tmp_path: Path) -> None:
    chance, expected = random.Random(0), []
    for name, kills in (("whole", 0), ("killed", 5)):
        folder = tmp_path / name
        folder.mkdir()
        while kills:
            status = launch(folder, ("hydra.run.dir=run",), f"after {chance.uniform(5, 60):.1f}")
            assert status == KILLED
            artifacts(folder)
            kills -= 1
        assert launch(folder, ("hydra.run.dir=run",), "after 1e6") == 0
        assert leavings(folder) == []
        expected.append((results(folder), artifacts(folder)))
    assert expected[0] == expected[1]


def iter_faults(chance: random.Random, seconds: float, changes: int) -> Iterator[str]:
    """In turn a moment and a change, anywhere in the whole."""
    while True:
        yield f"after {chance.uniform(0.1, 0.95 * seconds):.2f}"
        yield f"at {chance.randint(1, changes)}"


def test_a_clock_that_goes_backwards(tmp_path: Path) -> None:
    """Nothing is decided by the time of day: numbers are the same, and no duration is negative."""
    for name, fault in (("forwards", "count changes"), ("backwards", "clock 3600")):
        (tmp_path / name).mkdir()
        assert launch(tmp_path / name, SWEEP, fault) == 0
    assert results(tmp_path / "backwards") == results(tmp_path / "forwards")
    assert artifacts(tmp_path / "backwards") == artifacts(tmp_path / "forwards")
    for path in tmp_path.rglob("status.json"):
        assert json.loads(path.read_text())["seconds"] >= 0
    for path in tmp_path.glob("*/store/[!.]*/[!.]*/manifest.json"):
        assert json.loads(path.read_text())["seconds"] >= 0
