"""scores: what a reward gives to the texts that `evaluate` asks about, once for each reward."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from irl_exp.models.network_reward import NetworkReward, States
from irl_exp.models.saved_rewards import load_reward
from irl_exp.steps.bench import Bench
from irl_exp.steps.features import Texts
from irl_exp.store import Artifact

VERSION = 1
SCORES_FILE = "scores.safetensors"

Scores = Mapping[str, NDArray[np.float32]]


def scores(
    bench: Bench,
    name: str,
    reward: Artifact,
    texts: Mapping[str, Texts],
    inputs: Mapping[str, Artifact],
    states: Artifact | None = None,
) -> Scores:
    """Raw scores float32 [n] of each set of texts, which `inputs` and the sets' names decide.

    `states` are of the reference's body, for a reward that has it unchanged.
    """

    def compute(folder: Path) -> None:
        scorer = load_reward(reward.path, bench.config.trainer.score_batch_size, bench.device)
        if states and isinstance(scorer, NetworkReward):
            scorer = replace(scorer, known=States.load(states.path))
        found = {where: scorer.score(*some).numpy() for where, some in texts.items()}
        save_file(found, folder / SCORES_FILE)

    artifact = bench.do(
        "scores",
        VERSION,
        compute,
        config={"of": sorted(texts)},
        inputs={"reward": reward, **inputs},
        seed=0,
        label=f"scores_{name.replace('/', '_')}",
    )
    return load_file(artifact.path / SCORES_FILE)
