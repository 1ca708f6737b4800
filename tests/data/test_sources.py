"""Every format is read exactly; every kind of bad file or data set is refused with its place."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from irl_exp.config import InputError
from irl_exp.data.comments import LabelledText
from irl_exp.data.sources import Columns, file_rows, split_rows
from tests.materials import write_hub_cache

# Fields that a careless reader changes: missing-value words, breaks, quotes, separators, spaces.
TEXTS = ["NA", "null", "", " two\nlines, one ", 'says "so"', "tab\there", "é 🙂 \u2028.", "007"]
LABELS = [0, 1, 0, 1, 1, 0, 0, 1]
PLAIN = [".csv", ".tsv", ".jsonl", ".parquet"]
ZIPPED = [".csv.gz", ".tsv.gz", ".jsonl.gz"]


def write(path: Path, columns: dict[str, list[object]]) -> Path:
    """A table in the format of the path's suffix, written by pandas or json."""
    table = pd.DataFrame(columns)
    if ".jsonl" in path.name:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        data = lines.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if ".tsv" in path.name else ",", index=False)
    return path


def labelled(texts: Sequence[str], labels: Sequence[int | None]) -> list[LabelledText]:
    """Whole texts and their labels, None for a missing score."""
    known = (None if label is None else bool(label) for label in labels)
    return [LabelledText(text, toxic) for text, toxic in zip(texts, known, strict=True)]


def read_file(path: str | Path, columns: Columns) -> list[LabelledText]:
    return list(file_rows(path, columns))


def read_split(folder: Path, name: str, split: str, columns: Columns) -> list[LabelledText]:
    return list(split_rows(folder, name, split, columns))


def read(path: str | Path, text: str, label: str, values: list[object]) -> list[LabelledText]:
    return read_file(path, Columns(text, [label], values))


def toxic(rows: Sequence[LabelledText]) -> list[bool | None]:
    return [row.toxic for row in rows]


def refusal(path: Path, toxic_values: list[object] | None = None) -> str:
    """The one line that reading `text` and `toxic` from a file ends with."""
    with pytest.raises(InputError) as caught:
        read(path, "text", "toxic", [1] if toxic_values is None else toxic_values)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", PLAIN + ZIPPED + [".CSV", ".v2.csv"])
def test_every_format_round_trips(tmp_path: Path, suffix: str) -> None:
    columns: dict[str, list[object]] = {
        "id": list(range(len(TEXTS))),
        "text": list(TEXTS),
        "toxic": list(LABELS),
    }
    path = write(tmp_path / f"comments{suffix}", columns)
    assert read(path, "text", "toxic", [1]) == labelled(TEXTS, LABELS)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_dotted_names_reach_into_records(tmp_path: Path, suffix: str) -> None:
    nested: list[object] = [
        {"text": "one", "scores": {"toxic": True}},
        {"text": "two", "scores": {"toxic": False}},
    ]
    path = write(tmp_path / f"nested{suffix}", {"prompt": nested})
    assert read(path, "prompt.text", "prompt.scores.toxic", [1]) == labelled(["one", "two"], [1, 0])
    with pytest.raises(InputError) as caught:
        read(path, "prompt.words", "prompt.scores.toxic", [1])
    assert "no column 'prompt.words'" in str(caught.value)
    assert re.search(
        r"there are \['prompt\.\w+(\.toxic)?', 'prompt\.\w+(\.toxic)?'\]", str(caught.value)
    )


@pytest.mark.parametrize("suffix", PLAIN)
def test_a_column_may_have_a_dot_in_its_name(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"dots{suffix}", {"a.text": ["one", "two"], "a.toxic": [1, 0]})
    assert read(path, "a.text", "a.toxic", [1]) == labelled(["one", "two"], [1, 0])


