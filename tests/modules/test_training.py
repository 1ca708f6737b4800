"""A training that was killed goes on as if it had not been: the same weights, the same curves."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from irl_exp.config import PPOConfig, RaftConfig, TrainerConfig
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.models import language_model, network_reward, trainable
from irl_exp.modules import training
from irl_exp.modules.early_stopping import EarlyStopping
from irl_exp.modules.language_modeling import LanguageModeling
from irl_exp.modules.max_margin import MaxMargin, aligned_over_reference, collate
from irl_exp.modules.ppo import PPO
from irl_exp.modules.raft import Raft
from irl_exp.modules.trace import TRACE_FILE, Trace
from irl_exp.modules.training import CHECKPOINT_FILE, CURVES_FILE, fit
from tests.materials import PLAIN_PPO, save_language_model

# 40 texts in batches of 4: 3 epochs of 10 steps.
EPOCHS, STEPS = 3, 30


@pytest.fixture(autouse=True)
def _every_step_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "COST_FACTOR", 0.0)


class Killed(BaseException):
    """What no handler on the way takes for an error."""


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A model with dropout, which draws from the global generator."""
    folder = tmp_path_factory.mktemp("gpt2")
    save_language_model(folder, "gpt2", texts)
    return folder


def kill_at(module: pl.LightningModule, step: int | None) -> None:
    """Let the module's training die when it begins its step number `step`, counted from 0."""
    before, count = module.training_step, 0

    def training_step(*args: object) -> object:
        nonlocal count
        if count == step:
            raise Killed
        count += 1
        return before(*args)

    module.training_step = training_step  # type: ignore[method-assign]


def weights(module: pl.LightningModule) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def curves(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / CURVES_FILE).read_text().splitlines()]


def train_language_model(
    source: Path, texts: list[str], trainer: TrainerConfig, folder: Path, kill: int | None
) -> Tensor:
    torch.manual_seed(2)  # as every step of the study begins
    model = language_model.load(source)
    rows = language_model.token_ids(model, texts[:40])
    order = torch.Generator().manual_seed(1)

    def collate(batch: list[list[int]]) -> tuple[Tensor, Tensor]:
        return language_model.pad(batch, model.tokenizer.pad_token_id, side="right")  # type: ignore[arg-type]

    module = LanguageModeling(model, learning_rate=1e-2, weight_decay=0.1, warmup=0.2)
    kill_at(module, kill)
    fit(
        module,
        ResumableLoader(rows, LengthBatches([len(row) for row in rows], 4, order), collate),
        trainer,
        folder,
        epochs=EPOCHS,
        max_grad_norm=1.0,
        validation=DataLoader(rows[:8], batch_size=4, collate_fn=collate),  # type: ignore[arg-type]
    )
    return weights(module)


def train_reward(
    source: Path,
    texts: list[str],
    trainer: TrainerConfig,
    folder: Path,
    kill: int | None,
    parts: str,
) -> Tensor:
    """On some parts of the network, traced, with an early stop that waits for long."""
    torch.manual_seed(2)
    reward = network_reward.from_body(source, torch.Generator().manual_seed(3), 64)
    trainable.restrict(reward.network, parts, 1, 2, torch.Generator().manual_seed(4))
    rows = network_reward.encode(reward.tokenizer, reward.network, [""] * 80, texts[:80])
    pools = [(rows[i : i + 2], aligned_over_reference(1, 1)[0]) for i in range(0, 80, 2)]
    batches = LengthBatches([len(pool[0]) for pool, _ in pools], 4, torch.Generator())
    module = MaxMargin(reward, "hinge", learning_rate=1e-2, weight_decay=0.1, warmup=0.2)
    kill_at(module, kill)
    fit(
        module,
        ResumableLoader(pools, batches, collate),
        trainer,
        folder,
        epochs=EPOCHS,
        max_grad_norm=1.0,
        validation=DataLoader(pools[:8], batch_size=4, collate_fn=collate),  # type: ignore[arg-type]
        callbacks=[
            EarlyStopping(EPOCHS, module.criterion),
            Trace(pd.DataFrame({"prompt": "", "completion": texts[:9]}), reward, folder),
        ],
    )
    trainable.merge(reward.network)
    trace = pd.read_parquet(folder / TRACE_FILE).drop(columns=["prompt", "completion"])
    assert [*trace] == [f"epoch_{epoch}" for epoch in range(EPOCHS + 1)]
    return torch.cat([weights(module), torch.tensor(trace.to_numpy()).flatten()])


CONFIG = replace(
    PLAIN_PPO,
    # Everything that has a state of its own.
    kl_target=0.5,
    kl_horizon=16,
    scale_scores=True,
    iterations=6,
    batch_size=8,
    epochs=2,
    minibatch_size=4,
    learning_rate=1e-2,
    warmup=0.2,
)


class Letters:
    """A reward that a policy can learn to please: the share of the letter a."""

    def score(self, prompts: list[str], completions: list[str]) -> Tensor:
        return torch.tensor([text.count("a") / (1 + len(text)) for text in completions])


