"""A reward from labels is the log-odds of "not toxic": 1 = toxic is the lower one."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from irl_exp.config import TrainerConfig
from irl_exp.models import network_reward
from irl_exp.models.network_reward import from_body
from irl_exp.modules.reward_modeling import RewardModeling, collate
from irl_exp.modules.training import fit


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_loss_is_the_likelihood_of_the_labels(tiny_folder: Path) -> None:
    reward = from_body(tiny_folder, torch.Generator().manual_seed(0), 8)
    module = RewardModeling(reward, 1e-3, 0.0, 0.1)
    rows = [[5, 6, 7], [8], [9, 10]]
    with torch.no_grad():
        loss = module.training_step(collate([(rows[0], 1), (rows[1], 0), (rows[2], 1)]), 0)
        toxic = 1 - torch.sigmoid(reward.forward(rows))
    likelihoods = torch.stack([toxic[0], 1 - toxic[1], toxic[2]])
    assert loss.item() == pytest.approx(-likelihoods.log().mean().item(), rel=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_toxic_comments_end_up_below_the_others(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig, precision: str
) -> None:
    """A label that one word decides; odds beyond e^2 on texts that were not trained on."""
    reward = from_body(tiny_folder, torch.Generator().manual_seed(0), 64)
    subjects = ["the map", "this edit", "Mira", "your last change", "the article", "a vote"] * 40
    comments = [
        (f"{s} is {'silly' if i % 4 < 2 else 'clear'}", int(i % 4 < 2))
        for i, s in enumerate(subjects)
    ]
    texts, labels = map(list, zip(*comments, strict=True))
    rows = network_reward.encode(reward.tokenizer, reward.network, texts, [""] * len(texts))
    loader: DataLoader = DataLoader(
        list(zip(rows, labels, strict=True)),  # type: ignore[arg-type]
        batch_size=16,
        collate_fn=collate,
    )
    module = RewardModeling(reward, 3e-3, 0.0, 0.1)
    config = dataclasses.replace(trainer, precision=precision)
    fit(module, loader, config, tmp_path, epochs=3, max_grad_norm=1.0)
    held_out = ["Tobias is silly", "the castle is silly", "Tobias is clear", "the castle is clear"]
    scores = reward.score(held_out, [""] * 4)
    assert (scores[:2] < -2).all()
    assert (scores[2:] > 2).all()


class Norms(Callback):
    """Of the gradients that each step was taken with, and whether its kernel is the fused one."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.fused: set[bool] = set()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *rest: Any) -> None:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        self.fused |= {bool(group["fused"]) for group in trainer.optimizers[0].param_groups}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_every_precision(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig, precision: str
) -> None:
    config = dataclasses.replace(trainer, precision=precision)
    rows = [([3 + i % 5, 6, 7], i % 2) for i in range(32)]
    seen = {}
    for limit in (1e-3, 1e3):
        reward = from_body(tiny_folder, torch.Generator().manual_seed(0), 64)
        loader: DataLoader = DataLoader(rows, batch_size=8, collate_fn=collate)  # type: ignore[arg-type]
        watch = seen[limit] = Norms()
        module = RewardModeling(reward, 1e-3, 0.0, 0.1)
        folder = tmp_path / str(limit)
        folder.mkdir()
        fit(module, loader, config, folder, max_grad_norm=limit, callbacks=[watch])
    assert seen[1e-3].norms == pytest.approx([1e-3] * 4, rel=1e-2)
    assert min(seen[1e3].norms) > 1e-2
    assert seen[1e-3].fused == {True}
