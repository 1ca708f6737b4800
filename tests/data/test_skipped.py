"""Rows that on_error=skip leaves out: counted, with the reason, and nothing else is lost."""

import json
from pathlib import Path

import pandas as pd
import pytest

from irl_exp.config import InputError
from irl_exp.data import given
from irl_exp.data.skipped import Skipped
from irl_exp.data.sources import Columns, file_rows

GOOD = [("plain", 1), ("two\nlines", 0), ("é 🙂", 1), ("\x00", 0)]
WRONG = {
    "a.csv": (
        b'text,toxic\nplain,1\n"two\nlines",0\na,b,c\ncaf\xe9,1\n'
        + "é 🙂,1\nno label,\n\0,0\n".encode(),
        [
            "line 5: malformed row, 3 fields; expected 2, as in the header",
            "line 6: 'text' is not UTF-8; expected UTF-8",
            "line 8: 'toxic' is missing; expected a label",
        ],
    ),
    "a.jsonl": (
        b'{"text": "plain", "toxic": 1}\n{"text": "two\\nlines", "toxic": 0}\n[1]\n{"text"\n'
        b'{"text": "\xff", "toxic": 1}\n{"text": "\\ud83d", "toxic": 1}\n{"text": 5, "toxic": 1}\n'
        + '{"text": "é 🙂", "toxic": 1}\n{"toxic": 1}\n{"text": "\\u0000", "toxic": 0}\n'.encode(),
        [
            "line 3: JSON of type list; expected an object",
            "line 4: unreadable JSON; expected an object a line",
            "line 5 is not UTF-8; expected UTF-8",
            "line 6: 'text' holds half a character; expected Unicode",
            "line 7: 'text' is of type int; expected a text",
            "line 9: no column 'text'; there are ['toxic']",
        ],
    ),
}
COLUMNS = Columns("text", ["toxic"])


@pytest.mark.parametrize("name", WRONG)
def test_what_is_right_is_read_and_the_rest_is_counted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data, reasons = WRONG[name]
    path.write_bytes(data)
    skipped = Skipped(str(path))
    rows = file_rows(path, COLUMNS, skipped)
    for _ in range(2):  # whoever goes through them twice, or stops, counts once
        assert next(iter(rows)).text == "plain"
        assert [(row.text, row.toxic) for row in rows] == GOOD
        assert skipped.count == len(reasons)
        assert all(map(str.startswith, skipped.reasons, reasons)), skipped.reasons
    skipped.save(tmp_path)
    kept = Skipped.load(tmp_path)
    assert str(kept) == str(skipped)
    assert str(kept).startswith(
        f"{len(reasons)} rows were skipped, the first for this: {reasons[0]}"
    )
    with pytest.raises(InputError):
        list(file_rows(path, COLUMNS))


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": ["a", None, "b"], "toxic": [0, 1, 1]}).to_parquet(path)
    skipped = Skipped(str(path))
    assert [row.text for row in file_rows(path, COLUMNS, skipped)] == ["a", "b"]
    assert str(skipped) == (
        "1 row was skipped, the first for this: row 2: 'text' is missing; expected a text"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'text,toxic\na,1\n"b,1\nc,0\nd,1\n', "line 3: malformed row (unexpected end of data)"),
        (b'text,toxic\na,1\n"b,1\nc",0,d,1\n', "line 3: malformed row, 4 fields; expected 2"),
        (b'text,toxic\na,1\n"he said "hi"\nand left",1\n', "line 3: malformed row (',' expected"),
        (b'text,toxic\na,1\n"x" y,1\nb,0\n', "line 3: malformed row (',' expected"),
        (b"text,text\na,1\n", "line 1: column ['text'] stands twice"),
        (b"te\xffxt,toxic\na,1\n", "line 1: the header is not UTF-8"),
        (b'"text"x,toxic\na,1\n', "line 1: malformed row (',' expected after"),
    ],
)
def test_what_would_lose_more_than_a_row_is_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(InputError) as refused:
        list(file_rows(path, COLUMNS, Skipped(str(path))))
    assert message in str(refused.value)


def test_a_file_in_which_all_are_wrong_says_what_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("comment,toxic\na,1\nb,0\n")
    with pytest.raises(InputError) as refused:
        list(file_rows(path, COLUMNS, Skipped(str(path))))
    assert str(refused.value) == (
        f"{path} is empty: 2 rows were skipped, the first for this: line 2: no column 'text'; "
        "there are ['comment', 'toxic']; expected comments"
    )


def test_pairs(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"aligned": "a", "reference": "b"},
        {"aligned": "a", "reference": None},
        {"aligned": ["a", "c"], "reference": ["b"]},
        {"aligned": "c", "reference": "d"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    skipped = Skipped(str(path))
    found = given.read_pairs(path, None, "aligned", "reference", skipped)
    assert found.aligned == [["a"], ["c"]] and found.reference == [["b"], ["d"]]
    assert skipped.reasons == [
        "line 2: 'reference' is missing; expected a text",
        "line 3: 2 texts in 'aligned', 1 in 'reference'; expected as many of either",
    ]
    path.write_text('{"aligned": 1, "reference": "b"}\n')
    with pytest.raises(InputError, match="has no pairs: 1 row was skipped, the first for this: li"):
        given.read_pairs(path, None, "aligned", "reference", Skipped(str(path)))
