"""What a user can get wrong, and the line that says so: one line, exit status 1, no traceback."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from irl_exp.data import synthetic
from tests.materials import save_classifier, save_language_model
from tests.test_cli import irl_exp

SMALL = (
    *("+debug=smoke", "trainer.threads=1", "dataset.max_new_tokens=8", "evaluation.draws=10"),
    *("demonstrations.prompts=16", "demonstrations.validation_prompts=8"),
    *("demonstrations.test_prompts=16", "hydra.run.dir=run"),
)
FILE = "until=curate dataset=file dataset.path="
MODEL = "until=pretrain dataset.size=400 model=checkpoint model.epochs=0 model.path="
CLASSIFIER = "until=ground_truth dataset.size=400 model.epochs=1 ground_truth=classifier "
SECOND = "until=align dataset.size=400 model.epochs=1 evaluation.second_classifier="
PLUGIN = "dataset.size=400 model.epochs=1 solver=plugin solver.file="
NO_SOLVER = "expected a Python file that defines solve(problem)"
# What was typed -> how the line begins, after "irl-exp: ".
TABLE = {
    # Names and types.
    "sead=1": "sead: no such key; did you mean seed? There are model, dataset, ",
    "model.hiden=1": "model.hiden: no such key; did you mean hidden_size? There are name, epochs, ",
    "+foo=1": "foo: no such key; expected one of model, dataset, ",
    "+model.foo=1": "model.foo: no such key; expected one of name, epochs, ",
    "+seed=1": "Could not append to config. An item is already at 'seed'.",
    "model=neox": "model=neox: expected one of checkpoint, neox-100k, ",
    "+debug=fire": "debug=fire: expected one of smoke",
    "+sweep=all": "sweep=all: expected one of alignment_strength, demonstrations, ",
    "dataset.toxic_values=[1]": "dataset.toxic_values: no such key; expected one of name, size, ",
    "seed=x": "seed: Value 'x' of type 'str' could not be converted to Integer",
    "seed=1.5": "seed: Value '1.5' of type 'float' could not be converted to Integer",
    "seed=null": "seed: field 'seed' is not Optional",
    "deterministic=maybe": "deterministic: Value 'maybe' is not a valid bool",
    "dataset.shares=1": "dataset.shares: Invalid type assigned: int is not a subclass of Shares",
    "dataset=file": "dataset.path: a value is required",
    "model.name=${oc.env:NO_SUCH_NAME}": (
        "model.name: the environment variable NO_SUCH_NAME is not set"
    ),
    "model.name=${nope}": "model.name: Interpolation key 'nope' not found",
    "seed": "seed: not an override; expected KEY=VALUE, quoted for your shell",
    "seed=[1": "seed=[1: not an override; expected KEY=VALUE, quoted for your shell",
    "solver=hinge,logistic": "solver=hinge,logistic: several values; expected -m beside it, or ",
    "seed=range(0,3)": "seed=range(0,3): several values; expected -m beside it, or [...] around ",
    "tags=pilot": "tags: expected a list, as 'tags=[first,second]'",
    "+experiment=audit demonstrations=file demonstrations.path=good.csv": (
        "debug=smoke: sets demonstrations.prompts, and demonstrations as chosen beside it has no "
    ),
    "experiment=x": "experiment: not a group of the default run; expected +experiment=...",
    "-m seed=0 name=..": "name=..: expected a name for a folder, without / and first dots",
    "name=../../up": "name=../../up: expected a name for a folder, without / and first dots",
    "solver.learning_rate=inf": "solver.learning_rate=inf: expected a finite number",
    "--foo": "unrecognized arguments: --foo; irl-exp --help shows what there is",
    "--cfg everything": "argument --cfg/-c: invalid choice: 'everything' (choose from ",
    # Values, and rules between them.
    "seed=-1": "seed=-1: expected 0 to 4294967295",
    "solver=max_margin_planning +rlhf@solver.rlhf=tilted": (
        "solver.rlhf=tilted: expected ppo, or null for weights"
    ),
    "solver=ensemble solver.base=logistic": (
        "solver.base: an option of solver; expected solver@solver.base=logistic"
    ),
    "demonstrations.contrast=none": "demonstrations.contrast=none: expected one of aligned, ",
    "evaluation.identify_prior_scale=0": (
        "evaluation.identify_prior_scale=0.0: expected a positive number"
    ),
    "evaluation.identify_pairs=-1": "evaluation.identify_pairs=-1: expected 0 or more",
    "seeds.alignment=-1": "seeds.alignment=-1: expected 0 to 4294967295",
    FILE + "good.csv dataset.on_error=drop": "dataset.on_error=drop: expected one of stop, skip",
    "demonstrations.k=0": "demonstrations.k=0: expected a positive number",
    "dataset.size=3": "dataset.size=3: expected at least 8, one of each class in each split",
    "until=tomorrow": "until=tomorrow: expected one of curate, pretrain, ",
    "objective=recovery/auc": "objective=recovery/auc: expected a metric of the validation split",
    "trainer.precision=8": "trainer.precision=8: expected one of 32-true, bf16-mixed, 16-mixed",
    "tracker=wandb tracker.mode=on": "tracker.mode=on: expected one of online, offline",
    "dataset.shares.train=0.9": "dataset.shares={'train': 0.9, 'validation': 0.05, ",
    "rlhf.batch_size=100": "rlhf.batch_size=100: expected a multiple of rlhf.minibatch_size=32",
    "rlhf=tilted rlhf.candidates=2": "rlhf.candidates=2: expected at least 64 ",
    "solver=ensemble solver@solver.base=max_entropy": "solver.base=max_entropy: expected a solver ",
    "solver@solver.base=hinge": "Could not override 'solver@solver.base'. ",
    "solver=ensemble solver@solver.base=hing": "solver=hing: expected one of asymmetric, bayesian,",
    "rlhf=tilted solver=log_ratio": "solver=log_ratio needs an expert's log-probabilities; ",
    "dataset=file dataset.path=good.csv ground_truth=closed_form": (
        "ground_truth=closed_form knows the embedded grammar alone; got dataset=file"
    ),
    "solver.trainable=some": "solver.trainable=some: expected one of all, last_layers, lora, head",
    "solver.trainable=last_layers solver.last_layers=3": (
        "solver.last_layers=3: expected at most model.layers=2"
    ),
    "solver.patience=0": "solver.patience=0: expected a positive number",
    # Files of comments.
    FILE + "none.csv": "none.csv: No such file or directory; expected a readable file or folder",
    FILE + "folder": "/folder: a folder; expected a file",
    FILE + "comments.xls": "/comments.xls: unknown format; expected one of .csv, .tsv, ",
    FILE + "pipe.csv": "pipe.csv: a pipe or a device; expected a file",
    FILE + " ": "an empty path; expected that of a file",
    FILE + "empty.csv": "/empty.csv is empty; expected comments",
    FILE + "header.csv": "/header.csv is empty; expected comments",
    FILE + "good.csv dataset.text_column=comment": (
        "/good.csv, line 2: no column 'comment'; there are ['text', 'toxic']"
    ),
    FILE + "good.csv dataset.label_column=label": (
        "/good.csv, line 2: no column 'label'; there are ['text', 'toxic']"
    ),
    FILE + "good.csv dataset.toxic_values=[9]": (
        "/good.csv: every comment is non-toxic; expected both, but 'toxic' holds ['0', '1'] and "
        "toxic_values is [9]"
    ),
    FILE + "one-class.csv": "/one-class.csv: every comment is non-toxic; expected both, but ",
    FILE + "no-label.csv": "/no-label.csv, line 2: 'toxic' is missing; expected a label",
    FILE + "ragged.csv": "/ragged.csv, line 3: malformed row, 4 fields; expected 2, as in the ",
    FILE + "quote.csv": "/quote.csv, line 2: malformed row (unexpected end of data); is a quote ",
    FILE + "latin.csv": "/latin.csv, line 2: 'text' is not UTF-8; expected UTF-8",
    FILE + "broken.jsonl": "/broken.jsonl, line 2: unreadable JSON; expected an object a line",
    FILE + "list.jsonl": "/list.jsonl, line 1: JSON of type list; expected an object",
    FILE + "number.jsonl": "/number.jsonl, line 1: 'text' is of type int; expected a text",
    FILE + "damaged.csv.gz": "/damaged.csv.gz can't be read: Not a gzipped file",
    FILE + "damaged.parquet": "/damaged.parquet: unreadable Parquet after row 0",
    FILE + "short.csv": "curation leaves 0 comments, 0 of them toxic; expected some of both ",
    FILE + "few.csv": "the validation split gets 1 comments, 0 of them toxic; expected some of ",
    "dataset=file dataset.path=good.csv demonstrations.prompts=5000": (
        "demonstrations.prompts=5000: the train split has "
    ),
    # Models.
    MODEL + "./nowhere": "model.path=./nowhere: no such folder, and no hub id; expected one of ",
    MODEL + "good.csv": "model.path=good.csv: a file; expected a folder or a hub id",
    MODEL + "some/model": (
        "model.path=some/model: no such folder, revision main of that hub id is not in "
    ),
    MODEL + "folder": "folder: a folder without config.json; expected a causal language model ",
    MODEL + "adapter": "adapter/adapter_config.json: does not say what it adapts; expected",
    MODEL + "no-tokenizer": "no-tokenizer: expected a causal language model with its tokenizer: ",
    MODEL + "damaged": (
        "damaged: expected a causal language model with its tokenizer: its safetensors are damaged "
    ),
    MODEL + "pickle": (
        "pickle: expected a causal language model with its tokenizer: its pickled weights are "
        "damaged or hold more than tensors, and are not loaded"
    ),
    MODEL + "classifier": "classifier: a RobertaForSequenceClassification; expected a causal lang",
    MODEL + "not-finite": "not-finite: its logits are not finite; expected sound weights",
    MODEL + "model dataset.max_new_tokens=96": (
        "dataset.max_new_tokens=96 leaves no room for a prompt in a context of 96"
    ),
    "until=pretrain dataset.size=400 model.learning_rate=1e9": (
        "LanguageModeling: training diverged: the loss is nan at step 1; expected a smaller "
    ),
    CLASSIFIER + "ground_truth.path=classifier ground_truth.toxic_label=bad": (
        "toxic_label=bad (of ground_truth, or evaluation.second_toxic_label): classifier has the "
        "labels neutral, toxic; expected one of them"
    ),
    CLASSIFIER + "ground_truth.path=model": (
        "model: expected a text classifier with its tokenizer: it lacks 1 of its weights, as "
    ),
    CLASSIFIER + "ground_truth.path=nan-classifier": "the reward nan-classifier gave ",
    CLASSIFIER + "ground_truth.path=constant-classifier": (
        "the reward is constant on the reference's completions: nothing to optimize"
    ),
    SECOND + "./nowhere": (
        "evaluation.second_classifier=./nowhere: no such folder, and no hub id; expected one of "
    ),
    SECOND + "classifier evaluation.second_revision=main": (
        "evaluation.second_classifier=classifier: a folder has no revision main; expected null"
    ),
    SECOND + "classifier evaluation.second_toxic_label=bad": (
        "toxic_label=bad (of ground_truth, or evaluation.second_toxic_label): classifier has the "
        "labels neutral, toxic; expected one of them"
    ),
    SECOND + "pickle": (
        "pickle: expected a text classifier with its tokenizer: its pickled weights are damaged or "
    ),
    SECOND + "model": (
        "model: expected a text classifier with its tokenizer: it lacks 1 of its weights, as "
    ),
    SECOND + "classifier ground_truth=classifier ground_truth.path=classifier": (
        "evaluation.second_classifier=classifier: that is R*; expected another"
    ),
    "~rlhf.kl_coef": "rlhf.kl_coef: cannot be left out; expected a value, or null where that ",
    # Solvers of one's own.
    "solver=plugin": "solver.file: a value is required",
    "solver=hinge solver.name=mine": "solver.name=mine: no such solver; expected one of ",
    "solver=hinge solver.options.x=1": "solver.options: no such key; expected one of name, ",
    PLUGIN + "none.py": f"none.py: No such file or directory; {NO_SOLVER}",
    PLUGIN + "unclosed.py": f"unclosed.py, line 1: SyntaxError: '(' was never closed; {NO_SOLVER}",
    PLUGIN + "lacking.py": "lacking.py, line 2: ModuleNotFoundError: No module named 'nowhere'; ",
    PLUGIN + "good.csv": "good.csv, line ",
    PLUGIN + "empty.csv": f"empty.csv: no function solve in it; {NO_SOLVER}",
    "+solver@evaluation.controls.mine=plugin evaluation.controls.mine.file=none.py": (
        f"none.py: No such file or directory; {NO_SOLVER}"
    ),
    PLUGIN + "raising.py": (
        "raising.py, line 4: ZeroDivisionError: division by zero (traceback.txt in the run's "
    ),
    PLUGIN + "number.py": "number.py: solve returned a float; expected a reward, as ",
    PLUGIN + "unknown.py": (
        "unknown.py: the reward can't be loaded again: unknown kind of reward 'mine'; expected one "
    ),
    PLUGIN + "masked.py": "masked.py: once saved and loaded, the reward scores texts otherwise; ",
    # Places.
    "hydra.run.dir=folder-of-mine until=curate": (
        "/folder-of-mine: holds notes.txt, which is no run's; expected a new or an empty folder"
    ),
    "hydra.run.dir=good.csv until=curate": "good.csv: no folder; expected one, or a name that is ",
    "hydra.run.dir=/proc/run": "/proc/run: No such file or directory",
    "paths.store=good.csv until=curate": "store ",
    "paths.store= until=curate": "paths.store is empty (or IRL_EXP_STORE is); expected a folder",
}
if not torch.cuda.is_available():
    TABLE["trainer=gpu"] = "trainer.accelerator=gpu: there is none here; expected cpu"


# A solver whose reward is of a class of its own.
REWARD = """
import torch
class Mine:
    kind = "{kind}"
    def save(self, folder):
        return {{}}
    def score(self, prompts, completions):
        return torch.tensor([float(len(text)) for text in completions])
