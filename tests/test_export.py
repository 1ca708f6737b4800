"""irl-export: the folder gives everybody our numbers, and its card says no others."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from irl_exp import export, load_reward
from irl_exp.data import synthetic
from irl_exp.finished_run import Run
from irl_exp.model_card import card
from irl_exp.models.network_reward import from_body, from_classifier
from irl_exp.models.reward_kinds import (
    ClosedFormReward,
    EnsembleReward,
    LengthReward,
    PlantedReward,
    Terms,
)
from irl_exp.models.reward_model import Facts, NormalizedReward, Normalizer, Reward
from tests import warm
from tests.materials import save_classifier

ROOT = Path(__file__).parent.parent
TERMS = Terms(1.0, 0.0, "today", 0.0, 0.0, "since")


def save(folder: Path, reward: Reward) -> Path:
    folder.mkdir()
    facts = Facts(reward.kind, Normalizer(-0.5, 2.0), {"solver": {"name": "svm"}, "seed": 3}, 0.25)
    Facts(**{**facts.__dict__, "extra": reward.save(folder)}).save(folder)
    return folder


@pytest.fixture(scope="module")
def reward(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = from_body(tiny_folder, torch.Generator().manual_seed(0), batch_size=8)
    return save(tmp_path_factory.mktemp("made") / "reward", made)


@pytest.fixture
def irl_export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Run the console script here: (exit status, standard output, standard error)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["irl-export", *map(str, words)])
        status, message = 0, ""
        try:
            export.main()
        except SystemExit as end:
            status, message = (end.code, "") if isinstance(end.code, int) else (1, f"{end.code}\n")
        out, err = capsys.readouterr()
        return status, out, err + message

    return run


def header(folder: Path) -> dict:
    text = (folder / "README.md").read_text()
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.S)[1])  # type: ignore[index]


# --- the folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 8])
def test_everybody_gets_our_numbers(
    batch_size: int, reward: Path, texts: list[str], tmp_path: Path
) -> None:
    """By irl_exp before and after, and by a pipeline; of short texts, long ones and odd ones."""
    odd = ["", "Ünïcödé \u2028", "the end <|endoftext|> is text", "<|padding|>", texts[0] * 20]
    chosen = [*texts[:40], *odd]
    folder = export.export(reward, tmp_path / "out")
    expected = load_reward(reward).score([""] * len(chosen), chosen)
    assert torch.equal(load_reward(folder).score([""] * len(chosen), chosen), expected)
    # Nobody scores no text at all: ours reads the end of sequence there, a pipeline nothing.
    read = [i for i, text in enumerate(chosen) if text]
    score = pipeline("text-classification", str(folder), function_to_apply="none", truncation=True)
    found = score([chosen[i] for i in read], batch_size=batch_size)
    assert {one["label"] for one in found} == {"reward"}
    theirs = torch.tensor([one["score"] for one in found])
    assert torch.allclose(theirs, expected[read], atol=1e-5, rtol=0)
    # It is no probability even where nobody says so.
    plain = pipeline("text-classification", str(folder), truncation=True)(chosen[0])
    assert plain[0]["score"] == pytest.approx(float(expected[0]), abs=1e-5)


def test_what_is_in_the_folder(reward: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty folder may be there
    folder = export.export(reward, tmp_path / "out")
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert network.config.num_labels == 1 and network.config.problem_type == "regression"
    assert network.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (tokenizer.padding_side, tokenizer.truncation_side) == ("right", "left")
    assert tokenizer.model_max_length == 64
    assert Facts.load(folder) == Facts.load(reward)
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_tokenizer_that_adds_something(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL would score without it: the card hands it a function, and that one runs."""
    save_classifier(tmp_path / "classifier", texts)
    made = from_classifier(tmp_path / "classifier", "toxic", batch_size=8)
    folder = export.export(save(tmp_path / "reward", made), tmp_path / "out")
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    code = blocks[1].split("trainer =")[0]
    names: dict = {"pipeline": pipeline, "REWARD": str(folder)}
    exec(code, names)
    prompts, completions = ["This edit", "I think"] * 2, texts[:4]
    expected = load_reward(folder).score(prompts, completions).tolist()
    assert names["reward"](prompts, completions) == pytest.approx(expected, abs=1e-5)


