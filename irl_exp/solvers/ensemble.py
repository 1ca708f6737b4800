"""An ensemble: the same recovery several times, each with its own first weights and order of data.

R̂ is the members' mean. What they do not agree on was decided by chance and not by the
demonstrations; the step `evaluate` counts it (metrics/disagreement.py).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from irl_exp.config import EnsembleSolver
from irl_exp.models.reward_kinds import EnsembleReward
from irl_exp.models.reward_model import REWARD_FILE, Facts, NormalizedReward, Normalizer, Reward
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.modules.training import CHECKPOINT_FILE, CURVES_FILE, WORKING_FOLDER
from irl_exp.solvers.problem import Problem


def solve(problem: Problem, solvers: Mapping[str, Callable[[Problem], Reward]]) -> EnsembleReward:
    """Members that are done are not done again: what is read back from disk is what was written."""
    config = problem.config
    assert isinstance(config, EnsembleSolver)
    recover = solvers[config.base.name]
    folders = [problem.folder / WORKING_FOLDER / str(i) for i in range(config.members)]
    rewards = [member(problem, recover, i, folder) for i, folder in enumerate(folders)]
    write_mean_curves(problem.folder / CURVES_FILE, folders)
    return EnsembleReward(rewards)


def member(
    problem: Problem, recover: Callable[[Problem], Reward], number: int, folder: Path
) -> NormalizedReward:
    """One recovery, with mean 0 and standard deviation 1 over the training pool: objectives leave
    scales of their own, and without that the member of the largest would be the mean.

    Its seed does not depend on how many members there are.
    """
    config, trainer = problem.config, problem.trainer
    assert isinstance(config, EnsembleSolver)
    if not (folder / REWARD_FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        member = problem.member(f"member-{number}")
        # What libraries draw unasked (dropout) must not depend on the members before.
        torch.manual_seed(member.order)
        reward = recover(replace(member, config=config.base, folder=folder))
        scores = reward.score(*problem.demonstrations.split("train").pool())
        unit = Normalizer.fit(scores, "the training completions")
        Facts(reward.kind, unit, {"seed": member.order}, extra=reward.save(folder)).save(folder)
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    return load_normalized(folder, trainer.score_batch_size, problem.device)


def write_mean_curves(curves: Path, folders: list[Path]) -> None:
    """What the members logged at a step, averaged over those that logged it there."""
    logs = [path for folder in folders if (path := folder / CURVES_FILE).is_file()]
    if logs:
        lines = pd.concat([pd.read_json(path, lines=True) for path in logs])
        means = lines.groupby("global_step", as_index=False).mean()
        with curves.open("w") as file:
            for line in means.to_dict("records"):
                logged = {name: value for name, value in line.items() if pd.notna(value)}
                file.write(json.dumps(logged) + "\n")
