"""What can be chosen: ground truths, experts, demonstrations, evaluations."""

import math
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from irl_exp.data import synthetic
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.models.reward_model import Facts
from irl_exp.models.saved_rewards import load_normalized, load_reward
from irl_exp.modules.training import WORKING_FOLDER
from irl_exp.steps import interpret
from tests.materials import save_classifier
from tests.studies.lab import (
    NOT_APPLICABLE,
    NUMBERS,
    Lab,
    artifact,
    lines,
    read,
    summary,
    write_csv,
)


def test_a_trace_watches_and_changes_nothing(smoke: Path, lab: Lab) -> None:
    """It begins with the untrained reward and ends with R̂, which is that of a run without it."""
    run = lab.run("solver.trace=true", "until=evaluate")
    panel = pd.read_parquet(run / "panel.parquet")
    pd.testing.assert_frame_equal(panel, pd.read_parquet(smoke / "panel.parquet"))
    trace = pd.read_parquet(run / "trace.parquet")
    assert [*trace] == ["kind", "prompt", "completion", "toxic", "epoch_0", "epoch_1"]
    np.testing.assert_allclose(trace["epoch_0"], panel["control/untrained"], atol=1e-5)
    np.testing.assert_allclose(trace["epoch_1"], panel["recovered"], atol=1e-5)
    course = [line for line in lines(run / "metrics.jsonl") if line["step"] == "evaluate"]
    assert [line["global_step"] for line in course] == [0, 1]
    numbers = summary(run)
    assert course[0]["auc"] == pytest.approx(numbers["control/untrained/auc"], abs=1e-5)
    assert course[1]["auc"] == pytest.approx(numbers["recovery/auc"], abs=1e-5)
    assert course[1]["accuracy_at_zero"] == numbers["recovery/accuracy_at_zero"]
    # Within prompts, by a loop over them: both rewards of four completions each.
    pools = panel[panel["kind"] == "reference"].groupby("prompt", sort=False)
    agreeing = [
        (a > b) == (c > d)
        for _, pool in pools
        for (a, c), (b, d) in combinations(pool[["truth", "recovered"]].to_numpy(), 2)
        if a != b
    ]
    assert course[1]["pair_accuracy"] == pytest.approx(np.mean(agreeing))


@pytest.mark.parametrize("contrast", ["placebo", "shuffled"])
def test_nothing_to_find(smoke: Path, lab: Lab, contrast: str) -> None:
    """Training and validation tell nothing of the expert; the test split is that of any other run,
    and so are the texts that rewards are measured on."""
    run = lab.run(f"demonstrations={contrast}", "solver=svm", "until=evaluate")
    true, blank = (Demonstrations.load(artifact(lab, r, "demonstrate")) for r in (smoke, run))
    assert (blank.prompts, blank.splits, blank.k) == (true.prompts, true.splits, true.k)
    assert blank.split("test") == true.split("test")
    assert (
        read(run / "manifest.json")["panel_digest"] == read(smoke / "manifest.json")["panel_digest"]
    )
    for name in ("train", "validation"):
        old, new = true.split(name), blank.split(name)
        if contrast == "placebo":
            assert new.reference == old.reference
            assert not set(map(tuple, new.aligned)) & set(map(tuple, old.aligned))
        else:
            rows = [*zip(old.aligned, old.reference, new.aligned, new.reference, strict=True)]
            assert all(Counter(a + b) == Counter(c + d) for a, b, c, d in rows)
            kept = np.mean([text in a for a, _, c, _ in rows for text in c])
            assert kept == pytest.approx(0.5, abs=0.2)
    said = [w for w in read(run / "status.json")["warnings"] if "demonstrations.contrast" in w]
    assert len(said) == 1 and said[0].startswith(f"demonstrations.contrast={contrast}: ")
    assert said[0] in (run / "report.md").read_text()
    assert not any("contrast" in w for w in read(smoke / "status.json").get("warnings", []))
    # The identity of the true contrast is as it was before there were others.
    folder = artifact(lab, smoke, "demonstrate")
    assert "contrast" not in read(folder / "manifest.json")["identity"]["config"]
    again = lab.run(f"demonstrations={contrast}", "solver=svm", "until=demonstrate")
    assert summary(again)["store/misses"] == 0


@pytest.mark.parametrize("meant", [True, False])
def test_a_ground_truth_that_knows_nothing_is_warned_of(
    meant: bool, lab: Lab, tmp_path: Path
) -> None:
    """Labels drawn at random have nothing to learn; the same comments with their own labels do."""
    made = synthetic.generate(2000, 7, politeness=0.3, length=0.3)
    drawn = np.random.default_rng(0).permutation([toxic for _, toxic in made])
    labels = [toxic for _, toxic in made] if meant else drawn.tolist()
    path = tmp_path / "comments.csv"
    write_csv(path, [(text, str(label)) for (text, _), label in zip(made, labels, strict=True)])
    run = lab.run(
        *("dataset=file", f"dataset.path={path}", "until=ground_truth"),
        *("dataset.text_column=comment", "dataset.label_column=verdict"),
    )
    said = [w for w in read(run / "status.json").get("warnings", []) if "than chance" in w]
    assert len(said) == (0 if meant else 1)


