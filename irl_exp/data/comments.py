"""Comments: human-written texts with a toxicity label, cut into prompt and completion."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from irl_exp.config import InputError

SPLITS = ("train", "validation", "calibration", "test")
_COLUMNS = ["prompt", "completion", "toxic", "split"]
_FILE = "comments.parquet"


def group_ids(texts: Iterable[str]) -> NDArray[np.int64]:
    """[n] int64: equal for equal texts, numbered as they first appear.

    Not pandas.factorize, nor its groupby: before pandas 3.1 both take texts for one that differ
    only after a NUL.
    """
    known: dict[str, int] = {}
    return np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)


class LabelledText(NamedTuple):
    """A text as it stands in its source, and whether it is toxic: None where a score is missing.
    Where the source has cut it, `prompt` is its opening and `text` the rest."""

    text: str
    toxic: bool | None
    prompt: str | None = None


@dataclass(frozen=True, eq=False)
class Comments:
    """n comments, one a row.

    `table` has the columns `prompt` (str), `completion` (str; starts with a space when the prompt
    is not empty), `toxic` (int8; 1 = toxic, 0 = not) and `split` (str, one of `SPLITS`). Treat it
    as read-only. Without `toxic` nobody has labelled them: they are prompts, with what somebody
    wrote after them, if anything. Raises `InputError` when a column is missing or holds another
    label or split.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        columns = [c for c in _COLUMNS if c != "toxic" or c in self.table.columns]
        missing = [column for column in columns if column not in self.table.columns]
        if missing:
            raise InputError(f"comments have no column {missing}; expected {_COLUMNS}")
        if "toxic" in columns and not self.table["toxic"].isin([0, 1]).all():
            raise InputError("comments: column 'toxic' holds something other than 0 and 1")
        if not self.table["split"].isin(SPLITS).all():
            raise InputError(f"comments: column 'split' holds something other than {SPLITS}")
        table = self.table[columns].reset_index(drop=True)
        if "toxic" in columns:
            table = table.astype({"toxic": np.int8})
        object.__setattr__(self, "table", table)

    def __len__(self) -> int:
        return len(self.table)

    def split(self, name: str) -> Comments:
        """The comments of one split, in order; `InputError` for a name that is not in `SPLITS`."""
        if name not in SPLITS:
            raise InputError(f"comments have no split {name!r}; expected one of {SPLITS}")
        return Comments(self.table[self.table["split"] == name])

    @property
    def prompts(self) -> list[str]:
        """The distinct prompts, in order of first appearance."""
        return list(dict.fromkeys(self.table["prompt"]))

    @property
    def group_ids(self) -> NDArray[np.int64]:
        """[n] int64: where each comment's prompt stands in `prompts`, to cluster by prompt."""
        return group_ids(self.table["prompt"])

    @property
    def completions(self) -> list[str]:
        """The n completions."""
        return self.table["completion"].tolist()

    @property
    def texts(self) -> list[str]:
        """The n whole comments: prompt + completion."""
        return (self.table["prompt"] + self.table["completion"]).tolist()

    @property
    def labelled(self) -> bool:
        """Whether somebody has said of each whether it is toxic."""
        return "toxic" in self.table.columns

    @property
    def labels(self) -> NDArray[np.int64]:
        """[n] int64: 1 = toxic, 0 = not; `InputError` where there are none."""
        if not self.labelled:
            raise InputError("these are prompts without labels; expected labelled comments")
        return self.table["toxic"].to_numpy(np.int64)

    def save(self, folder: Path) -> None:
        """Write `comments.parquet` into an existing folder."""
        self.table.to_parquet(folder / _FILE, index=False)

    @classmethod
    def load(cls, folder: Path) -> Comments:
        """Read what `save` wrote; `InputError` when a prompt is in two splits."""
        comments = cls(pd.read_parquet(folder / _FILE))
        opened = comments.table[comments.table["prompt"] != ""]  # without one, texts share nothing
        splits = opened["split"].groupby(group_ids(opened["prompt"])).nunique()
        if (splits > 1).any():
            raise InputError(
                f"{folder / _FILE}: {(splits > 1).sum()} prompts are in more than one split; "
                "expected each in one, for what is measured must not have been trained on"
            )
        return comments


def cut(text: str, prompt_words: int) -> tuple[str, str]:
    """Cut a text into a prompt, its first `prompt_words` (>= 0) words, and the rest.

    Words are what whitespace separates; each whitespace becomes a single space. Returns (prompt,
    completion), which together are the normalized text; no completion ("") when there is no rest.
    """
    words = text.split()
    return _pair(words[:prompt_words], words[prompt_words:])


def _pair(prompt: Sequence[str], rest: Sequence[str]) -> tuple[str, str]:
    """Words as prompt and completion."""
    return " ".join(prompt), " ".join(["", *rest] if prompt and rest else rest)


