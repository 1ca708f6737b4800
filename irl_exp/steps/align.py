"""align: RLHF of the reference; with R* it gives the expert, with R̂ the realigned policy."""

import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from irl_exp.config import PPOConfig, TiltedConfig
from irl_exp.data.comments import Comments
from irl_exp.models import generation
from irl_exp.models.reward_model import load_normalized
from irl_exp.modules import ppo
from irl_exp.steps.bench import Bench, derive, write_summary
from irl_exp.store import Artifact

VERSION = 4


def align(
    bench: Bench, comments: Artifact, reference: Artifact, reward: Artifact, label: str = "align"
) -> Artifact:
    """Artifact: a policy folder, and why training stopped early if it did."""
    config, seed = bench.config.rlhf, bench.config.seeds.alignment

    def compute(folder: Path) -> None:
        if isinstance(config, TiltedConfig):
            _tilt(config, reference, reward, folder)
        else:
            assert isinstance(config, PPOConfig)
            _ppo(bench, config, comments, reference, reward, folder, seed)

    artifact = bench.do(
        "align",
        VERSION,
        compute,
        config={"rlhf": asdict(config), "max_new_tokens": bench.config.dataset.max_new_tokens},
        inputs={"comments": comments, "reference": reference, "reward": reward},
        seed=seed,
        label=label,
    )
    stopped = generation.stop_reason(artifact.path)
    if stopped:
        bench.tracker.warn(
            f"{label} stopped early at {stopped}; what follows describes that policy"
        )
    return artifact


def _tilt(config: TiltedConfig, reference: Artifact, reward: Artifact, folder: Path) -> None:
    """The tilted policy is its parts; it is drawn from when completions are asked for."""
    shutil.copytree(reference.path, folder / "reference")
    shutil.copytree(reward.path, folder / "reward")
    generation.save_policy(folder, "tilted", beta=config.kl_coef, candidates=config.candidates)


def _ppo(
    bench: Bench,
    config: PPOConfig,
    comments: Artifact,
    reference: Artifact,
    reward: Artifact,
    folder: Path,
    seed: int,
) -> None:
    stopped = ppo.align(
        config,
        reference.path,
        load_normalized(reward.path, bench.config.trainer.score_batch_size, bench.device),
        Comments.load(comments.path).split("train").prompts,
        bench.config.dataset.max_new_tokens,
        order=torch.Generator().manual_seed(derive(seed, "prompts")),
        generator=bench.generator(seed, "ppo"),
        trainer=bench.config.trainer,
        folder=folder,
    )
    write_summary(folder, {"stopped": stopped} if stopped else {})
