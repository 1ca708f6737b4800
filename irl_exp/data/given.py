"""Prompts and pairs as people bring them: rows of a file, in the formats of preference data sets.

A pair is a completion of the aligned model and one of the reference, or k of each. What opens both
is the prompt, which may stand in a column of its own, or at the beginning of either text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from irl_exp.config import InputError
from irl_exp.data.formats import records
from irl_exp.data.skipped import Skipped, stop
from irl_exp.data.sources import field, text_of

# Where the last turn of a dialogue as in HH-RLHF begins (Bai et al. 2022, arXiv 2204.05862).
TURN = "\n\nAssistant:"
# How such a dialogue begins.
OPENINGS = ("\n\nHuman:", "\n\nSystem:")


@dataclass(frozen=True)
class GivenPairs:
    """n prompts ("" where both texts share none), and for each the completions of either side.

    `identical` rows were left out, for their sides do not differ.
    """

    prompts: list[str]
    aligned: list[list[str]]
    reference: list[list[str]]
    identical: int


def read_prompts(path: str | Path, column: str) -> list[str]:
    """The distinct prompts of a file, in order: a .txt has one a line, other files a column.

    Raises:
        InputError: the file cannot be read, has none, or a row has no text there.
    """
    path = Path(path).expanduser().absolute()
    if path.name.lower().removesuffix(".gz").endswith(".txt"):
        column = "text"
    found = [
        _text(field(row, column, place), f"{place}: {column!r}", answered=True)
        for place, row in records(path, str(path), [column], lines=True)
    ]
    prompts = list(dict.fromkeys(text for text in found if text.strip()))
    if not prompts:
        raise InputError(f"{path} has no prompts; expected some")
    return prompts


def read_pairs(
    path: str | Path,
    prompt: str | None,
    aligned: str,
    reference: str,
    skipped: Skipped | None = None,
) -> GivenPairs:
    """The pairs of a CSV, TSV, JSONL or Parquet file (formats.py), by the names of its columns.

    A side is a text, a list of k texts, or a list of messages ({role, content}). `prompt` None: the
    column "prompt" where there is one. Without it, and where sides are whole dialogues, the prompt
    is what all of them open with, up to and with the last "Assistant:" turn that they share; texts
    that share no such turn have no prompt. With `skipped`, which counts them, rows that are no pair
    are left out.

    Raises:
        InputError: the file cannot be read, or a row is no pair; the message names its place.
    """
    refuse = skipped or stop
    path = Path(path).expanduser().absolute()
    names = (aligned, reference)
    found = GivenPairs([], [], [], 0)
    identical = 0
    for place, row in records(path, str(path), [prompt or "prompt", *names], refuse=refuse):
        try:
            opening, sides = _pair(row, place, prompt, names)
            k = len(found.aligned[0]) if found.aligned else len(sides[0])
            if len(sides[0]) != k:
                raise InputError(
                    f"{place}: {len(sides[0])} texts a side, where pairs before it have {k}; "
                    "expected as many in each"
                )
        except InputError as error:
            refuse(error)
            continue
        if sides[0] == sides[1]:
            identical += 1
            continue
        found.prompts.append(opening)
        found.aligned.append(sides[0])
        found.reference.append(sides[1])
    if not found.prompts:
        what = f": both sides of all {identical} rows are alike" if identical else ""
        what = what or (f": {skipped}" if skipped and skipped.count else "")
        raise InputError(f"{path} has no pairs{what}; expected some")
    return GivenPairs(found.prompts, found.aligned, found.reference, identical)


def split_of(key: str, shares: Mapping[str, float], seed: int) -> tuple[str, int]:
    """The split that a prompt (without one, a pair) falls into, and its place in a random order.

    Both follow from the text and the seed alone, so that whoever asks gets the same answer.
    """
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    place, order = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:16]))
    edges = np.cumsum(list(shares.values()))
    drawn = int(np.searchsorted(edges[:-1], place / 2**64, side="right"))
    return list(shares)[drawn], order


def key_of(pairs: GivenPairs, row: int) -> str:
    """What decides a pair's split: its prompt, or where it has none its texts."""
    return pairs.prompts[row] or "\x00".join(pairs.reference[row])


def _pair(
    row: dict[str, object], place: str, prompt: str | None, names: Sequence[str]
) -> tuple[str, list[list[str]]]:
    """The prompt of a row, and the completions of either side."""
    sides = [_side(field(row, name, place), f"{place}: {name!r}") for name in names]
    if len(sides[0]) != len(sides[1]):
        counts = f"{len(sides[0])} texts in {names[0]!r}, {len(sides[1])} in {names[1]!r}"
        raise InputError(f"{place}: {counts}; expected as many of either")
    written = [text for texts in sides for text in texts]
    # Whole dialogues hold the prompt, whatever a column says of it besides.
    column = prompt or ("prompt" if isinstance(row.get("prompt"), str | list) else None)
    if column and not all(text.startswith(OPENINGS) for text in written):
        opening = _text(field(row, column, place), f"{place}: {column!r}", answered=True)
        return opening, [[joined(opening, text) for text in texts] for texts in sides]
    opening = _shared(written)
    return opening, [[text[len(opening) :] for text in texts] for texts in sides]


# --- texts ----------------------------------------------------------------------------------------


def _side(value: object, place: str) -> list[str]:
    """The completions of one side; a list of messages is one text."""
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return [_text(text, place) for text in value]
    return [_text(value, place)]


def _text(value: object, place: str, answered: bool = False) -> str:
    """A text as it stands, or messages as a dialogue; `answered`: the next turn is the model's."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        turns = []
        for turn in value:
            role, content = (turn.get(name) for name in ("role", "content"))
            if not isinstance(role, str) or not isinstance(content, str):
                raise InputError(f"{place}: a message without role or content; expected both")
            name = {"user": "Human"}.get(role, role.capitalize())
            turns.append(f"\n\n{name}: {content}")
        value = "".join(turns) + (TURN if answered else "")
    return text_of(value, place)


def joined(prompt: str, completion: str) -> str:
    """A completion that goes on from its prompt: with a space between them, if there is none; of a
    dialogue, the answer without what announces it, which the prompt ends with."""
    if prompt.endswith(TURN):
        completion = completion.removeprefix(TURN)
    apart = not prompt or not completion or prompt[-1].isspace() or completion[0].isspace()
    return completion if apart else f" {completion}"


def _shared(texts: Sequence[str]) -> str:
    """What all texts open with, up to and with the last turn of the assistant."""
    first, last = min(texts), max(texts)  # in the order of a dictionary, what both open with all do
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    opening = "".join(letter for letter, _ in same)
    end = opening.rfind(TURN)
    return opening[: end + len(TURN)] if end >= 0 else ""
