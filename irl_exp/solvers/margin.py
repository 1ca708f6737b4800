"""Gradient solvers: the reference's body and a new head, trained so that what the aligned policy
writes scores above what the reference writes after the same prompt (Joselowitz et al. 2025,
arXiv 2410.12491; the objectives are in modules/max_margin.py)."""

from torch import Tensor
from torch.utils.data import DataLoader

from irl_exp.config import MarginSolver
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.data.pairs import Demonstrations
from irl_exp.models import network_reward
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.max_margin import MaxMargin, aligned_over_reference, collate
from irl_exp.solvers import gradient
from irl_exp.solvers.problem import Problem


def solve(problem: Problem) -> NetworkReward:
    """All k^2 pairs of a prompt: aligned completions are preferred to reference completions."""
    train, validation = (problem.demonstrations.split(name) for name in ("train", "validation"))
    k = problem.demonstrations.k
    return train_on_orders(
        problem,
        train,
        aligned_over_reference(len(train), k),
        validation,
        aligned_over_reference(len(validation), k),
    )


def train_on_orders(
    problem: Problem,
    train: Demonstrations,
    train_order: Tensor,
    validation: Demonstrations,
    validation_order: Tensor,
) -> NetworkReward:
    """Train on pools of 2k completions with the preferences `order` [n, 2k, 2k] among them."""
    config = problem.config
    assert isinstance(config, MarginSolver)
    reward = gradient.new_reward(problem)
    module = MaxMargin(
        reward, config.objective, config.learning_rate, config.weight_decay, config.warmup
    )
    pools = encoded(reward, train)
    lengths = [max(map(len, pool)) for pool in pools]
    batches = LengthBatches(lengths, config.batch_size, problem.generator("order"))
    return gradient.train(
        problem,
        module,
        [row for pool in pools for row in pool],
        ResumableLoader(list(zip(pools, train_order, strict=True)), batches, collate),
        validation_loader(reward, validation, validation_order, config.batch_size),
        config.max_grad_norm,
    )


def validation_loader(
    reward: NetworkReward, pairs: Demonstrations, order: Tensor, batch_size: int
) -> DataLoader:
    examples = list(zip(encoded(reward, pairs), order, strict=True))
    return DataLoader(examples, batch_size=batch_size, collate_fn=collate)  # type: ignore[arg-type]


def encoded(reward: NetworkReward, pairs: Demonstrations) -> list[list[list[int]]]:
    """Token rows of each prompt's 2k completions, the aligned policy's first."""
    rows = network_reward.encode(reward.tokenizer, reward.network, *pairs.pool())
    m = 2 * pairs.k
    return [rows[i : i + m] for i in range(0, len(rows), m)]