def curate(
    rows: Iterable[LabelledText],
    *,
    prompt_words: int,
    shares: Mapping[str, float],
    max_comments: int | None,
    balance: bool,
    rng: np.random.Generator,
) -> tuple[Comments, dict[str, float]]:
    """Clean, sample, cut and split labelled texts; no prompt is in two splits.

    Args:
        rows: the texts. They are gone through twice, first for which to keep and then for these,
            so that of a comment that is not kept no more than its digest is ever in memory.
        prompt_words: the first so many words of a text that has no prompt are its prompt (>= 1).
        shares: the fraction of the comments that each of `SPLITS` gets; they sum to 1.
        max_comments: keep at most so many, drawn at random; None keeps all.
        balance: keep equally many toxic and non-toxic comments, drawn at random.
        rng: decides the sample, the splits and the order of the rows.

    Returns:
        The comments, split after split and within a split prompt after prompt in random order, so
        that the first m prompts of a split are a random sample of it. And counts:
        `comments/read`, `comments/kept`;
        `comments/dropped_R`, R = unscored, empty, too_short (no word after the prompt), conflicting
        (rows of a text that stands under both labels), duplicate (repeats of a text), sampling;
        `comments/S`, `comments/S_prompts`, `comments/S_toxic_share` for each split S.

    Raises:
        InputError: an argument is out of range, one class is missing from all or from a split, or
            the rows are other ones the second time.
    """
    _check(prompt_words, shares, max_comments)
    sifted = _Sifted.of(rows, prompt_words)
    counts: dict[str, float] = {"comments/read": len(sifted.toxic)}

    def keep(wanted: NDArray[np.bool_], otherwise: str) -> _Sifted:
        counts[f"comments/dropped_{otherwise}"] = int((~wanted).sum())
        return sifted.where(wanted)

    sifted = keep(sifted.toxic != _UNSCORED, otherwise="unscored")
    sifted = keep(sifted.words != _NO_TEXT, otherwise="empty")
    sifted = keep(sifted.words != _NO_REST, otherwise="too_short")
    sifted = keep(sifted.of_one_label(), otherwise="conflicting")
    sifted = keep(sifted.first_of_text(), otherwise="duplicate")
    some = int(sifted.toxic.sum())
    if some in (0, len(sifted.toxic)):
        raise InputError(
            f"curation leaves {len(sifted.toxic)} comments, {some} of them toxic; "
            f"expected some of both classes ({_in_words(counts)})"
        )
    sifted = keep(_sample(sifted.toxic, max_comments, balance, rng), otherwise="sampling")
    counts["comments/kept"] = len(sifted.toxic)

    pairs = pd.DataFrame(sifted.pairs(rows, prompt_words), columns=["prompt", "completion"])
    table = pairs.assign(toxic=sifted.toxic)
    comments = Comments(_split_by_prompt(table, [shares[name] for name in SPLITS], rng))
    for name in SPLITS:
        part = comments.split(name)
        toxic = int(part.labels.sum())
        if toxic in (0, len(part)):
            raise InputError(
                f"the {name} split gets {len(part)} comments, {toxic} of them toxic; expected some "
                f"of both classes ({len(comments)} comments of {len(comments.prompts)} distinct "
                f"prompts are split by prompt; {_in_words(counts)})"
            )
        counts[f"comments/{name}"] = len(part)
        counts[f"comments/{name}_prompts"] = len(part.prompts)
        counts[f"comments/{name}_toxic_share"] = toxic / len(part)
    return comments, counts