# --- what is refused ------------------------------------------------------------------------------


def test_no_single_network(reward: Path, tmp_path: Path, irl_export: Callable) -> None:
    """Refused in one line that says what to do; and what it says works."""
    member = NormalizedReward(load_reward(reward).raw, Normalizer(0.0, 1.0))
    kinds: dict[str, tuple[Reward, str]] = {
        "ensemble": (EnsembleReward([member, member]), "--member 0"),
        "planted": (PlantedReward(member, TERMS), "/base"),
        "length": (LengthReward(1.0), ""),
        "closed": (ClosedFormReward(), ""),
    }
    for name, (made, instead) in kinds.items():
        folder = save(tmp_path / name, made)
        status, out, err = irl_export(folder, "-o", tmp_path / "out")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"irl-export: {folder}: a reward of kind {made.kind} is no single")
        assert not (tmp_path / "out").exists()
        if instead:
            typed = instead.split() if name == "ensemble" else []
            source = folder if typed else f"{folder}{instead}"
            assert (instead if typed else source) in err
            assert irl_export(source, *typed, "-o", tmp_path / f"out-{name}")[0] == 0
        else:
            assert "irl-score reads it as it is" in err


def test_nothing_is_written_over(reward: Path, tmp_path: Path, irl_export: Callable) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        status, _, err = irl_export(reward, "-o", tmp_path / name)
        assert status == 1 and "exists already and is not an empty folder" in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "notes.txt"]


def test_bad_arguments(reward: Path, tmp_path: Path, irl_export: Callable) -> None:
    out = tmp_path / "out"
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "status.json").write_text('{"status": "failed", "run_id": "0"}')
    for words, message in (
        ((tmp_path, "-o", out), "expected the directory of a run, or a saved reward"),
        ((tmp_path / "failed", "-o", out), "its run is failed; expected one that is done"),
        ((reward, "--reward", "recovered", "-o", out), "is one reward; expected a run directory"),
        ((reward, "-o", tmp_path / "no" / "out"), "no: no such folder, to write out in"),
        ((reward, "-o", out, "--private"), "--private: expected --push-to-hub beside it"),
        ((reward, "-o", out, "--push-to-hub", "name"), "--push-to-hub=name: expected ORG/NAME"),
    ):
        status, printed, err = irl_export(*words)
        assert (status, printed, err.count("\n")) == (1, "", 1), err
        assert err.startswith("irl-export: ") and message in err
        assert not out.exists()


def test_a_hub_that_cannot_be_reached(reward: Path, tmp_path: Path) -> None:
    """One line, and the folder is there to be pushed later."""
    words = [reward, "-o", tmp_path / "out", "--push-to-hub", "somebody/reward"]
    done = subprocess.run(
        [sys.executable, "-m", "irl_exp.export", *words],
        capture_output=True,
        text=True,
        # A port on which nothing listens.
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_none"},
    )
    assert (done.returncode, done.stdout) == (1, f"exported: {tmp_path / 'out'}\n")
    assert re.fullmatch(r"irl-export: --push-to-hub=somebody/reward: .*\n", done.stderr)
    assert f"the folder is at {tmp_path / 'out'}" in done.stderr


# --- the card -------------------------------------------------------------------------------------


def test_the_card_of_a_reward_alone(reward: Path, tmp_path: Path) -> None:
    folder = export.export(reward, tmp_path / "my-reward")
    text = (folder / "README.md").read_text()
    assert header(folder)["library_name"] == "transformers"
    assert header(folder)["pipeline_tag"] == "text-classification"
    assert "model-index" not in header(folder)
    assert "# my-reward\n" in text and "| solver | `svm` |" in text and "| seed | 3 |" in text
    assert "`(score +0.5) / 2` is the unit" in text and "Below 0.25 a text counts as toxic" in text
    assert "How good it is" not in text and "None" not in text


