"""Every way to align, in a world small enough to be enumerated: all aim at one and the same policy,
pi_ref exp(R/beta)/Z, and come near to it."""

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from irl_exp.config import DPOConfig, GroupConfig, InputError, RaftConfig, TrainerConfig
from irl_exp.models import generation, language_model
from irl_exp.models.generation import NetworkPolicy
from irl_exp.models.language_model import LanguageModel
from irl_exp.modules import ppo, raft, trl_trainers
from irl_exp.modules.finite import BATCH_FILE
from tests.materials import PLAIN_PPO

RECIPE: dict[str, Any] = {"kl_coef": 0.5, "learning_rate": 1e-2, "max_grad_norm": 1.0}
GROUP: dict[str, Any] = {
    **RECIPE,
    **{"iterations": 40, "batch_size": 240, "group_size": 8, "epochs": 1, "minibatch_size": 80},
    **{"warmup": 0.05, "clip_range": 0.2, "kl_target": None, "kl_horizon": 1200},
}
PPO = replace(
    PLAIN_PPO,
    iterations=40,
    batch_size=240,
    minibatch_size=80,
    warmup=0.05,
    gae_lambda=1.0,
    value_clip_range=0.5,
    value_coef=0.1,
    stop_kl=30.0,
    **RECIPE,
)
RAFT = RaftConfig(
    name="raft",
    candidates=4096,
    k=2000,
    epochs=10,
    patience=10,
    batch_size=300,
    warmup=0.05,
    weight_decay=0.0,
    validation_prompts=600,
    **RECIPE,
)
DPO = DPOConfig(name="dpo", k=5000, epochs=2, batch_size=200, warmup=0.05, **RECIPE)


def probabilities(model: LanguageModel, world: Any) -> Tensor:
    """Of every completion after every prompt, by the network itself: float64 [3, 13]."""
    prompts, completions = world.all_pairs()
    encoded = (
        language_model.encode_prompts(model, prompts, 2),
        language_model.encode_completions(model, completions, 2),
    )
    with torch.no_grad():
        log_probs = language_model.completion_log_probs(model.network, *encoded)
    return log_probs.double().sum(-1).exp().view(3, -1)


def optimality(probs: Tensor, world: Any) -> float:
    """The share of the KL-penalized gain that was to be had, by enumeration."""

    def penalized(of: Tensor) -> Tensor:
        kl = (of * (of / world.reference_probs).log()).sum(-1)
        return ((of * world.rewards).sum(-1) - world.beta * kl).mean()

    start, best = penalized(world.reference_probs), penalized(world.aligned_probs)
    return float((penalized(probs) - start) / (best - start))


class Judge:
    """The world's rewards; a policy that strays writes what the world does not know."""

    def __init__(self, world: Any) -> None:
        self.world = world

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        known = self.world.completions
        found = [
            float(self.world.score([p], [c])) if c in known else -5.0
            for p, c in zip(prompts, completions, strict=True)
        ]
        return torch.tensor(found)


Align = Callable[..., None]


def by_ppo(config: Any, *where: Any, **how: Any) -> None:
    ppo.align(config, *where, 2, order=torch.Generator().manual_seed(0), **how)


def by_raft(config: Any, *where: Any, **how: Any) -> None:
    validation = where[-1] * 200
    raft.align(config, *where, validation, 2, order=torch.Generator().manual_seed(0), **how)


def by_trl(config: Any, *where: Any, **how: Any) -> None:
    trl_trainers.align(config, *where, 2, **how)


