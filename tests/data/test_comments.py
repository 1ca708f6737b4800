"""Curation cleans, samples and splits by prompt; Comments keeps what it is given."""

import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irl_exp.config import InputError
from irl_exp.data.comments import SPLITS, Comments, LabelledText, curate, cut
from irl_exp.data.sources import Columns, file_rows

SHARES = {"train": 0.6, "validation": 0.1, "calibration": 0.1, "test": 0.2}


def made_up(n: int, prompts: int, rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """n distinct comments after prompts of two words, some far more frequent than others."""
    frequency = np.arange(1, prompts + 1) ** -0.5
    drawn = rng.choice(prompts, n, p=frequency / frequency.sum())
    texts = [f"opening {prompt} then comes {i}" for i, prompt in enumerate(drawn)]
    return texts, rng.integers(0, 2, n).tolist()


def rows_of(texts: Sequence[str], labels: Sequence[int]) -> list[LabelledText]:
    return [LabelledText(text, bool(label)) for text, label in zip(texts, labels, strict=True)]


def curated(
    texts: list[str],
    labels: list[int],
    seed: int = 0,
    max_comments: int | None = None,
    balance: bool = False,
    prompt_words: int = 2,
) -> tuple[Comments, dict[str, float]]:
    return curate(
        rows_of(texts, labels),
        prompt_words=prompt_words,
        shares=SHARES,
        max_comments=max_comments,
        balance=balance,
        rng=np.random.default_rng(seed),
    )


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("one two three", 2, ("one two", " three")),
        ("  one\ttwo \n three  four ", 2, ("one two", " three four")),
        (" one  two", 2, ("one two", "")),
        ("one", 2, ("one", "")),
        ("", 2, ("", "")),
        ("one two", 0, ("", "one two")),
        (" ", 0, ("", "")),
    ],
)
def test_cut(text: str, words: int, expected: tuple[str, str]) -> None:
    assert cut(text, words) == expected


@pytest.mark.parametrize("seed", range(20))
def test_no_prompt_is_in_two_splits(seed: int) -> None:
    comments, _ = curated(*made_up(1000, 200, np.random.default_rng(seed)), seed=seed)
    splits_of_prompt = comments.table.groupby("prompt")["split"].nunique()
    assert (splits_of_prompt == 1).all()
    assert comments.table["split"].tolist() == sorted(comments.table["split"], key=SPLITS.index)


def test_shares_are_those_asked_for() -> None:
    texts, labels = made_up(4000, 4000, np.random.default_rng(0))
    comments, counts = curated(texts, labels)
    largest = max(Counter(comments.table["prompt"]).values())
    for name in SPLITS:
        # Either end of a split misses its place by half a prompt at most.
        assert abs(counts[f"comments/{name}"] - SHARES[name] * 4000) <= largest
        part = comments.split(name)
        assert counts[f"comments/{name}"] == len(part)
        assert counts[f"comments/{name}_prompts"] == len(set(part.prompts))
        assert counts[f"comments/{name}_toxic_share"] == part.labels.mean()


def test_shares_are_exact_when_no_prompt_repeats() -> None:
    _, counts = curated([f"a {i} b" for i in range(100)], [0, 1] * 50)
    assert [counts[f"comments/{name}"] for name in SPLITS] == [60, 10, 10, 20]


def test_every_comment_comes_back_whole_and_with_its_label() -> None:
    texts, labels = made_up(500, 300, np.random.default_rng(1))
    comments, _ = curated([text.replace(" ", " \n ") for text in texts], labels)
    came_back = zip(comments.texts, comments.labels.tolist(), strict=True)
    assert sorted(came_back) == sorted(zip(texts, labels, strict=True))
    assert all(len(prompt.split()) == 2 for prompt in comments.prompts)
    assert all(completion.startswith(" then") for completion in comments.completions)


