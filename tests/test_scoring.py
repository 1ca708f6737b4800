"""irl-score: every format, every way to be wrong, and the same numbers as transformers alone."""

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from irl_exp import scoring
from irl_exp.models.network_reward import from_body
from irl_exp.models.reward_kinds import LengthReward
from irl_exp.models.reward_model import Facts, Normalizer

RECORDS = [
    {"id": 1, "prompt": "I think you", "completion": " are quite right, thanks"},
    {"id": 2, "prompt": "This edit", "completion": ""},
    {"id": 3, "prompt": "Ünïcödé \u2028 and", "completion": ' a "quote", a comma'},
]
WORDS = [4.0, 0.0, 4.0]  # of the completions


@pytest.fixture(scope="module")
def network(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved reward whose normalizer would show, if anything applied it."""
    folder = tmp_path_factory.mktemp("reward")
    reward = from_body(tiny_folder, torch.Generator().manual_seed(0), batch_size=8)
    Facts(reward.kind, Normalizer(7.0, 0.01), {}, extra=reward.save(folder)).save(folder)
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved reward that everybody can compute: the number of words of the completion."""
    folder = tmp_path_factory.mktemp("words")
    reward = LengthReward(sign=1.0)
    Facts(reward.kind, Normalizer(7.0, 0.01), {}, extra=reward.save(folder)).save(folder)
    return folder


@pytest.fixture
def irl_score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the console script here: (exit status, records on standard output, standard error)."""

    def run(*words: object) -> tuple[int, list[dict], str]:
        monkeypatch.setattr(sys, "argv", ["irl-score", *map(str, words)])
        status, message = 0, ""
        try:
            scoring.main()
        except SystemExit as end:  # what Python does with it: a text goes to standard error
            status, message = (end.code, "") if isinstance(end.code, int) else (1, f"{end.code}\n")
        out, err = capsys.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err + message

    return run


def jsonl(records: list[dict]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


# --- numbers ------------------------------------------------------------------------------------

SHOW = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
network = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    for text in json.load(sys.stdin):
        print(network(**tokenizer(text, return_tensors="pt")).logits.item())
assert not any(name.startswith("irl_exp") for name in sys.modules)
"""


def test_transformers_alone_gives_the_same_scores(
    network: Path, texts: list[str], tmp_path: Path
) -> None:
    """Texts of many lengths, scored in padded batches here, one by one there."""
    chosen = [text for text in texts[:40] if len(text) < 120]
    file, out = tmp_path / "texts.jsonl", tmp_path / "scores.jsonl"
    file.write_text(jsonl([{"text": text} for text in chosen]))
    ours = subprocess.run(
        [sys.executable, "-m", "irl_exp.scoring", network, file, "-o", out, "--batch-size", "7"],
        capture_output=True,
        text=True,
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, "", "")
    theirs = subprocess.run(
        [sys.executable, "-c", SHOW, network],
        input=json.dumps(chosen),
        capture_output=True,
        text=True,
        cwd=tmp_path,  # where no checkout can be imported from
        check=True,
    )
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["text"] for record in records] == chosen
    scores = [record["score"] for record in records]
    assert scores == pytest.approx([float(line) for line in theirs.stdout.split()], abs=1e-5)
    assert max(scores) - min(scores) > 0.1