@pytest.mark.parametrize("toxic_value", [1, 1.0, "1", " 1.00", True, "true", "TRUE "])
def test_ways_to_say_one(tmp_path: Path, toxic_value: object) -> None:
    ones: list[object] = [1, 1.0, "1", True, "true", " True ", "1.0"]
    others: list[object] = [0, 0.0, "0", False, "false", "10", "yes", 0.9]
    texts: list[object] = ["a text"] * 15
    path = write(tmp_path / "labels.jsonl", {"text": texts, "toxic": ones + others})
    assert toxic(read(path, "text", "toxic", [toxic_value])) == [True] * 7 + [False] * 8


def test_toxic_values_are_words_and_numbers(tmp_path: Path) -> None:
    rows: list[object] = ["Insult", "threat ", "none", "3", "4", "insults", "NA"]
    path = write(tmp_path / "labels.csv", {"text": ["t"] * len(rows), "toxic": rows})
    labels = toxic(read(path, "text", "toxic", ["insult", "THREAT", 3]))
    assert labels == [1, 1, 0, 1, 0, 0, 0]


def test_line_ends_blank_lines_and_byte_order_mark(tmp_path: Path) -> None:
    for name, data in {
        "a.csv": b'\xef\xbb\xbftext,toxic\r\none,1\r\n\r\n"two\r\nlines",0\r\n',
        "a.jsonl": b'\xef\xbb\xbf{"text": "one", "toxic": 1}\r\n\r\n'
        b'{"text": "two\\r\\nlines", "toxic": 0}',
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert read(path, "text", "toxic", [1]) == labelled(["one", "two\r\nlines"], [1, 0])


def test_the_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.csv", {"text": ["one", "two"], "toxic": [1, 0]})
    monkeypatch.chdir(tmp_path)
    assert toxic(read("a.csv", "text", "toxic", [1])) == [True, False]
    assert f"{tmp_path / 'b.csv'}: no such file" in refusal(Path("b.csv"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        # Formats.
        ("a.xlsx", b"", "unknown format; expected one of .csv, .tsv, .jsonl, .json, .csv.gz"),
        ("a.parquet.gz", b"", "unknown format"),
        ("a.parquet", b"no table", "unreadable Parquet"),
        ("a.csv.gz", b"text,toxic\n", "can't be read: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"text,toxic\na,1\nb,0\n", mtime=0)[:-9], "can't be read"),
        # Nothing in it.
        *((f"a{suffix}", b"", "is empty") for suffix in (".csv", ".tsv", ".jsonl")),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("a.csv", b"text,toxic\n", "is empty"),
        ("a.jsonl", b"\n\n", "is empty"),
        # Columns.
        ("a.csv", b"body,toxic\na,1\n", "no column 'text'; there are ['body', 'toxic']"),
        ("a.csv", b"text;toxic\na;1\n", "no column 'text'; there are ['text;toxic']"),
        ("a.tsv", b"text\tlabel\na\t1\n", "no column 'toxic'; there are ['text', 'label']"),
        ("a.jsonl", b'{"text": "a"}', "line 1: no column 'toxic'; there are ['text']"),
        ("a.csv", b"text,text,toxic\na,b,1\n", "column ['text'] stands twice"),
        # Rows.
        ("a.csv", b"text,toxic\na,1\nb,c,0\n", "line 3: malformed row, 3 fields; expected 2"),
        ("a.csv", b"text,toxic\n\n'a\n", "line 3: malformed row, 1 fields; expected 2"),
        ("a.csv", b'text,toxic\n"a\nb",1\n"c,0\nd,1\n', "line 4: malformed row"),
        ("a.csv", b'text,toxic\n"a" b,1\n', "line 2: malformed row"),
        ("a.jsonl", b'{"text": "a", "toxic": 1}\n{"text": \n', "line 2: unreadable JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: unreadable JSON"),
        ("a.jsonl", b'["a", 1]', "line 1: JSON of type list; expected an object"),
        # Texts and labels.
        ("a.jsonl", b'{"text": null, "toxic": 1}', "line 1: 'text' is missing; expected a text"),
        ("a.jsonl", b'{"text": 5, "toxic": 1}', "line 1: 'text' is of type int"),
        (
            "a.jsonl",
            b'{"text": "a", "text": "b", "toxic": 1}',
            "line 1: key 'text' stands twice; expected distinct ones",
        ),
        ("a.jsonl", b'{"text": "\\ud83d", "toxic": 1}', "line 1: 'text' holds half a character"),
        ("a.jsonl", b'{"text": "a", "toxic": NaN}', "line 1: 'toxic' is missing; expected a label"),
        ("a.jsonl", b'{"text": "a", "toxic": [1]}', "line 1: 'toxic' is of type list"),
        ("a.csv", b"text,toxic\na,1\nb,\n", "line 3: 'toxic' is missing"),
        ("a.csv", b"text,toxic\na,1\nb,nan\n", "line 3: 'toxic' is missing"),
        # Encoding.
        ("a.csv", b"text,toxic\na,1\ncaf\xe9,0\n", "line 3: 'text' is not UTF-8; expected UTF-8"),
        ("a.csv", b"\xef\xbb\xbftext\n\xe9\n", "line 2: 'text' is not UTF-8; expected UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "\xff"}', mtime=0), "line 1 is not UTF-8"),
        # One class.
        ("a.csv", b"text,toxic\na,2\nb,no\nc,2\n", "every comment is non-toxic"),
        ("a.csv", b"text,toxic\na,2\nb,no\n", "'toxic' holds ['2', 'no'] and toxic_values is [1]"),
        ("a.csv", b"text,toxic\na,1\nb,1\n", "every comment is toxic"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    refused = refusal(path)
    assert message in refused
    assert str(path) in refused


def test_a_column_of_parquet_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = [pa.array(["a", "b"]), pa.array(["c", "d"]), pa.array([0, 1])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "text", "toxic"]), path)
    assert "column ['text'] stands twice; expected distinct names" in refusal(path)


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [(None, 1.0, "row 2: 'text' is missing"), ("b", None, "row 2: 'toxic' is missing")],
)
def test_missing_in_parquet(
    tmp_path: Path, text: str | None, label: float | None, message: str
) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a", text], "toxic": [0.0, label]})
    assert message in refusal(path)


@pytest.mark.parametrize("toxic_values", [[], [""], [1, None]])
def test_toxic_values_must_be_labels(tmp_path: Path, toxic_values: list[object]) -> None:
    path = write(tmp_path / "a.csv", {"text": ["a", "b"], "toxic": [0, 1]})
    assert re.search(r"toxic_values is \[.*\]; expected", refusal(path, toxic_values))


# --- scores, several labels, prompts --------------------------------------------------------------


def test_scores_are_toxic_from_a_number_up_and_may_be_missing(tmp_path: Path) -> None:
    scores: list[object] = [0.5, "0.49", None, 1, " ", float("nan"), 0, True]
    texts: list[object] = [f"text {i}" for i in range(len(scores))]
    path = write(tmp_path / "scores.jsonl", {"text": texts, "score": scores})
    found = read_file(path, Columns("text", ["score"], toxic_from=0.5))
    expected = [1, 0, None, 1, None, None, 0, 1]
    assert found == labelled([f"text {i}" for i in range(len(scores))], expected)


def test_a_missing_score_in_parquet(tmp_path: Path) -> None:
    scores: list[object] = [0.7, None, 0.2]
    path = write(tmp_path / "scores.parquet", {"text": ["a", "b", "c"], "score": scores})
    found = read_file(path, Columns("text", ["score"], toxic_from=0.5))
    assert found == labelled(["a", "b", "c"], [1, None, 0])


def test_one_toxic_label_of_several_is_enough(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "text": ["a", "b", "c", "d", "e"],
        "insult": [0, 1, 0, 1, 0.6],
        "threat": [0, 0, 1, 1, None],
    }
    path = write(tmp_path / "labels.jsonl", columns)
    both = ["insult", "threat"]
    found = read_file(path, Columns("text", both, toxic_from=0.5))
    assert found == labelled(["a", "b", "c", "d", "e"], [0, 1, 1, 1, None])
    with pytest.raises(InputError, match="line 5: 'threat' is missing; expected a label"):
        read_file(path, Columns("text", both))


def test_a_column_of_prompts(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {"a": ["One", " two "], "b": [" more", ""], "toxic": [1, 0]}
    path = write(tmp_path / "prompts.csv", columns)
    found = read_file(path, Columns("b", ["toxic"], prompt="a"))
    assert found == [LabelledText(" more", True, "One"), LabelledText("", False, " two ")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "a", "prompt": "p", "score": "high"},
            "line 2: 'score' is a word; expected a num",
        ),
        ({"text": "a", "prompt": "p", "score": [1]}, "line 2: 'score' is of type list; expected a"),
        ({"text": "a", "prompt": "p"}, "line 2: no column 'score'; there are ['text', 'prompt']"),
        ({"text": "a", "prompt": None, "score": 1}, "line 2: 'prompt' is missing; expected a text"),
        ({"text": "a", "score": 1}, "line 2: no column 'prompt'; there are ['text', 'score']"),
        (
            {"text": "a", "prompt": "p", "score": 0.2},
            "every comment is non-toxic; expected both, but 'score' holds [0.1, 0.2] and "
            "toxic_from is 0.5",
        ),
    ],
)
def test_scores_and_prompts_that_are_refused(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    first = {"text": "a", "prompt": "p", "score": 0.1}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in (first, row)))
    with pytest.raises(InputError) as caught:
        read_file(path, Columns("text", ["score"], prompt="prompt", toxic_from=0.5))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_which_every_score_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "none.jsonl", {"text": ["a", "b"], "score": [None, None]})
    with pytest.raises(InputError, match="is empty: all 2 rows lack a score; expected comments"):
        read_file(path, Columns("text", ["score"], toxic_from=0.5))


