"""The records of a file: CSV, TSV, JSONL or plain text, each also gzipped, or Parquet.

They are read as they are asked for, so that the file may be larger than memory. Every field is kept
exactly as it stands and has its line, so that bad input is refused with the place where it went
wrong.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from irl_exp.config import InputError
from irl_exp.data.skipped import Refuse, stop
from irl_exp.store import content_digest
from irl_exp.unicode import is_unicode

# Each record of a file with its place, for messages: "/a/b.csv, line 3".
Records = Iterator[tuple[str, dict[str, Any]]]

# What has columns.
TABLES = (
    *(".csv", ".tsv", ".jsonl", ".json"),
    *(".csv.gz", ".tsv.gz", ".jsonl.gz", ".json.gz"),
    ".parquet",
)
TEXTS = (".txt", ".txt.gz")
# What is read line by line, also from a pipe.
STREAMS = (".jsonl", ".csv", ".tsv", ".txt")


def records(
    path: Path, where: str, names: Sequence[str], lines: bool = False, refuse: Refuse = stop
) -> Records:
    """The records of a file, which messages call `where`; at least their columns `names`. With
    `lines`, a .txt is one as well: its column is "text", and each of its lines a record. What is
    wrong with one row goes to `refuse`, what is wrong with the file is raised."""
    if path.is_dir():
        raise InputError(f"{where}: a folder; expected a file")
    if not path.is_file():
        raise InputError(f"{where}: no such file")
    known = (*TABLES, *TEXTS) if lines else TABLES
    suffix = _suffix(path, known)
    if suffix is None:
        raise InputError(f"{where}: unknown format; expected one of {', '.join(known)}")
    if suffix == ".parquet":
        return _parquet_records(path, where, names)
    return _opened(path, where, refuse)


def _suffix(path: Path, known: Sequence[str]) -> str | None:
    return next((suffix for suffix in known if path.name.lower().endswith(suffix)), None)


def file_format(name: str) -> str:
    """The one of STREAMS that a name says ("-": standard input, JSONL); InputError if none."""
    suffix = ".jsonl" if name == "-" else Path(name.lower().removesuffix(".gz")).suffix
    if suffix not in STREAMS:
        raise InputError(f"{name}: unknown format; expected {', '.join(STREAMS)}, or with .gz")
    return suffix


def file_identity(path: str | Path) -> str:
    """A file by its content, and by the format that its suffix says. InputError where it is none:
    a folder may hold more than one has time to read."""
    if not str(path):
        raise InputError("an empty path; expected that of a file")
    place = Path(path).expanduser()
    if place.is_dir():
        raise InputError(f"{place.absolute()}: a folder; expected a file")
    return content_digest(place) + (_suffix(place, (*TABLES, *TEXTS)) or "")


def _opened(path: Path, where: str, refuse: Refuse) -> Records:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"{where} can't be read: {error}") from error
    with stream:
        yield from read(stream, path.name, where, refuse)


def read(stream: BinaryIO, name: str, where: str, refuse: Refuse = stop) -> Records:
    """The records of a stream; `name` tells the format."""
    zipped = name.lower().endswith(".gz")
    lines = _lines(gzip.GzipFile(fileobj=stream) if zipped else stream, where)
    match Path(name.lower().removesuffix(".gz")).suffix:
        case ".csv":
            return _csv_records(lines, where, ",", refuse)
        case ".tsv":
            return _csv_records(lines, where, "\t", refuse)
        case ".txt":
            return _text_records(lines, where, refuse)
        case _:
            return _json_records(lines, where, refuse)


def _lines(stream: Iterable[bytes], where: str) -> Iterator[str]:
    """Lines with their ends; only a line feed ends one, for texts may hold other separators.
    What is not UTF-8 becomes surrogates, which whoever makes a record of it has to refuse."""
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            text = line.decode("utf-8", "surrogateescape")
            # Without the mark that some editors put first.
            yield text.removeprefix("\ufeff") if number == 1 else text
    except (OSError, EOFError, zlib.error) as error:  # of a damaged gzip, for one
        after = f" after line {number}" if number else ""
        raise InputError(f"{where} can't be read{after}: {error}") from error


def _json_records(lines: Iterator[str], where: str, refuse: Refuse) -> Records:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{where}, line {number}"
        try:
            record = _json_record(line, place)
        except InputError as error:
            refuse(error)
        else:
            yield place, record


class _TwiceError(Exception):
    """A key of an object that has two values."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_object)


