"""Bad and hostile input: what was given, and what was said. docs/reliability.md has the table.

What was said is the one line of the refusal, or, where the input is taken, the count that tells
what became of it.
"""

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from irl_exp.data import synthetic
from irl_exp.models.reward_kinds import LengthReward
from tests import warm
from tests.materials import save_language_model, save_reward

ROWS = [(comment.text, int(comment.toxic)) for comment in synthetic.generate(300, seed=0)]
CSV = pd.DataFrame(ROWS, columns=["text", "toxic"]).to_csv(index=False)
JSONL = "".join(json.dumps({"text": text, "toxic": label}) + "\n" for text, label in ROWS)
PAIRS = "".join(
    json.dumps({"aligned": f"thanks for {i} edits", "reference": f"what {i} fools"}) + "\n"
    for i in range(60)
)
COMMENTS = "irl-exp until=curate dataset=file dataset.path="
AUDIT = (
    "irl-exp +experiment=audit until=curate demonstrations=file demonstrations.prompt_column=null "
    "demonstrations.path="
)
MODEL = "irl-exp until=pretrain dataset.size=400 model=checkpoint model.epochs=0 model.path="
SCORE = "irl-score reward "
LONG = "one two three four " + "x" * 1_000_000


@dataclass(frozen=True)
class Case:
    """What is typed, with the files that it is typed about; and the line, or the counts."""

    typed: str
    said: str | dict[str, int]
    files: dict[str, str | bytes] = field(default_factory=dict)


