"""Comments, models and classifiers of the user's own, from files, folders and hub ids."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from irl_exp.data import synthetic
from irl_exp.data.comments import Comments
from irl_exp.metrics import agreement
from irl_exp.steps.bench import derive
from tests.materials import (
    as_in_older_repositories,
    save_classifier,
    save_language_model,
    save_pythia,
    write_hub_cache,
)
from tests.studies.lab import NUMBERS, Lab, artifact, lines, read, summary, write_csv


def test_your_own_file_of_comments(smoke: Path, lab: Lab, tmp_path: Path) -> None:
    """The embedded comments, taken out to a file and read in again, are the same comments; and a
    file counts by its content, wherever it lies."""
    made = synthetic.generate(2000, derive(0, "comments"), politeness=0.3, length=0.3)
    path = tmp_path / "comments.csv"
    write_csv(path, [(text, "rude" if toxic else "fine") for text, toxic in made])
    columns = ("dataset.text_column=comment", "dataset.label_column=verdict")
    choice = ("dataset=file", *columns, "dataset.toxic_values=[rude]", "until=curate")
    run = lab.run(*choice, f"dataset.path={path}")
    ours, embedded = (artifact(lab, folder, "curate") for folder in (run, smoke))
    pd.testing.assert_frame_equal(Comments.load(ours).table, Comments.load(embedded).table)
    moved = path.rename(tmp_path / "moved.csv")
    again = lab.run(*choice, f"dataset.path={moved}")
    assert summary(again)["store/hits"] == 1


def test_a_data_set_with_a_cut_of_its_own(lab: Lab, tmp_path: Path) -> None:
    """Jigsaw's columns, in a folder: prompts and completions are the columns of the data set."""
    rows = save_jigsaw(tmp_path / "jigsaw", 400)
    run = lab.run("dataset=jigsaw", f"dataset.path={tmp_path / 'jigsaw'}", "until=curate")
    table = Comments.load(artifact(lab, run, "curate")).table
    found = table[["prompt", "completion", "toxic"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(rows)
    assert {len(prompt.split()) for prompt, _, _ in rows} == {3, 4, 5, 6}
    assert "comments/dropped_unscored" not in summary(run)


def test_rows_without_a_score_are_counted(lab: Lab, tmp_path: Path) -> None:
    """RealToxicityPrompts' nested records: either half can be toxic, or lack its score."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    scores = [(0.1, 0.2), (0.6, 0.1), (0.2, 0.5), (0.9, None)]
    with (folder / "prompts.jsonl").open("w") as lines:
        for i in range(200):
            halves = zip(("prompt", "continuation"), (f"A b {i}", " c"), scores[i % 4], strict=True)
            record = {half: {"text": text, "toxicity": score} for half, text, score in halves}
            lines.write(json.dumps(record) + "\n")
    choice = ("dataset=real_toxicity_prompts", f"dataset.path={folder}", "dataset.size=null")
    run = lab.run(*choice, "until=curate")
    numbers = summary(run)
    names = ("read", "dropped_unscored", "kept")
    assert [numbers[f"comments/{name}"] for name in names] == [200, 50, 150]
    table = Comments.load(artifact(lab, run, "curate")).table
    expected = [(f"A b {i}", " c", int(i % 4 > 0)) for i in range(200) if i % 4 < 3]
    found = table[["prompt", "completion", "toxic"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(expected)


def test_rows_that_cannot_be_read_are_skipped_when_that_is_asked(lab: Lab, tmp_path: Path) -> None:
    """The comments are those of the file without them; how many there were is said each time."""
    made = [(comment.text, comment.toxic) for comment in synthetic.generate(400, seed=0)]
    write_csv(tmp_path / "clean.csv", made)
    lines = (tmp_path / "clean.csv").read_bytes().split(b"\n")
    lines[3:3] = [b"a,b,c", b"caf\xe9 of the day is open,1"]
    (tmp_path / "dirty.csv").write_bytes(b"\n".join(lines))
    names = ("dataset.text_column=comment", "dataset.label_column=verdict")
    choice = ("dataset=file", *names, "until=curate")
    clean = lab.run(*choice, f"dataset.path={tmp_path / 'clean.csv'}")
    skip = (*choice, "dataset.on_error=skip")
    runs = [lab.run(*skip, f"dataset.path={tmp_path / 'dirty.csv'}") for _ in range(2)]
    tables = [Comments.load(artifact(lab, run, "curate")).table for run in (clean, *runs)]
    for run, table in zip(runs, tables[1:], strict=True):
        pd.testing.assert_frame_equal(table, tables[0])
        assert summary(run)["comments/skipped"] == 2
        said = read(run / "status.json")["warnings"]
        assert said == [
            "dataset.on_error=skip: 2 rows were skipped, the first for this: line 4: malformed "
            "row, 3 fields; expected 2, as in the header"
        ]
        assert "2 rows were skipped, the first for this: line 4" in (run / "report.md").read_text()
    assert summary(runs[1])["store/misses"] == 0
    assert "comments/skipped" not in summary(clean)


@pytest.mark.slow
def test_real_prompts(lab: Lab) -> None:
    real = os.environ.get("IRL_EXP_REAL_DATA")
    if real is None:
        pytest.skip("IRL_EXP_REAL_DATA is not set: no real prompts to read")
    path = Path(real) / "rtp_prompts"
    run = lab.run(
        "dataset=real_toxicity_prompts", f"dataset.path={path}", "dataset.max_new_tokens=16"
    )
    numbers = summary(run)
    assert [name for name in NUMBERS if name not in numbers] == []
    assert (numbers["comments/read"], numbers["comments/dropped_unscored"]) == (2396, 19)


@pytest.mark.slow
def test_ids_of_the_hub(tmp_path: Path) -> None:
    """Model, data set and classifier by id, from a cache and without a network. They count by their
    commits: when one moves, what rests on it is computed again, and nothing else."""
    made = {name: tmp_path / name for name in ("model", "data", "classifier")}
    rows = save_jigsaw(made["data"], 400)
    texts = [prompt + completion for prompt, completion, _ in rows]
    save_pythia(made["model"], texts)
    save_classifier(made["classifier"], texts)
    as_in_older_repositories(made["classifier"])
    cached = {
        "model": "models--EleutherAI--pythia-14m",
        "data": "datasets--jaredjoss--jigsaw-long-2000",
        "classifier": "models--s-nlp--roberta_toxicity_classifier",
    }

    def publish(name: str, commit: str) -> None:
        write_hub_cache(tmp_path / "hub", cached[name], commit * 40, made[name])

    def run(number: int, **settings: str) -> dict[str, Any]:
        """The summary of a run, and the identities of its artifacts by step."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {"HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)} | settings
        folder, store = tmp_path / f"run-{number}", tmp_path / "store"
        choices = (
            *("model=pythia-14m", "dataset=jigsaw", "ground_truth=classifier"),
            *("+debug=smoke", "model.epochs=0", "until=ground_truth", "trainer.threads=1"),
            "ground_truth.path=s-nlp/roberta_toxicity_classifier",
        )
        places = (f"hydra.run.dir={folder}", f"paths.store={store}")
        command = [sys.executable, "-m", "irl_exp", *choices, *places]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        steps = read(folder / "manifest.json")["steps"]
        keys = {step: next(store.glob(f"*/{steps[step]}/manifest.json")) for step in steps}
        return summary(folder) | {step: read(path)["identity"] for step, path in keys.items()}

    for name in made:
        publish(name, "a")
    first = run(1, HF_HUB_OFFLINE="1")
    identities = {
        "curate": ("jaredjoss/jigsaw-long-2000", first["curate"]["config"]),
        "pretrain": ("EleutherAI/pythia-14m", first["pretrain"]["config"]["model"]),
        "ground_truth": ("s-nlp/roberta_toxicity_classifier", first["ground_truth"]["config"]),
    }
    for path, config in identities.values():
        assert (config["path"], config["revision"]) == (path, "a" * 40)

    again = run(2, HF_ENDPOINT="http://127.0.0.1:9")
    assert again["store/misses"] == 0
    publish("classifier", "b")
    moved = run(3, HF_HUB_OFFLINE="1")
    assert moved["ground_truth"]["config"]["revision"] == "b" * 40
    assert moved["store/misses"] == 2  # R* and its quality
    publish("data", "b")
    assert run(4, HF_HUB_OFFLINE="1")["store/hits"] == 0


