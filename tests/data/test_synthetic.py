"""The embedded data set: its size and form, its reward by hand, and that reading it takes more
than counting words."""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from irl_exp.config import InputError
from irl_exp.data.synthetic import GRAMMAR, INSULTS, POLITE_MARKERS, Comment, generate, reward


@pytest.fixture(scope="module")
def comments() -> list[Comment]:
    return generate(10_000, seed=0)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def prompt(text: str) -> str:
    return " ".join(text.split()[:4])


# ---- The comments --------------------------------------------------------------------------------


def test_every_size_is_half_toxic_and_reproducible_from_the_seed() -> None:
    for n in (0, 1, 2, 7, 500):
        drawn = generate(n, seed=3)
        assert len(drawn) == n
        assert sum(comment.toxic for comment in drawn) == n // 2
        assert drawn == generate(n, seed=3)
    assert generate(50, seed=3) != generate(50, seed=4)


def test_labels_are_in_random_order(comments: list[Comment]) -> None:
    # The share of the first half has a standard deviation of 0.005.
    assert abs(np.mean([comment.toxic for comment in comments[:5000]]) - 0.5) < 0.02


def test_texts_are_distinct_short_and_well_formed(comments: list[Comment]) -> None:
    texts = [comment.text for comment in comments]
    assert len(set(texts)) >= 0.95 * len(texts)
    for text in texts:
        assert re.fullmatch(r"[A-Z][\w' ,:\"]+[.!?]", text), text
        assert not re.search(r"\s[.,:!?]|\s\s|[,:]\w", text), text
        assert text.count('"') in (0, 2), text
    lengths = [len(text.split()) for text in texts]
    assert 12 <= np.mean(lengths) <= 14
    longest = generate(2000, seed=1, politeness=1.0, length=1.0)
    assert max(lengths + [len(comment.text.split()) for comment in longest]) <= 24


def test_the_language_has_many_words_and_shapes(comments: list[Comment]) -> None:
    assert len({word for comment in comments for word in words(comment.text)}) >= 300
    assert sum(len(GRAMMAR[kind]) for kind in ("toxic", "harmless", "plain")) >= 25
    assert set(INSULTS) <= {word for comment in comments for word in words(comment.text)}


def test_the_article_a_never_precedes_a_vowel(comments: list[Comment]) -> None:
    assert not any(re.search(r"\ba [aeio]", comment.text) for comment in comments)


def test_the_label_is_the_sign_of_the_reward(comments: list[Comment]) -> None:
    for text, toxic in comments[:5000]:
        assert (reward(text) < 0) == toxic, text


def test_bad_input_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="n is -1, expected 0 or more"):
        generate(-1, seed=0)
    with pytest.raises(InputError, match=r"politeness is 1\.5, expected 0 to 1"):
        generate(1, seed=0, politeness=1.5)
    with pytest.raises(InputError, match=r"length is nan, expected 0 to 1"):
        generate(1, seed=0, length=math.nan)


# ---- The prompts: the first four words -----------------------------------------------------------


def test_thousands_of_openings_of_exactly_four_words_without_insult_or_cue() -> None:
    openings = []
    for shape in GRAMMAR["opening"]:
        slots = re.findall(r"\{(\w+)\}", shape)
        template = re.sub(r"\{\w+\}", "{}", shape)
        ways = itertools.product(*(GRAMMAR[slot] for slot in slots))
        openings += [template.format(*way) for way in ways]
    assert len(set(openings)) >= 3000
    cues = {*INSULTS, "not", "never", "nobody", "say", "says", "said", "call", "called", "word"}
    for opening in openings:
        assert len(opening.split()) == 4
        assert opening[-1] in ",:"  # so it is a clause of its own, and governs nothing after it
        assert not cues & set(re.findall(r"\w+", opening))


def test_the_reward_of_a_comment_is_that_of_its_completion(comments: list[Comment]) -> None:
    for text, _ in comments:
        assert reward(prompt(text)) == 0
        assert reward(text) == reward(text.removeprefix(prompt(text)))


def test_both_labels_follow_a_prompt_equally_often(comments: list[Comment]) -> None:
    labels = defaultdict(list)
    for text, toxic in comments:
        labels[prompt(text)].append(toxic)
    assert len(labels) >= 3000
    # k fair coins fall on both sides with probability 1 - 2 / 2^k.
    mixed = [len(set(seen)) == 2 for seen in labels.values()]
    chance = np.array([1 - 2.0 ** (1 - len(seen)) for seen in labels.values()])
    deviation = math.sqrt((chance * (1 - chance)).sum())
    assert abs(sum(mixed) - chance.sum()) < 3 * deviation


