"""irl-score -o OUT: killed at any moment, the same command ends with what it would have written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from irl_exp.data import synthetic
from irl_exp.models.network_reward import from_body
from irl_exp.models.reward_model import Facts, Normalizer
from irl_exp.scoring import BATCHES
from tests import warm

CHUNK = 2 * BATCHES  # lines, where two texts make a batch
LINES = 3 * CHUNK + 4


def save(folder: Path, body: Path, seed: int) -> Path:
    """A network: the last digits of its scores depend on which texts share a batch."""
    folder.mkdir()
    reward = from_body(body, torch.Generator().manual_seed(seed), batch_size=8)
    Facts(reward.kind, Normalizer(0.0, 1.0), {}, extra=reward.save(folder)).save(folder)
    return folder


@pytest.fixture(scope="module")
def reward(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("made") / "reward", tiny_folder, seed=0)


@pytest.fixture(scope="module")
def lines(texts: list[str]) -> list[str]:
    short = [text for text in texts if len(text) < 90]  # within the context
    return [json.dumps({"id": i, "text": short[i]}) + "\n" for i in range(LINES)]


def score(
    reward: Path, out: Path, lines: list[str], *more: str, batch_size: int = 2
) -> tuple[int, str]:
    """Exit status and standard error of a whole attempt."""
    words = [reward, "-", "-o", out, "--batch-size", str(batch_size), *more]
    done = subprocess.run(
        [warm.command("irl-score"), *words], input="".join(lines), capture_output=True, text=True
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def whole(reward: Path, lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What an attempt writes that nothing stops."""
    out = tmp_path_factory.mktemp("whole") / "scores.jsonl"
    assert score(reward, out, lines) == (0, "")
    assert [path.name for path in out.parent.iterdir()] == ["scores.jsonl"]
    written = out.read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines]
    assert [json.loads(line).keys() for line in written] == [{"score", "id", "text"}] * LINES
    assert [record | {"score": None} for record in records] == [
        json.loads(line) | {"score": None} for line in written
    ]
    return written


