"""Gradient solvers on parts of the network: what is left alone, what is saved, when they stop."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irl_exp.config import ClassifierSolver, GradientSolver, MarginSolver, TrainerConfig
from irl_exp.data.pairs import Demonstrations
from irl_exp.models import network_reward
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.network_reward import NetworkReward, States, from_body
from irl_exp.models.reward_model import Facts, Normalizer
from irl_exp.models.saved_rewards import load_reward
from irl_exp.solvers import SOLVERS
from irl_exp.solvers.problem import Problem

RECIPE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "trainable": "all",
    "last_layers": 1,
    "lora_rank": 2,
    "patience": None,
    "trace": False,
}


def margin(name: str, objective: str) -> MarginSolver:
    return MarginSolver(name=name, objective=objective, max_grad_norm=1.0, **RECIPE)


CONFIGS: dict[str, GradientSolver] = {
    "hinge": margin("hinge", "hinge"),
    "asymmetric": margin("asymmetric", "asymmetric"),
    "oracle": margin("oracle", "logistic"),
    "membership": ClassifierSolver(name="membership", **RECIPE),
}


def pairs(k: int) -> Demonstrations:
    splits = ["train"] * 16 + ["validation"] * 8
    kind, rude = (", you are kind", ", thanks"), (", you fool", ", you goose")
    return Demonstrations(
        prompts=[f"On article {i}" for i in range(len(splits))],
        aligned=[[kind[(i + j) % 2] for j in range(k)] for i in range(len(splits))],
        reference=[[rude[(i + j) % 2] for j in range(k)] for i in range(len(splits))],
        splits=splits,
    )


@pytest.fixture
def problem(tiny_folder: Path, trainer: TrainerConfig, tmp_path: Path, truth: Path) -> Problem:
    return Problem(
        config=CONFIGS["hinge"],
        demonstrations=pairs(k=2),
        reference=tiny_folder,
        aligned=tiny_folder,
        truth=truth,
        kl_coef=0.5,
        max_new_tokens=16,
        trainer=trainer,
        device="cpu",
        initialization=0,
        order=0,
        folder=tmp_path,
    )


@pytest.fixture(scope="module")
def truth(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward of some sort, for the oracle: a random head."""
    folder = tmp_path_factory.mktemp("truth")
    reward = from_body(tiny_folder, torch.Generator().manual_seed(9), batch_size=8)
    Facts(reward.kind, Normalizer(0.0, 1.0), {}, extra=reward.save(folder)).save(folder)
    return folder


def solve(problem: Problem, **changes: Any) -> NetworkReward:
    config = replace(problem.config, **changes)
    reward = SOLVERS[config.name](replace(problem, config=config))
    assert isinstance(reward, NetworkReward)
    return reward


def curves(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "validation_loss" in line]


# What may differ from the reference; the tiny model has two blocks.
PARTS = {
    "last_layers": ("gpt_neox.layers.1.", "gpt_neox.final_layer_norm."),
    "lora": ("query_key_value.weight", "dense.weight", "h_to_4h.weight", "4h_to_h.weight"),
    "head": (),
}


@pytest.mark.parametrize("name", ["hinge", "oracle", "membership"])
@pytest.mark.parametrize("parts", PARTS)
def test_what_does_not_train_is_the_references(
    name: str, parts: str, problem: Problem, tiny: LanguageModel
) -> None:
    """To the bit; and a LoRA-trained reward is a plain network, with the reference's names."""
    reward = solve(replace(problem, config=CONFIGS[name]), trainable=parts)
    body = reward.network.base_model.state_dict(prefix="gpt_neox.")
    before = tiny.network.base_model.state_dict(prefix="gpt_neox.")
    assert list(body) == list(before)
    changed = {key for key in body if not torch.equal(body[key], before[key])}
    may = {key for key in body if any(part in key for part in PARTS[parts])}
    # The last bias adds the same to all texts: of a difference its gradient is rounding, or 0.
    assert may - {"gpt_neox.final_layer_norm.bias"} <= changed <= may
    head = problem.new_reward().network.get_parameter("score.weight")
    assert not torch.equal(reward.network.get_parameter("score.weight"), head)


