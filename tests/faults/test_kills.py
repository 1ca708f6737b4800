"""A study or a sweep killed at any moment, or at any change to a file, ends as if it had not been.

IRL_EXP_KILLS=100 kills as often (docs/reliability.md); without it a few times.
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

KILLS = int(os.environ.get("IRL_EXP_KILLS", "4"))
KILLED = 128 + 9
RUN = ("hydra.run.dir=run",)
SWEEP = ("-m", "solver=hinge,svm", "until=evaluate")


def launch(folder: Path, words: tuple[str, ...], fault: str) -> int:
    """The exit status of the command, typed in ``folder``, with that fault (see inject.py)."""
    line = [warm.command("irl-exp"), *SMALL_STUDY, *words, f"paths.store={folder}/store"]
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


def iter_faults(chance: random.Random, seconds: float, changes: int) -> Iterator[str]:
    """In turn a moment and a change, anywhere in the whole."""
    while True:
        yield f"after {chance.uniform(0.1, 0.95 * seconds):.2f}"
        yield f"at {chance.randint(1, changes)}"
