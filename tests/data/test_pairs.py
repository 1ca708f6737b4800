"""Demonstrations: shape is checked once, on construction; the flat views keep the order."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irl_exp.config import InputError
from irl_exp.data.pairs import Demonstrations


def three_prompts() -> Demonstrations:
    return Demonstrations(
        prompts=["p0", "p1", "é🙂\n"],
        aligned=[["a00", "a01"], ["a10", "a11"], ["a20", ""]],
        reference=[["r00", "r01"], ["r10", "r11"], ["r20", "NA"]],
        splits=["train", "test", "train"],
    )


def test_sizes_and_splits() -> None:
    pairs = three_prompts()
    assert (len(pairs), pairs.k) == (3, 2)
    train = pairs.split("train")
    assert train == Demonstrations(
        prompts=["p0", "é🙂\n"],
        aligned=[["a00", "a01"], ["a20", ""]],
        reference=[["r00", "r01"], ["r20", "NA"]],
        splits=["train", "train"],
    )
    with pytest.raises(InputError, match=r"no demonstrations in split 'validation'.*'test'"):
        pairs.split("validation")


def test_flat_views_reshape_to_a_row_a_prompt() -> None:
    pairs = three_prompts().split("train")
    prompts, completions = pairs.aligned_texts()
    assert (prompts, completions) == (["p0"] * 2 + ["é🙂\n"] * 2, ["a00", "a01", "a20", ""])
    prompts, completions = pairs.reference_texts()
    assert (prompts, completions) == (["p0"] * 2 + ["é🙂\n"] * 2, ["r00", "r01", "r20", "NA"])
    prompts, completions = pairs.pool()
    table = np.array(completions).reshape(len(pairs), 2 * pairs.k)
    assert table[:, : pairs.k].tolist() == pairs.aligned
    assert table[:, pairs.k :].tolist() == pairs.reference
    assert prompts == [prompt for prompt in pairs.prompts for _ in range(2 * pairs.k)]


def test_save_and_load(tmp_path: Path) -> None:
    pairs = three_prompts()
    pairs.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["demonstrations.parquet"]
    table = pd.read_parquet(tmp_path / "demonstrations.parquet")
    assert (len(table), list(table)) == (3, ["prompt", "aligned", "reference", "split"])
    assert Demonstrations.load(tmp_path) == pairs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ["p0"]}, "1 prompts and [2, 2, 2] entries"),
        ({"splits": ["train"]}, "2 prompts and [2, 2, 1] entries"),
        ({"prompts": [], "aligned": [], "reference": [], "splits": []}, "at least one prompt"),
        ({"aligned": [["a", "b"], ["c"]]}, "row 2: aligned has 1 completions, the first row has 2"),
        ({"reference": [["a"], ["b", "c"]]}, "row 1: reference has 1 completions"),
        ({"aligned": [[], []], "reference": [[], []]}, "row 1: aligned has 0 completions"),
        ({"aligned": ["ab", "cd"]}, "row 1: aligned is not a list of texts"),
        ({"reference": [["a", "b"], ["c", None]]}, "row 2: reference is not a list of texts"),
        ({"prompts": ["p", None]}, "row 2: the prompt is not a text"),
        ({"splits": ["train", "calibration"]}, "row 2: split 'calibration'"),
    ],
)
def test_a_wrong_shape_is_refused(change: dict[str, list[object]], message: str) -> None:
    columns: dict[str, list[object]] = {
        "prompts": ["p", "q"],
        "aligned": [["a", "b"], ["c", "d"]],
        "reference": [["e", "f"], ["g", "h"]],
        "splits": ["train", "test"],
    }
    with pytest.raises(InputError, match=re.escape(message)):
        Demonstrations(**(columns | change))  # type: ignore[arg-type]


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demonstrations.parquet"
    with pytest.raises(InputError, match=re.escape(f"{path}: no such file")):
        Demonstrations.load(tmp_path)
    path.write_text("no table")
    with pytest.raises(InputError, match=re.escape(f"{path}: not Parquet")):
        Demonstrations.load(tmp_path)
    columns = {"prompt": ["p"], "aligned": ["ab"], "reference": ["cd"]}
    pd.DataFrame(columns).to_parquet(path)
    with pytest.raises(InputError, match=r"has no column \['split'\].*'reference'"):
        Demonstrations.load(tmp_path)
    pd.DataFrame({**columns, "split": ["train"]}).to_parquet(path)
    with pytest.raises(InputError, match="row 1: aligned is not a list of texts"):
        Demonstrations.load(tmp_path)


def test_a_prompt_in_two_splits_is_refused(tmp_path: Path) -> None:
    columns = [["p", "q", "p"], [["a"]] * 3, [["b"]] * 3, ["train", "train", "test"]]
    Demonstrations(*columns).save(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 prompts are in more than one split; expected each in"):
        Demonstrations.load(tmp_path)
