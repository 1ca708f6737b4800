"""Audits of models and pairs that transformers alone has made, through the command."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from irl_exp.data import synthetic
from irl_exp.data.pairs import Demonstrations
from tests import warm
from tests.materials import save_classifier, save_language_model, teach
from tests.test_docs import undefined

COMMENTS = synthetic.generate(1500, seed=1)
TEXTS = [comment.text for comment in COMMENTS]
CLEAN = [comment.text for comment in COMMENTS if not comment.toxic]
SMALL = (
    *("dataset.max_new_tokens=24", "trainer.threads=1"),
    *("evaluation.draws=40", "evaluation.interpret_texts=32", "evaluation.identify_pairs=24"),
)
TWO = ("solver.members=2", "solver.base.epochs=4")
# One recovery, and no more than is told of it.
ONE = ("solver=logistic", "until=evaluate")
PAIRED = ("demonstrations=preferences", "demonstrations.path=pairs.jsonl")
CHAT = (
    "{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} :{% endif %}"
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with a BPE of its own that writes comments, and the same after more of the clean ones
    alone; a GPT-2 of those, with another tokenizer; an adapter; prompts; pairs."""
    folder = tmp_path_factory.mktemp("desk")
    torch.set_num_threads(1)
    save_language_model(folder / "reference", "llama", TEXTS)
    teach(folder / "reference", TEXTS, 300)
    teach(folder / "reference", CLEAN, 150, into=folder / "aligned")
    save_language_model(folder / "gpt2", "gpt2", CLEAN[:50])
    teach(folder / "gpt2", CLEAN, 150)
    base = AutoModelForCausalLM.from_pretrained(folder / "reference")
    adapter = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    for name, weight in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, 0, 0.3, generator=torch.Generator().manual_seed(0))
    adapter.save_pretrained(folder / "adapter")
    prompts = list(dict.fromkeys(" ".join(text.split()[:4]) for text in TEXTS))
    (folder / "prompts.txt").write_text("\n".join(prompts[:400]) + "\n", encoding="utf-8")
    toxic = [comment.text for comment in COMMENTS if comment.toxic]
    pairs = zip(CLEAN[:200], toxic[:200], strict=True)
    lines = [json.dumps({"chosen": a, "rejected": b}) + "\n" for a, b in pairs]
    (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def run(desk: Path, name: str, *overrides: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = desk / "runs" / name
    solver = () if any(o.startswith("solver=") for o in overrides) else TWO
    typed = ["+experiment=audit", *SMALL, *solver, *overrides, f"hydra.run.dir={folder}"]
    command = [warm.command("irl-exp"), *typed]
    return subprocess.run(command, cwd=desk, capture_output=True, text=True), folder


def numbers(desk: Path, name: str, *overrides: str) -> dict[str, float | str]:
    done, folder = run(desk, name, *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    summary: dict[str, float | str] = json.loads((folder / "summary.json").read_text())
    assert undefined(summary) == []  # by docs/metrics.md
    return summary


def between(desk: Path, aligned: str) -> tuple[str, ...]:
    models = ("model=checkpoint", "model.path=reference", "rlhf=checkpoint", f"rlhf.path={aligned}")
    return (*models, "dataset=prompts", "dataset.path=prompts.txt")


def test_two_checkpoints_without_a_ground_truth(desk: Path) -> None:
    found = numbers(desk, "two", *between(desk, "aligned"))
    # It is the reference after more of the clean comments: they differ, and R̂ can tell.
    assert found["audit/preference_accuracy_low"] > 0.5  # type: ignore[operator]
    assert found["audit/kl"] > 0  # type: ignore[operator]
    assert found["audit/best_of_n"] == 16
    assert 0 < found["audit/agreed_fraction"] <= 1  # type: ignore[operator]
    for absent in ("recovery/auc", "recovery/starc", "audit/reward_change"):
        assert found[absent] == "not applicable"
    assert found["control/oracle/preference_accuracy"] == "not applicable"
    page = (desk / "runs" / "two" / "report.md").read_text()
    asked = [
        "1. Is the aligned",
        "2. What does it",
        "3. How sure",
        "4. What would it",
        "5. What to",
    ]
    places = [page.index(f"## {question}") for question in asked]
    assert places == sorted(places)
    assert "- R* of either model" in page
    assert "KL from the reference: needs" not in page
    best = pd.read_parquet(desk / "runs" / "two" / "best_of_n.parquet")
    rise = best[best["measure"] == "recovered"]["value"].to_numpy()
    assert (np.diff(rise) > 0).all()


def test_the_reference_is_taken_as_it_is(desk: Path) -> None:
    """model.epochs=1 is the group's own: training it would make it another than was aligned."""
    found = numbers(desk, "as-is", *between(desk, "aligned"), "until=pretrain")
    assert "model/validation_loss" not in found


@pytest.mark.parametrize("aligned", ["gpt2", "adapter"])
def test_other_tokenizers_and_adapters(desk: Path, aligned: str) -> None:
    found = numbers(desk, aligned, *between(desk, aligned), *ONE)
    assert found["audit/kl"] > 0  # type: ignore[operator]
    assert found["control/log_ratio/preference_accuracy"] > 0.5  # type: ignore[operator]
    assert found["audit/agreed_fraction"] == "not applicable"


def test_what_an_adapter_adapts_is_part_of_what_it_is(desk: Path, tmp_path: Path) -> None:
    facts = json.loads((desk / "adapter" / "adapter_config.json").read_text())
    broken = tmp_path / "adapter"
    broken.mkdir()
    for name in ("adapter_model.safetensors",):
        (broken / name).write_bytes((desk / "adapter" / name).read_bytes())
    facts["base_model_name_or_path"] = str(tmp_path / "nowhere")
    (broken / "adapter_config.json").write_text(json.dumps(facts))
    done, _ = run(desk, "lost", *between(desk, str(broken)), "until=align")
    assert done.returncode == 1
    assert "nowhere: no such folder" in done.stderr.splitlines()[-1]


def test_a_chat_template_is_applied(desk: Path, tmp_path: Path) -> None:
    """The template ends every prompt with " :", which a model that copies cannot fail to see."""
    from irl_exp.models import language_model

    for name in ("reference", "aligned"):
        tokenizer = AutoTokenizer.from_pretrained(desk / name)
        AutoModelForCausalLM.from_pretrained(desk / name).save_pretrained(tmp_path / name)
        tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(tmp_path / name)
    model = language_model.load(tmp_path / "reference")
    rows = language_model.prompt_rows(model, ["hello there"], 8)
    assert model.tokenizer.decode(rows[0]) == "hello there :"
    models = [f"model.path={tmp_path / 'reference'}", f"rlhf.path={tmp_path / 'aligned'}"]
    found = numbers(desk, "chat", *between(desk, "aligned"), *models, "until=demonstrate")
    assert found["store/misses"] > 0  # type: ignore[operator]


def test_preferences_and_labels_that_nothing_learned_from(desk: Path) -> None:
    labelled = [json.dumps({"text": c.text, "toxic": c.toxic}) + "\n" for c in COMMENTS[:600]]
    (desk / "labelled.jsonl").write_text("".join(labelled), encoding="utf-8")
    found = numbers(
        desk,
        "preferences",
        *("demonstrations=preferences", "demonstrations.path=pairs.jsonl", "model=neox-50k"),
        *("ground_truth=labels", "ground_truth.path=labelled.jsonl", "until=evaluate"),
    )
    assert found["recovery/auc_low"] > 0.5  # type: ignore[operator]
    assert isinstance(found["control/length/auc"], float)
    assert found["audit/kl"] == "not applicable"
    # Some stand among the pairs: nothing is measured on what R̂ has learned from.
    folder = desk / "runs" / "preferences"
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = Path(manifest["store"]) / "read_pairs" / manifest["steps"]["demonstrate"]
    pairs = Demonstrations.load(kept)
    seen = {text for part in ("train", "validation") for text in pairs.split(part).pool()[1]}
    learned = sum(comment.text in seen for comment in COMMENTS[:600])
    assert found["audit/labelled_learned"] == learned > 50
    assert found["audit/labelled"] == 600 - learned
    said = " ".join(json.loads((folder / "status.json").read_text())["warnings"])
    assert f"{learned} labelled texts stand among the pairs that R̂ learned from: left out" in said
    assert found["pairs/train"] + found["pairs/validation"] + found["pairs/test"] == 200  # type: ignore


def test_pairs_of_few_prompts_split_unevenly(desk: Path) -> None:
    """Two of 62 prompts have most pairs: where these fall, the others do not count."""
    often = [{"prompt": f"p{i % 2}", "aligned": f"a{i}", "reference": f"b{i}"} for i in range(200)]
    seldom = [{"prompt": f"q{i}", "aligned": "a", "reference": "b"} for i in range(60)]
    lines = [json.dumps(row) + "\n" for row in [*often, *seldom]]
    (desk / "uneven.jsonl").write_text("".join(lines))
    given = ("demonstrations=file", "demonstrations.path=uneven.jsonl", "model=neox-50k")
    done, _ = run(desk, "uneven", *given, "until=demonstrate")
    assert done.returncode == 0, done.stderr[-3000:]
    said = " ".join(done.stdout.split())
    assert (
        "260 pairs split unevenly, for those of one prompt stay together, and 62 are diff" in said
    )
    (desk / "one.jsonl").write_text("".join(lines[:200:2]))
    done, _ = run(desk, "one", *given[:1], "demonstrations.path=one.jsonl", given[2])
    assert done.returncode == 1
    assert "has 100 pairs, which split by 1 different prompts" in done.stderr


def test_a_classifier_as_ground_truth(desk: Path) -> None:
    save_classifier(desk / "classifier", TEXTS)
    truth = ("ground_truth=classifier", "ground_truth.path=classifier")
    found = numbers(desk, "classifier", *between(desk, "aligned"), *truth, *ONE)
    for name in ("recovery/starc", "control/oracle/starc", "audit/reward_change"):
        assert isinstance(found[name], float)
    # Its threshold needs labels: there are none.
    assert found["audit/toxicity_change"] == "not applicable"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["rlhf.path=aligned"], "model=neox-400k with rlhf.path=aligned"),
        (
            ["rlhf.path=aligned", "model=checkpoint", "model.path=reference"],
            "dataset.path=null: expected a file of prompts",
        ),
        (
            [*PAIRED, "solver=logistic", "solver.trace=true"],
            "solver.trace=true with rlhf=checkpoint: expected false",
        ),
        (["rlhf=ppo"], "with rlhf=ppo, which is to train the aligned policy"),
        (
            ["demonstrations=file", "demonstrations.path=pairs.jsonl"],
            "pairs.jsonl, line 1: no column 'aligned'; there are",
        ),
        (
            ["demonstrations=file", "demonstrations.path=nowhere.jsonl"],
            "nowhere.jsonl: No such file",
        ),
        (
            ["demonstrations=preferences", "demonstrations.path=pairs.jsonl", "solver=oracle"],
            "solver=oracle needs R*",
        ),
        (
            [
                "demonstrations=preferences",
                "demonstrations.path=pairs.jsonl",
                "demonstrations.shares.train=0.8",
            ],
            "expected the same in both groups, which split one file",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    desk: Path, overrides: list[str], said: str
) -> None:
    done, _ = run(desk, "refused", *overrides)
    assert done.returncode == 1
    assert said in done.stderr.strip().splitlines()[-1]


def test_audits_side_by_side(desk: Path) -> None:
    """Of other prompts and seeds: what needs R* is not there, and nothing is wrong with that."""
    for seed in ("0", "1"):
        numbers(desk, f"beside-{seed}", *between(desk, "aligned"), f"seed={seed}", "solver=svm")
    folders = [desk / "runs" / f"beside-{seed}" for seed in ("0", "1")]
    typed = [warm.command("irl-report"), *folders, "-o", desk / "report"]
    done = subprocess.run(typed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "prefers the aligned" in (desk / "report" / "report.md").read_text()
    assert "Traceback" not in done.stderr