def test_a_folder_without_our_facts_scores_the_same(
    network: Path, tmp_path: Path, irl_score
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in network.iterdir():
        if path.name != "reward.json":
            (plain / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "texts.jsonl"
    file.write_text(jsonl(RECORDS))
    assert irl_score(plain, file) == irl_score(network, file)


def test_no_padding_token_is_no_obstacle(network: Path, tmp_path: Path, irl_score) -> None:
    """As many models of other people: padding must neither be needed nor change a score."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in network.iterdir():
        (bare / path.name).write_bytes(path.read_bytes())
    (bare / "reward.json").unlink()
    for name, key in (("tokenizer_config.json", "pad_token"), ("config.json", "pad_token_id")):
        text = json.loads((bare / name).read_text())
        del text[key]
        (bare / name).write_text(json.dumps(text))
    file = tmp_path / "texts.jsonl"
    file.write_text(jsonl(RECORDS))
    expected = [record["score"] for record in irl_score(network, file)[1]]
    status, records, _ = irl_score(bare, file)
    assert status == 0
    assert [record["score"] for record in records] == pytest.approx(expected, abs=1e-5)


def test_order_and_numbers_do_not_depend_on_chunks(
    network: Path, texts: list[str], tmp_path: Path, irl_score, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"{text}\n" for text in texts[:50]))
    _, whole, _ = irl_score(network, file)
    monkeypatch.setattr(scoring, "BATCHES", 2)
    _, parts, _ = irl_score(network, file, "--batch-size", 3)
    assert [record["text"] for record in whole] == texts[:50]
    assert [record["text"] for record in parts] == texts[:50]
    scores = [record["score"] for record in whole]
    assert [record["score"] for record in parts] == pytest.approx(scores, abs=1e-5)


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", jsonl(RECORDS)),
        (".jsonl", "\ufeff" + jsonl(RECORDS).replace("\n", "\r\n\r\n")),
        (
            ".csv",
            "id,prompt,completion\n"
            '1,I think you," are quite right, thanks"\n'
            "2,This edit,\n"
            '3,Ünïcödé \u2028 and," a ""quote"", a comma"\n',
        ),
        (
            ".tsv",
            "id\tprompt\tcompletion\n"
            "1\tI think you\t are quite right, thanks\n"
            "2\tThis edit\t\n"
            '3\tÜnïcödé \u2028 and\t" a ""quote"", a comma"\n',
        ),
    ],
    ids=["jsonl", "jsonl-windows", "csv", "tsv"],
)
def test_prompts_and_completions(
    suffix: str, content: str, zipped: bool, words: Path, tmp_path: Path, irl_score
) -> None:
    """Raw scores first, then the fields exactly as they came."""
    file = tmp_path / f"texts{suffix}{'.gz' if zipped else ''}"
    data = content.encode()
    file.write_bytes(gzip.compress(data) if zipped else data)
    status, records, err = irl_score(words, file)
    assert (status, err) == (0, "")
    assert [list(record) for record in records] == [["score", "id", "prompt", "completion"]] * 3
    assert [record.pop("score") for record in records] == WORDS
    assert [{**record, "id": int(record["id"])} for record in records] == RECORDS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("texts.jsonl", '{"text": "a b\\nc"}\n{"text": ""}\n{"text": "d"}'),
        ("texts.csv", 'text\n"a b\nc"\n""\nd\n'),
        ("TEXTS.TSV", 'text\r\n"a b\nc"\r\n""\r\nd'),
    ],
)
def test_a_whole_text_is_a_completion(
    name: str, content: str, words: Path, tmp_path: Path, irl_score
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    _, records, _ = irl_score(words, tmp_path / name)
    assert records == [
        {"score": 3.0, "text": "a b\nc"},
        {"score": 0.0, "text": ""},
        {"score": 1.0, "text": "d"},
    ]


def test_plain_text_keeps_every_line(words: Path, tmp_path: Path, irl_score) -> None:
    """So that the n-th score belongs to the n-th line, empty ones among them."""
    (tmp_path / "texts.txt").write_bytes("a b\r\n\nc\u2028d \n".encode())
    _, records, _ = irl_score(words, tmp_path / "texts.txt")
    assert records == [
        {"score": 2.0, "text": "a b"},
        {"score": 0.0, "text": ""},
        {"score": 2.0, "text": "c\u2028d "},
    ]


def test_prompt_and_completion_come_before_text(words: Path, tmp_path: Path, irl_score) -> None:
    (tmp_path / "t.jsonl").write_text(jsonl([{"text": "a b c", "prompt": "a", "completion": "b"}]))
    assert irl_score(words, tmp_path / "t.jsonl")[1][0]["score"] == 1.0


def test_standard_input_is_jsonl(words: Path, irl_score, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(jsonl(RECORDS).encode())))
    status, records, _ = irl_score(words, "-")
    assert (status, [record["score"] for record in records]) == (0, WORDS)


def test_input_is_read_as_it_is_scored(words: Path) -> None:
    """The first scores come out while the writer of standard input still holds it open."""
    chunk = scoring.BATCHES * 64
    process = subprocess.Popen(
        [sys.executable, "-m", "irl_exp.scoring", words, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    process.stdin.write(b'{"text": "a b"}\n' * chunk)
    process.stdin.flush()
    first = [json.loads(process.stdout.readline()) for _ in range(chunk)]
    assert first == [{"score": 2.0, "text": "a b"}] * chunk
    assert process.poll() is None
    process.stdout.close()  # as `| head` does: no complaint, no traceback
    process.stdin.write(b'{"text": "c"}\n')
    process.stdin.close()
    assert process.wait() == 1


# --- output -------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_standard_output_without_room_is_named(words: Path) -> None:
    line = [sys.executable, "-m", "irl_exp.scoring", str(words), "-"]
    with open("/dev/full", "w") as full:
        text = b'{"text": "a b"}\n'
        done = subprocess.run(line, input=text, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"irl-score: standard output: No space left on device; ")


def test_output_to_a_file(words: Path, tmp_path: Path, irl_score) -> None:
    file, out = tmp_path / "texts.txt", tmp_path / "scores.jsonl"
    file.write_text("a b\n")
    assert irl_score(words, file, "-o", out) == (0, [], "")
    assert out.read_text() == '{"score": 2.0, "text": "a b"}\n'

    file.write_text("a b c\n")
    status, _, err = irl_score(words, file, "-o", out)
    assert (status, err) == (1, f"irl-score: {out}: exists already; --overwrite replaces it\n")
    assert out.read_text() == '{"score": 2.0, "text": "a b"}\n'
    assert irl_score(words, file, "-o", out, "--overwrite")[0] == 0
    assert out.read_text() == '{"score": 3.0, "text": "a b c"}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.jsonl", "texts.txt"]


def test_a_failure_leaves_the_output_as_it_was(words: Path, tmp_path: Path, irl_score) -> None:
    """The first line is bad: nothing is done that could be gone on with."""
    file, out = tmp_path / "texts.jsonl", tmp_path / "scores.jsonl"
    file.write_text('{"text": 3}\n')
    out.write_text("before")
    assert irl_score(words, file, "-o", out, "--overwrite")[0] == 1
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.jsonl", "texts.jsonl"]


# --- columns ------------------------------------------------------------------------------------


def test_columns_by_their_names(words: Path, tmp_path: Path, irl_score) -> None:
    """What is named is read, and what else is there is not."""
    record = {
        "prompt": "a",
        "completion": "b",
        "text": "a b c",
        "question": "a",
        "answer": "b c d e",
    }
    file = tmp_path / "t.jsonl"
    file.write_text(jsonl([record]))
    for named, expected in (
        ((), 1.0),
        (("--text", "text"), 3.0),
        (("--text", "answer"), 4.0),
        (("--prompt", "question", "--completion", "answer"), 4.0),
        (("--completion", "text"), 3.0),
        (("--prompt", "text"), 1.0),
    ):
        assert irl_score(words, file, *named) == (0, [{"score": expected, **record}], "")


def test_columns_that_are_not_there(words: Path, tmp_path: Path, irl_score) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(jsonl([{"prompt": "a", "completion": "b"}]))
    for named, expected in (
        (("--text", "body"), "body"),
        (("--prompt", "q", "--completion", "a"), "q and a"),
    ):
        status, _, err = irl_score(words, file, *named)
        there = "it has prompt, completion"
        assert (status, err) == (1, f"irl-score: {file}, line 1: expected {expected}; {there}\n")
    status, _, err = irl_score(words, file, "--text", "prompt", "--completion", "completion")
    assert (status, err.count("\n")) == (1, 1)
    assert "--text beside --prompt or --completion: expected one or the other" in err


def test_a_score_under_another_name(words: Path, tmp_path: Path, irl_score) -> None:
    """What was scored once can be scored again, by another reward, without losing the first."""
    file = tmp_path / "texts.jsonl"
    file.write_text('{"score": 0.5, "text": "a b"}\n')
    status, _, err = irl_score(words, file)
    assert status == 1
    assert err == (
        f"irl-score: {file}, line 1: has a field 'score' already; --field NAME sets another\n"
    )
    _, records, _ = irl_score(words, file, "--field", "words")
    assert records == [{"words": 2.0, "score": 0.5, "text": "a b"}]


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"text": "a"}\n\n{"text"', "line 3: unreadable JSON"),
        ("t.jsonl", b'["a"]\n', "line 1: JSON of type list; expected an object"),
        ("t.jsonl", b'{"text": "a"}\n{"txt": "b", "id": 1}\n', "line 2: expected text, or prompt "),
        ("t.jsonl", b'{"prompt": "a", "id": 1}\n', "and completion; it has prompt, id"),
        ("t.jsonl", b'{"text": null}\n', "line 1: 'text' is of type NoneType"),
        ("t.jsonl", b'{"text": "\\ud83d"}\n', "line 1: 'text' holds half a character"),
        ("t.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2 is not UTF-8; expected UTF-8"),
        ("t.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0)[:-9], "can't be read after line"),
        ("t.txt.gz", b"not gzip at all", "can't be read: Not a gz"),
        ("t.csv", b"text,id\na,1\nb\n", "line 3: malformed row, 1 fields; expected 2"),
        ("t.csv", b"text,id\na,1,2\n", "line 2: malformed row, 3 fields; expected 2"),
        ("t.csv", b'text\na\n"b', "line 3: malformed row"),
        ("t.csv", b"text,text\na,b\n", "line 1: column ['text'] stands twice"),
        ("t.csv", b"id,comment\n1,a\n", "and completion; it has id, comment"),
        ("t.parquet", b"", "unknown format; expected .jsonl, .csv, .tsv, .txt"),
    ],
)
def test_bad_files(
    name: str, content: bytes, message: str, words: Path, tmp_path: Path, irl_score
) -> None:
    """One line: the file, the line, what is wrong with it."""
    file = tmp_path / name
    file.write_bytes(content)
    status, records, err = irl_score(words, file)
    assert (status, records) == (1, [])
    assert err.startswith(f"irl-score: {file}")
    assert message in err
    assert err.count("\n") == 1


def test_bad_arguments(words: Path, tmp_path: Path, irl_score) -> None:
    good, out = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    good.write_text("a\n")
    link = tmp_path / "link"
    link.symlink_to(good)
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[tuple[object, ...], str]] = [
        ((tmp_path / "none", good), "none: no such folder, and no hub id"),
        ((empty, good), "empty: a folder without config.json; expected a saved reward"),
        ((words, tmp_path / "none.txt"), "none.txt: no such file"),
        ((words, tmp_path), f"{tmp_path}: no such file"),
        ((words, good, "-o", tmp_path / "none" / "out"), "none: no such folder, to write out in"),
        ((words, good, "-o", empty, "--overwrite"), "empty: not a regular file"),
        ((words, good, "-o", link, "--overwrite"), "link: not a regular file"),
        ((words, good, "-o", out, "--device", "abacus"), "--device=abacus"),
        ((words, good, "--revision", "main"), "a folder has no revision main"),
        ((words, good, "--restart"), "--restart and --overwrite are about OUT"),
    ]
    for arguments, message in cases:
        status, records, err = irl_score(*arguments)
        assert (status, records) == (1, []), arguments
        assert err.startswith("irl-score: ") and message in err and err.count("\n") == 1, err
    assert not out.exists()


def test_a_language_model_is_refused(tiny_folder: Path, tmp_path: Path, irl_score) -> None:
    """It is no reward, though transformers would put a random head on it."""
    (tmp_path / "t.txt").write_text("a\n")
    status, _, err = irl_score(tiny_folder, tmp_path / "t.txt")
    assert status == 1
    assert "expected a saved reward: it lacks 1 of its weights, as score.weight" in err


def test_scores_that_are_no_numbers_are_refused(network: Path, tmp_path: Path, irl_score) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in network.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] * float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "t.txt").write_text("a\nb\n")
    status, records, err = irl_score(broken, tmp_path / "t.txt")
    assert (status, records) == (1, [])
    reason = f"the reward {broken} gave 2 of 2 texts a score that is not finite"
    assert f"t.txt, line 1 and after: {reason}" in err


def test_texts_that_are_too_long_are_counted(network: Path, tmp_path: Path, irl_score) -> None:
    """They are scored by their end, and the count is said where it disturbs no output."""
    end = " please read the other article ." * 30
    lines = ["a short one", f"what stands first {end}", f"something else {end}"]
    (tmp_path / "t.txt").write_text("\n".join(lines) + "\n")
    status, records, err = irl_score(network, tmp_path / "t.txt")
    assert status == 0
    assert records[1]["score"] == records[2]["score"] != records[0]["score"]
    line = "irl-score: 2 of 3 texts are longer than the reward reads: scored by their end\n"
    assert err == line


def test_bad_arguments_are_refused_before_anything_heavy_is_loaded() -> None:
    script = (
        "import sys; from irl_exp import scoring\n"
        "sys.argv = ['irl-score', 'no such folder', '-']\n"
        "try: scoring.main()\n"
        "finally: print(sorted({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ
    )
    assert (done.returncode, done.stdout) == (1, "[]\n")
    assert done.stderr.startswith("irl-score: no such folder: no such folder, and no hub id;")