@pytest.mark.parametrize(
    ("align", "config", "near"),
    [
        pytest.param(by_ppo, PPO, 0.05, id="ppo"),
        pytest.param(by_raft, RAFT, 0.1, id="raft"),
        pytest.param(by_trl, GroupConfig(name="rloo", **GROUP), 0.05, id="rloo"),
        # Its KL counts a token's own divergence alone, and not that of what it leads to.
        pytest.param(by_trl, GroupConfig(name="grpo", **GROUP), 0.25, id="grpo"),
        # Learns from the reference's pairs, in which the expert's completions can be rare.
        pytest.param(by_trl, DPO, 0.25, id="dpo"),
    ],
)
def test_it_comes_near_the_tilted_expert(
    align: Align, config: Any, near: float, world: Any, trainer: TrainerConfig, tmp_path: Path
) -> None:
    reference, folder = tmp_path / "reference", tmp_path / "aligned"
    world.reference.save(reference)
    folder.mkdir()
    how = {"generator": torch.Generator().manual_seed(0), "trainer": trainer, "folder": folder}
    numpys, pythons = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    torchs = torch.get_rng_state()
    (folder / BATCH_FILE).touch()  # of an attempt before
    align(config, reference, Judge(world), world.prompts, **how)
    found = probabilities(generation.load_network(folder), world)
    assert not (folder / BATCH_FILE).exists()
    assert found.sum(-1) == pytest.approx([1, 1, 1], abs=1e-3)
    assert optimality(found, world) > 0.97
    assert (found - world.aligned_probs).abs().sum(-1).max() / 2 < near
    # Whatever a library draws from, no other step feels it.
    assert np.random.get_state()[1].tolist() == numpys and random.getstate() == pythons  # noqa: NPY002
    assert align is not by_trl or torch.equal(torch.get_rng_state(), torchs)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines and all(math.isfinite(value) for line in lines for value in line.values())


class Killed(Exception):
    """Stands for a kill in the middle of a training."""


class Mortal(Judge):
    """Is asked so many times and no more."""

    def __init__(self, world: Any, lives: int) -> None:
        super().__init__(world)
        self.lives = lives

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        if self.lives == 0:
            raise Killed
        self.lives -= 1
        return super().score(prompts, completions)


@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_trl_goes_on_from_its_last_checkpoint(
    name: str, world: Any, trainer: TrainerConfig, tmp_path: Path
) -> None:
    """Of 40 rollouts 33 are drawn before the kill and a checkpoint is taken after 32."""
    reference, folder = tmp_path / "reference", tmp_path / "aligned"
    world.reference.save(reference)
    folder.mkdir()

    def run(judge: Judge) -> None:
        generator = torch.Generator().manual_seed(0)
        how = {"generator": generator, "trainer": trainer, "folder": folder}
        by_trl(GroupConfig(name=name, **GROUP), reference, judge, world.prompts, **how)

    with pytest.raises(Killed):
        run(Mortal(world, 33))
    run(Mortal(world, 8))  # more would be a training from the start
    found = probabilities(generation.load_network(folder), world)
    assert optimality(found, world) > 0.97
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["global_step"] for line in lines] == list(range(3, 121, 3))


BY_TRL = [
    pytest.param(GroupConfig(name="rloo", **GROUP), id="rloo"),
    pytest.param(GroupConfig(name="grpo", **GROUP), id="grpo"),
    pytest.param(DPO, id="dpo"),
]


