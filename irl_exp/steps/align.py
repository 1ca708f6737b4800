"""align: RLHF of the reference; with R* it gives the expert, with R̂ realigned policies."""

import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from irl_exp import hub
from irl_exp.config import (
    BestOfNConfig,
    CheckpointRLHF,
    DPOConfig,
    GroupConfig,
    PPOConfig,
    RaftConfig,
    RLHFConfig,
    TiltedConfig,
)
from irl_exp.data.comments import Comments
from irl_exp.models import language_model, policies
from irl_exp.models.reward_model import Scorer
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.models.shaped_reward import ShapedReward
from irl_exp.modules import ppo, raft
from irl_exp.steps.bench import Bench, derive, write_summary
from irl_exp.store import Artifact

VERSION = 6


def align(
    bench: Bench,
    comments: Artifact,
    reference: Artifact,
    reward: Artifact,
    label: str = "align",
    rlhf: RLHFConfig | None = None,
    shaping: bool = False,
) -> Artifact:
    """Artifact: a policy folder, and why training stopped early if it did.

    `rlhf` is the recipe, if it is not the study's own; `shaping` turns the reward into what the
    paper's released code makes of R̂.
    """
    config, seed = rlhf or bench.config.rlhf, bench.config.seeds.alignment

    def compute(folder: Path) -> None:
        if isinstance(config, TiltedConfig | BestOfNConfig):
            _choose(config, reference, reward, folder)
        else:
            stopped = _train(bench, config, comments, reference, reward, shaping, folder)
            write_summary(folder, {"stopped": stopped} if stopped else {})

    artifact = bench.do(
        "align",
        VERSION,
        compute,
        config={
            "rlhf": asdict(config),
            "max_new_tokens": bench.config.dataset.max_new_tokens,
            **({"shaping": True} if shaping else {}),
        },
        inputs={"comments": comments, "reference": reference, "reward": reward},
        seed=seed,
        label=label,
    )
    stopped = policies.stop_reason(artifact.path)
    if stopped:
        bench.tracker.warn(
            f"{label} stopped early at {stopped}; what follows describes that policy"
        )
    return artifact


def take(bench: Bench) -> Artifact | None:
    """The same artifact, of a checkpoint that somebody else has aligned; None without one."""
    config = bench.config.rlhf
    assert isinstance(config, CheckpointRLHF)
    if config.path is None:
        return None
    source = hub.resolve(config.path, config.revision, "model")

    def compute(folder: Path) -> None:
        language_model.load(source.folder()).save(folder)
        policies.save_policy(folder, "network")

    identity = source.identity
    return bench.do("take", 1, compute, config=identity, inputs={}, seed=0, label="align")


def _choose(
    config: TiltedConfig | BestOfNConfig, reference: Artifact, reward: Artifact, folder: Path
) -> None:
    """The policy is its parts; it is drawn from when completions are asked for."""
    shutil.copytree(reference.path, folder / "reference")
    shutil.copytree(reward.path, folder / "reward")
    facts = {"beta": config.kl_coef, "candidates": config.candidates}
    kind = "tilted" if isinstance(config, TiltedConfig) else "best_of_n"
    policies.save_policy(folder, kind, **facts)


def _train(
    bench: Bench,
    config: RLHFConfig,
    comments: Artifact,
    reference: Artifact,
    reward: Artifact,
    shaping: bool,
    folder: Path,
) -> str | None:
    """Train a network; returns why that ended early, if it did."""
    seed, trainer = bench.config.seeds.alignment, bench.config.trainer
    table = Comments.load(comments.path)
    driver: Scorer = load_normalized(reward.path, trainer.score_batch_size, bench.device)
    if shaping:
        driver = ShapedReward(driver)
    prompts, max_new_tokens = table.split("train").prompts, bench.config.dataset.max_new_tokens
    order = torch.Generator().manual_seed(derive(seed, "prompts"))
    if isinstance(config, PPOConfig):
        return ppo.align(
            config,
            reference.path,
            driver,
            prompts,
            max_new_tokens,
            order=order,
            generator=bench.generator(seed, "ppo"),
            trainer=trainer,
            folder=folder,
        )
    if isinstance(config, RaftConfig):
        raft.align(
            config,
            reference.path,
            driver,
            prompts,
            table.split("validation").prompts,
            max_new_tokens,
            order=order,
            generator=bench.generator(seed, "raft"),
            trainer=trainer,
            folder=folder,
        )
        return None
    assert isinstance(config, GroupConfig | DPOConfig)
    from irl_exp.modules import trl_trainers  # half a second, which other ways need not wait for

    trl_trainers.align(
        config,
        reference.path,
        driver,
        prompts,
        max_new_tokens,
        generator=bench.generator(seed, config.name),
        trainer=trainer,
        folder=folder,
    )
    return None