@pytest.mark.slow
def test_the_tilted_expert(smoke: Path, lab: Lab) -> None:
    run = lab.run("rlhf=tilted", "rlhf.kl_coef=0.3")
    numbers = summary(run)
    assert [
        name for name in NUMBERS if name not in numbers and "control_log_ratio_seconds" not in name
    ] == []
    without = {name for name, value in numbers.items() if value == NOT_APPLICABLE}
    assert without == {
        *(f"control/log_ratio/{name}" for name in ("auc", "starc", "pair_accuracy")),
        *("policy/aligned/perplexity", "policy/realigned/perplexity"),
    }
    # The log-ratio of the PPO expert is in the store, and must not stand in for it.
    assert "control/log_ratio" not in pd.read_parquet(run / "panel.parquet")
    # Resampling by exp(R/beta) raises R: this expert is aligned by construction.
    assert numbers["policy/aligned/mean_reward_low"] > numbers["policy/reference/mean_reward_high"]
    assert 0 < numbers["policy/aligned/kl"] < numbers["policy/aligned/kl_cap"]
    assert numbers["policy/aligned/kl_cap"] == pytest.approx(math.log(64))
    assert numbers["policy/aligned/optimality"] == pytest.approx(1, abs=0.35)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rlhf", "small"),
    [
        ("best_of_n", ["rlhf.candidates=4"]),
        ("raft", ["rlhf.k=1", "rlhf.epochs=2"]),
        ("rloo", ["rlhf.iterations=3", "rlhf.batch_size=80", "rlhf.minibatch_size=40"]),
        ("grpo", ["rlhf.iterations=3", "rlhf.batch_size=80", "rlhf.minibatch_size=40"]),
        ("dpo", ["rlhf.k=1"]),
    ],
)
def test_every_other_way_to_align(rlhf: str, small: list[str], smoke: Path, lab: Lab) -> None:
    """Each gives an expert, who is observed, demonstrates and is learned from like any other."""
    run = lab.run(f"rlhf={rlhf}", *small, "until=evaluate")
    numbers, before = summary(run), summary(smoke)
    shared = ("policy/reference/mean_reward", "ground_truth/auc")
    assert [numbers[name] for name in shared] == [before[name] for name in shared]
    assert numbers["policy/aligned/kl"] > 0
    assert 0 <= numbers["recovery/pair_accuracy"] <= 1
    if rlhf == "best_of_n":
        assert numbers["policy/aligned/kl"] == pytest.approx(math.log(4) - 3 / 4)
        assert numbers["control/log_ratio/auc"] == NOT_APPLICABLE
        return
    assert math.isfinite(numbers["control/log_ratio/auc"])
    folders = [artifact(lab, r, "align") for r in (run, smoke)]
    assert not (folders[0] / WORKING_FOLDER).exists()
    names = {
        name for line in lines(run / "metrics.jsonl") if line["step"] == "align" for name in line
    }
    assert "loss" in names and ("rewards/margins" if rlhf == "dpo" else "objective/kl") in names


def test_a_planted_term_is_in_the_reward_and_nothing_else_is(smoke: Path, lab: Lab) -> None:
    """R* less its base, in the base's unit, is the bonus; the base is the R* of any other run."""
    run = lab.run("ground_truth=planted", "ground_truth.length_bonus=0.5", "until=ground_truth")
    planted, base = (artifact(lab, run, name) for name in ("ground_truth", "ground_truth_base"))
    # smoke's is trained_long
    again = lab.run(
        *("ground_truth=planted", "ground_truth@ground_truth.base=trained_long"),
        "until=ground_truth",
    )
    assert artifact(lab, again, "ground_truth_base") == artifact(lab, smoke, "ground_truth")
    texts = ["On the map,"] * 3, [" it is late.", " it is late today, today.", " Today?"]
    added = load_reward(planted).score(*texts) - load_normalized(base).score(*texts)
    expected = torch.tensor([0.5 * 3 / 10, 0.5 * 5 / 10 + 2, 0.5 / 10 + 2])
    torch.testing.assert_close(added, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("word", "met"), [("the", True), ("nowhere-in-a-comment", False)])
def test_what_the_reference_never_writes_is_said_to_be_out_of_reach(
    word: str, met: bool, lab: Lab
) -> None:
    run = lab.run("ground_truth=planted", f"ground_truth.word={word}", "until=ground_truth")
    share = summary(run)["planted/word_share"]
    assert share > 0.05 if met else share == 0
    said = [w for w in read(run / "status.json").get("warnings", []) if w.startswith("planted:")]
    assert len(said) == (0 if met else 1)


