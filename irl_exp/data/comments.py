"""Comments: human-written texts with a toxicity label, cut into prompt and completion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from irl_exp.config import InputError

SPLITS = ("train", "validation", "calibration", "test")
_COLUMNS = ["prompt", "completion", "toxic", "split"]
_FILE = "comments.parquet"


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
        return self.table["prompt"].unique().tolist()

    @property
    def group_ids(self) -> NDArray[np.int64]:
        """[n] int64: where each comment's prompt stands in `prompts`, to cluster by prompt."""
        return pd.factorize(self.table["prompt"])[0].astype(np.int64)

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
        splits = opened.groupby("prompt")["split"].nunique()
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
    texts: Sequence[str],
    labels: Sequence[int] | NDArray[np.integer],
    *,
    prompts: Sequence[str] | None = None,
    prompt_words: int,
    shares: Mapping[str, float],
    max_comments: int | None,
    balance: bool,
    rng: np.random.Generator,
) -> tuple[Comments, dict[str, float]]:
    """Clean, sample, cut and split labelled texts; no prompt is in two splits.

    Args:
        texts: n texts.
        labels: n labels, 1 = toxic, 0 = not.
        prompts: n openings, of which the texts are the rest; None: the texts are whole.
        prompt_words: the first so many words of a whole text are its prompt (>= 1).
        shares: the fraction of the comments that each of `SPLITS` gets; they sum to 1.
        max_comments: keep at most so many, drawn at random; None keeps all.
        balance: keep equally many toxic and non-toxic comments, drawn at random.
        rng: decides the sample, the splits and the order of the rows.

    Returns:
        The comments, split after split and within a split prompt after prompt in random order, so
        that the first m prompts of a split are a random sample of it. And counts:
        `comments/read`, `comments/kept`;
        `comments/dropped_R`, R = empty, too_short (no word after the prompt), conflicting (rows of
        a text that stands under both labels), duplicate (repeats of a text), sampling;
        `comments/S`, `comments/S_prompts`, `comments/S_toxic_share` for each split S.

    Raises:
        InputError: an argument is out of range, or one class is missing from all or from a split.
    """
    _check(texts, labels, prompts, prompt_words, shares, max_comments)

    def pair(i: int) -> tuple[str, str]:
        """Prompt and completion of the i-th text."""
        if prompts is None:
            return cut(texts[i], prompt_words)
        return _pair(prompts[i].split(), texts[i].split())

    # Texts may be many and few of them be kept, so they are sifted by number, equal for equal ones.
    table = pd.DataFrame(
        _numbers(map(pair, range(len(texts)))), columns=["text", "completion_size"], dtype=np.int64
    ).assign(toxic=np.asarray(labels, dtype=np.int8))
    counts: dict[str, float] = {"comments/read": len(table)}

    def keep(table: pd.DataFrame, wanted: pd.Series[bool], otherwise: str) -> pd.DataFrame:
        counts[f"comments/dropped_{otherwise}"] = int((~wanted).sum())
        return table[wanted]

    table = keep(table, table["text"] != 0, otherwise="empty")
    table = keep(table, table["completion_size"] > 0, otherwise="too_short")
    one_label = table.groupby("text")["toxic"].transform("nunique") == 1
    table = keep(table, one_label, otherwise="conflicting")
    table = keep(table, ~table.duplicated("text"), otherwise="duplicate")
    if table["toxic"].nunique() < 2:
        raise InputError(
            f"curation leaves {len(table)} comments, {table['toxic'].sum()} of them toxic; "
            f"expected some of both classes ({_in_words(counts)})"
        )
    table = keep(table, _sample(table["toxic"], max_comments, balance, rng), otherwise="sampling")
    counts["comments/kept"] = len(table)

    pairs = pd.DataFrame(map(pair, table.index), table.index, ["prompt", "completion"])
    table = table.join(pairs)
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


def _numbers(pairs: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    """For each prompt and completion, the number of their text, 0 for an empty one, and the length
    of the completion."""
    numbers = {"": 0}
    return [
        (numbers.setdefault(prompt + completion, len(numbers)), len(completion))
        for prompt, completion in pairs
    ]


def _check(
    texts: Sequence[str],
    labels: Sequence[int] | NDArray[np.integer],
    prompts: Sequence[str] | None,
    prompt_words: int,
    shares: Mapping[str, float],
    max_comments: int | None,
) -> None:
    if len(texts) != len(labels):
        raise InputError(f"curation got {len(texts)} texts and {len(labels)} labels")
    if prompts is not None and len(prompts) != len(texts):
        raise InputError(f"curation got {len(texts)} texts and {len(prompts)} prompts")
    if not np.isin(labels, (0, 1)).all():
        raise InputError("curation got a label other than 1 (toxic) and 0 (not)")
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
    toxic: pd.Series[int], max_comments: int | None, balance: bool, rng: np.random.Generator
) -> pd.Series[bool]:
    """Which comments to keep: at most `max_comments`, the rarer class deciding in a balance."""
    room = len(toxic) if max_comments is None else min(max_comments, len(toxic))
    pools = [toxic.index[toxic == label] for label in (0, 1)] if balance else [toxic.index]
    each = min(room // len(pools), *map(len, pools))
    kept = np.concatenate([rng.choice(pool.to_numpy(), each, replace=False) for pool in pools])
    return pd.Series(toxic.index.isin(kept), index=toxic.index)


def _split_by_prompt(
    table: pd.DataFrame, shares: Sequence[float], rng: np.random.Generator
) -> pd.DataFrame:
    """Add the column `split`.

    The prompts stand in a random line, each as long as it has comments; the splits divide the line
    by their shares, and a prompt belongs to the split in which its middle lies. Rows come back in
    the order of the line.
    """
    prompt = pd.factorize(table["prompt"])[0]
    sizes = np.bincount(prompt)
    line = rng.permutation(len(sizes))
    middles = np.empty(len(sizes))
    middles[line] = np.cumsum(sizes[line]) - sizes[line] / 2
    split = np.searchsorted(np.cumsum(shares)[:-1] * len(table), middles, side="right")
    table = table.assign(split=np.array(SPLITS)[split[prompt]])
    return table.iloc[np.argsort(middles[prompt], kind="stable")]
