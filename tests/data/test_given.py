"""Prompts and pairs as people bring them: formats, splits, and what is refused."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from irl_exp.config import InputError
from irl_exp.data import given

HH = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: a question\n\nAssistant:"


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_columns_and_the_space_between_prompt_and_completion(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "How are you?", "aligned": "Fine", "reference": " Bad"},
        {"prompt": "Say:\n", "aligned": "a", "reference": ""},
        {"prompt": "", "aligned": "a", "reference": "b"},
    )
    found = given.read_pairs(path, "prompt", "aligned", "reference")
    assert found.prompts == ["How are you?", "Say:\n", ""]
    assert found.aligned == [[" Fine"], ["a"], ["a"]]
    assert found.reference == [[" Bad"], [""], ["b"]]


def test_dialogues_as_in_hh_are_cut_after_their_last_shared_turn(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    record = {"chosen": HH + " No.", "rejected": HH + " Never."}
    path.write_bytes(gzip.compress((json.dumps(record) + "\n").encode()))
    found = given.read_pairs(path, None, "chosen", "rejected")
    assert found.prompts == [HH]
    assert (found.aligned, found.reference) == ([[" No."]], [[" Never."]])


def test_dialogues_that_part_earlier_are_cut_there(tmp_path: Path) -> None:
    """The second answer differs, so the first is the last turn that both share."""
    path = write(
        tmp_path / "pairs.jsonl",
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: a\n\nHuman: b\n\nAssistant: c",
            "rejected": "\n\nHuman: hi\n\nAssistant: x\n\nHuman: b\n\nAssistant: c",
        },
    )
    found = given.read_pairs(path, None, "chosen", "rejected")
    assert found.prompts == ["\n\nHuman: hi\n\nAssistant:"]
    assert found.aligned == [[" a\n\nHuman: b\n\nAssistant: c"]]


def test_texts_that_are_no_dialogues_have_no_prompt(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", {"chosen": "the same start a", "rejected": "the same b"})
    found = given.read_pairs(path, None, "chosen", "rejected")
    assert found.prompts == [""]
    assert found.aligned == [["the same start a"]]


def test_messages_with_and_without_a_column_for_the_prompt(tmp_path: Path) -> None:
    question = [{"role": "user", "content": "hi"}]
    first, second = ([{"role": "assistant", "content": text}] for text in ("a", "b"))
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": question, "chosen": first, "rejected": second, "whole": question + first},
    )
    explicit = given.read_pairs(path, "prompt", "chosen", "rejected")
    assert explicit.prompts == ["\n\nHuman: hi\n\nAssistant:"]
    assert (explicit.aligned, explicit.reference) == ([[" a"]], [[" b"]])
    rows = {"chosen": question + first, "rejected": question + second}
    implicit = given.read_pairs(write(tmp_path / "other.jsonl", rows), None, "chosen", "rejected")
    assert implicit == explicit


def test_a_column_named_prompt_is_read_unasked(tmp_path: Path) -> None:
    """Pairs of one prompt must not be torn apart; what is no text is no prompt."""
    rows = [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": "Why?", "chosen": "Because.", "rejected": "Why not?"},
        {"prompt": None, "chosen": "Go on, then", "rejected": "go"},
    ]
    path = write(tmp_path / "pairs.jsonl", *rows)
    pd.DataFrame(rows).to_parquet(tmp_path / "pairs.parquet")
    for place in (path, tmp_path / "pairs.parquet"):
        found = given.read_pairs(place, None, "chosen", "rejected")
        assert found.prompts == ["Why?", "Why?", ""]
        assert found.aligned == [[" So."], [" Because."], ["Go on, then"]]
        assert found.reference == [[" No."], [" Why not?"], ["go"]]


def test_whole_dialogues_hold_the_prompt_that_stands_beside_them(tmp_path: Path) -> None:
    """As in UltraFeedback: the column is a bare question, which each side opens with."""
    question = {"role": "user", "content": "q?"}
    sides = ([question, {"role": "assistant", "content": text}] for text in ("a", "b"))
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "q?", **dict(zip(("chosen", "rejected"), sides, strict=True))},
    )
    found = given.read_pairs(path, "prompt", "chosen", "rejected")
    assert found.prompts == ["\n\nHuman: q?\n\nAssistant:"]
    assert (found.aligned, found.reference) == ([[" a"]], [[" b"]])


def test_messages_as_prompts_end_where_the_model_is_to_answer(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": [{"role": "user", "content": "hi"}]})
    assert given.read_prompts(path, "prompt") == ["\n\nHuman: hi\n\nAssistant:"]


def test_lists_of_k_texts_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    table = {
        "prompt": ["p", "q"],
        "aligned": [["a", "b"], ["c", "d"]],
        "reference": [["e", "f"]] * 2,
    }
    pd.DataFrame(table).to_parquet(path)
    found = given.read_pairs(path, "prompt", "aligned", "reference")
    assert found.aligned == [[" a", " b"], [" c", " d"]]


def test_rows_with_the_same_on_both_sides_are_counted(tmp_path: Path) -> None:
    same, other = {"chosen": "a", "rejected": "a"}, {"chosen": "a", "rejected": "b"}
    path = write(tmp_path / "pairs.jsonl", same, other)
    found = given.read_pairs(path, None, "chosen", "rejected")
    assert (len(found.prompts), found.identical) == (1, 1)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"aligned": "a"}, "line 1: no column 'reference'"),
        ({"aligned": "a", "reference": 3}, "line 1: 'reference' is of type int; expected a text"),
        ({"aligned": ["a"], "reference": ["b", "c"]}, "1 texts in 'aligned', 2 in 'reference'"),
        ({"aligned": [{"role": "user"}], "reference": "b"}, "a message without role or content"),
        ({"aligned": "a", "reference": "a"}, "both sides of all 1 rows are alike"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_place(
    tmp_path: Path, record: object, said: str
) -> None:
    path = write(tmp_path / "pairs.jsonl", record)
    with pytest.raises(InputError, match=said):
        given.read_pairs(path, None, "aligned", "reference")


def test_rows_of_different_k_are_refused(tmp_path: Path) -> None:
    rows = [{"a": ["x"], "b": ["y"]}, {"a": ["x", "z"], "b": ["y", "w"]}]
    with pytest.raises(InputError, match="line 2: 2 texts a side, where pairs before it have 1"):
        given.read_pairs(write(tmp_path / "pairs.jsonl", *rows), None, "a", "b")


def test_prompts_of_a_text_file_and_of_a_column(tmp_path: Path) -> None:
    plain = tmp_path / "prompts.txt"
    plain.write_text("one\r\n\ntwo\none\n", encoding="utf-8")
    assert given.read_prompts(plain, "prompt") == ["one", "two"]
    column = write(tmp_path / "p.jsonl", {"question": {"text": "a"}}, {"question": {"text": "b"}})
    assert given.read_prompts(column, "question.text") == ["a", "b"]
    with pytest.raises(InputError, match="no column 'prompt'"):
        given.read_prompts(column, "prompt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="has no prompts"):
        given.read_prompts(tmp_path / "empty.txt", "prompt")


def test_splits_follow_from_the_text_and_the_seed() -> None:
    shares = {"train": 0.5, "validation": 0.2, "test": 0.3}
    keys = [f"prompt {i}" for i in range(4000)]
    drawn = [given.split_of(key, shares, seed=0) for key in keys]
    assert drawn == [given.split_of(key, shares, seed=0) for key in keys]
    for name, share in shares.items():
        found = sum(split == name for split, _ in drawn) / len(keys)
        assert abs(found - share) < 4 * (share * (1 - share) / len(keys)) ** 0.5
    assert [split for split, _ in drawn] != [given.split_of(k, shares, seed=1)[0] for k in keys]
    # Shares that only part a split leave the others as they are.
    finer = {"train": 0.5, "validation": 0.1, "calibration": 0.1, "test": 0.3}
    for key, (split, _) in zip(keys, drawn, strict=True):
        assert (split == "test") == (given.split_of(key, finer, seed=0)[0] == "test")