def made_run(folder: Path, reward: Path, summary: dict[str, float | str]) -> Run:
    return Run(
        folder=folder,
        summary=summary,
        recovered=reward,
        ground_truth=None,
        config={
            "model": {"name": "checkpoint", "path": "EleutherAI/pythia-70m", "epochs": 1},
            "dataset": {"name": "file", "path": "/home/somebody/secret.csv", "size": None},
            "evaluation": {"level": 0.9},
        },
        manifest={"seeds": {"data": 7}, "versions": {"torch": "2"}, "run_id": "abc", "git": {}},
        warnings=["its KL is odd", "wandb has this run in part"],
    )


def test_the_card_of_a_run(reward: Path, tmp_path: Path) -> None:
    """Numbers with a meaning and their intervals; no number that was not applicable; no path."""
    summary = {
        "recovery/auc": 0.912345,
        "recovery/auc_low": 0.9,
        "recovery/auc_high": 0.92,
        "recovery/starc": "not applicable",
        "recovery/accuracy": 0.75,
    }
    run, raw = made_run(tmp_path, reward, summary), load_reward(reward).raw
    text = card(raw, Facts.load(reward), "recovered", run, "mine")  # type: ignore[arg-type]
    assert "| `recovery/auc` | 0.912 | [0.900, 0.920] | AUC against human labels" in text
    assert "| `recovery/accuracy` | 0.750 |  |" in text
    assert "recovery/starc" not in text and "not applicable" not in text
    assert "90% bootstrap intervals" in text and "| seeds | data 7 |" in text
    assert "secret" not in text and "`file` (path a local file or folder)" in text
    assert "- The run warns: its KL is odd" in text and "wandb" not in text
    head = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.S)[1])  # type: ignore[index]
    assert head["base_model"] == "EleutherAI/pythia-70m" and "datasets" not in head
    [results] = head["model-index"]
    numbers = [(m["type"], m["value"]) for r in results["results"] for m in r["metrics"]]
    assert numbers == [("roc_auc", 0.912345), ("accuracy", 0.75)]


def test_the_card_of_a_run_without_a_ground_truth(reward: Path, tmp_path: Path) -> None:
    run, raw = made_run(tmp_path, reward, {}), load_reward(reward).raw
    text = card(raw, Facts.load(reward), "recovered", run, "mine")  # type: ignore[arg-type]
    assert "How good it is" not in text and "model-index" not in text
    with pytest.raises(export.InputError, match="its run has no ground_truth reward"):
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "status.json").write_text(
            '{"status": "done", "run_id": "0", "warnings": [], "seconds": 1}'
        )
        (folder / "manifest.json").write_text(
            json.dumps({"steps": {"recover": "x"}, "store": "s", "seeds": {}, "versions": {}})
        )
        (folder / "summary.json").write_text("{}")
        (folder / "config.yaml").write_text("{}")
        export.export(folder, tmp_path / "out", "ground_truth")


def test_members_of_an_ensemble(
    reward: Path, tiny_folder: Path, tmp_path: Path, irl_export: Callable
) -> None:
    other = from_body(tiny_folder, torch.Generator().manual_seed(1), batch_size=8)
    members = [
        NormalizedReward(raw, Normalizer(0.0, 1.0)) for raw in (other, load_reward(reward).raw)
    ]
    folder = save(tmp_path / "ensemble", EnsembleReward(members))
    for number, source, there in (("2", folder, "members 0 to 1"), ("0", reward, "no members")):
        status, _, err = irl_export(source, "--member", number, "-o", tmp_path / "out")
        expected = f"irl-export: --member={number}: {source} has {there}; expected one of an ensem"
        assert status == 1 and err.startswith(expected)
    assert irl_export(folder, "--member", "1", "-o", tmp_path / "out")[0] == 0
    texts = [[""] * 2, ["I agree .", "see a fool ."]]
    torch.testing.assert_close(
        load_reward(tmp_path / "out").score(*texts), load_reward(reward).score(*texts)
    )


