"""The records of a file: CSV, TSV, JSONL or Parquet, plain or gzipped.

Every field is kept exactly as it stands and has its line, so that bad input is refused with the
place where it went wrong.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from irl_exp.config import InputError

# Each record of a file with its place, for messages: "/a/b.csv, line 3".
Records = Iterator[tuple[str, dict[str, object]]]

SUFFIXES = (
    *(".csv", ".tsv", ".jsonl", ".json"),
    *(".csv.gz", ".tsv.gz", ".jsonl.gz", ".json.gz"),
    ".parquet",
)


def records(path: Path, where: str, names: Sequence[str]) -> Records:
    """The records of a file, which messages call `where`; at least their columns `names`."""
    if path.is_dir():
        raise InputError(f"{where}: a folder; expected a file")
    if not path.is_file():
        raise InputError(f"{where}: no such file")
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")
    match suffix.removesuffix(".gz"):
        case ".csv":
            return _csv_records(path, where, delimiter=",")
        case ".tsv":
            return _csv_records(path, where, delimiter="\t")
        case ".jsonl" | ".json":
            return _json_records(path, where)
        case ".parquet":
            return _parquet_records(path, where, names)
        case _:
            raise InputError(f"{where}: unknown format; expected one of {', '.join(SUFFIXES)}")


def _csv_records(path: Path, where: str, delimiter: str) -> Records:
    # newline="" leaves line breaks inside quoted fields as they are.
    lines = io.StringIO(_text(path, where), newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        place = f"{where}, line {reader.line_num + 1}"  # where a row begins, however long it is
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


def _json_records(path: Path, where: str) -> Records:
    # Not splitlines(): a JSON text may hold other line separators, such as U+2028.
    for number, line in enumerate(_text(path, where).split("\n"), start=1):
        place = f"{where}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # RecursionError: "[[[[…"
            raise InputError(f"{place}: unreadable JSON; expected an object a line") from error
        if not isinstance(record, dict):
            raise InputError(f"{place}: JSON of type {type(record).__name__}; expected an object")
        yield place, record


def _parquet_records(path: Path, where: str, names: Sequence[str]) -> Records:
    row = 0
    try:
        file = pq.ParquetFile(path)
        known = set(file.schema_arrow.names)
        # Read what is asked for, or, if something of it is not there, all, to say what is there.
        wanted = {name if name in known else name.partition(".")[0] for name in names}
        columns = sorted(wanted) if names and wanted <= known else None
        for batch in file.iter_batches(columns=columns):
            for record in batch.to_pylist():
                row += 1
                yield f"{where}, row {row}", record
    except (OSError, ValueError, NotImplementedError) as error:  # what pyarrow raises
        raise InputError(f"{where}: unreadable Parquet after row {row}") from error


def _text(path: Path, where: str) -> str:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{where} can't be read: {error}") from error
    try:
        return data.decode("utf-8").removeprefix("\ufeff")  # the mark that some editors put first
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}, line {line}: byte {error.start} of the text is not UTF-8; expected UTF-8"
        ) from error