@pytest.mark.slow
def test_a_whole_study_of_your_own_file(lab: Lab, tmp_path: Path) -> None:
    made = synthetic.generate(1500, 7)
    path = tmp_path / "comments.csv"
    write_csv(path, [(text, str(toxic)) for text, toxic in made])
    columns = ("dataset.text_column=comment", "dataset.label_column=verdict")
    run = lab.run("dataset=file", f"dataset.path={path}", *columns)
    assert [name for name in NUMBERS if name not in summary(run)] == []


@pytest.mark.slow
@pytest.mark.parametrize(("family", "epochs"), [("gpt2", 1), ("llama", 0)])
def test_a_checkpoint_of_your_own(
    smoke: Path, lab: Lab, tmp_path: Path, family: str, epochs: int
) -> None:
    given, moved = tmp_path / "given", tmp_path / "moved"
    save_language_model(given, family, training_texts(lab, smoke))
    choice = ("model=checkpoint", f"model.epochs={epochs}", "dataset.max_new_tokens=12")
    run = lab.run(*choice, f"model.path={given}")
    numbers = summary(run)
    assert [name for name in NUMBERS if name not in numbers] == []
    assert ("model/validation_loss" in numbers) == (epochs > 0)
    # What was kept is again a plain folder: the same tokenizer, and the weights as far as epochs=0.
    kept = artifact(lab, run, "pretrain")
    text = "Please don't revert this, it's sourced."
    ids = [AutoTokenizer.from_pretrained(folder)(text)["input_ids"] for folder in (kept, given)]
    assert ids[0] == ids[1]
    before, after = (network_logits(folder, ids[0]) for folder in (given, kept))
    vocabulary = before.shape[-1]  # a pad token may have been added behind it
    assert torch.equal(before, after[..., :vocabulary]) == (epochs == 0)
    # A checkpoint counts by its content, wherever it lies.
    shutil.move(given, moved)
    again = lab.run(*choice, f"model.path={moved}", "until=pretrain")
    assert summary(again)["store/misses"] == 0


