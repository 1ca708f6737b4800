"""Every format is read exactly, and every kind of bad file is refused with its place."""

import gzip
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from irl_exp.config import InputError
from irl_exp.data.sources import read_file

# Fields that a careless reader changes: missing-value words, breaks, quotes, separators, spaces.
TEXTS = ["NA", "null", "", " two\nlines, one ", 'says "so"', "tab\there", "é 🙂 \u2028.", "007"]
LABELS = [0, 1, 0, 1, 1, 0, 0, 1]
PLAIN = [".csv", ".tsv", ".jsonl", ".parquet"]
ZIPPED = [".csv.gz", ".tsv.gz", ".jsonl.gz"]


def write(path: Path, columns: dict[str, list[object]]) -> Path:
    """A table in the format of the path's suffix, written by pandas or json."""
    table = pd.DataFrame(columns)
    if ".jsonl" in path.name:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        data = lines.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if ".tsv" in path.name else ",", index=False)
    return path


def refusal(path: Path, toxic_values: list[object] | None = None) -> str:
    """The one line that reading `text` and `toxic` from a file ends with."""
    with pytest.raises(InputError) as caught:
        read_file(path, "text", "toxic", [1] if toxic_values is None else toxic_values)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", PLAIN + ZIPPED + [".CSV", ".v2.csv"])
def test_every_format_round_trips(tmp_path: Path, suffix: str) -> None:
    columns: dict[str, list[object]] = {
        "id": list(range(len(TEXTS))),
        "text": list(TEXTS),
        "toxic": list(LABELS),
    }
    path = write(tmp_path / f"comments{suffix}", columns)
    assert read_file(path, "text", "toxic", [1]) == (TEXTS, LABELS)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_dotted_names_reach_into_records(tmp_path: Path, suffix: str) -> None:
    nested: list[object] = [
        {"text": "one", "scores": {"toxic": True}},
        {"text": "two", "scores": {"toxic": False}},
    ]
    path = write(tmp_path / f"nested{suffix}", {"prompt": nested})
    assert read_file(path, "prompt.text", "prompt.scores.toxic", [1]) == (["one", "two"], [1, 0])
    with pytest.raises(InputError) as caught:
        read_file(path, "prompt.words", "prompt.scores.toxic", [1])
    assert "no column 'prompt.words'" in str(caught.value)
    assert "['prompt.text', 'prompt.scores.toxic']" in str(caught.value)


@pytest.mark.parametrize("suffix", PLAIN)
def test_a_column_may_have_a_dot_in_its_name(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"dots{suffix}", {"a.text": ["one", "two"], "a.toxic": [1, 0]})
    assert read_file(path, "a.text", "a.toxic", [1]) == (["one", "two"], [1, 0])


@pytest.mark.parametrize("toxic_value", [1, 1.0, "1", " 1.00", True, "true", "TRUE "])
def test_ways_to_say_one(tmp_path: Path, toxic_value: object) -> None:
    ones: list[object] = [1, 1.0, "1", True, "true", " True ", "1.0"]
    others: list[object] = [0, 0.0, "0", False, "false", "10", "yes", 0.9]
    texts: list[object] = ["a text"] * 15
    path = write(tmp_path / "labels.jsonl", {"text": texts, "toxic": ones + others})
    assert read_file(path, "text", "toxic", [toxic_value])[1] == [1] * 7 + [0] * 8


def test_toxic_values_are_words_and_numbers(tmp_path: Path) -> None:
    rows: list[object] = ["Insult", "threat ", "none", "3", "4", "insults", "NA"]
    path = write(tmp_path / "labels.csv", {"text": ["t"] * len(rows), "toxic": rows})
    labels = read_file(path, "text", "toxic", ["insult", "THREAT", 3])[1]
    assert labels == [1, 1, 0, 1, 0, 0, 0]


