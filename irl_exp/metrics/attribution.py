"""Which words a reward is about: what it loses when one word is left out.

The effect of a word in a text is score(text) - score(text without it): positive where the word
raises the reward, negative where it lowers it. A reward of one word's weight each gives back these
weights. A reward that reads more than words gives to each what it does *there*, on average over
texts: "not" has no weight of its own, and may still turn many texts around.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from irl_exp.metrics import agreement

# Letters and digits with the apostrophes inside: what is left out, with the space before it. Signs
# stay where they are, so that a clause still ends where it did.
_WORD = re.compile(r"\s*([^\W_]+(?:['’][^\W_]+)*)")

Score = Callable[[list[str], list[str]], ArrayLike]


@dataclass(frozen=True)
class Effects:
    """The effect of each word of n texts: `words` are k words in lower case, `text` int64 [k] says
    in which text each stood, `effect` float64 [k] what it added to the reward."""

    words: list[str]
    text: NDArray[np.int64]
    effect: NDArray[np.float64]


def leave_one_out(
    score: Score, prompts: Sequence[str], completions: Sequence[str], chunk: int = 64
) -> Effects:
    """The effect of every word of every completion; prompts are never touched.

    Args:
        score: (prompts, completions) -> rewards [m].
        prompts, completions: n texts each.
        chunk: texts that are scored at once, with all their variants.

    Returns:
        Words in the order of the texts, which is the same for every reward. One that a text has
        twice stands there twice, each left out by itself.
    """
    words: list[str] = []
    texts: list[int] = []
    effects: list[NDArray[np.float64]] = []
    for start in range(0, len(completions), chunk):
        rows = range(start, min(start + chunk, len(completions)))
        asked_prompts, asked = [prompts[i] for i in rows], [completions[i] for i in rows]
        owners = []
        for place, i in enumerate(rows):
            for word, rest in _variants(prompts[i], completions[i]):
                words.append(word)
                texts.append(i)
                owners.append(place)
                asked_prompts.append(prompts[i])
                asked.append(rest)
        scores = np.asarray(score(asked_prompts, asked), dtype=np.float64)
        effects.append(scores[owners] - scores[len(rows) :])
    joined = np.concatenate(effects) if effects else np.zeros(0)
    return Effects(words, np.array(texts, dtype=np.int64), joined)


def _variants(prompt: str, completion: str) -> list[tuple[str, str]]:
    """(a word in lower case, the completion without it) of each word."""
    found = []
    for match in _WORD.finditer(completion):
        rest = completion[: match.start()] + completion[match.end() :]
        found.append((match[1].lower(), rest if prompt else rest.lstrip()))
    return found


def by_word(
    effects: Effects,
    clusters: ArrayLike,
    *,
    minimum: int,
    draws: int,
    level: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The mean effect of each word over all its places, with an interval over clusters of texts.

    The interval is a percentile bootstrap: a draw takes whole clusters, and a word's mean is over
    its places in those (statistics.cluster_bootstrap, for all words at once).

    Args:
        effects: of n texts.
        clusters: the cluster of each text, such as its prompt, [n].
        minimum: words with fewer places are left out.
        draws: number of bootstrap samples.
        level: share of draws inside the interval.
        rng: source of the resampling.

    Returns:
        A row for each word, the lowest mean first: `word`, `count` (places), `mean`, `low`, `high`.
        A word that stands in one cluster alone has no interval (NaN).
    """
    word, names = pd.factorize(np.array(effects.words, dtype=object))
    counts = np.bincount(word, minlength=len(names))
    kept = np.flatnonzero(counts >= minimum)
    if kept.size == 0:
        return pd.DataFrame({"word": [], "count": [], "mean": [], "low": [], "high": []})
    column = np.full(len(names), -1)
    column[kept] = np.arange(kept.size)
    own = column[word] >= 0
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    place = (cluster[effects.text[own]], column[word[own]])
    shape = (int(cluster.max()) + 1, kept.size)
    sums, places = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, place, effects.effect[own])
    np.add.at(places, place, 1)

    drawn = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=draws)
    times = drawn.astype(np.float64)  # whole numbers multiply slowly
    with np.errstate(invalid="ignore"):
        means = (times @ sums) / (times @ places)  # NaN where a draw misses a word
    edges = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.full((2, kept.size), np.nan)
    for i in np.flatnonzero(np.sum(places > 0, axis=0) > 1):
        low[i], high[i] = np.nanquantile(means[:, i], edges)
    table = pd.DataFrame(
        {
            "word": names[kept],
            "count": counts[kept],
            "mean": sums.sum(axis=0) / places.sum(axis=0),
            "low": low,
            "high": high,
        }
    )
    return table.sort_values(["mean", "word"], ignore_index=True)


def side_by_side(recovered: pd.DataFrame, truth: pd.DataFrame | None = None) -> pd.DataFrame:
    """Two tables of `by_word`, of one and the same texts, as one.

    Returns:
        `word`, `count`, `recovered`, `recovered_low`, `recovered_high`, and the same of `truth` if
        there is one; the word with the lowest effect on R̂ first.
    """
    both = []
    for name, table in (("recovered", recovered), ("truth", truth)):
        if table is not None:
            both.append(
                table.rename(columns={"mean": name, "low": f"{name}_low", "high": f"{name}_high"})
            )
    if truth is None:
        return both[0]
    return both[0].merge(both[1], on=["word", "count"], validate="one_to_one")


def word_agreement(table: pd.DataFrame) -> float:
    """Spearman's rho of the mean effects on R̂ and on R* over the words of `side_by_side`; NaN for
    fewer than two words, or where one of the rewards sees no difference between them."""
    if len(table) < 2:
        return float("nan")
    return agreement.spearman(table["recovered"], table["truth"])