def solve(problem):
    return Mine()
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """What was typed -> exit status, standard output, standard error."""
    folder = tmp_path_factory.mktemp("bad")
    write_files(folder)
    write_models(folder)
    commands = [[*SMALL, f"paths.store={folder}/store", *typed.split()] for typed in TABLE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        answers = irl_exp(commands, folder, store=False)
    return {
        typed: (status, out, err.replace(str(folder), ""))  # files are named with all of their path
        for typed, (status, out, err) in zip(TABLE, answers, strict=True)
    }


@pytest.mark.parametrize("typed", TABLE)
def test_bad_input(answers: dict[str, tuple[int, str, str]], typed: str) -> None:
    status, out, err = answers[typed]
    assert status == 1
    assert "Traceback" not in out + err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert err.startswith(f"irl-exp: {TABLE[typed]}")
    assert "EXECUTED" not in out + err


def write_files(folder: Path) -> None:
    rows = [(comment.text, comment.toxic) for comment in synthetic.generate(600, seed=0)]

    def write(name: str, rows: list[tuple[str, int]]) -> None:
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("text", "toxic"), *rows])

    write("good.csv", rows)
    write("header.csv", [])
    write("one-class.csv", [(text, 0) for text, _ in rows])
    write("few.csv", rows[:12])
    write("short.csv", [(f"hi {i}", i % 2) for i in range(50)])
    texts = {
        "empty.csv": "",
        "comments.xls": "",
        "no-label.csv": "text,toxic\na b c d e f,\n",
        "ragged.csv": "text,toxic\na b c d e f,1\ng h,i,j,0\n",
        "quote.csv": 'text,toxic\n"a b c,1\nd,0\n',
        "broken.jsonl": '{"text": "a", "toxic": 1}\n{"text":\n',
        "list.jsonl": "[1]\n",
        "number.jsonl": '{"text": 5, "toxic": 1}\n',
        "damaged.csv.gz": "not zipped",
        "damaged.parquet": "no table",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    texts = {
        "unclosed.py": "def solve(problem:",
        "lacking.py": "\nimport nowhere\n",
        "raising.py": "def solve(problem):\n    return f()\ndef f():\n    return 1 / 0\n",
        "number.py": "def solve(problem):\n    return 3.0\n",
        "unknown.py": REWARD.format(kind="mine"),
        "masked.py": REWARD.format(kind="closed_form"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin.csv").write_bytes("text,toxic\ncafé,1\n".encode("latin-1"))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe.csv")
    (folder / "folder-of-mine").mkdir()
    (folder / "folder-of-mine" / "notes.txt").write_text("")


class Harmful:
    """What a pickle could do if it were trusted."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return print, ("EXECUTED",)


def write_models(folder: Path) -> None:
    texts = [comment.text for comment in synthetic.generate(600, seed=0)]
    save_language_model(folder / "model", "llama", texts)
    save_classifier(folder / "classifier", texts)

    def copy(source: str, name: str) -> Path:
        return Path(shutil.copytree(folder / source, folder / name))

    for path in copy("model", "no-tokenizer").glob("tokenizer*"):
        path.unlink()
    (copy("model", "adapter") / "adapter_config.json").write_text("{}")
    (copy("model", "damaged") / "model.safetensors").write_bytes(b"x" * 100)
    pickled = copy("model", "pickle")
    (pickled / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Harmful()}, pickled / "pytorch_model.bin")
    broken = {
        ("model", "not-finite"): ("model.norm.weight", float("nan")),
        ("classifier", "nan-classifier"): ("classifier.out_proj.weight", float("nan")),
        ("classifier", "constant-classifier"): ("classifier.out_proj.weight", 0.0),
    }
    for (source, name), (key, value) in broken.items():
        path = copy(source, name) / "model.safetensors"
        weights = load_file(path)
        weights[key].fill_(value)
        save_file(weights, path, metadata={"format": "pt"})
    assert json.loads((folder / "classifier" / "config.json").read_text())["id2label"]