def begun(reward: Path, out: Path, lines: list[str]) -> subprocess.Popen[bytes]:
    """An attempt that has written the whole chunks among `lines` and waits for more."""
    words = map(str, [reward, "-", "-o", out, "--batch-size", 2])
    process = subprocess.Popen(
        [sys.executable, "-m", "irl_exp.scoring", *words], stdin=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write("".join(lines).encode())
    process.stdin.flush()
    part, wanted = out.with_name(f"{out.name}.part"), len(lines) // CHUNK * CHUNK
    while not part.exists() or part.read_bytes().count(b"\n") < wanted:
        assert process.poll() is None
        time.sleep(0.05)
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def killed(
    reward: Path, lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The files that an attempt leaves which was killed after two chunks."""
    out = tmp_path_factory.mktemp("killed") / "scores.jsonl"
    kill(begun(reward, out, lines[: 2 * CHUNK + 5]))
    return {path.name: path.read_bytes() for path in out.parent.iterdir()}


@pytest.fixture
def out(killed: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in killed.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path / "scores.jsonl"


@pytest.fixture
def part(out: Path) -> Path:
    return out.with_name("scores.jsonl.part")


def test_what_is_left(killed: dict[str, bytes], whole: list[str]) -> None:
    assert sorted(killed) == ["scores.jsonl.part", "scores.jsonl.part.json"]
    assert killed["scores.jsonl.part"].decode() == "".join(whole[: 2 * CHUNK])


@pytest.mark.parametrize(
    ("left", "resumed"),
    [
        (slice(2 * CHUNK), 2 * CHUNK),
        (slice(2 * CHUNK + 3), 2 * CHUNK),  # of a chunk in part: it is scored as a whole again
        (slice(LINES - 1), 3 * CHUNK),
        (slice(CHUNK - 1), 0),
        (slice(LINES), LINES),  # killed before the last rename: nothing is left to score
    ],
)
@pytest.mark.parametrize("half", ["", '{"score": 0.1'], ids=["whole lines", "half a line"])
def test_the_same_command_ends_with_the_same_bytes(
    left: slice,
    resumed: int,
    half: str,
    reward: Path,
    lines: list[str],
    whole: list[str],
    out: Path,
    part: Path,
) -> None:
    part.write_text("".join(whole[left]) + half)
    said = f"irl-score: resumed after {resumed} lines\n" if resumed else ""
    if resumed == LINES:
        said = said.replace("\n", ", which were all\n")
    assert score(reward, out, lines) == (0, said)
    assert out.read_text() == "".join(whole)
    assert [path.name for path in out.parent.iterdir()] == ["scores.jsonl"]


def test_finished_lines_are_not_scored_again(
    reward: Path, lines: list[str], whole: list[str], out: Path, part: Path
) -> None:
    """A score that only the partial file can have given stays."""
    marked = [line.replace(line.split(",")[0], '{"score": 42.0') for line in whole[:CHUNK]]
    part.write_text("".join(marked + whole[CHUNK : 2 * CHUNK]))
    assert score(reward, out, lines)[0] == 0
    assert out.read_text() == "".join(marked + whole[CHUNK:])


def test_a_line_that_was_bad_is_mended(
    reward: Path, lines: list[str], whole: list[str], tmp_path: Path
) -> None:
    """What is before it is kept; also when the last line was missing and has come since."""
    out = tmp_path / "scores.jsonl"
    status, err = score(reward, out, [*lines[: CHUNK + 2], '{"text": 3}\n', *lines[CHUNK + 3 :]])
    assert status == 1 and f"line {CHUNK + 3}: 'text' is of type int" in err
    assert not out.exists()
    assert score(reward, out, lines) == (0, f"irl-score: resumed after {CHUNK} lines\n")
    assert out.read_text() == "".join(whole)


def test_what_belongs_to_something_else_is_refused_and_kept(
    reward: Path, lines: list[str], whole: list[str], out: Path, part: Path, tiny_folder: Path
) -> None:
    other = save(out.parent / "other", tiny_folder, seed=1)
    before = part.read_bytes()
    for asked, expected in (
        ((reward, out, lines, "--field", "toxicity"), "was begun with another --field"),
        ((other, out, lines), "was begun with another reward"),
        ((reward, out, lines, "--text", "text"), "was begun with another --text"),
    ):
        status, err = score(*asked)
        assert (status, err.count("\n")) == (1, 1)
        assert err == f"irl-score: {part}: {expected}; remove it, or pass --restart\n"
    status, err = score(reward, out, lines, batch_size=4)
    assert status == 1 and "was begun with another --batch-size;" in err
    swapped = [lines[1], lines[0], *lines[2:]]
    status, err = score(reward, out, swapped)
    assert status == 1
    assert err.startswith(f"irl-score: standard input, line 1: not what {part} holds there;")
    status, err = score(reward, out, lines[: CHUNK + 3])
    assert (status, err.count("\n")) == (1, 1) and f"-: shorter than {part}; remove that" in err
    out.with_name("scores.jsonl.part.json").unlink()
    for more in ((), ("--restart",)):
        status, err = score(reward, out, lines, *more)
        assert status == 1 and f"{part}: {part.name}.json, which says of what it is a part" in err
    assert part.read_bytes() == before and not out.exists()


def test_restart_begins_anew(
    reward: Path, lines: list[str], whole: list[str], out: Path, part: Path
) -> None:
    marked = whole[0].replace(whole[0].split(",")[0], '{"score": 42.0')
    part.write_text("".join([marked, *whole[1:CHUNK]]))
    assert score(reward, out, lines, "--restart", batch_size=4) == (0, "")
    records = [json.loads(line) for line in out.read_text().splitlines()]
    expected = [json.loads(line)["score"] for line in whole]
    assert [record["score"] for record in records] == pytest.approx(expected, abs=1e-5)


def test_an_existing_file_is_replaced_at_the_end_alone(
    reward: Path, lines: list[str], whole: list[str], out: Path, part: Path
) -> None:
    out.write_text("before")
    status, err = score(reward, out, lines)
    assert (status, err) == (1, f"irl-score: {out}: exists already; --overwrite replaces it\n")
    assert out.read_text() == "before" and part.exists()
    assert score(reward, out, lines, "--overwrite")[0] == 0
    assert out.read_text() == "".join(whole)


def test_two_at_once(reward: Path, lines: list[str], whole: list[str], tmp_path: Path) -> None:
    """The second is refused; the first never notices. A lock goes with its process."""
    out = tmp_path / "scores.jsonl"
    first = begun(reward, out, lines[:CHUNK])
    try:
        status, err = score(reward, out, lines)
        assert (status, err) == (1, f"irl-score: {out}.part: another process is writing it\n")
        status, err = score(reward, out, lines, "--restart")
        assert status == 1 and "another process is writing it" in err
        assert first.stdin
        first.stdin.write("".join(lines[CHUNK:]).encode())
        first.stdin.close()
        assert first.wait() == 0
    finally:
        kill(first)
    assert out.read_text() == "".join(whole)


@pytest.mark.slow
def test_thousands_of_lines_killed_twice(reward: Path, tmp_path: Path) -> None:
    """Input is a file here, and the kill comes whenever it comes."""
    comments = synthetic.generate(6000, seed=1)
    (tmp_path / "texts.txt").write_text("".join(f"{c.text} {i}\n" for i, c in enumerate(comments)))
    words = [str(reward), str(tmp_path / "texts.txt"), "--batch-size", "16", "-o"]
    line = [sys.executable, "-m", "irl_exp.scoring", *words]
    assert subprocess.run([*line, tmp_path / "whole.jsonl"]).returncode == 0
    out, part = tmp_path / "scores.jsonl", tmp_path / "scores.jsonl.part"
    for wanted in (1, 3000):
        process = subprocess.Popen([*line, out])
        while not part.exists() or part.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not out.exists()
    done = subprocess.run([*line, out], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.startswith("irl-score: resumed after ")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [json.loads(one)["text"] for one in out.read_text().splitlines()] == (
        (tmp_path / "texts.txt").read_text().splitlines()
    )
