"""The paper's loss as its released code trains with it, each departure a switch of its own
(docs/studies/as_released.md). With all of them off this is solvers/margin.py at a constant rate.

`last_characters`: of each completion the reward is shown the last character of its text, and the
two of a batch as one input: the expert's of the first prompt with the expert's of the second.
`accumulate_gradients`: a step's gradient is added to those of all steps before it.
`shuffle: false`: prompts come in the same order in every epoch.
`late` is for the step `recover`: it says which weights are measured, and changes none.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from irl_exp.config import ReleasedSolver
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.data.pairs import Demonstrations
from irl_exp.models import network_reward
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.max_margin import MaxMargin, aligned_over_reference, collate
from irl_exp.solvers import gradient, margin
from irl_exp.solvers.problem import Problem

Example = tuple[Sequence[Sequence[int]], Tensor]


def solve(problem: Problem) -> NetworkReward:
    """Validation prompts are read whole, whatever is trained on: their curves tell the truth."""
    config = problem.config
    assert isinstance(config, ReleasedSolver)
    train, validation = (problem.demonstrations.split(name) for name in ("train", "validation"))
    reward = gradient.new_reward(problem)
    pools = (last_characters if config.last_characters else margin.encoded)(reward, train)
    lengths = [max(map(len, pool)) for pool in pools]
    shuffled = LengthBatches(lengths, config.batch_size, problem.generator("order"))
    orders = [aligned_over_reference(len(pairs), pairs.k) for pairs in (train, validation)]
    return gradient.train(
        problem,
        Released(reward, config),
        [row for pool in pools for row in pool],
        ResumableLoader(
            list(zip(pools, orders[0], strict=True)),
            shuffled if config.shuffle else in_order(len(pools), config.batch_size),
            joined if config.last_characters else collate,
        ),
        margin.validation_loader(reward, validation, orders[1], config.batch_size),
        config.max_grad_norm,
    )


class Released(MaxMargin):
    """MaxMargin at a constant learning rate, whose gradients may be left to pile up."""

    def __init__(self, reward: NetworkReward, config: ReleasedSolver) -> None:
        super().__init__(
            reward, config.objective, config.learning_rate, config.weight_decay, config.warmup
        )
        self.accumulate = config.accumulate_gradients

    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()["optimizer"]  # without its schedule

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        if not self.accumulate:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    # What has piled up is part of the training's state.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gradients"] = [p.grad for p in self.parameters()] if self.accumulate else []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for parameter, gradient_ in zip(self.parameters(), checkpoint["gradients"], strict=False):
            parameter.grad = None if gradient_ is None else gradient_.to(parameter.device)


def last_characters(reward: NetworkReward, pairs: Demonstrations) -> list[list[list[int]]]:
    """Token rows of the last characters of each prompt's two texts, the aligned policy's first."""
    prompts, completions = pairs.pool()
    ends = [(prompt + text)[-1:] for prompt, text in zip(prompts, completions, strict=True)]
    rows = network_reward.encode(reward.tokenizer, reward.network, [""] * len(ends), ends)
    return [rows[i : i + 2] for i in range(0, len(rows), 2)]


def joined(examples: Sequence[Example]) -> tuple[list[Sequence[int]], Tensor]:
    """A batch of prompts as one: the aligned rows behind each other, and the reference rows."""
    pools = [pool for pool, _ in examples]
    rows = [[token for row in side for token in row] for side in zip(*pools, strict=True)]
    return list(rows), examples[0][1].unsqueeze(0)


def in_order(n: int, batch_size: int) -> list[list[int]]:
    return [rows.tolist() for rows in torch.arange(n).split(batch_size)]