def test_what_is_dropped_is_counted() -> None:
    clean = [f"opening {i} text" for i in range(100)]
    texts = [
        *clean,
        "",
        " \n\t ",  # empty: 2
        "opening 7",
        "opening",
        "opening 7",  # too short: 3
        "opening  3 text",
        "opening 3 text ",  # duplicates: 2
        "Opening 3 text",  # kept: case counts
        "both labels here",
        "both labels  here",
        "both labels here",  # conflicting: 3
    ]
    labels = [0, 1] * 50 + [0, 1] + [0, 0, 1] + [1, 1] + [0] + [0, 1, 1]
    comments, counts = curated(texts, labels)
    expected = {"empty": 2, "too_short": 3, "conflicting": 3, "duplicate": 2, "sampling": 0}
    assert {name: counts[f"comments/dropped_{name}"] for name in expected} == expected
    assert sorted(comments.texts) == sorted([*clean, "Opening 3 text"])
    assert counts["comments/read"] == 111
    assert counts["comments/kept"] == len(comments) == 101


def test_a_cut_that_the_source_made_is_kept() -> None:
    """Whitespace is normalized and a space stands before every completion; texts are compared
    whole, wherever they are cut."""
    prompts = [f"opening  {i}" for i in range(100)]
    texts = [[" text", "text", "\ttext \n"][i % 3] for i in range(100)]
    more = [
        ("", "", 0),  # empty
        ("opening 7", " ", 1),  # nothing after the prompt
        ("opening", "3 text", 1),  # duplicate, of another cut
        ("one text", "two labels", 0),
        ("one", "text two labels", 1),  # conflicting: 2
        (" ", "no prompt", 1),
    ]
    labels = [0, 1] * 50
    comments, counts = curate(
        [
            LabelledText(text, bool(label), prompt)
            for prompt, text, label in [*zip(prompts, texts, labels, strict=True), *more]
        ],
        prompt_words=4,
        shares=SHARES,
        max_comments=None,
        balance=False,
        rng=np.random.default_rng(0),
    )
    dropped = {"empty": 1, "too_short": 1, "conflicting": 2, "duplicate": 1, "sampling": 0}
    assert {name: counts[f"comments/dropped_{name}"] for name in dropped} == dropped
    found = comments.table[["prompt", "completion", "toxic"]].itertuples(index=False, name=None)
    expected = [(f"opening {i}", " text", labels[i]) for i in range(100)]
    assert sorted(found) == sorted([*expected, ("", "no prompt", 1)])


@pytest.mark.parametrize(
    ("max_comments", "balance", "toxic", "total"),
    [
        (None, False, 60, 300),
        (None, True, 60, 120),
        (100, True, 50, 100),
        (101, True, 50, 100),
        (200, True, 60, 120),
        (1000, False, 60, 300),
    ],
)
def test_sample_sizes(max_comments: int | None, balance: bool, toxic: int, total: int) -> None:
    texts = [f"opening {i} text" for i in range(300)]
    labels = [1] * 60 + [0] * 240
    comments, counts = curated(texts, labels, max_comments=max_comments, balance=balance)
    assert (int(comments.labels.sum()), len(comments)) == (toxic, total)
    assert counts["comments/dropped_sampling"] == 300 - total


def test_a_plain_sample_is_drawn_at_random() -> None:
    texts, labels = [f"opening {i} text" for i in range(2000)], [1] * 400 + [0] * 1600
    comments, _ = curated(texts, labels, max_comments=1000)
    assert len(comments) == 1000
    # Hypergeometric: mean 200, standard deviation 9.
    assert abs(comments.labels.sum() - 200) < 45


def test_the_generator_decides_everything() -> None:
    texts, labels = made_up(300, 200, np.random.default_rng(2))
    first, again, other = (
        curated(texts, labels, seed=seed, max_comments=200, balance=True) for seed in (5, 5, 6)
    )
    pd.testing.assert_frame_equal(first[0].table, again[0].table)
    assert first[1] == again[1]
    assert not first[0].table.equals(other[0].table)