def test_line_ends_blank_lines_and_byte_order_mark(tmp_path: Path) -> None:
    for name, data in {
        "a.csv": b'\xef\xbb\xbftext,toxic\r\none,1\r\n\r\n"two\r\nlines",0\r\n',
        "a.jsonl": b'\xef\xbb\xbf{"text": "one", "toxic": 1}\r\n\r\n'
        b'{"text": "two\\r\\nlines", "toxic": 0}',
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert read_file(path, "text", "toxic", [1]) == (["one", "two\r\nlines"], [1, 0])


def test_the_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.csv", {"text": ["one", "two"], "toxic": [1, 0]})
    monkeypatch.chdir(tmp_path)
    assert read_file("a.csv", "text", "toxic", [1])[1] == [1, 0]
    assert f"{tmp_path / 'b.csv'}: no such file" in refusal(Path("b.csv"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        # Formats.
        ("a.xlsx", b"", "unknown format; expected one of .csv, .tsv, .jsonl, .csv.gz"),
        ("a.parquet.gz", b"", "unknown format"),
        ("a.parquet", b"no table", "unreadable Parquet"),
        ("a.csv.gz", b"text,toxic\n", "can't be read: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"text,toxic\na,1\nb,0\n")[:-9], "can't be read"),
        # Nothing in it.
        *((f"a{suffix}", b"", "is empty") for suffix in (".csv", ".tsv", ".jsonl")),
        ("a.csv.gz", gzip.compress(b""), "is empty"),
        ("a.csv", b"text,toxic\n", "is empty"),
        ("a.jsonl", b"\n\n", "is empty"),
        # Columns.
        ("a.csv", b"body,toxic\na,1\n", "no column 'text'; there are ['body', 'toxic']"),
        ("a.csv", b"text;toxic\na;1\n", "no column 'text'; there are ['text;toxic']"),
        ("a.tsv", b"text\tlabel\na\t1\n", "no column 'toxic'; there are ['text', 'label']"),
        ("a.jsonl", b'{"text": "a"}', "line 1: no column 'toxic'; there are ['text']"),
        ("a.csv", b"text,text,toxic\na,b,1\n", "column ['text'] stands twice"),
        # Rows.
        ("a.csv", b"text,toxic\na,1\nb,c,0\n", "line 3: malformed row, 3 fields; expected 2"),
        ("a.csv", b"text,toxic\n\n'a\n", "line 3: malformed row, 1 fields; expected 2"),
        ("a.csv", b'text,toxic\n"a\nb",1\n"c,0\nd,1\n', "line 4: malformed row"),
        ("a.csv", b'text,toxic\n"a" b,1\n', "line 2: malformed row"),
        ("a.jsonl", b'{"text": "a", "toxic": 1}\n{"text": \n', "line 2: unreadable JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: unreadable JSON"),
        ("a.jsonl", b'["a", 1]', "line 1: JSON of type list; expected an object"),
        # Texts and labels.
        ("a.jsonl", b'{"text": null, "toxic": 1}', "line 1: 'text' is missing; expected a text"),
        ("a.jsonl", b'{"text": 5, "toxic": 1}', "line 1: 'text' is of type int"),
        ("a.jsonl", b'{"text": "\\ud83d", "toxic": 1}', "line 1: 'text' holds half a character"),
        ("a.jsonl", b'{"text": "a", "toxic": NaN}', "line 1: 'toxic' is missing; expected a label"),
        ("a.jsonl", b'{"text": "a", "toxic": [1]}', "line 1: 'toxic' is of type list"),
        ("a.csv", b"text,toxic\na,1\nb,\n", "line 3: 'toxic' is missing"),
        ("a.csv", b"text,toxic\na,1\nb,nan\n", "line 3: 'toxic' is missing"),
        # Encoding: the byte is counted from the start of the text.
        ("a.csv", b"text,toxic\na,1\ncaf\xe9,0\n", "line 3: byte 18 of the text is not UTF-8"),
        ("a.csv", b"\xef\xbb\xbftext\n\xe9,0\n", "line 2: byte 8 of the text is not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "\xff"}'), "line 1: byte 10 of the text"),
        # One class.
        ("a.csv", b"text,toxic\na,2\nb,no\nc,2\n", "every comment is non-toxic"),
        ("a.csv", b"text,toxic\na,2\nb,no\n", "'toxic' holds ['2', 'no'] and toxic_values is [1]"),
        ("a.csv", b"text,toxic\na,1\nb,1\n", "every comment is toxic"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    refused = refusal(path)
    assert message in refused
    assert str(path) in refused


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [(None, 1.0, "row 2: 'text' is missing"), ("b", None, "row 2: 'toxic' is missing")],
)
def test_missing_in_parquet(
    tmp_path: Path, text: str | None, label: float | None, message: str
) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a", text], "toxic": [0.0, label]})
    assert message in refusal(path)


@pytest.mark.parametrize("toxic_values", [[], [""], [1, None]])
def test_toxic_values_must_be_labels(tmp_path: Path, toxic_values: list[object]) -> None:
    path = write(tmp_path / "a.csv", {"text": ["a", "b"], "toxic": [0, 1]})
    assert re.search(r"toxic_values is \[.*\]; expected", refusal(path, toxic_values))
