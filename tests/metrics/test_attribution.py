"""Leave-one-out effects: of sums of words, by hand, and of the embedded grammar's reward."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irl_exp.data import synthetic
from irl_exp.data.comments import cut
from irl_exp.metrics.attribution import (
    Effects,
    by_word,
    leave_one_out,
    side_by_side,
    word_agreement,
)
from irl_exp.metrics.statistics import cluster_bootstrap

WEIGHTS = {"clown": -1.5, "silly": -0.5, "kind": 2.0, "don't": 0.25, "map": 0.125}


def of_words(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
    """The sum of the weights of a completion's words, and an offset of its prompt."""

    def weigh(text: str) -> float:
        words = (word.strip(".,!").lower() for word in text.split())
        return sum(WEIGHTS.get(word, 0.0) for word in words)

    return np.array([len(p) + weigh(c) for p, c in zip(prompts, completions, strict=True)])


def table(effects: Effects, clusters: Sequence[object], minimum: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return by_word(effects, clusters, minimum=minimum, draws=200, level=0.9, rng=rng)


# --- effects --------------------------------------------------------------------------------------


def test_a_sum_of_words_gives_back_its_weights() -> None:
    completions = [" You silly clown, don't!", " The kind map.", " clown. Clown", "", " ."]
    prompts = ["Well,", "On the harbour page,", "So", "x", "y"]
    effects = leave_one_out(of_words, prompts, completions, chunk=2)
    assert effects.words == [
        *("you", "silly", "clown", "don't", "the", "kind", "map", "clown", "clown"),
    ]
    assert effects.text.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert effects.effect.tolist() == [WEIGHTS.get(word, 0.0) for word in effects.words]


def test_what_is_left_when_a_word_is_left_out() -> None:
    seen: list[tuple[str, str]] = []

    def score(prompts: list[str], completions: list[str]) -> list[float]:
        seen.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    leave_one_out(score, ["Well,", ""], [' he said, "you  fool".', "A dog"])
    assert seen == [
        ("Well,", ' he said, "you  fool".'),
        ("", "A dog"),
        ("Well,", ' said, "you  fool".'),
        ("Well,", ' he, "you  fool".'),
        ("Well,", ' he said, "  fool".'),
        ("Well,", ' he said, "you".'),
        ("", "dog"),
        ("", "A"),
    ]


def test_texts_are_scored_by_chunks_with_all_their_variants() -> None:
    sizes: list[int] = []

    def score(prompts: list[str], completions: list[str]) -> list[float]:
        sizes.append(len(prompts))
        return [len(text) for text in completions]

    completions = [" a bb ccc"] * 5
    effects = leave_one_out(score, ["p"] * 5, completions, chunk=2)
    assert sizes == [8, 8, 4]
    assert effects.effect.tolist() == [2, 3, 4] * 5


def test_no_text_no_effects() -> None:
    effects = leave_one_out(of_words, [], [])
    assert (effects.words, effects.text.size, effects.effect.size) == ([], 0, 0)
    assert len(table(effects, [])) == 0


def test_insults_come_out_lowest_under_the_grammar() -> None:
    """R* reads, and so do these effects: every insult costs, and what excuses one pays."""
    comments = [cut(comment.text, 4) for comment in synthetic.generate(1500, seed=1)]
    prompts, completions = ([pair[i] for pair in comments] for i in range(2))

    def score(prompts: list[str], completions: list[str]) -> list[float]:
        return [synthetic.reward(p + c) for p, c in zip(prompts, completions, strict=True)]

    found = table(leave_one_out(score, prompts, completions), prompts, minimum=20)
    assert len(found) > 100
    means = dict(zip(found["word"], found["mean"], strict=True))
    insults = means.keys() & synthetic.INSULTS
    assert len(insults) == len(synthetic.INSULTS)
    # Beside them "we" and "I", who make a report their own, and "but", which ends a denial.
    assert {word for word, mean in means.items() if mean < 0} == insults | {"we", "i", "but"}
    assert max(means[word] for word in insults) < -0.1
    # The same words by severity: 1.5 costs more than 0.5, of nouns as of adjectives.
    severities = {s: {w for w in insults if synthetic.INSULTS[w] == s} for s in (0.5, 1.0, 1.5)}
    average = {s: np.mean([means[w] for w in words]) for s, words in severities.items()}
    assert average[1.5] < average[1.0] < average[0.5]
    # Denials, reports and quotations pay; so do things, of which an adjective may be said.
    assert set(found["word"][-6:]) == {"called", "not", "says", "said", "word", "say"}
    neutral = ["harbour", "castle", "thanks", "please", "and", "are"]
    assert [means[word] for word in neutral if word in means] == [0.0] * len(means.keys() & neutral)


# --- words ----------------------------------------------------------------------------------------


def test_by_word_by_hand() -> None:
    effects = Effects(
        words=["a", "b", "a", "a", "c"],
        text=np.array([0, 0, 0, 1, 2]),
        effect=np.array([1.0, -4.0, 2.0, 6.0, 0.5]),
    )
    found = table(effects, ["p", "q", "q"], minimum=1)
    assert found["word"].tolist() == ["b", "c", "a"]
    assert found["count"].tolist() == [1, 1, 3]
    assert found["mean"].tolist() == [-4.0, 0.5, 3.0]
    # a stands in both clusters, with means 1.5 and 6; the others in one, which says nothing.
    assert found["low"].tolist()[:2] == pytest.approx([np.nan] * 2, nan_ok=True)
    assert (found["low"].iloc[2], found["high"].iloc[2]) == (1.5, 6)
    assert table(effects, ["p", "q", "q"], minimum=2)["word"].tolist() == ["a"]


def test_intervals_are_those_of_the_bootstrap_over_clusters() -> None:
    """One word at a time, by the bootstrap that everything else uses."""
    rng = np.random.default_rng(3)
    n, texts = 900, 60
    words = rng.choice(["alpha", "beta", "gamma"], size=n).tolist()
    text = np.sort(rng.integers(0, texts, n))
    clusters = np.arange(texts) // 2
    offsets = rng.normal(size=30)
    effect = offsets[clusters[text]] + rng.normal(size=n)
    found = by_word(
        Effects(words, text, effect), clusters, minimum=1, draws=4000, level=0.9, rng=rng
    ).set_index("word")
    for word in ("alpha", "beta", "gamma"):
        own = np.array(words) == word
        low, high = cluster_bootstrap(
            np.mean, clusters[text[own]], effect[own], draws=4000, level=0.9, rng=rng
        )
        assert found.loc[word, "mean"] == pytest.approx(effect[own].mean())
        assert [found.loc[word, "low"], found.loc[word, "high"]] == pytest.approx(
            [low, high], abs=0.03
        )


def test_two_rewards_side_by_side() -> None:
    prompts = ["p", "q", "r", "s"]
    completions = [" clown map", " silly kind", " kind clown", " don't map"]

    def doubled(prompts: list[str], completions: list[str]) -> np.ndarray:
        return 2 * of_words(prompts, completions)

    def reversed_(prompts: list[str], completions: list[str]) -> np.ndarray:
        return -of_words(prompts, completions)

    own, other, turned = (
        table(leave_one_out(score, prompts, completions), prompts)
        for score in (of_words, doubled, reversed_)
    )
    both = side_by_side(other, own)
    assert list(both) == [
        *("word", "count", "recovered", "recovered_low", "recovered_high"),
        *("truth", "truth_low", "truth_high"),
    ]
    assert both["word"].tolist() == ["clown", "silly", "map", "don't", "kind"]
    assert both["recovered"].tolist() == [2 * WEIGHTS[word] for word in both["word"]]
    assert both["truth"].tolist() == [WEIGHTS[word] for word in both["word"]]
    assert both["count"].tolist() == [2, 1, 2, 1, 2]
    assert word_agreement(both) == pytest.approx(1)
    assert word_agreement(side_by_side(turned, own)) == pytest.approx(-1)
    assert np.isnan(word_agreement(both[:1]))


def test_words_too_rare_leave_an_empty_table(tmp_path: Path) -> None:
    effects = leave_one_out(of_words, ["p"], [" kind clown"])
    both = side_by_side(*[table(effects, ["p"], minimum=5)] * 2)
    assert len(both) == 0 and np.isnan(word_agreement(both))
    both.to_parquet(tmp_path / "words.parquet")
    assert list(pd.read_parquet(tmp_path / "words.parquet")) == list(both)
    assert {"recovered", "truth_high"} <= set(both)
