"""Whatever bytes a file holds, readers return or refuse it in one line; none fails otherwise.

Files that are right are damaged at random: bits flipped, pieces left out, doubled or put in. So
many of each format, by each reader, as IRL_EXP_FUZZED says:

    IRL_EXP_FUZZED=10000 pytest tests/data/test_fuzz.py
"""

import gzip
import io
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from irl_exp import scoring
from irl_exp.config import InputError
from irl_exp.data import given
from irl_exp.data.formats import records
from irl_exp.data.skipped import Skipped
from irl_exp.data.sources import Columns, file_rows
from irl_exp.models.reward_kinds import LengthReward
from tests.materials import save_reward

COUNT = int(os.environ.get("IRL_EXP_FUZZED", "150"))
TEXTS = ["plain", "é 🙂", 'a,b\n"q"', "\u202eright to left", "\\u0000", "NA", "", "x" * 200]
TABLE = pd.DataFrame(
    {
        "text": TEXTS,
        "toxic": [0, 1] * 4,
        "score": [i / 7 for i in range(8)],
        "prompt": "p",
        "aligned": TEXTS,
        "reference": "x",
    }
)
PIECES = [
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b"\r", b"\n", b",", b"\t", b"{", b"]" * 5),
    *(b"NaN", b"Infinity", b"1e999", b"\\ud83d", b"null", b"true", "🙂\u2028".encode()),
    *(b"[" * 2000, b"9" * 5000, b'{"text":' * 50, b"x" * 300_000),
]
READERS: dict[str, Callable[[Path], object]] = {
    "labels": lambda path: list(file_rows(path, Columns("text", ["toxic"]))),
    "scores": lambda path: list(
        file_rows(path, Columns("text", ["score"], toxic_from=0.5, prompt="prompt"))
    ),
    "labels that are right": lambda path: list(
        file_rows(path, Columns("text", ["toxic"]), Skipped(str(path)))
    ),
    "pairs that are right": lambda path: given.read_pairs(
        path, None, "aligned", "reference", Skipped(str(path))
    ),
    "pairs": lambda path: given.read_pairs(path, None, "aligned", "reference"),
    "prompts": lambda path: given.read_prompts(path, "prompt"),
    "scores of irl-score": lambda path: scored(path),
    "records": lambda path: list(records(path, str(path), ["text"], lines=True)),
}


def scored(path: Path) -> None:
    """By the command itself, in this process; scores and texts are as many as came in."""
    out = path.with_name("scores.jsonl")
    words = ["irl-score", str(path.with_name("reward")), str(path), "--field", "reward"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*words, "-o", str(out), "--overwrite"])
        try:
            scoring.main()
        except SystemExit as end:
            out.with_name("scores.jsonl.part").unlink(missing_ok=True)
            raise InputError(str(end.code).removeprefix("irl-score: ")) from end
    rows = [record for _, record in records(path, str(path), [])]
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [len(row["text"].split()) for row in rows] == [row["reward"] for row in found]


def right(suffix: str) -> bytes:
    """A file that all of them read."""
    if suffix.endswith(".gz"):
        return gzip.compress(right(suffix.removesuffix(".gz")))
    if suffix == ".parquet":
        buffer = io.BytesIO()
        TABLE.to_parquet(buffer)
        return buffer.getvalue()
    if suffix == ".jsonl":
        rows = TABLE.to_dict("records")
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    return TABLE.to_csv(index=False, sep="\t" if suffix == ".tsv" else ",").encode()


def damaged(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        place = rng.randrange(len(found) + 1)
        match rng.choice(["flip", "flip", "insert", "cut", "end", "double"]):
            case "flip" if found:
                found[place % len(found)] ^= 1 << rng.randrange(8)
            case "insert":
                found[place:place] = rng.choice(PIECES)
            case "cut":
                del found[place : place + rng.randrange(40)]
            case "end":
                del found[place:]
            case "double":
                found[place:place] = found[place : place + rng.randrange(60)]
    return bytes(found)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz"])
def test_damaged_files_are_read_or_refused_in_one_line(suffix: str, tmp_path: Path) -> None:
    rng, path = random.Random(suffix), tmp_path / f"file{suffix}"
    (tmp_path / "reward").mkdir()
    save_reward(LengthReward(1.0), tmp_path / "reward")
    path.write_bytes(right(suffix))
    readers = dict(READERS)
    if suffix == ".parquet":
        del readers["scores of irl-score"]  # which reads none
    for read in readers.values():
        read(path)
    seen: Counter[str] = Counter()
    for _ in range(COUNT):
        if suffix.endswith(".gz") and rng.random() < 0.5:  # whole, around what is not
            data = gzip.compress(damaged(right(suffix.removesuffix(".gz")), rng), compresslevel=1)
        else:
            data = damaged(right(suffix), rng)
        path.write_bytes(data)
        for name, read in readers.items():
            try:
                read(path)
                seen["read"] += 1
            except InputError as error:
                seen["refused"] += 1
                assert "\n" not in str(error), name
                assert path.name in str(error), name
    assert min(seen["read"], seen["refused"]) > COUNT / 10