def test_the_card_of_an_audit(reward: Path, tmp_path: Path) -> None:
    """It says what is known: which pairs, what they tell; nothing of toxicity."""
    numbers = {"audit/preference_accuracy": 0.75, "audit/preference_accuracy_low": 0.7}
    run, raw = made_run(tmp_path, reward, numbers), load_reward(reward).raw
    config = {
        **run.config,
        "model": {"name": "checkpoint", "path": "somebody/model", "epochs": 1},
        "rlhf": {"name": "checkpoint", "path": "somebody/aligned"},
        "demonstrations": {"name": "preferences"},
    }
    audit = replace(run, config=config)
    text = card(raw, Facts.load(reward), "recovered", audit, "mine", member=1)  # type: ignore[arg-type]
    assert "higher = more like what was chosen" in text and "less toxic" not in text
    assert "of the whole ensemble, of which this is member 1" in text
    assert "`audit/preference_accuracy` | 0.750 |" in text
    assert "| model | `checkpoint` (path somebody/model) |" in text


# --- a real run, and TRL --------------------------------------------------------------------------


@pytest.mark.slow
def test_both_rewards_of_a_real_run(study: Path, tmp_path: Path, irl_export: Callable) -> None:
    summary = json.loads((study / "summary.json").read_text())
    for which, name in (("recovered", "recovery/auc"), ("ground_truth", "ground_truth/auc")):
        folder = tmp_path / which
        status, out, err = irl_export(study, "--reward", which, "-o", folder)
        assert (status, out, err) == (0, f"exported: {folder}\n", "")
        text = (folder / "README.md").read_text()
        ends = ", ".join(f"{summary[name + end]:.3f}" for end in ("_low", "_high"))
        assert f"| `{name}` | {summary[name]:.3f} | [{ends}] |" in text
        assert str(tmp_path) not in text and str(study.parent) not in text
    rewards = [load_reward(tmp_path / which) for which in ("recovered", "ground_truth")]
    scores = [reward.score(["I"] * 2, [" agree .", " see a fool ."]) for reward in rewards]
    assert not torch.allclose(*scores)


@pytest.mark.slow
def test_trl_drives_a_policy_by_it(tmp_path: Path) -> None:
    """The example, as a user runs it who has TRL and nothing of ours."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    words = ["+debug=smoke", "model=neox-400k", "until=ground_truth", "trainer.threads=1"]
    places = [f"hydra.run.dir={tmp_path / 'run'}", f"paths.store={tmp_path / 'store'}"]
    subprocess.run([warm.command("irl-exp"), *words, *places], check=True, capture_output=True)
    folder = export.export(tmp_path / "run", tmp_path / "reward", "ground_truth")
    [policy] = (tmp_path / "store" / "pretrain").glob("[!.]*")
    comments = synthetic.generate(300, seed=3)
    prompts = sorted({" ".join(comment.text.split()[:4]) for comment in comments})
    (tmp_path / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    shutil.copy(ROOT / "examples" / "train_with_trl.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "train_with_trl.py", policy, folder, "prompts.txt", "--output", "policy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    means = [float(mean) for mean in re.findall(r"mean reward ([+-]\d+\.\d+)", done.stdout)]
    assert len(means) == 20
    # In standard deviations of what the policy wrote before.
    gain = (sum(means[-5:]) - sum(means[:5])) / 5 / Facts.load(folder).normalizer.std
    assert gain > 1, means
    assert (tmp_path / "policy" / "model.safetensors").is_file()

    # What TRL makes of texts of several lengths, by the reward and the tokenizer that it loaded.
    trainer = GRPOTrainer(
        model=str(policy),
        reward_funcs=str(folder),
        args=GRPOConfig(output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to=[]),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
    )
    texts = [comment.text for comment in comments[:50]]
    pairs = [text[:10] for text in texts], [text[10:] for text in texts]
    inputs = [{"prompt": prompt} for prompt in pairs[0]]
    theirs = trainer._calculate_rewards(inputs, *pairs, [[0]] * len(texts))[:, 0]
    ours = load_reward(folder).score(*pairs)
    assert torch.allclose(theirs, ours, atol=1e-5, rtol=0)
