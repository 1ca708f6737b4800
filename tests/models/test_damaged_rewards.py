"""Saved rewards that somebody has changed: loaded, or refused in one line; nothing else.

So many of each kind as IRL_EXP_FUZZED says.
"""

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from irl_exp import scoring
from irl_exp.models.reward_kinds import EnsembleReward, LengthReward, PlantedReward, Terms
from irl_exp.models.reward_model import NormalizedReward, Normalizer
from tests.materials import save_reward

COUNT = int(os.environ.get("IRL_EXP_FUZZED", "150"))
LENGTH = NormalizedReward(LengthReward(1.0), Normalizer(0.0, 1.0))
KINDS = {
    "length": LengthReward(1.0),
    "planted": PlantedReward(LENGTH, Terms(0.5, 0.0, "a", 0.0, 0.0, "b")),
    "ensemble": EnsembleReward([LENGTH, LENGTH]),
}
VALUES: list[Any] = [
    *(None, True, 0, -1, 2, 10**9, 10**400, 0.5, float("nan"), float("inf"), "", "x", "../..", "2"),
    *([], [1], {}, {"a": 1}, "os.system", "\x00", "length", "planted", "ensemble", "closed_form"),
]


def changed(node: Any, rng: random.Random) -> Any:
    """One value, key or element of a JSON document is another."""
    if not isinstance(node, dict) or not node or rng.random() < 0.1:
        return rng.choice(VALUES)
    key = rng.choice(list(node))
    match rng.choice(["in", "in", "in", "out", "more"]):
        case "in":
            return node | {key: changed(node[key], rng)}
        case "out":
            return {name: value for name, value in node.items() if name != key}
        case _:
            return node | {rng.choice(["x", "_target_", "kind"]): rng.choice(VALUES)}


def flipped(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_reward_is_loaded_or_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, folder = random.Random(kind), tmp_path / "reward"
    folder.mkdir()
    save_reward(KINDS[kind], folder)
    (tmp_path / "texts.jsonl").write_text('{"text": "a b"}\n')
    words = ["irl-score", str(folder), str(tmp_path / "texts.jsonl")]
    monkeypatch.setattr(sys, "argv", words)
    places = sorted(folder.rglob("reward.json"))
    seen: Counter[str] = Counter()
    for _ in range(COUNT):
        path = rng.choice(places)
        whole = path.read_bytes()
        text = json.dumps(changed(json.loads(whole), rng)).encode()
        path.write_bytes(text if rng.random() < 0.8 else flipped(whole, rng))
        try:
            scoring.main()
            assert isinstance(json.loads(capsys.readouterr().out)["score"], float)
            seen["scored"] += 1
        except SystemExit as end:
            assert str(end.code).startswith("irl-score: ") and "\n" not in str(end.code)
            seen["refused"] += 1
        path.write_bytes(whole)
    assert min(seen["scored"], seen["refused"]) > COUNT / 20


def test_a_reward_inside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reward"
    folder.mkdir()
    save_reward(KINDS["planted"], folder)
    base = (folder / "base" / "reward.json").read_bytes()
    assert b"length" in base
    (folder / "base" / "reward.json").unlink()
    (folder / "base").rmdir()
    (folder / "base").symlink_to(folder)
    (tmp_path / "texts.jsonl").write_text('{"text": "a b"}\n')
    monkeypatch.setattr(sys, "argv", ["irl-score", str(folder), str(tmp_path / "texts.jsonl")])
    with pytest.raises(SystemExit, match="irl-score: "):
        scoring.main()
