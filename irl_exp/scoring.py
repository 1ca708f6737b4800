"""irl-score: texts in, one number a text out, under a saved reward; higher = better = less toxic.

Scores are raw (the unit of RLHF is no part of a saved reward) and computed in full float32. Input
is streamed, so files may be larger than memory, and what was killed goes on where it stopped.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from irl_exp import full_disk, hub
from irl_exp.config import InputError
from irl_exp.data.formats import file_format, read
from irl_exp.partial import Partial, check_output, open_partial

if TYPE_CHECKING:
    from irl_exp.models.reward_model import Reward

# Batches that are held at once, in the order of their lengths, so that little work is on padding;
# and what a kill can cost. A text's last digits depend on its batch: where chunks begin is fixed.
BATCHES = 16

Chunk = list[tuple[str, dict[str, Any]]]

DEFAULT = "text, or prompt and completion"


def main() -> None:
    """Console script: scores, or one line that says what is wrong with the input."""
    options = parse()
    try:
        source = check(options)
        run(options, source)
    except BrokenPipeError:
        # Who reads us has seen enough: leave without a word, also when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (InputError, OSError) as error:
        sys.exit(f"irl-score: {error}")
    except KeyboardInterrupt:
        again = "; the same command goes on from here" * (options.output is not None)
        sys.exit(f"irl-score: interrupted{again}")


def parse() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        prog="irl-score",
        description="Score texts with a saved reward. Higher is better, that is less toxic.",
        epilog="Writes one JSON object a line, in the order of the input: the score, then the "
        "fields of the input. Scores are raw, in the unit of the reward as it was saved. With -o, "
        "the same command goes on where it was killed.",
    )
    parser.add_argument(
        "reward",
        metavar="REWARD",
        help="a saved reward: an artifact of the step recover or ground_truth, what irl-export "
        "wrote, or any Hugging Face sequence classifier with one output, higher = less toxic; "
        "a folder or a hub id",
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
        help="write to this file, which appears once all is scored; until then what is done is in "
        "OUT.part (default: to standard output as it comes)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--restart", action="store_true", help="score all anew, whatever is done in OUT.part"
    )
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    for name in ("prompt", "completion", "text"):
        parser.add_argument(
            f"--{name}", metavar="NAME", help=f"the field that holds it (default: {name})"
        )
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


def check(options: argparse.Namespace) -> hub.Source:
    """What can be known to fail before the heavy libraries are loaded; which reward it is."""
    if options.text and (options.prompt or options.completion):
        raise InputError("--text beside --prompt or --completion: expected one or the other")
    if options.file != "-":
        if not Path(options.file).is_file():
            raise InputError(f"{options.file}: no such file")
        file_format(options.file)
    if options.output:
        check_output(options.output, options.overwrite)
    elif options.restart or options.overwrite:
        raise InputError("--restart and --overwrite are about OUT; expected -o OUT beside them")
    return hub.resolve(options.reward, options.revision, "model")


def run(options: argparse.Namespace, source: hub.Source) -> None:
    """Read, score and write, a chunk at a time; with -o from where it was left."""
    size = BATCHES * options.batch_size
    with ExitStack() as stack:
        partial = None
        if options.output:
            about = _about(options, source)
            how = {"overwrite": options.overwrite, "restart": options.restart}
            partial = stack.enter_context(open_partial(options.output, about, **how))
        reward = load(source.folder(), options.batch_size, options.device)
        stream = stack.enter_context(_input(options.file))
        advance = stack.enter_context(_progress(stream))
        where = "standard input" if options.file == "-" else options.file
        records = read(stream, options.file, where)
        found = total = cut = 0
        while chunk := list(islice(records, size)):
            if partial and found + total + len(chunk) <= partial.kept:
                _require_kept(partial, chunk, options)
                found += len(chunk)
            else:
                if found and not total:
                    _say(f"resumed after {found} lines")
                texts = [_texts(place, record, options) for place, record in chunk]
                lines = [json.dumps(r) + "\n" for r in score(reward, chunk, texts, options.field)]
                _write(lines, partial)
                total, cut = total + len(chunk), cut + truncated(reward, texts)
            advance(len(chunk))
        if partial and partial.kept > found + total:
            said = f"shorter than {options.output}.part; remove that, or pass --restart"
            raise InputError(f"{options.file}: {said}")
        if found and not total:
            _say(f"resumed after {found} lines, which were all")
    if cut:
        _say(f"{cut} of {total} texts are longer than the reward reads: scored by their end")


def _say(what: str) -> None:
    """Beside the scores, not among them."""
    print(f"irl-score: {what}", file=sys.stderr)


def _about(options: argparse.Namespace, source: hub.Source) -> dict[str, Any]:
    """What decides the lines besides the input, which is compared with them one by one."""
    names = ("field", "prompt", "completion", "text", "batch_size", "device")
    typed = {f"--{name}".replace("_", "-"): getattr(options, name) for name in names}
    return {"reward": source.identity, **typed}


def _require_kept(partial: Partial, chunk: Chunk, options: argparse.Namespace) -> None:
    """The next lines of OUT.part are of these records."""
    for line, (place, record) in zip(partial.left(len(chunk)), chunk, strict=True):
        try:
            value = json.loads(line)[options.field]
        except (ValueError, KeyError, TypeError):  # what a power cut can leave
            value = None
        if json.dumps({options.field: value, **record}).encode() + b"\n" != line:
            said = f"not what {options.output}.part holds there; remove that, or pass --restart"
            raise InputError(f"{place}: {said}")


def _write(lines: Sequence[str], partial: Partial | None) -> None:
    if partial:
        partial.write(lines)
    else:
        with full_disk.named("standard output"):
            sys.stdout.writelines(lines)
            sys.stdout.flush()


def load(folder: Path, batch_size: int, device: str) -> "Reward":
    """A reward of ours by its reward.json, or anybody's network with one output."""
    import torch
    from transformers.utils import logging

    from irl_exp import memory
    from irl_exp.models import saved_rewards

    memory.keep_freed()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device={device}: {str(error).splitlines()[0]}") from error
    return saved_rewards.load_any(folder, batch_size, device)


def truncated(reward: "Reward", texts: list[tuple[str, str]]) -> int:
    """How many of the (prompt, completion) are longer than the reward reads."""
    from irl_exp.models import saved_rewards

    return saved_rewards.truncated(reward, [prompt + completion for prompt, completion in texts])


def score(
    reward: "Reward",
    chunk: Chunk,
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


def _texts(place: str, record: dict[str, Any], options: argparse.Namespace) -> tuple[str, str]:
    """Prompt and completion; a whole text is a completion of nothing."""
    pair = (options.prompt or "prompt", options.completion or "completion")
    asked = options.prompt or options.completion
    whole = options.text or not (asked or record.keys() >= set(pair))
    names = (options.text or "text",) if whole else pair
    for name in names:
        if name not in record:
            expected = " and ".join(names) if asked or options.text else DEFAULT
            known = ", ".join(map(str, record)) or "none"
            raise InputError(f"{place}: expected {expected}; it has {known}")
        if not isinstance(record[name], str):
            kind = type(record[name]).__name__
            raise InputError(f"{place}: '{name}' is of type {kind}; expected a text")
        try:
            record[name].encode()
        except UnicodeEncodeError as error:
            message = f"{place}: '{name}' holds half a character; expected Unicode"
            raise InputError(message) from error
    return "" if whole else record[names[0]], record[names[-1]]


# --- streams ------------------------------------------------------------------------------------


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as stream:
            yield stream


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