# Instead of a label, for a row without one.
_UNSCORED = -1
# What there is of a comment, besides "a prompt and words after it".
_NO_TEXT, _NO_REST, _WHOLE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class _Sifted:
    """What is known of n rows, 26 bytes each: `places` int64 [n] in their source, `digests` uint64
    [2, n] of the normalized texts, `toxic` int8 [n] (1, 0 or _UNSCORED), `words` int8 [n] (which of
    the three above)."""

    places: NDArray[np.int64]
    digests: NDArray[np.uint64]
    toxic: NDArray[np.int8]
    words: NDArray[np.int8]

    @classmethod
    def of(cls, rows: Iterable[LabelledText], prompt_words: int) -> _Sifted:
        digests, toxic, words = (array("Q"), array("Q")), array("b"), array("b")
        for row in rows:
            prompt, completion = _cut(row, prompt_words)
            for column, half in zip(digests, _digest(prompt, completion), strict=True):
                column.append(half)
            toxic.append(_UNSCORED if row.toxic is None else row.toxic)
            words.append(_WHOLE if completion else _NO_REST if prompt else _NO_TEXT)
        return cls(
            np.arange(len(toxic)),
            np.array(digests, dtype=np.uint64),
            np.array(toxic, dtype=np.int8),
            np.array(words, dtype=np.int8),
        )

    def where(self, wanted: NDArray[np.bool_]) -> _Sifted:
        if wanted.all():
            return self
        return _Sifted(
            self.places[wanted],
            self.digests[:, wanted],
            self.toxic[wanted],
            self.words[wanted],
        )

    def of_one_label(self) -> NDArray[np.bool_]:
        """[n]: whether all rows of this text have the same label."""
        order, first = self._by_text()
        if not len(order):
            return first
        starts = np.flatnonzero(first)
        toxic = np.add.reduceat(self.toxic[order], starts, dtype=np.int64)
        size = np.diff(starts, append=len(order))
        found = np.empty_like(first)
        found[order] = np.repeat((toxic == 0) | (toxic == size), size)
        return found

    def first_of_text(self) -> NDArray[np.bool_]:
        """[n]: whether no earlier row has the same text."""
        order, first = self._by_text()
        found = np.empty_like(first)
        found[order] = first
        return found

    def _by_text(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows in an order that puts equal texts together, and where another text begins."""
        order = np.lexsort(self.digests)
        first = np.zeros(len(order), dtype=bool)
        first[:1] = True
        for column in self.digests:
            first[1:] |= column[order[1:]] != column[order[:-1]]
        return order, first

    def pairs(self, rows: Iterable[LabelledText], prompt_words: int) -> Iterator[tuple[str, str]]:
        """Prompt and completion of these rows, in their order, from a second look at all."""
        wanted = zip(self.places.tolist(), *self.digests.tolist(), strict=True)
        place, *digest = next(wanted, (None,))
        for here, row in enumerate(rows):
            if here == place:
                pair = _cut(row, prompt_words)
                if _digest(*pair) != tuple(digest):
                    break
                yield pair
                place, *digest = next(wanted, (None,))
            if place is None:
                return
        raise InputError("the comments changed while they were read; expected them to stay")


def _cut(row: LabelledText, prompt_words: int) -> tuple[str, str]:
    if row.prompt is None:
        return cut(row.text, prompt_words)
    return _pair(row.prompt.split(), row.text.split())


def _digest(prompt: str, completion: str) -> tuple[int, int]:
    """Of the whole text: 128 bits, so that of a billion texts no two will share theirs."""
    text = (prompt + completion).encode("utf-8", "surrogatepass")
    found = blake2b(text, digest_size=16).digest()
    return int.from_bytes(found[:8], "big"), int.from_bytes(found[8:], "big")


def _check(prompt_words: int, shares: Mapping[str, float], max_comments: int | None) -> None:
    if prompt_words < 1:
        raise InputError(f"prompt_words is {prompt_words}; expected at least 1")
    if max_comments is not None and max_comments < 2 * len(SPLITS):
        raise InputError(
            f"max_comments is {max_comments}; expected at least {2 * len(SPLITS)}, "
            "one of each class in each split"
        )
    fractions = list(shares.values())
    if set(shares) != set(SPLITS) or min(fractions) <= 0 or not np.isclose(sum(fractions), 1):
        raise InputError(
            f"shares are {dict(shares)}; expected a positive fraction for each of "
            f"{SPLITS}, with the sum 1"
        )


def _in_words(counts: Mapping[str, float]) -> str:
    """What went in and what was dropped: "read 10, dropped_empty 2, …"."""
    return ", ".join(
        f"{name.removeprefix('comments/')} {count}"
        for name, count in counts.items()
        if name.startswith(("comments/read", "comments/dropped"))
    )


def _sample(
    toxic: NDArray[np.int8], max_comments: int | None, balance: bool, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which comments to keep: at most `max_comments`, the rarer class deciding in a balance."""
    room = len(toxic) if max_comments is None else min(max_comments, len(toxic))
    everything = np.arange(len(toxic))
    pools = [np.flatnonzero(toxic == label) for label in (0, 1)] if balance else [everything]
    each = min(room // len(pools), *map(len, pools))
    kept = np.zeros(len(toxic), dtype=bool)
    for pool in pools:
        kept[rng.choice(pool, each, replace=False)] = True
    return kept


def _split_by_prompt(
    table: pd.DataFrame, shares: Sequence[float], rng: np.random.Generator
) -> pd.DataFrame:
    """Add the column `split`.

    The prompts stand in a random line, each as long as it has comments; the splits divide the line
    by their shares, and a prompt belongs to the split in which its middle lies. Rows come back in
    the order of the line.
    """
    prompt = group_ids(table["prompt"])
    sizes = np.bincount(prompt)
    line = rng.permutation(len(sizes))
    middles = np.empty(len(sizes))
    middles[line] = np.cumsum(sizes[line]) - sizes[line] / 2
    split = np.searchsorted(np.cumsum(shares)[:-1] * len(table), middles, side="right")
    table = table.assign(split=np.array(SPLITS)[split[prompt]])
    return table.iloc[np.argsort(middles[prompt], kind="stable")]
