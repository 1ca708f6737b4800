"""Controls: what a recovery must beat, and what bounds it from above."""

import numpy as np
import torch
from torch.utils.data import DataLoader

from irl_exp.config import ClassifierSolver
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.models import language_model, network_reward
from irl_exp.models.network_reward import NetworkReward
from irl_exp.models.reward_kinds import LengthReward, LikelihoodReward
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.modules.max_margin import by_odds
from irl_exp.modules.reward_modeling import RewardModeling, collate
from irl_exp.solvers import gradient
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
    reward = problem.new_head()
    reward.network.eval().to(problem.device)
    return reward


def perplexity(problem: Problem) -> LikelihoodReward:
    """How likely the reference finds it, per token: what fluency alone would be worth."""
    reference = language_model.load(problem.reference)
    reference.network.to(problem.device)  # type: ignore[arg-type]
    batch = problem.trainer.score_batch_size
    return LikelihoodReward(reference, problem.max_new_tokens, batch)


def membership(problem: Problem) -> NetworkReward:
    """Who wrote it: the same network as a classifier of single texts, aligned against reference.

    No completion is compared with another of its prompt, so that what makes prompts differ is not
    held apart from what makes policies differ.
    """
    config = problem.config
    assert isinstance(config, ClassifierSolver)
    reward = gradient.new_reward(problem)
    train, validation = (_labelled(reward, problem, name) for name in ("train", "validation"))
    batches = LengthBatches(
        [len(row) for row, _ in train], config.batch_size, problem.generator("order")
    )
    return gradient.train(
        problem,
        RewardModeling(reward, config.learning_rate, config.weight_decay, config.warmup),
        [row for row, _ in train],
        ResumableLoader(train, batches, collate),
        # A generator of its own: else every epoch would draw from the global one.
        DataLoader(
            validation,  # type: ignore[arg-type]
            batch_size=config.batch_size,
            collate_fn=collate,
            generator=torch.Generator(),
        ),
        max_grad_norm=1.0,
    )


def _labelled(reward: NetworkReward, problem: Problem, split: str) -> list[tuple[list[int], int]]:
    """(token row, 1 for what a reward is to be low on) of each completion of a split."""
    pairs = problem.demonstrations.split(split)
    ours, theirs = (
        network_reward.encode(reward.tokenizer, reward.network, *texts)
        for texts in (pairs.aligned_texts(), pairs.reference_texts())
    )
    return [*((row, 0) for row in ours), *((row, 1) for row in theirs)]


def oracle(problem: Problem) -> NetworkReward:
    """The same network on the same completions, told the odds by which R* prefers each to another.

    The weight of a pair is sigmoid((R*(p) - R*(q)) / beta), Bradley and Terry's probability that p
    is preferred: with the logistic loss what is learned is R*/beta up to a constant per prompt,
    from the expected preferences and not from a draw of them.
    """
    assert problem.truth is not None  # validation.not_applicable says so before
    truth = load_normalized(problem.truth, problem.trainer.score_batch_size, problem.device)
    m = 2 * problem.demonstrations.k

    def order(split: str) -> torch.Tensor:
        scores = truth.score(*problem.demonstrations.split(split).pool()).view(-1, m)
        return by_odds(scores / problem.kl_coef)

    train, validation = (problem.demonstrations.split(name) for name in ("train", "validation"))
    return train_on_orders(problem, train, order("train"), validation, order("validation"))
