"""Records of a file, one after the other, so that the file may be larger than memory."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from irl_exp.config import InputError

# Each record of the input with its place, for messages: "texts.jsonl, line 3".
Records = Iterator[tuple[str, dict[str, Any]]]

FORMATS = (".jsonl", ".csv", ".tsv", ".txt")


def read(stream: BinaryIO, name: str) -> Records:
    """The records of a file, read as they are asked for; `name` tells the format."""
    source = "standard input" if name == "-" else name
    zipped = name.lower().endswith(".gz")
    lines = _lines(gzip.GzipFile(fileobj=stream) if zipped else stream, source)
    match file_format(name):
        case ".csv":
            return _csv_records(lines, source, ",")
        case ".tsv":
            return _csv_records(lines, source, "\t")
        case ".txt":
            return _text_records(lines, source)
        case _:
            return _json_records(lines, source)


def file_format(name: str) -> str:
    """The one of FORMATS that a name says; raises InputError if it says none."""
    suffix = ".jsonl" if name == "-" else Path(name.lower().removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        raise InputError(f"{name}: unknown format; expected {', '.join(FORMATS)}, or with .gz")
    return suffix


def _lines(stream: Iterable[bytes], source: str) -> Iterator[str]:
    """Lines with their ends; only a line feed ends one, for texts may hold other separators."""
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}, line {number}: not UTF-8; expected UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{source}, after line {number}: damaged gzip: {error}") from error


def _json_records(lines: Iterator[str], source: str) -> Records:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{source}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # RecursionError: "[[[[…"
            raise InputError(f"{place}: unreadable JSON; expected an object a line") from error
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise InputError(f"{place}: JSON of type {kind}; expected an object a line")
        yield place, record


def _csv_records(lines: Iterator[str], source: str, delimiter: str) -> Records:
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        header = list(reader.fieldnames or [])
        if len(set(header)) < len(header):
            raise InputError(f"{source}, line 1: a column stands twice; expected distinct names")
        for record in reader:
            place = f"{source}, line {reader.line_num}"
            # DictReader marks what is too many with the key None, what is too few with the value.
            if None in record or None in record.values():
                raise InputError(f"{place}: malformed row; expected {len(header)} fields")
            yield place, record
    except csv.Error as error:
        place = f"{source}, line {reader.line_num + 1}"  # where the row begins: a quote left open?
        raise InputError(f"{place}: malformed row ({error})") from error


def _text_records(lines: Iterator[str], source: str) -> Records:
    for number, line in enumerate(lines, start=1):
        yield f"{source}, line {number}", {"text": line.removesuffix("\n").removesuffix("\r")}
