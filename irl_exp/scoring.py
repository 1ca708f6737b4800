"""irl-score: texts in, one number a text out, under a saved reward; higher = better = less toxic.

Scores are raw (the unit of RLHF is no part of a saved reward) and computed in full float32. Input
is streamed, so files may be larger than memory.
"""

import argparse
import csv
import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from irl_exp.config import InputError

if TYPE_CHECKING:
    from irl_exp.models.reward_model import Reward

# Each record of the input with its place, for messages: "texts.jsonl, line 3".
Records = Iterator[tuple[str, dict[str, Any]]]

FORMATS = (".jsonl", ".csv", ".tsv", ".txt")
# Texts held at once: enough that batches of like length waste little on padding.
CHUNK = 4096


def main() -> None:
    """Console script: scores, or one line that says what is wrong with the input."""
    options = parse()
    try:
        check(options)
        run(options)
    except BrokenPipeError:
        # Who reads us has seen enough: leave without a word, also when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (InputError, OSError) as error:
        sys.exit(f"irl-score: {error}")
    except KeyboardInterrupt:
        sys.exit("irl-score: interrupted")


def parse() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        prog="irl-score",
        description="Score texts with a saved reward. Higher is better, that is less toxic.",
        epilog="Writes one JSON object a line, in the order of the input: the score, then the "
        "fields of the input. Scores are raw, in the unit of the reward as it was saved.",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="a saved reward: an artifact of the step recover or ground_truth, or any Hugging "
        "Face sequence classifier with one output, higher = less toxic",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="what to score: .jsonl, .csv or .tsv with the fields prompt and completion, or else "
        "text; or .txt, one text a line; each also with .gz; '-' reads JSONL from standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="write to this file once all is scored (default: to standard output as it comes)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--field", metavar="NAME", default="score", help="name of the score (default: score)"
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=_count,
        default=64,
        help="texts that pass the network at once (default: 64)",
    )
    parser.add_argument(
        "--device", default="cpu", help="where the network runs: cpu, cuda, mps (default: cpu)"
    )
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """What can be known to fail before the heavy libraries are loaded."""
    if not options.folder.is_dir():
        raise InputError(f"{options.folder}: no such folder; expected a saved reward")
    if options.file != "-":
        if not Path(options.file).is_file():
            raise InputError(f"{options.file}: no such file")
        _format(options.file)
    out = options.output
    if out is None:
        return
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder, to write {out.name} in")
    if out.is_symlink() or (out.exists() and not out.is_file()):
        raise InputError(f"{out}: not a regular file; expected one, or a new name")
    if out.exists() and not options.overwrite:
        raise InputError(f"{out}: exists already; --overwrite replaces it")


def run(options: argparse.Namespace) -> None:
    """Read, score and write, a chunk at a time."""
    reward = load(options.folder, options.batch_size, options.device)
    with ExitStack() as stack:
        stream = stack.enter_context(_input(options.file))
        output = stack.enter_context(_output(options.output))
        advance = stack.enter_context(_progress(stream))
        records = read(stream, options.file)
        total = cut = 0
        while chunk := list(islice(records, CHUNK)):
            texts = [_texts(place, record) for place, record in chunk]
            for record in score(reward, chunk, texts, options.field):
                output.write(json.dumps(record) + "\n")
            output.flush()
            total, cut = total + len(chunk), cut + truncated(reward, texts)
            advance(len(chunk))
    if cut:
        what = f"{cut} of {total} texts are longer than the reward reads: scored by their end"
        print(f"irl-score: {what}", file=sys.stderr)


def load(folder: Path, batch_size: int, device: str) -> "Reward":
    """A reward of ours by its reward.json, or anybody's network with one output."""
    import torch
    from transformers.utils import logging

    from irl_exp.models import network_reward, saved_rewards
    from irl_exp.models.reward_model import REWARD_FILE

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device={device}: {str(error).splitlines()[0]}") from error
    if (folder / REWARD_FILE).is_file():
        return saved_rewards.load_reward(folder, batch_size, device)
    reward = network_reward.load_network_reward(folder, batch_size)
    reward.network.to(device)  # type: ignore[arg-type]
    return reward


def truncated(reward: "Reward", texts: list[tuple[str, str]]) -> int:
    """How many of the (prompt, completion) are longer than the reward reads."""
    from irl_exp.models import saved_rewards

    return saved_rewards.truncated(reward, [prompt + completion for prompt, completion in texts])


def score(
    reward: "Reward",
    chunk: list[tuple[str, dict[str, Any]]],
    texts: list[tuple[str, str]],
    field: str,
) -> Iterator[dict[str, Any]]:
    """Each record of the chunk with its score in front."""
    for place, record in chunk:
        if field in record:
            raise InputError(f"{place}: has a field '{field}' already; --field NAME sets another")
    prompts, completions = zip(*texts, strict=True)
    try:
        scores = reward.score(prompts, completions).tolist()
    except InputError as error:
        raise InputError(f"{chunk[0][0]} and after: {error}") from error
    for value, (_, record) in zip(scores, chunk, strict=True):
        yield {field: value, **record}


def _texts(place: str, record: dict[str, Any]) -> tuple[str, str]:
    """Prompt and completion; a whole text is a completion of nothing."""
    names = ("prompt", "completion") if {"prompt", "completion"} <= record.keys() else ("text",)
    for name in names:
        if name not in record:
            known = ", ".join(map(str, record)) or "none"
            raise InputError(f"{place}: expected text, or prompt and completion; it has {known}")
        if not isinstance(record[name], str):
            kind = type(record[name]).__name__
            raise InputError(f"{place}: '{name}' is of type {kind}; expected a text")
        if any("\ud800" <= character <= "\udfff" for character in record[name]):
            raise InputError(f"{place}: '{name}' holds half a character; expected Unicode")
    return record[names[0]] if len(names) == 2 else "", record[names[-1]]


# --- reading ------------------------------------------------------------------------------------


def read(stream: BinaryIO, name: str) -> Records:
    """The records of a file, read as they are asked for; `name` tells the format."""
    source = "standard input" if name == "-" else name
    zipped = name.lower().endswith(".gz")
    lines = _lines(gzip.GzipFile(fileobj=stream) if zipped else stream, source)
    match _format(name):
        case ".csv":
            return _csv_records(lines, source, ",")
        case ".tsv":
            return _csv_records(lines, source, "\t")
        case ".txt":
            return _text_records(lines, source)
        case _:
            return _json_records(lines, source)


def _format(name: str) -> str:
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


# --- streams ------------------------------------------------------------------------------------


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as stream:
            yield stream


@contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears under its name only when it is whole."""
    if path is None:
        yield sys.stdout
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("x", encoding="utf-8") as output:
            yield output
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _progress(stream: BinaryIO) -> Iterator[Any]:
    """A bar on a terminal's standard error: how much of the file is read, how many texts are done.

    Yields a function to call with the number of texts that have been scored since the last call.
    """
    if not sys.stderr.isatty():
        yield lambda texts: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    size = os.fstat(stream.fileno()).st_size if stream.seekable() else None
    columns = (BarColumn(), TextColumn("{task.fields[texts]:,} texts"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, done = bar.add_task("", total=size, texts=0), 0

        def advance(texts: int) -> None:
            nonlocal done
            done += texts
            # The place in the file itself, so that it is right for a gzipped one too.
            bar.update(task, completed=stream.tell() if size else None, texts=done)

        yield advance


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return int(text)


if __name__ == "__main__":
    main()