def _json_record(line: str, place: str) -> dict[str, Any]:
    if not is_unicode(line):
        raise InputError(f"{place} is not UTF-8; expected UTF-8")
    try:
        record = _JSON.decode(line)
    except _TwiceError as error:
        raise InputError(
            f"{place}: key {str(error)!r} stands twice; expected distinct ones"
        ) from error
    except (ValueError, RecursionError) as error:  # RecursionError: "[[[[…"
        raise InputError(f"{place}: unreadable JSON; expected an object a line") from error
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise InputError(f"{place}: JSON of type {kind}; expected an object a line")
    return record


def _csv_records(lines: Iterator[str], where: str, delimiter: str, refuse: Refuse) -> Records:
    # Old files end lines with a carriage return alone; newline="" leaves all ends as they are.
    ended = (piece for line in lines for piece in io.StringIO(line, newline=""))
    reader = csv.reader(ended, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1  # where a row begins, however long it is
        place = f"{where}, line {line}"
        try:
            row = next(reader, None)
            if row is None:
                return
            if row and not header:
                header = _header(row, place)
            elif row:  # blank lines hold nothing
                _require_fields(row, header, place)
                yield place, dict(zip(header, row, strict=True))
        except csv.Error as error:
            # Where this row ends, nobody knows: what follows may be the rest of it, or more rows.
            wrong = f"{place}: malformed row ({error}); is a quote left open?"
            raise InputError(wrong) from error
        except InputError as error:
            # A row of several lines may be more than one: an open quote swallows what follows.
            if not header or reader.line_num > line:
                raise
            refuse(error)


def _header(row: list[str], place: str) -> list[str]:
    if not all(map(is_unicode, row)):
        raise InputError(f"{place}: the header is not UTF-8; expected UTF-8")
    twice = sorted({name for name in row if name and row.count(name) > 1})
    if twice:
        raise InputError(f"{place}: column {twice} stands twice; expected distinct names")
    return row


def _require_fields(row: list[str], header: list[str], place: str) -> None:
    if len(row) != len(header):
        raise InputError(
            f"{place}: malformed row, {len(row)} fields; expected {len(header)}, as in the header"
        )
    for name, value in zip(header, row, strict=True):
        if not is_unicode(value):
            raise InputError(f"{place}: {name!r} is not UTF-8; expected UTF-8")


def _text_records(lines: Iterator[str], where: str, refuse: Refuse) -> Records:
    for number, line in enumerate(lines, start=1):
        place = f"{where}, line {number}"
        if is_unicode(line):
            yield place, {"text": line.removesuffix("\n").removesuffix("\r")}
        else:
            refuse(InputError(f"{place} is not UTF-8; expected UTF-8"))


def _parquet_records(path: Path, where: str, names: Sequence[str]) -> Records:
    import pyarrow.parquet as pq  # which other formats need not wait for

    row = 0
    try:
        file = pq.ParquetFile(path)
        known = set(file.schema_arrow.names)
        if len(known) < len(file.schema_arrow.names):
            twice = sorted({n for n in known if file.schema_arrow.names.count(n) > 1})
            raise InputError(f"{where}: column {twice} stands twice; expected distinct names")
        # Read what is asked for, or, if something of it is not there, all, to say what is there.
        wanted = {name if name in known else name.partition(".")[0] for name in names}
        columns = sorted(wanted) if names and wanted <= known else None
        for batch in file.iter_batches(columns=columns):
            for record in batch.to_pylist():
                row += 1
                yield f"{where}, row {row}", record
    except (OSError, ValueError, NotImplementedError) as error:  # what pyarrow raises
        raise InputError(f"{where}: unreadable Parquet after row {row}") from error
