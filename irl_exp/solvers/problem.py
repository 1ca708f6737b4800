"""What a solver is given."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from irl_exp.config import SolverConfig, TrainerConfig
from irl_exp.data.pairs import Demonstrations
from irl_exp.models import network_reward
from irl_exp.models.network_reward import NetworkReward, States


@dataclass(frozen=True)
class Problem:
    """Demonstrations, and the folders of what they came from.

    `reference` and `aligned` are policy folders (None: nobody can ask the aligned one, its texts
    are all there is); `truth` is R*'s folder, for the oracle alone (None: nobody knows it).
    `kl_coef` is the beta of RLHF. Curves are written into `folder`. `initialization` and `order`
    are seeds: of a new head's weights, and of all else that is drawn. `traced` are texts whose
    scores are wanted after each epoch (modules/trace.py). `known` is what the reference's body
    makes of texts (steps/features.py), for a solver that leaves it as it is.
    """

    config: SolverConfig
    demonstrations: Demonstrations
    reference: Path
    aligned: Path | None
    truth: Path | None
    kl_coef: float
    max_new_tokens: int
    trainer: TrainerConfig
    device: str
    initialization: int
    order: int
    folder: Path
    traced: pd.DataFrame | None = None
    known: States | None = None

    def new_reward(self) -> NetworkReward:
        """The reference's body with a fresh linear head."""
        batch = self.trainer.score_batch_size
        return network_reward.from_body(self.reference, self.generator("head"), batch)

    def new_head(self) -> NetworkReward:
        """The same for who leaves the body as it is: known texts do not pass it."""
        return replace(self.new_reward(), known=self.known)

    def generator(self, purpose: str) -> torch.Generator:
        """A generator of its own for each purpose."""
        seed = self.initialization if purpose in ("head", "lora") else self.order
        return torch.Generator().manual_seed(_derive(seed, purpose))

    def member(self, name: str) -> "Problem":
        """The same problem, to be solved from seeds of its own."""
        first, second = (_derive(seed, name) for seed in (self.initialization, self.order))
        return replace(self, initialization=first, order=second)


def _derive(seed: int, purpose: str) -> int:
    return zlib.crc32(f"{purpose}/{seed}".encode())