@pytest.mark.parametrize("config", BY_TRL)
@pytest.mark.parametrize("what", ["loss", "gradient", "reward"])
def test_trl_stops_where_a_number_is_not_finite(
    config: Any,
    what: str,
    world: Any,
    trainer: TrainerConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference, folder = tmp_path / "reference", tmp_path / "aligned"
    world.reference.save(reference)
    folder.mkdir()

    sound = generation.load_network

    def load_network(path: Path, device: str) -> LanguageModel:
        loaded = sound(path, device)
        head = loaded.network.get_output_embeddings()
        head.weight.register_hook(lambda gradient: gradient * math.inf)
        return loaded

    class Odd(Judge):
        def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
            return super().score(prompts, completions).index_fill(0, torch.tensor([1]), math.nan)

    judge = Odd(world) if what == "reward" else Judge(world)
    if what == "gradient":
        monkeypatch.setattr(generation, "load_network", load_network)
    config = replace(config, learning_rate=1e30) if what == "loss" else config
    with pytest.raises(InputError) as refused:
        how = {"generator": torch.Generator().manual_seed(0), "trainer": trainer, "folder": folder}
        by_trl(config, reference, judge, world.prompts, **how)
    if what == "reward":
        assert str(refused.value).startswith("the reward gave nan to '")
        return
    said = {"loss": "the loss is nan at step ", "gradient": "the gradient's norm is "}
    assert str(refused.value).startswith(f"{config.name.upper()}Trainer: training diverged: ")
    assert said[what] in str(refused.value)
    kept = torch.load(folder / BATCH_FILE, weights_only=True)
    assert (kept["step"] > 0) == (what == "loss") and len(kept["batch"]) >= 3


@pytest.mark.parametrize(
    ("align", "config"),
    [
        pytest.param(by_ppo, PPO, id="ppo"),
        pytest.param(by_trl, GroupConfig(name="rloo", **GROUP), id="rloo"),
        pytest.param(by_trl, GroupConfig(name="grpo", **GROUP), id="grpo"),
    ],
)
def test_an_adapted_coefficient_is_that_of_the_kl(
    align: Align, config: Any, world: Any, trainer: TrainerConfig, tmp_path: Path
) -> None:
    """Among policies of one KL the best is the tilted one; asked for the KL that it has at
    beta = 0.5, PPO ends there, and with that beta, wherever it started."""
    target = float(world.kl.mean())
    config = replace(config, kl_coef=2.0, kl_target=target, kl_horizon=1200, iterations=80)
    reference, folder = tmp_path / "reference", tmp_path / "aligned"
    world.reference.save(reference)
    folder.mkdir()
    how = {"generator": torch.Generator().manual_seed(0), "trainer": trainer, "folder": folder}
    align(config, reference, Judge(world), world.prompts, **how)
    found = probabilities(generation.load_network(folder), world)
    kl = (found * (found / world.reference_probs).log()).sum(-1).mean()
    assert float(kl) == pytest.approx(target, rel=0.1)
    assert optimality(found, world) > 0.97
    *_, last = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert last["objective/kl_coef"] == pytest.approx(0.5, rel=0.15)


def test_a_training_goes_on_with_the_beta_that_its_log_led_to() -> None:
    """Twice the target raises it by 0.2 of the rollout's share of the horizon, 240 / 1200."""
    config = GroupConfig(name="rloo", **GROUP | {"kl_target": 0.5})
    rollout = {"loss": 0.1, "reward": 0.3, "kl": 0.25, "completions/mean_length": 4.0}
    history = [rollout, {"train_runtime": 3.0}, rollout | {"kl": 0.125}]
    assert trl_trainers.kl_coefs(config, history) == pytest.approx([0.5, 0.52, 0.52])
    worker, state = SimpleNamespace(beta=0.5), SimpleNamespace(log_history=history)
    trl_trainers._KLControl(config, worker).on_train_begin(None, state, None)
    assert worker.beta == pytest.approx(0.52)


def test_trl_hands_over_tokens_and_gets_a_list_of_floats(world: Any) -> None:
    """What a completion says is read from its tokens: TRL's text of it is not looked at."""
    prompts, completions = world.all_pairs()
    rows = language_model.completion_rows(world.aligned, completions, 2)
    function = trl_trainers.reward_func(world.aligned, Judge(world))
    texts = ["not this"] * len(prompts)
    found = function(prompts=prompts, completions=texts, completion_ids=rows, trainer_state=None)
    assert found == Judge(world).score(prompts, completions).tolist()
    assert {type(value) for value in found} == {float} and len(set(found)) > 1


def test_pairs_are_preferred_with_the_odds_of_the_reward(world: Any) -> None:
    """Of each two completions, shares over many draws against sigmoid(R - R')."""
    reference = NetworkPolicy(world.reference, 2, 10_000)
    generator = torch.Generator().manual_seed(0)
    rows = trl_trainers.labelled_pairs(reference, world, ["x"], 20_000, generator)
    assert set(rows["prompt"]) == {"x"} and len(rows["chosen"]) == 20_000
    rewards = dict(zip(world.completions, world.rewards[0].tolist(), strict=True))
    met = Counter(zip(rows["chosen"], rows["rejected"], strict=True))
    compared = [pair for pair in met if pair[0] < pair[1] and met[pair] + met[pair[::-1]] > 500]
    assert len(compared) > 5
    for one, other in compared:
        share = met[one, other] / (met[one, other] + met[other, one])
        expected = 1 / (1 + math.exp(rewards[other] - rewards[one]))
        assert share == pytest.approx(expected, abs=0.08)