# --- data sets ------------------------------------------------------------------------------------

SOME, MORE = TEXTS[:4], TEXTS[4:]


def columns_of(texts: list[str]) -> dict[str, list[object]]:
    """`text` and `toxic`, and columns that nobody asks for."""
    labels = [LABELS[TEXTS.index(text)] for text in texts]
    return {"id": list(range(len(texts))), "text": list(texts), "toxic": list(labels)}


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "test.csv"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train/a.jsonl", "test/b.jsonl"),
        ("part-one-train.tsv.gz", "part-two-test.tsv.gz"),
    ],
)
def test_a_split_is_found_by_the_names_of_its_files(tmp_path: Path, names: tuple[str, str]) -> None:
    """And read as a file is: no word stands for a missing value, no number loses its zeros."""
    for name, texts in zip(names, (SOME, MORE), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, columns_of(texts))
    columns = Columns("text", ["toxic"])
    assert read_split(tmp_path, "mine", "train", columns) == labelled(SOME, LABELS[:4])
    assert read_split(tmp_path, "mine", "test", columns) == labelled(MORE, LABELS[4:])
    with pytest.raises(InputError, match=r"mine: no split 'dev'; there are \['train', 'test'\]"):
        read_split(tmp_path, "mine", "dev", columns)


def test_a_split_may_be_several_files_or_all(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", columns_of(SOME))
    write(tmp_path / "b.jsonl", columns_of(MORE))
    found = read_split(tmp_path, "mine", "train", Columns("text", ["toxic"]))
    assert found == labelled(TEXTS, LABELS)


def test_the_card_of_a_data_set_names_its_splits(tmp_path: Path) -> None:
    write(tmp_path / "one.csv", columns_of(SOME))
    write(tmp_path / "two.csv", columns_of(MORE))
    files = [{"split": "train", "path": "two.csv"}, {"split": "held_out", "path": "one.csv"}]
    header = json.dumps({"configs": [{"config_name": "default", "data_files": files}]})
    (tmp_path / "README.md").write_text(f"---\n{header}\n---\nA card.\n")
    columns = Columns("text", ["toxic"])
    assert read_split(tmp_path, "mine", "train", columns) == labelled(MORE, LABELS[4:])
    assert read_split(tmp_path, "mine", "held_out", columns) == labelled(SOME, LABELS[:4])


def test_a_copy_in_the_hubs_cache(tmp_path: Path) -> None:
    """Its files are links to others without a suffix."""
    given = tmp_path / "given"
    (given / "data").mkdir(parents=True)
    write(given / "data" / "train-00000-of-00001.parquet", columns_of(TEXTS))
    write_hub_cache(tmp_path / ".cache", "datasets--org--mine", "1" * 40, given)
    folder = tmp_path / ".cache" / "datasets--org--mine" / "snapshots" / ("1" * 40)
    found = read_split(folder, "org/mine", "train", Columns("text", ["toxic"]))
    assert found == labelled(TEXTS, LABELS)


def test_a_folder_that_is_called_as_a_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "csv").mkdir()
    write(tmp_path / "csv" / "train.csv", columns_of(SOME))
    monkeypatch.chdir(tmp_path)
    found = read_split(Path("csv"), "csv", "train", Columns("text", ["toxic"]))
    assert found == labelled(SOME, LABELS[:4])