CASES = {
    # --- comments ---------------------------------------------------------------------------------
    "a row with a field too many": Case(
        COMMENTS + "a.csv",
        "a.csv, line 302: malformed row, 3 fields; expected 2, as in the header",
        {"a.csv": CSV + "a,b,1\n"},
    ),
    "two such rows, with `dataset.on_error=skip`": Case(
        COMMENTS + "a.csv dataset.on_error=skip",
        {"comments/skipped": 2, "comments/read": 300},
        {"a.csv": CSV + "a,b,1\nc,d,1\n"},
    ),
    "a quote that is never closed": Case(
        COMMENTS + "a.csv",
        "a.csv, line 302: malformed row (unexpected end of data); is a quote left open?",
        {"a.csv": CSV + '"a b c d e,1\nf g h i j,0\n'},
    ),
    "the same, with `dataset.on_error=skip`": Case(
        COMMENTS + "a.csv dataset.on_error=skip",
        "a.csv, line 302: malformed row (unexpected end of data); is a quote left open?",
        {"a.csv": CSV + '"a b c d e,1\nf g h i j,0\n'},
    ),
    "the same column twice": Case(
        COMMENTS + "a.csv",
        "a.csv, line 1: column ['text'] stands twice; expected distinct names",
        {"a.csv": "text,text,toxic\na,b,1\n"},
    ),
    "texts with NUL characters, which differ after them alone": Case(
        COMMENTS + "a.csv",
        {"comments/read": 302, "comments/dropped_duplicate": 0},
        {"a.csv": CSV + "a b c d \0e,1\na b c d \0f,1\n"},
    ),
    "Latin-1": Case(
        COMMENTS + "a.csv",
        "a.csv, line 302: 'text' is not UTF-8; expected UTF-8",
        {"a.csv": CSV.encode() + "a b c d café,1\n".encode("latin-1")},
    ),
    "UTF-16": Case(
        COMMENTS + "a.csv",
        "a.csv, line 1: the header is not UTF-8; expected UTF-8",
        {"a.csv": CSV.encode("utf-16")},
    ),
    "a line of a megabyte, CSV": Case(
        COMMENTS + "a.csv",
        "a.csv, line 302: malformed row (field larger than field limit (131072)); is a quote left "
        "open?",
        {"a.csv": CSV + f"{LONG},1\n"},
    ),
    "a line of a megabyte, JSONL": Case(
        COMMENTS + "a.jsonl",
        {"comments/read": 301, "comments/dropped_too_short": 0},
        {"a.jsonl": JSONL + json.dumps({"text": LONG, "toxic": 1}) + "\n"},
    ),
    "the same text three times": Case(
        COMMENTS + "a.csv",
        {"comments/dropped_duplicate": 2},
        {"a.csv": CSV + "a b c d e,1\n" * 3},
    ),
    "the same text under both labels": Case(
        COMMENTS + "a.csv",
        {"comments/dropped_conflicting": 2},
        {"a.csv": CSV + "a b c d e,1\na b c d e,0\n"},
    ),
    'labels 1, 1.0, "1" and true in one column': Case(
        COMMENTS + "a.jsonl",
        {"comments/read": 304},
        {
            "a.jsonl": JSONL
            + "".join(f'{{"text": "a b c d {v}", "toxic": {v}}}\n' for v in ("1", "1.0", "true"))
            + '{"text": "a b c d e", "toxic": "1"}\n'
        },
    ),
    "a number for a text": Case(
        COMMENTS + "a.jsonl",
        "a.jsonl, line 301: 'text' is of type int; expected a text",
        {"a.jsonl": JSONL + '{"text": 5, "toxic": 1}\n'},
    ),
    "a list for a label": Case(
        COMMENTS + "a.jsonl",
        "a.jsonl, line 301: 'toxic' is of type list; expected a label",
        {"a.jsonl": JSONL + '{"text": "a", "toxic": [1]}\n'},
    ),
    "NaN for a label": Case(
        COMMENTS + "a.jsonl",
        "a.jsonl, line 301: 'toxic' is missing; expected a label",
        {"a.jsonl": JSONL + '{"text": "a", "toxic": NaN}\n'},
    ),
    "scores of NaN and infinity, with `dataset.toxic_from=0.5`": Case(
        COMMENTS + "a.jsonl dataset.toxic_from=0.5",
        {"comments/read": 302, "comments/dropped_unscored": 1},
        {
            "a.jsonl": JSONL
            + '{"text": "a b c d e", "toxic": NaN}\n{"text": "a b c d f", "toxic": Infinity}\n'
        },
    ),
    "half a character": Case(
        COMMENTS + "a.jsonl",
        "a.jsonl, line 301: 'text' holds half a character; expected Unicode",
        {"a.jsonl": JSONL + '{"text": "\\ud83d", "toxic": 1}\n'},
    ),
    "emoji, and text from right to left": Case(
        COMMENTS + "a.csv",
        {"comments/read": 302, "comments/dropped_empty": 0},
        {"a.csv": CSV + "🙂 👩‍👩‍👧 c d e,1\n\u202eא ב ג ד ה,0\n"},
    ),
    "a text that is empty, and one that ends with its prompt": Case(
        COMMENTS + "a.csv",
        {"comments/dropped_empty": 1, "comments/dropped_too_short": 1},
        {"a.csv": CSV + ",1\na b c d,1\n"},
    ),
    "labels of one class": Case(
        COMMENTS + "a.csv",
        "a.csv: every comment is non-toxic; expected both, but 'toxic' holds ['0'] and "
        "toxic_values is [1]",
        {"a.csv": re.sub(",1$", ",0", CSV, flags=re.MULTILINE)},
    ),
    "JSON 3,000 lists deep": Case(
        COMMENTS + "a.jsonl",
        "a.jsonl, line 301: unreadable JSON; expected an object a line",
        {"a.jsonl": JSONL + "[" * 3000 + "\n"},
    ),
    "a gzipped file that was cut off": Case(
        COMMENTS + "a.csv.gz",
        "a.csv.gz can't be read after line 287: Compressed file ended before the end-of-stream "
        "marker was reached",
        {"a.csv.gz": gzip.compress(CSV.encode(), mtime=0)[:-200]},
    ),
    "a Parquet file that is none": Case(
        COMMENTS + "a.parquet", "a.parquet: unreadable Parquet after row 0", {"a.parquet": "PAR1"}
    ),
    # --- pairs ------------------------------------------------------------------------------------
    "pairs of which one lacks a side": Case(
        AUDIT + "p.jsonl",
        "p.jsonl, line 61: 'reference' is missing; expected a text",
        {"p.jsonl": PAIRS + '{"aligned": "a", "reference": null}\n'},
    ),
    "pairs with half a character in a message": Case(
        AUDIT + "p.jsonl",
        "p.jsonl, line 61: 'aligned' holds half a character; expected Unicode",
        {
            "p.jsonl": PAIRS
            + '{"aligned": [{"role": "user", "content": "\\ud83d"}], "reference": "b"}\n'
        },
    ),
    "pairs with more texts on one side": Case(
        AUDIT + "p.jsonl",
        "p.jsonl, line 61: 2 texts in 'aligned', 1 in 'reference'; expected as many of either",
        {"p.jsonl": PAIRS + '{"aligned": ["a", "b"], "reference": ["c"]}\n'},
    ),
    "pairs with a completion that is empty": Case(
        AUDIT + "p.jsonl",
        {"comments/read": 122},
        {"p.jsonl": PAIRS + '{"aligned": "", "reference": "b"}\n'},
    ),
    "pairs that are all alike": Case(
        AUDIT + "p.jsonl",
        "p.jsonl has no pairs: both sides of all 2 rows are alike; expected some",
        {"p.jsonl": '{"aligned": "a", "reference": "a"}\n' * 2},
    ),
    # --- texts to score ---------------------------------------------------------------------------
    "no text to score": Case(
        SCORE + "s.jsonl",
        "s.jsonl, line 2: expected text, or prompt and completion; it has txt",
        {"s.jsonl": '{"text": "a"}\n{"txt": "a"}\n'},
    ),
    "a number to score": Case(
        SCORE + "s.jsonl",
        "s.jsonl, line 1: 'text' is of type int; expected a text",
        {"s.jsonl": '{"text": 1}\n'},
    ),
    "texts that have a score": Case(
        SCORE + "s.jsonl",
        "s.jsonl, line 1: has a field 'score' already; --field NAME sets another",
        {"s.jsonl": '{"text": "a", "score": 1}\n'},
    ),
    # --- words ------------------------------------------------------------------------------------
    "a setting that is not a number": Case(
        "irl-exp solver.learning_rate=nan",
        "solver.learning_rate=nan: expected a finite number",
    ),
    "`_target_`, which other programs call": Case(
        "irl-exp +solver._target_=os.system",
        "solver._target_: no such key; expected one of ",
    ),
    "a name that leads out of its folder": Case(
        "irl-exp -m seed=0 name=../../up",
        "name=../../up: expected a name for a folder, without / and first dots",
    ),
    "a line feed and colors in a word": Case(
        "irl-exp a\n\x1b[31mb",
        "a \ufffd[31mb: not an override; expected KEY=VALUE, quoted for your shell",
    ),
    # --- models -----------------------------------------------------------------------------------
    "weights as a pickle that calls a function": Case(
        MODEL + "pickle",
        "pickle: expected a causal language model with its tokenizer: its pickled weights are "
        "damaged or hold more than tensors, and are not loaded",
    ),
    "a model that comes with code (`auto_map`)": Case(
        MODEL + "code",
        "code: expected a causal language model with its tokenizer: it needs Python code of its "
        "own, which is never run",
    ),
    "safetensors of 100 bytes": Case(
        MODEL + "damaged",
        "damaged: expected a causal language model with its tokenizer: its safetensors are "
        "damaged ",
    ),
    "a model whose weights are not finite": Case(
        MODEL + "nan", "nan: its logits are not finite; expected sound weights"
    ),
    "a reward of a kind that names a function": Case(
        "irl-score kind s.jsonl",
        "kind: unknown kind of reward 'os.system'; expected one that irl-exp saves",
        {"s.jsonl": '{"text": "a"}\n'},
    ),
}