def train_policy(
    source: Path,
    texts: list[str],
    trainer: TrainerConfig,
    folder: Path,
    kill: int | None,
    config: PPOConfig = CONFIG,
) -> Tensor:
    torch.manual_seed(2)
    policy, reference = language_model.load(source), language_model.load(source)
    ppo = PPO(config, policy, reference, Letters(), 8, torch.Generator().manual_seed(3))
    kill_at(ppo, kill)
    prompts = [text.split()[0] for text in texts]
    batches = [list(range(i, i + 8)) for i in range(0, 8 * CONFIG.iterations, 8)]
    fit(ppo, ResumableLoader(prompts, batches, list), trainer, folder)
    return weights(ppo)


def train_on_demonstrations(
    source: Path, texts: list[str], trainer: TrainerConfig, folder: Path, kill: int | None
) -> Tensor:
    """RAFT, whose validation draws completions, with an early stop that waits for long."""
    torch.manual_seed(2)
    config = RaftConfig(
        name="raft",
        kl_coef=0.1,
        candidates=64,
        k=1,
        epochs=EPOCHS,
        patience=EPOCHS,
        batch_size=4,
        learning_rate=1e-2,
        warmup=0.2,
        weight_decay=0.1,
        max_grad_norm=1.0,
        validation_prompts=8,
    )
    policy, reference = language_model.load(source), language_model.load(source)
    module = Raft(config, policy, reference, Letters(), 8, torch.Generator().manual_seed(3))
    kill_at(module, kill)
    rows = [(text.split()[0], text[len(text.split()[0]) :]) for text in texts[:40]]
    batches = LengthBatches([len(row[1]) for row in rows], 4, torch.Generator())

    def encode(batch: list[tuple[str, str]]) -> Any:
        prompts, completions = zip(*batch, strict=True)
        return (
            language_model.encode_prompts(policy, prompts, 8),
            language_model.encode_completions(policy, completions, 8),
        )

    fit(
        module,
        ResumableLoader(rows, batches, encode),
        trainer,
        folder,
        epochs=EPOCHS,
        max_grad_norm=1.0,
        validation=DataLoader(
            [row[0] for row in rows[:8]],  # type: ignore[arg-type]
            batch_size=8,
            collate_fn=list,
            generator=torch.Generator(),
        ),
        callbacks=[EarlyStopping(EPOCHS, module.criterion)],
    )
    return weights(module)


Train = Callable[[Path, list[str], TrainerConfig, Path, int | None], Tensor]


@pytest.mark.parametrize(
    ("train", "kills"),
    [
        # In each epoch: early, in the middle, at its last step; and twice.
        (train_language_model, [[1], [4], [9], [10], [11], [19], [21], [29], [3, 5], [12, 9]]),
        (train_policy, [[1], [3], [5], [2, 2]]),
        (train_on_demonstrations, [[4], [11], [12, 9]]),
        *(
            (partial(train_reward, parts=parts), [[4], [12, 9]])
            for parts in ("all", "last_layers", "lora", "head")
        ),
    ],
)
def test_resumed_is_uninterrupted(
    gpt2: Path,
    texts: list[str],
    trainer: TrainerConfig,
    tmp_path: Path,
    train: Train,
    kills: list[list[int]],
) -> None:
    straight = tmp_path / "straight"
    straight.mkdir()
    expected = train(gpt2, texts, trainer, straight, None)
    assert (straight / CHECKPOINT_FILE).is_file()
    for number, steps in enumerate(kills):
        folder = tmp_path / str(number)
        folder.mkdir()
        for step in steps:
            with pytest.raises(Killed):
                train(gpt2, texts, trainer, folder, step)
        assert torch.equal(train(gpt2, texts, trainer, folder, None), expected), steps
        assert curves(folder) == curves(straight), steps


def test_what_was_done_is_not_done_again(
    gpt2: Path,
    texts: list[str],
    trainer: TrainerConfig,
    tmp_path: Path,
) -> None:
    """At most two steps are: none is saved where an epoch ends or a curve is due."""
    for done, saved in ((1, 1), (15, 15), (20, 19), (21, 21)):
        folder = tmp_path / str(done)
        folder.mkdir()
        with pytest.raises(Killed):
            train_language_model(gpt2, texts, trainer, folder, done)
        state = torch.load(folder / CHECKPOINT_FILE, weights_only=True)
        assert state["global_step"] == saved
        with pytest.raises(Killed):  # at its last step, counted from where it went on
            train_language_model(gpt2, texts, trainer, folder, STEPS - saved - 1)


def test_a_policy_that_was_stopped_stops_again(
    gpt2: Path,
    texts: list[str],
    trainer: TrainerConfig,
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(CONFIG, stop_kl=0.5, learning_rate=0.1)
    first = train_policy(gpt2, texts, trainer, tmp_path, None, config)
    records = curves(tmp_path)
    assert 0 < len(records) < CONFIG.iterations
    again = train_policy(gpt2, texts, trainer, tmp_path, None, config)
    assert torch.equal(again, first)
    assert curves(tmp_path) == records