def test_nothing_is_written_and_nothing_executed(tmp_path: Path) -> None:
    """In a process of its own, for the library reads its settings when it is imported."""
    folder, home = tmp_path / "mine", tmp_path / "home"
    folder.mkdir()
    write(folder / "train.csv", columns_of(SOME))
    (folder / "code.py").write_text("raise SystemExit('executed')")
    program = (
        "import sys; from pathlib import Path; from irl_exp.data import sources;"
        "columns = sources.Columns('text', ['toxic']);"
        "print(len(list(sources.split_rows(Path(sys.argv[1]), '', 'train', columns))))"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={**env, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("4\n", "")
    assert not home.exists()
    assert {path.name for path in folder.iterdir()} == {"train.csv", "code.py"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "mine: .* is no data set that can be read: .*any data files"),
        ({"mine.py": b"x"}, "mine: .* is no data set that can be read: "),
        ({"README.md": b"---\nconfigs: [\n---\n", "a.csv": b"x"}, "mine: .* is no data set that"),
        ({"train.txt": b"text"}, "mine, split train, train.txt: unknown format; expected one of"),
        ({"train.csv": b"text\na\n"}, "mine, split train, train.csv, line 2: no column 'toxic'"),
        (
            {"train.parquet": b"text"},
            "mine, split train, train.parquet: unreadable Parquet after row 0",
        ),
        ({"train.csv": b"text,toxic\na,1\n"}, "mine, split train: every comment is toxic"),
    ],
)
def test_data_sets_that_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=f"^{message}") as caught:
        read_split(folder, "mine", "train", Columns("text", ["toxic"]))
    assert "\n" not in str(caught.value)


def test_real_prompts() -> None:
    real = os.environ.get("IRL_EXP_REAL_DATA")
    if real is None:
        pytest.skip("IRL_EXP_REAL_DATA is not set: no real prompts to read")
    labels = ["prompt.toxicity", "continuation.toxicity"]
    columns = Columns("continuation.text", labels, prompt="prompt.text", toxic_from=0.5)
    found = read_split(Path(real) / "rtp_prompts", "real", "train", columns)
    scored = [row for row in found if row.toxic is not None]
    assert (len(found), len(scored)) == (2396, 2377)
    records = [
        json.loads(line)
        for path in sorted((Path(real) / "rtp_prompts").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    halves = [
        (record["prompt"]["text"], record["continuation"]["text"])
        for record in records
        if record["continuation"]["toxicity"] is not None
    ]
    assert [(row.prompt, row.text) for row in scored] == halves