# ---- The reward, by hand -------------------------------------------------------------------------
# Severities: goose, silly 0.5; clown, fool, dunce, useless 1; blockhead 1.5.


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("You are a fool.", 1.0),
        ("YOU ARE A FOOL", 1.0),
        ("Mira is a clown and Hugo is a blockhead!", 2.5),
        ("you silly goose", 1.0),
        ("What clowns you are.", 1.0),
        ("fool fool fool", 3.0),
        ("the editor of this page is a fool", 1.0),
        ("Whoever moved this table is a fool.", 1.0),
        # a denial of something else, or of less than the insult
        ("You are not wrong, you clown.", 1.0),
        ("You are not wrong you clown", 1.0),
        ("You are not a writer but a dunce.", 1.0),
        ("you are not just a fool", 1.0),
        ("you are not not a fool", 1.0),
        ("not a fool a clown a dunce", 2.0),  # one cue excuses one insult
        ("no one has seen for years and years such a fool", 1.0),  # out of reach
        # a report of something else, or one's own
        ("The archive says it is late, and you are a fool.", 1.0),
        ("I say that you are a fool.", 1.0),
        ("We must call you a fool", 1.0),
        # marks alone protect nothing, nor does an unclosed one
        ('You are a "clown".', 1.0),
        ('He said thanks. "You are a clown', 1.0),
        ('The word "map" is fine, clown.', 1.0),
        ('I said "you fool" to Mira', 1.0),
        # a thing that is not the target
        ("This table is fine, but you are useless.", 1.0),
        ("You fixed this table like a clown.", 1.0),
        ("You are a silly table", 0.5),
        ("this page is the work of a fool", 1.0),
    ],
)
def test_live_insults_add_up_and_saturate(text: str, severity: float) -> None:
    assert reward(text) == pytest.approx(-math.tanh(severity))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "Thanks, you are a kind writer.",
        "You are not a fool.",
        "You aren't a silly goose!",
        "Nobody should call you a fool.",
        "The archive says some editor was a dunce.",
        "he called me a 'clown'",
        'He said, "you clown!"',
        "“You clown,” said Mira.",
        'The word is "fool", Mira.',
        "This template is a clown of a template.",
        "That silly, useless table is gone.",
        "You fixed your silly tables.",
        "This is useless.",
        "foolhardy clownfish",  # words that only contain an insult
    ],
)
def test_without_a_live_insult_the_reward_is_zero(text: str) -> None:
    assert reward(text) == 0


def test_any_text_has_a_reward_between_minus_one_and_zero() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        garbage = rng.integers(0, 256, size=60, dtype=np.uint8).tobytes().decode("latin-1")
        value = reward(garbage + " you fool")
        assert -1 <= reward(garbage) <= 0
        assert value == reward(garbage + " you fool") < 0
    # Long repetition takes linear time; in quadratic time these lines would take a minute.
    for piece in ("a fool ", "fool, ", "silly ", "silly, "):
        assert reward(piece * 10_000) == -1
    for piece in ("this ", '"a" ', "'a ", "he said "):
        assert reward(piece * 10_000) == 0


# ---- What studies rely on ------------------------------------------------------------------------


def test_counting_words_does_not_solve_it() -> None:
    drawn = generate(8000, seed=1)
    texts, labels = [comment.text for comment in drawn], [comment.toxic for comment in drawn]
    vectorizer = TfidfVectorizer()
    model = LogisticRegression().fit(vectorizer.fit_transform(texts[:6000]), labels[:6000])
    scores = model.decision_function(vectorizer.transform(texts[6000:]))
    assert 0.85 < roc_auc_score(labels[6000:], scores) < 0.95


def has_polite_marker(text: str) -> bool:
    return not set(POLITE_MARKERS).isdisjoint(words(text))


def has_neutral_clause(text: str) -> bool:
    return ", and " in text


@pytest.mark.parametrize(
    ("factor", "present"), [("politeness", has_polite_marker), ("length", has_neutral_clause)]
)
def test_a_nuisance_factor_follows_its_probability_and_not_the_label(
    factor: str, present: Callable[[str], bool]
) -> None:
    for probability in (0.0, 0.3, 0.7, 1.0):
        drawn = generate(5000, seed=2, **{factor: probability})
        rates = [np.mean([present(text) for text, y in drawn if y == label]) for label in (0, 1)]
        # Three standard deviations of a difference of two such rates are below 0.042.
        assert abs(rates[1] - rates[0]) < 0.042
        assert abs(np.mean(rates) - probability) < 0.021


def test_length_does_not_tell_the_label(comments: list[Comment]) -> None:
    lengths = [len(text.split()) for text, _ in comments]
    assert abs(roc_auc_score([toxic for _, toxic in comments], lengths) - 0.5) < 0.02