def test_the_order_of_rows_says_nothing_about_the_label() -> None:
    texts, labels = [f"opening {i} text" for i in range(2000)], [1] * 1000 + [0] * 1000
    train = curated(texts, labels)[0].split("train")
    # The first 300 of a random order: a binomial share, standard deviation 0.03.
    assert abs(train.labels[:300].mean() - 0.5) < 0.15


HUNDRED, HALVES = [f"opening {i} text" for i in range(100)], [0, 1] * 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": rows_of(HUNDRED, [0] * 100)}, "leaves 100 comments, 0 of them toxic"),
        ({"rows": rows_of(HUNDRED, [0] * 99 + [1])}, "of both classes"),
        (
            {"rows": rows_of(["too short"] * 100, HALVES)},
            "leaves 0 comments, 0 of them toxic.*too_short 100",
        ),
        ({"rows": []}, "leaves 0 comments"),
        ({"prompt_words": 0}, "prompt_words is 0"),
        ({"max_comments": 7}, "max_comments is 7"),
        ({"shares": {"train": 0.5, "test": 0.5}}, "shares are"),
        ({"shares": {**SHARES, "test": 0.3}}, "sum 1"),
        ({"shares": {**SHARES, "test": 0.3, "validation": 0.0}}, "positive fraction"),
        ({"rows": rows_of([f"one prompt {i}" for i in range(100)], HALVES)}, "1 distinct prompts"),
    ],
)
def test_what_is_refused(change: dict[str, object], message: str) -> None:
    request: dict[str, object] = {
        "rows": rows_of(HUNDRED, HALVES),
        "prompt_words": 2,
        "shares": SHARES,
        "max_comments": None,
        "balance": False,
        "rng": np.random.default_rng(0),
    }
    with pytest.raises(InputError, match=message) as caught:
        curate(**(request | change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_row_without_a_score_is_none(tmp_path: Path) -> None:
    rows = rows_of(HUNDRED, HALVES)
    missing = [LabelledText("opening 3 text", None), LabelledText("another one here", None)]
    request = {"prompt_words": 2, "shares": SHARES, "max_comments": None, "balance": False}
    found, counts = curate([*missing, *rows], rng=np.random.default_rng(0), **request)  # type: ignore[arg-type]
    plain, _ = curate(rows, rng=np.random.default_rng(0), **request)  # type: ignore[arg-type]
    assert (counts["comments/read"], counts["comments/dropped_unscored"]) == (102, 2)
    pd.testing.assert_frame_equal(found.table, plain.table)


class Changing:
    """Rows that are other ones when they are read again."""

    def __init__(self, *times: list[LabelledText]) -> None:
        self.times = iter(times)

    def __iter__(self) -> Iterator[LabelledText]:
        return iter(next(self.times))


@pytest.mark.parametrize("place", [0, 57, 99])
def test_rows_that_change_while_they_are_read_are_refused(place: int) -> None:
    rows = rows_of(HUNDRED, HALVES)
    edited = [*rows[:place], LabelledText("opening x text", True), *rows[place + 1 :]]
    for then in (edited, rows[:place], rows[1:] + rows[:1]):
        with pytest.raises(InputError, match="comments changed while they were read"):
            curate(
                Changing(rows, then),
                prompt_words=2,
                shares=SHARES,
                max_comments=None,
                balance=False,
                rng=np.random.default_rng(0),
            )


def test_what_is_not_kept_takes_little_memory() -> None:
    """Texts of 2,000 letters of which no more than 26 bytes each stay, and 8 for their order."""
    count, letters = 20_000, 2_000

    class Long:
        def __iter__(self) -> Iterator[LabelledText]:
            for i in range(count):
                yield LabelledText(f"{i} {'x' * letters}", i % 2 == 0)

    tracemalloc.start()
    comments, _ = curate(
        Long(),
        prompt_words=1,
        shares=SHARES,
        max_comments=100,
        balance=False,
        rng=np.random.default_rng(0),
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(comments) == 100
    assert peak < 5e6 < count * letters


def four_comments() -> Comments:
    return Comments(
        pd.DataFrame(
            {
                "prompt": ["b", "a", "b", ""],
                "completion": [" NA", " it's é\n🙂", " 1", "no space"],
                "toxic": [1, 0, 0, 1],
                "split": ["train", "calibration", "train", "test"],
            }
        )
    )


def test_views_of_a_table() -> None:
    comments = four_comments()
    assert len(comments) == 4
    assert comments.prompts == ["b", "a", ""]
    assert comments.group_ids.tolist() == [0, 1, 0, 2]
    assert comments.texts == ["b NA", "a it's é\n🙂", "b 1", "no space"]
    assert comments.labels.tolist() == [1, 0, 0, 1]
    assert comments.group_ids.dtype == comments.labels.dtype == np.int64
    train = comments.split("train")
    assert train.texts == ["b NA", "b 1"]
    assert train.table.index.tolist() == [0, 1]
    assert len(comments.split("validation")) == 0
    with pytest.raises(InputError, match="no split 'dev'"):
        comments.split("dev")


def test_save_and_load(tmp_path: Path) -> None:
    comments = four_comments()
    comments.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["comments.parquet"]
    pd.testing.assert_frame_equal(Comments.load(tmp_path).table, comments.table)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("toxic", 2, "'toxic' holds"), ("split", "dev", "'split' holds")],
)
def test_a_wrong_table_is_refused(column: str, value: int | str, message: str) -> None:
    table = four_comments().table
    with pytest.raises(InputError, match=message):
        Comments(table.assign(**{column: value}))


def test_a_table_without_a_column_is_refused_and_one_without_labels_has_none() -> None:
    table = four_comments().table
    with pytest.raises(InputError, match=r"no column \['split'\]"):
        Comments(table.drop(columns="split"))
    unlabelled = Comments(table.drop(columns="toxic"))
    assert four_comments().labelled
    assert not unlabelled.labelled
    with pytest.raises(InputError, match="prompts without labels"):
        _ = unlabelled.labels


def test_a_prompt_in_two_splits_is_refused(tmp_path: Path) -> None:
    """Whoever wrote the table: what is measured must not have been trained on."""
    table = pd.DataFrame(
        {
            "prompt": ["a", "b", "a"],
            "completion": [" c", " d", " e"],
            "toxic": [0, 1, 1],
            "split": ["train", "train", "test"],
        }
    )
    Comments(table).save(tmp_path)
    with pytest.raises(InputError, match="1 prompts are in more than one split; expected each in"):
        Comments.load(tmp_path)


def test_real_comments() -> None:
    folder = os.environ.get("IRL_EXP_REAL_DATA")
    if folder is None:
        pytest.skip("IRL_EXP_REAL_DATA is not set: no real comments to curate")
    path = Path(folder) / "jigsaw_sentences.csv"
    found = list(file_rows(path, Columns("comment", ["toxic"])))
    texts, labels = [row.text for row in found], [int(bool(row.toxic)) for row in found]
    assert (len(texts), sum(labels)) == (33_202, 16_564)
    comments, counts = curated(texts, labels, max_comments=8000, balance=True, prompt_words=4)
    assert (counts["comments/kept"], comments.labels.sum()) == (8000, 4000)
    normalized = {" ".join(text.split()): label for text, label in zip(texts, labels, strict=True)}
    for text, label in zip(comments.texts, comments.labels, strict=True):
        assert normalized[text] == label
    for name in SPLITS:
        assert counts[f"comments/{name}"] == pytest.approx(SHARES[name] * 8000, abs=50)
        assert counts[f"comments/{name}_toxic_share"] == pytest.approx(0.5, abs=0.06)
