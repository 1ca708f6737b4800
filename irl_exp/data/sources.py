"""Where comments come from: files of labelled texts.

The readers keep every field exactly as it stands, and know its line, so that bad input is refused
with the place where it went wrong.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from numbers import Number
from pathlib import Path

import pyarrow.parquet as pq

from irl_exp.config import InputError

# Each record of a file with its place, for messages: "/a/b.csv, line 3".
Records = Iterator[tuple[str, dict[str, object]]]

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".parquet")


def read_file(
    path: str | Path, text_column: str, label_column: str, toxic_values: Sequence[object]
) -> tuple[list[str], list[int]]:
    """Read labelled texts from a CSV, TSV, JSONL or Parquet file.

    Args:
        path: its suffix tells the format: .csv, .tsv (as CSV, with tabs), .jsonl (a JSON object a
            line), each also with .gz, or .parquet. Text is UTF-8.
        text_column: where the text is; a dotted name reaches into nested records ("prompt.text").
        label_column: where the label is, likewise.
        toxic_values: the labels that mean toxic; every other label means non-toxic. Case and
            surrounding space don't count, and what reads as a number or truth value is compared as
            a number: 1, 1.0, "1", True and "true" are one label. Null, NaN and blank are no label;
            "NA" and "null" are ordinary words, in a text and in a label.

    Returns:
        n texts, exactly as they stand, and their n labels, 1 = toxic, 0 = not, in file order.

    Raises:
        InputError: the file can't be read, a row has no text or no label, or all labels are of one
            class. The message names the file and, where there is one, the line or row.
    """
    path = Path(path).expanduser().absolute()
    toxic_keys = {_key(value) for value in toxic_values}
    if not toxic_keys or None in toxic_keys:
        raise InputError(f"toxic_values is {list(toxic_values)}; expected one label or more")

    texts: list[str] = []
    labels: list[int] = []
    found: dict[object, None] = {}  # the distinct labels, in order
    for place, record in _records(path):
        text = _field(record, text_column, place)
        label = _field(record, label_column, place)
        if not isinstance(text, str):
            raise InputError(f"{place}: {text_column!r} is {_kind(text)}; expected a text")
        if any("\ud800" <= character <= "\udfff" for character in text):  # from "\ud83d" in JSON
            raise InputError(f"{place}: {text_column!r} holds half a character; expected Unicode")
        key = _key(label)
        if key is None:
            raise InputError(f"{place}: {label_column!r} is {_kind(label)}; expected a label")
        texts.append(text)
        labels.append(int(key in toxic_keys))
        found[label] = None

    if not texts:
        raise InputError(f"{path} is empty; expected comments")
    if len(set(labels)) == 1:
        raise InputError(
            f"{path}: every comment is {'toxic' if labels[0] else 'non-toxic'}; expected both, but "
            f"{label_column!r} holds {list(found)[:10]} and toxic_values is {list(toxic_values)}"
        )
    return texts, labels


def _key(label: object) -> float | str | None:
    """What labels are compared by; None for what is no label."""
    if not isinstance(label, str | Number):
        return None
    word = str(label).strip().casefold()
    try:
        number = float({"true": "1", "false": "0"}.get(word, word))
    except ValueError:
        return word or None
    return None if math.isnan(number) else number


def _kind(value: object) -> str:
    """What stands where something else was expected; not the content, which may be anything."""
    missing = value is None or (isinstance(value, str | Number) and _key(value) is None)
    return "missing" if missing else f"of type {type(value).__name__}"


def _field(record: dict[str, object], name: str, place: str) -> object:
    if name in record:  # before the dots are taken apart: a column may have a dot in its name
        return record[name]
    value: object = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"{place}: no column {name!r}; there are {_names(record)}")
        value = value[part]
    return value


def _names(record: dict[str, object]) -> list[str]:
    names = []
    for name, value in record.items():
        nested = _names(value) if isinstance(value, dict) else []
        names += [f"{name}.{inner}" for inner in nested] or [name]
    return names


def _records(path: Path) -> Records:
    if path.is_dir():
        raise InputError(f"{path}: a folder; expected a file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    suffix = next((s for s in _SUFFIXES if path.name.lower().endswith(s)), "")
    match suffix.removesuffix(".gz"):
        case ".csv":
            return _csv_records(path, delimiter=",")
        case ".tsv":
            return _csv_records(path, delimiter="\t")
        case ".jsonl":
            return _json_records(path)
        case ".parquet":
            return _parquet_records(path)
        case _:
            raise InputError(f"{path}: unknown format; expected one of {', '.join(_SUFFIXES)}")


def _csv_records(path: Path, delimiter: str) -> Records:
    # newline="" leaves line breaks inside quoted fields as they are.
    lines = io.StringIO(_text(path), newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        place = f"{path}, line {reader.line_num + 1}"  # where a row begins, however long it is
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{place}: malformed row ({error}); is a quote left open?") from error
        if row is None:
            return
        if row and not header:
            header = row
            twice = sorted({name for name in header if name and header.count(name) > 1})
            if twice:
                raise InputError(f"{place}: column {twice} stands twice; expected distinct names")
        elif row:  # blank lines hold nothing
            if len(row) != len(header):
                raise InputError(
                    f"{place}: malformed row, {len(row)} fields; "
                    f"expected {len(header)}, as in the header"
                )
            yield place, dict(zip(header, row, strict=True))


def _json_records(path: Path) -> Records:
    # Not splitlines(): a JSON text may hold other line separators, such as U+2028.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # RecursionError: "[[[[…"
            raise InputError(f"{place}: unreadable JSON; expected an object a line") from error
        if not isinstance(record, dict):
            raise InputError(f"{place}: JSON of type {type(record).__name__}; expected an object")
        yield place, record


def _parquet_records(path: Path) -> Records:
    row = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                row += 1
                yield f"{path}, row {row}", record
    except (OSError, ValueError, NotImplementedError) as error:  # what pyarrow raises
        raise InputError(f"{path}: unreadable Parquet after row {row}") from error


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} can't be read: {error}") from error
    try:
        return data.decode("utf-8").removeprefix("\ufeff")  # the mark that some editors put first
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: byte {error.start} of the text is not UTF-8; expected UTF-8"
        ) from error