def test_who_runs_again_gets_the_same(problem: Problem, tmp_path: Path) -> None:
    pool = problem.demonstrations.split("validation").pool()

    def scores(seed: int) -> Tensor:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        torch.manual_seed(seed + 5)  # has no part: updates are drawn from the problem's seed
        return solve(replace(problem, initialization=seed, folder=folder), trainable="lora").score(
            *pool
        )

    first = scores(1)
    assert torch.equal(scores(1), first)
    assert not torch.allclose(scores(2), first)


def test_for_one_completion_each_maximum_entropy_is_logistic(problem: Problem) -> None:
    single = replace(problem, demonstrations=pairs(k=1))
    pool = single.demonstrations.split("validation").pool()
    found = []
    for name, objective in (("logistic", "logistic"), ("max_entropy_network", "max_entropy")):
        config = replace(margin(name, objective), learning_rate=1e-3)  # less is made of rounding
        found.append(solve(replace(single, config=config)).score(*pool))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-3)
    assert found[0].std() > 0.1


@pytest.mark.parametrize("name", ["hinge", "asymmetric", "membership"])
def test_it_stops_early_and_returns_the_best_epoch(name: str, problem: Problem) -> None:
    """The curves tell which; the reward that comes back has that epoch's numbers."""
    # Steps that are much too long: what is learned is lost again.
    reward = solve(replace(problem, config=CONFIGS[name]), epochs=8, patience=2, learning_rate=0.3)
    epochs = curves(problem.folder)
    key = "validation_pair_accuracy" if name == "asymmetric" else "validation_loss"
    course = [-line[key] if name == "asymmetric" else line[key] for line in epochs]
    best = course.index(min(course))
    assert len(course) == min(8, best + 3)
    x = reward.score(*problem.demonstrations.split("validation").pool()).view(-1, 4)
    differences = (x[:, :2, None] - x[:, None, 2:]).flatten()
    found = {
        "hinge": (1 - differences).relu().mean(),
        "asymmetric": -(differences > 0).float().mean(),
        "membership": torch.nn.functional.softplus(
            torch.cat([-x[:, :2], x[:, 2:]]).flatten()
        ).mean(),
    }
    assert found[name].item() == pytest.approx(course[best], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_what_lora_trained_loads_without_peft(problem: Problem, tmp_path: Path) -> None:
    reward = solve(problem, trainable="lora")
    folder = tmp_path / "saved"
    folder.mkdir()
    Facts(reward.kind, Normalizer(0.0, 1.0), {}, extra=reward.save(folder)).save(folder)
    (tmp_path / "texts.jsonl").write_text('{"prompt": "On article 1", "completion": ", thanks"}\n')
    script = (
        "import sys; sys.modules['peft'] = None\n"  # importing it now raises ImportError
        "from irl_exp.scoring import main; main()\n"
        "assert not any(name.startswith('peft.') for name in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "texts.jsonl")]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    expected = load_reward(folder).score(["On article 1"], [", thanks"]).item()
    assert json.loads(said)["score"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["hinge", "membership"])
def test_a_head_learns_the_same_from_known_features(name: str, problem: Problem) -> None:
    problem = replace(problem, config=CONFIGS[name])
    texts = problem.demonstrations.pool()
    body = problem.new_reward()
    body.network.eval()
    rows = network_reward.encode(body.tokenizer, body.network, *texts)
    states = States({tuple(row): i for i, row in enumerate(rows)}, body.states(rows, 8))
    read, known = (
        solve(replace(problem, known=states if known else None), trainable="head").score(*texts)
        for known in (False, True)
    )
    torch.testing.assert_close(known, read, rtol=1e-3, atol=1e-4)
    started = problem.new_reward().score(*texts)
    assert not torch.allclose(known, started, rtol=1e-3, atol=1e-2)
