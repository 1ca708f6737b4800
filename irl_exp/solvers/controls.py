"""Controls: what a recovery must beat, and what bounds it from above."""

import numpy as np
import torch

from irl_exp.models.reward_model import LengthReward, NetworkReward, load_reward
from irl_exp.modules.max_margin import by_scores
from irl_exp.solvers.margin import train_on_orders
from irl_exp.solvers.problem import Problem


def length(problem: Problem) -> LengthReward:
    """The number of words alone, in the direction in which RLHF moved it."""
    train = problem.demonstrations.split("train")
    aligned, reference = (
        np.mean([len(text.split()) for text in texts])
        for _, texts in (train.aligned_texts(), train.reference_texts())
    )
    return LengthReward(1.0 if aligned >= reference else -1.0)


def untrained(problem: Problem) -> NetworkReward:
    """What every gradient solver starts from: the reference's body and a random head."""
    reward = problem.new_reward()
    reward.network.eval().to(problem.device)
    return reward


def oracle(problem: Problem) -> NetworkReward:
    """The same network on the same completions, but told how R* orders each prompt's pool."""
    truth = load_reward(problem.truth, problem.trainer.score_batch_size, problem.device)
    m = 2 * problem.demonstrations.k

    def order(split: str) -> torch.Tensor:
        return by_scores(truth.score(*problem.demonstrations.split(split).pool()).view(-1, m))

    train, validation = (problem.demonstrations.split(name) for name in ("train", "validation"))
    return train_on_orders(problem, train, order("train"), validation, order("validation"))