class Call:
    """What a pickle can do, if it is trusted."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return print, ("EXECUTED",)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    texts = [text for text, _ in ROWS]
    save_language_model(folder / "model", "llama", texts)
    for name in ("pickle", "code", "damaged", "nan"):
        shutil.copytree(folder / "model", folder / name)
    weights = load_file(folder / "nan" / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, folder / "nan" / "model.safetensors", metadata={"format": "pt"})
    settings = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "code" / "config.json").write_text(json.dumps(settings))
    (folder / "code" / "code.py").write_text("print('EXECUTED')\n")
    for name in ("reward", "kind"):
        (folder / name).mkdir()
        save_reward(LengthReward(1.0), folder / name)
    path = folder / "kind" / "reward.json"
    path.write_text(path.read_text().replace('"length"', '"os.system"'))
    (folder / "pickle" / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Call()}, folder / "pickle" / "pytorch_model.bin")
    (folder / "damaged" / "model.safetensors").write_bytes(b"x" * 100)
    return folder


@pytest.mark.parametrize("given", CASES)
def test_what_is_given_and_what_is_said(models: Path, tmp_path: Path, given: str) -> None:
    case = CASES[given]
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name, content in case.files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    name, *words = case.typed.split(" ")
    if name == "irl-exp":
        small = [] if "+experiment=audit" in words else ["+debug=smoke"]
        words += [*small, "trainer.threads=1", f"paths.store={tmp_path}/store"]
    if name == "irl-exp" and "-m" not in words:
        words += ["hydra.run.dir=run"]
    before = {path.name for path in tmp_path.parent.iterdir()}
    done = subprocess.run(
        [warm.command(name), *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "EXECUTED" not in done.stdout + done.stderr
    assert {path.name for path in tmp_path.parent.iterdir()} == before
    if isinstance(case.said, str):
        assert done.returncode == 1, done.stdout + done.stderr
        line = done.stderr.replace(f"{tmp_path}/", "")
        assert line.startswith(f"{name}: {case.said}"), line
        assert line.count("\n") == 1
    else:
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert case.said.items() <= summary.items()


def shown(said: str | dict[str, int]) -> str:
    """As a cell of the table."""
    if isinstance(said, str):
        line = said.strip().rstrip(",;")
        return "`" + line.replace("|", "\\|") + ("…" if line != said else "") + "`"
    return "taken: " + ", ".join(f"`{name}` {value}" for name, value in said.items())


def test_the_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = "".join(f"| {given} | {shown(case.said)} |\n" for given, case in CASES.items())
    assert f"| given | said |\n|---|---|\n{rows}" in page, rows
