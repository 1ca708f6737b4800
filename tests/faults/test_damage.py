"""A reward that is not as it was written is used by no command, wherever it was copied to."""

import shutil
import subprocess
from pathlib import Path

import pytest

import irl_exp
from irl_exp.config import InputError
from tests import warm


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    """A recovered network, copied out of the store."""
    weights = next(study.parent.glob("store/recover/[!.]*/model.safetensors"))
    return shutil.copytree(weights.parent, tmp_path / "reward")


@pytest.mark.parametrize("name", ["model.safetensors", "reward.json", "tokenizer.json"])
def test_a_flipped_byte_is_found_by_whoever_reads(copy: Path, name: str, tmp_path: Path) -> None:
    before = irl_exp.load_reward(copy).score(["You"], [" idiot"])
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    said = (
        f"{copy}: {name} is not as it was written; expected none changed since, or no "
        "manifest.json if that is meant"
    )
    with pytest.raises(InputError) as refused:
        irl_exp.load_reward(copy)
    assert str(refused.value) == said
    (tmp_path / "texts.txt").write_text("You are kind.\n")
    for words in (["irl-score", copy, "texts.txt"], ["irl-export", copy, "-o", "exported"]):
        line = [warm.command(words[0]), *words[1:]]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"{words[0]}: {said}\n"

    data[len(data) // 2] ^= 1  # as it was
    (copy / name).write_bytes(data)
    assert irl_exp.load_reward(copy).score(["You"], [" idiot"]).equal(before)


def test_a_change_that_is_meant(copy: Path) -> None:
    text = (copy / "reward.json").read_text()
    (copy / "reward.json").write_text(text + "\n")
    (copy / "manifest.json").unlink()
    assert irl_exp.load_reward(copy).score(["You"], [" idiot"]).isfinite().all()


def test_a_damaged_manifest_is_damage_too(copy: Path) -> None:
    text = (copy / "manifest.json").read_text()
    for harm in (text[:-5], text.replace('"seconds"', '"secands"')):
        (copy / "manifest.json").write_text(harm)
        with pytest.raises(InputError, match=r"manifest[.]json is not as it was written"):
            irl_exp.load_reward(copy)


def test_a_copy_without_what_nobody_reads(copy: Path) -> None:
    (copy / "metrics.jsonl").unlink()
    assert irl_exp.load_reward(copy).score(["You"], [" idiot"]).isfinite().all()
