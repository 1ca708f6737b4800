"""What the paper and its released code do in a study: pairs against the base, what is measured and
when, toxic outputs as the paper counts them, R̂ shaped before it drives RLHF."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.models.saved_rewards import load_reward
from irl_exp.models.word_classifier import WordClassifier
from tests.materials import save_language_model
from tests.studies.lab import Lab, artifact, read, summary


def test_pairs_against_the_base(smoke: Path, lab: Lab) -> None:
    """What is learned from is set against the network after one epoch; the test split never is."""
    run = lab.run("demonstrations.against=base", "until=demonstrate")
    true, found = (Demonstrations.load(artifact(lab, r, "demonstrate")) for r in (smoke, run))
    assert found.split("test") == true.split("test")
    assert found.aligned == true.aligned
    for name in ("train", "validation"):
        old, new = true.split(name).reference, found.split(name).reference
        assert not set(map(tuple, old)) & set(map(tuple, new))
    steps = read(run / "manifest.json")["steps"]
    base = read(lab.store / "pretrain" / steps["base"] / "manifest.json")["identity"]
    reference = read(lab.store / "pretrain" / steps["pretrain"] / "manifest.json")["identity"]
    assert base["config"]["model"] == reference["config"]["model"] | {"epochs": 1}
    # Equal work is done once: a study whose reference this is finds it, and nothing is renamed.
    assert summary(lab.run("model.epochs=1", "until=pretrain"))["store/misses"] == 0
    assert "against" not in read(artifact(lab, smoke, "demonstrate") / "manifest.json")["identity"]


def test_the_base_of_a_checkpoint(
    smoke: Path, lab: Lab, tmp_path: Path, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another folder, with a tokenizer of its own; or the checkpoint before our epochs."""
    save_language_model(tmp_path / "base", "gpt2", texts)
    path = artifact(lab, smoke, "pretrain")
    line = ("model=checkpoint", f"model.path={path}", "demonstrations.against=base")
    few = ("model.epochs=0", "model.batch_size=64", "rlhf.iterations=1", "until=demonstrate")
    run = lab.run(*line, *few, f"model.base={tmp_path / 'base'}")
    policy = read(artifact(lab, run, "base") / "config.json")
    assert policy["model_type"] == "gpt2"
    pairs = Demonstrations.load(artifact(lab, run, "demonstrate")).split("train")
    words = [len(text.split()) for row in pairs.reference for text in row]
    assert np.mean(words) > 0 and pairs.reference != pairs.aligned
    assert set(read(run / "manifest.json")["inputs"]) >= {"model.path", "model.base"}
    with pytest.raises(SystemExit) as end:
        lab.run(*line, *few, f"model.base={tmp_path / 'nowhere'}")
    assert str(end.value).startswith(f"irl-exp: model.base={tmp_path / 'nowhere'}: ")


def test_measured_on_the_texts_that_it_learned_from(smoke: Path, lab: Lab) -> None:
    run = lab.run("evaluation=paper", "evaluation.texts=training", "until=evaluate")
    pool = Demonstrations.load(artifact(lab, run, "demonstrate")).split("train").pool()
    truth, recovered = (
        load_reward(artifact(lab, run, label)).score(*pool).numpy()
        for label in ("ground_truth", "recover")
    )
    numbers, before = summary(run), summary(smoke)
    share = float(np.mean((recovered <= 0) == (truth <= 0)))
    assert numbers["recovery/accuracy_at_zero"] == pytest.approx(share)
    assert numbers["recovery/pearson"] == pytest.approx(
        np.corrcoef(truth, recovered)[0, 1], abs=1e-5
    )
    for held_out in ("recovery/starc", "recovery/pair_accuracy", "validation/recovery_auc"):
        assert numbers[held_out] == before[held_out]


def test_toxic_outputs_as_the_paper_counts_them(lab: Lab, tiny_folder: Path) -> None:
    """Greedy tokens by the library's own search, judged by words with their own probability."""
    # A network that writes something else after each prompt.
    model = ("model=checkpoint", f"model.path={tiny_folder}", "model.epochs=0")
    line = (*model, "dataset.max_new_tokens=8", "rlhf.iterations=1", "until=align")
    run, without = lab.run(*line, "evaluation.greedy_tokens=9"), lab.run(*line)
    table = Comments.load(artifact(lab, run, "curate"))
    known = table.table[table.table["split"].isin(["validation", "calibration"])]
    words = WordClassifier.fit(Comments(known).texts, Comments(known).labels)
    folder = artifact(lab, run, "align")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    written = []
    for prompt in table.split("test").prompts[:32]:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            longer = network.generate(ids, do_sample=False, max_new_tokens=9)
        written.append(tokenizer.decode(longer[0, ids.shape[1] :], skip_special_tokens=True))
    toxic = 1 / (1 + np.exp(words.score(written)))
    numbers = summary(run)
    assert numbers["policy/aligned/paper_toxicity_ratio"] == np.mean(toxic >= 0.5)
    assert numbers["policy/aligned/paper_mean_toxicity"] == pytest.approx(toxic.mean(), abs=1e-6)
    assert 0 < numbers["policy/aligned/paper_mean_toxicity_low"] < toxic.mean()
    # All else is as it is without.
    assert {n: v for n, v in numbers.items() if n.startswith("policy/") and "paper" not in n} == {
        n: v for n, v in summary(without).items() if n.startswith("policy/")
    }


def test_numbers_are_of_an_epoch_before_and_realigning_is_not(lab: Lab) -> None:
    # So small an R* calls all demonstrations toxic; what is measured is then asked of comments.
    chosen = ("model=neox-50k", "evaluation.texts=held_out")
    run = lab.run("+experiment=paper_70m_as_released", *chosen)
    steps = read(run / "manifest.json")["steps"]
    measured, recovered = (lab.store / "recover" / steps[name] for name in ("measured", "recover"))
    epochs = [
        read(path / "manifest.json")["identity"]["config"]["solver"]["epochs"]
        for path in (measured, recovered)
    ]
    assert epochs == [9, 10]
    panel = pd.read_parquet(run / "panel.parquet")
    texts = (panel["prompt"].tolist(), panel["completion"].tolist())
    scores = {path: load_reward(path).score(*texts).numpy() for path in (measured, recovered)}
    np.testing.assert_allclose(panel["recovered"], scores[measured], atol=1e-5)
    assert not np.allclose(panel["recovered"], scores[recovered], atol=1e-3)
    driven = read(artifact(lab, run, "realign") / "manifest.json")["identity"]
    assert driven["inputs"]["reward"] == steps["recover"]
    assert driven["config"]["shaping"] is True
    aligned = read(artifact(lab, run, "align") / "manifest.json")["identity"]
    assert "shaping" not in aligned["config"]
    numbers = summary(run)
    assert "policy/realigned/paper_toxicity_ratio" in numbers


def test_the_papers_study_without_a_hub(lab: Lab) -> None:
    """The recipe is the paper's, what it is applied to is ours, and another evaluation may be."""
    run = lab.run("+experiment=paper_70m", "model=neox-50k", "evaluation=sound", "until=curate")
    text = (run / "config.yaml").read_text()
    for line in ("name: synthetic", "name: trained", "learning_rate: 3.0e-06", "against: base"):
        assert f"  {line}\n" in text
    assert "threshold: calibrated" in text and "second_classifier: null" in text
