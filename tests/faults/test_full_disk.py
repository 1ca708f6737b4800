"""A disk without room, or without the right to write: one clear line, and nothing is lost.

The disks are small ones in memory, which only root can mount.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import SMALL_STUDY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk takes root"),
]

NO_ROOM = "No space left on device; with more room, the same command works\n"
PRETRAINED = (*SMALL_STUDY, "until=pretrain")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """disk(size, *options) mounts one, or changes the one that is mounted; its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str, *options: str) -> Path:
        again = ("remount",) if os.path.ismount(folder) else ()
        words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *again, *options])]
        done = subprocess.run([*words, "tmpfs", folder], capture_output=True, text=True)
        assert not (again and done.returncode), done.stderr
        if done.returncode:
            pytest.skip(f"no disk can be mounted: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True)


def run(folder: Path, name: str, *words: object) -> tuple[int, str]:
    """Exit status and standard error."""
    line = [warm.command(name), *map(str, words)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("size", ["20k", "60k", "100k", "200k", "300k"])
def test_a_store_without_room(tmp_path: Path, disk: Callable[..., Path], size: str) -> None:
    """Wherever it runs out (the comments, the weights, a checkpoint), and whoever writes."""
    small = disk(size)
    words = (*PRETRAINED, f"paths.store={small}/store", "hydra.run.dir=run")
    status, err = run(tmp_path, "irl-exp", *words)
    assert (status, err) == (1, f"irl-exp: store {small}/store: {NO_ROOM}")
    said = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (said["status"], f"irl-exp: {said['error']}\n") == ("failed", err)
    disk("20m")
    assert run(tmp_path, "irl-exp", *words) == (0, "")
    assert run(tmp_path, "irl-store", "list", "--store", f"{small}/store") == (0, "")
    assert list(small.glob("store/*/.tmp-*")) == []


@pytest.mark.parametrize("size", ["8k", "20k", "40k"])
def test_a_run_directory_without_room(tmp_path: Path, disk: Callable[..., Path], size: str) -> None:
    small = disk(size)
    words = (*PRETRAINED, f"paths.store={tmp_path}/store", f"hydra.run.dir={small}/run")
    status, err = run(tmp_path, "irl-exp", *words)
    assert status == 1
    assert err.endswith(f"irl-exp: {small}/run: {NO_ROOM}")
    assert err.count("\n") == 1
    disk("20m")
    assert run(tmp_path, "irl-exp", *words) == (0, "")
    assert json.loads((small / "run" / "status.json").read_text())["status"] == "done"


def test_a_sweep_without_room(tmp_path: Path, disk: Callable[..., Path]) -> None:
    """Its own file, in which each run that ended is noted, lies on that disk too."""
    small = disk("40k")
    words = (*PRETRAINED, "-m", "tags=[a],[b]", f"paths.store={tmp_path}/store")
    words += (f"hydra.sweep.dir={small}/sweep", "hydra.sweep.subdir=${hydra.job.num}")
    status, err = run(tmp_path, "irl-exp", *words)
    assert (status, "No space left on device" in err) == (1, True)
    assert "Traceback" not in err and f"{small}/sweep" in err
    disk("20m")
    assert run(tmp_path, "irl-exp", *words) == (0, "")


def test_short_lines_without_room(study: Path, tmp_path: Path, disk: Callable[..., Path]) -> None:
    """What a buffer still holds when a write fails is said no other way."""
    small = disk("8k")
    weights = next(study.parent.glob("store/recover/[!.]*/model.safetensors"))
    texts = tmp_path / "texts.txt"
    texts.write_text("a\n" * 300)
    score = ("irl-score", weights.parent, texts, "-o", small / "scores.jsonl", "--batch-size", 1)
    assert run(tmp_path, *score) == (1, f"irl-score: {small}: {NO_ROOM}")


def test_scores_a_report_and_an_export_without_room(
    study: Path, tmp_path: Path, disk: Callable[..., Path]
) -> None:
    small = disk("40k")
    weights = next(study.parent.glob("store/recover/[!.]*/model.safetensors"))
    texts = tmp_path / "texts.txt"
    texts.write_text("You are kind.\n" * 5000)
    score = ("irl-score", weights.parent, texts, "-o", small / "scores.jsonl")
    assert run(tmp_path, *score) == (1, f"irl-score: {small}: {NO_ROOM}")
    disk("2m")
    assert run(tmp_path, *score) == (0, "")
    assert len((small / "scores.jsonl").read_text().splitlines()) == 5000
    (small / "scores.jsonl").unlink()
    for command, full in (
        (("irl-report", study, "-o", small / "report"), small / "report"),
        (("irl-export", study, "-o", small / "reward"), small),
    ):
        shutil.rmtree(small / "report", ignore_errors=True)  # which does not fit
        disk("60k")
        assert run(tmp_path, *command) == (1, f"{command[0]}: {full}: {NO_ROOM}")
        disk("20m")
        assert run(tmp_path, *command)[0] == 0


def test_a_store_that_only_can_be_read(tmp_path: Path, disk: Callable[..., Path]) -> None:
    """What is in it is used; what is not is asked for in one line, and so is what is damaged."""
    small = disk("20m")
    words = (*PRETRAINED, f"paths.store={small}/store")
    assert run(tmp_path, "irl-exp", *words, "hydra.run.dir=first") == (0, "")
    disk("20m", "ro")
    assert run(tmp_path, "irl-exp", *words, "hydra.run.dir=again")[0] == 0
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["store/misses"] == 0
    expected = "Read-only file system; expected a folder that can be written to and locked"
    refused = (1, f"irl-exp: store {small}/store: {expected}\n")
    assert run(tmp_path, "irl-exp", *words, "seed=1", "hydra.run.dir=other") == refused
    disk("20m", "rw")
    [comments] = small.glob("store/curate/*/comments.parquet")
    comments.write_bytes(comments.read_bytes()[:-1])
    disk("20m", "ro")
    line = [warm.command("irl-exp"), *words, "hydra.run.dir=damaged"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == refused
    key = comments.parent.name
    assert f"curate {key} is damaged (comments.parquet is not as it was" in done.stdout