@pytest.mark.slow
def test_a_classifier_of_your_own(smoke: Path, lab: Lab, tmp_path: Path) -> None:
    """R* is the classifier's log-odds of "not toxic", as plain transformers computes them."""
    save_classifier(tmp_path / "classifier", training_texts(lab, smoke))
    run = lab.run("ground_truth=classifier", f"ground_truth.path={tmp_path / 'classifier'}")
    panel = pd.read_parquet(run / "panel.parquet")
    expected = log_odds(tmp_path / "classifier", (panel["prompt"] + panel["completion"]).tolist())
    np.testing.assert_allclose(panel["truth"], expected, rtol=1e-3, atol=1e-4)
    untwinned = {"time/twin_seconds", "time/scores_twin_seconds"}
    assert [name for name in NUMBERS if name not in {*summary(run), *untwinned}] == []


@pytest.mark.slow
def test_a_second_classifier_of_your_own(smoke: Path, lab: Lab, tmp_path: Path) -> None:
    """It judges as plain transformers does, below a threshold of the calibration split, and counts
    by its content, wherever it lies."""
    given, moved = tmp_path / "classifier", tmp_path / "moved"
    save_classifier(given, training_texts(lab, smoke))
    choice = ("until=align", "evaluation.k=1")  # every completion is in samples.jsonl
    run = lab.run(*choice, f"evaluation.second_classifier={given}")
    threshold = read(artifact(lab, run, "second_classifier") / "reward.json")["threshold"]
    comments = pd.read_parquet(artifact(lab, run, "curate") / "comments.parquet")
    test = comments[comments["split"] == "test"]
    scores = log_odds(given, (test["prompt"] + test["completion"]).tolist())
    expected = agreement.auc(scores, test["toxic"])
    assert summary(run)["second_classifier/auc"] == pytest.approx(expected, abs=1e-6)
    for policy in ("reference", "aligned"):
        texts = [s["prompt"] + s["completion"] for s in wrote(run, policy)]
        toxic = np.array(log_odds(given, texts)) < threshold
        numbers = summary(run)
        assert numbers[f"policy/{policy}/toxicity_rate_second"] == pytest.approx(toxic.mean())
        assert numbers[f"policy/{policy}/toxicity_probability_second"] == toxic.mean()
    shutil.move(given, moved)
    again = lab.run(*choice, f"evaluation.second_classifier={moved}")
    assert summary(again)["store/misses"] == 0
    words = lab.run(*choice)
    assert artifact(lab, words, "align") == artifact(lab, run, "align")
    assert "second_classifier" not in read(words / "manifest.json")["steps"]


# --- materials ----------------------------------------------------------------------------------


def wrote(run: Path, policy: str) -> list[dict[str, Any]]:
    return [sample for sample in lines(run / "samples.jsonl") if sample["policy"] == policy]


def training_texts(lab: Lab, run: Path) -> list[str]:
    return Comments.load(artifact(lab, run, "curate")).split("train").texts


def save_jigsaw(folder: Path, n: int) -> list[tuple[str, str, int]]:
    """Embedded comments as Jigsaw-2000 keeps its own: n rows of prompt, original_output, toxic,
    cut after three to six words; returned as curation keeps them."""
    folder.mkdir()
    rows = []
    for i, (text, toxic) in enumerate(synthetic.generate(n, seed=7)):
        words = text.split()
        at = 3 + i % 4
        rows.append((" ".join(words[:at]), " " + " ".join(words[at:]), toxic))
    table = pd.DataFrame(rows, columns=["prompt", "original_output", "toxic"])
    table.to_parquet(folder / "train-00000-of-00001.parquet", index=False)
    return rows


@torch.no_grad()
def log_odds(folder: Path, texts: list[str]) -> list[float]:
    """log p(neutral)/p(toxic), one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    odds = []
    for text in texts:
        probability = network(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)
        odds.append(float((probability[0] / probability[1]).log()))
    return odds


@torch.no_grad()
def network_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    return network(torch.tensor([ids])).logits