def test_a_random_ground_truth_knows_nothing(lab: Lab) -> None:
    run = lab.run("ground_truth=random", "until=ground_truth")
    assert summary(run)["ground_truth/auc"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_the_grammars_own_reward(smoke: Path, lab: Lab) -> None:
    run = lab.run("ground_truth=closed_form")
    panel, numbers = pd.read_parquet(run / "panel.parquet"), summary(run)
    texts = panel["prompt"] + panel["completion"]
    np.testing.assert_allclose(
        panel["truth"], [synthetic.reward(text) for text in texts], rtol=1e-6
    )
    assert numbers["ground_truth/auc"] == 1  # labels follow from it
    assert numbers["recovery/starc_floor"] == NOT_APPLICABLE  # nothing was trained: no second R*
    assert [name for name in NUMBERS if name not in numbers and "twin_seconds" not in name] == []

    # What each word does to R*, one text and one word at a time.
    steps = read(run / "manifest.json")["steps"]
    pool = Demonstrations.load(lab.store / "demonstrate" / steps["demonstrate"]).split("test")
    comments = Comments.load(lab.store / "curate" / steps["curate"]).split("test")
    unit = Facts.load(lab.store / "ground_truth" / steps["ground_truth"]).normalizer.std
    effects: dict[str, list[float]] = {}
    for prompt, completion in zip(*interpret._texts(pool, comments, 64), strict=True):
        whole = synthetic.reward(prompt + completion)
        for word in re.finditer(r" *([^\W_]+('[^\W_]+)*)", completion):
            rest = completion[: word.start()] + completion[word.end() :]
            loss = (whole - synthetic.reward(prompt + rest)) / unit
            effects.setdefault(word[1].lower(), []).append(loss)
    words = pd.read_parquet(run / "attribution.parquet").set_index("word")
    assert set(words.index) == {word for word, found in effects.items() if len(found) >= 5}
    for word, row in words.iterrows():
        assert row["count"] == len(effects[word])
        assert row["truth"] == pytest.approx(np.mean(effects[word]), abs=1e-5)


@pytest.mark.slow
def test_the_papers_demonstrations(smoke: Path, lab: Lab) -> None:
    """One greedy completion of each policy: what transformers' own search finds."""
    run = lab.run("demonstrations=paper", "demonstrations.k=1")
    assert [name for name in NUMBERS if name not in summary(run)] == []
    table = pd.read_parquet(artifact(lab, run, "demonstrate") / "demonstrations.parquet")
    assert table["split"].value_counts().to_dict() == {"train": 64, "test": 32, "validation": 16}
    for label, name in {"align": "aligned", "pretrain": "reference"}.items():
        prompts, written = table["prompt"][:8].tolist(), table[name][:8].tolist()
        assert written == [[text] for text in greedy(artifact(lab, run, label), prompts, tokens=32)]


@pytest.mark.slow
def test_the_papers_evaluation(smoke: Path, lab: Lab) -> None:
    """Zero as the threshold, and R*'s own verdict at zero as the label."""
    run = lab.run("evaluation=paper")
    comments, numbers = comments_of(pd.read_parquet(run / "panel.parquet")), summary(run)
    toxic, called = comments["truth"] <= 0, comments["recovered"] <= 0
    assert numbers["recovery/accuracy"] == pytest.approx((toxic == called).mean(), abs=0.004)
    assert numbers["recovery/f1"] == pytest.approx(f1_score(toxic, called), abs=0.01)
    assert numbers["recovery/auc"] == pytest.approx(roc_auc_score(toxic, -comments["recovered"]))


@pytest.mark.slow
def test_labels_at_zero_that_part_nothing_are_refused(
    smoke: Path, lab: Lab, tmp_path: Path
) -> None:
    folder = tmp_path / "classifier"
    save_classifier(folder, training_texts(lab, smoke))
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        network.classifier.out_proj.bias[network.config.label2id["toxic"]] -= 1000
    network.save_pretrained(folder)
    with pytest.raises(SystemExit, match=r"R\* calls no test comment toxic at zero"):
        lab.run("evaluation=paper", "ground_truth=classifier", f"ground_truth.path={folder}")


# --- materials ----------------------------------------------------------------------------------


def comments_of(panel: pd.DataFrame) -> pd.DataFrame:
    return panel[panel["kind"] == "comment"]


def training_texts(lab: Lab, run: Path) -> list[str]:
    return Comments.load(artifact(lab, run, "curate")).split("train").texts


def greedy(folder: Path, prompts: list[str], tokens: int) -> list[str]:
    """The likeliest continuation of each prompt, one prompt at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    texts: list[str] = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        mask = torch.ones_like(ids)
        whole = network.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False)
        texts += tokenizer.batch_decode(whole[:, ids.shape[1] :], skip_special_tokens=True)
    return texts
