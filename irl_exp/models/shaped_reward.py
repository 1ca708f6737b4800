"""R̂ as the paper's released code hands it to RLHF. Not monotone: the best text is punished."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from irl_exp.models.reward_model import Scorer

# Texts that are scored together there.
CHUNK = 4


def shaped(scores: Tensor) -> Tensor:
    """Scores [n] brought to -1 ... 1 among themselves, then times 1.5 below 0 and times -0.5 above.

    0 is best, the least score gives -1.5 and the highest -0.5; equal scores, one alone among them,
    give -1.5.
    """
    low, high = scores.min(), scores.max()
    spread = torch.where(high > low, high - low, 1.0)
    x = 2 * (scores - low) / spread - 1
    return torch.where(x < 0, 1.5 * x, -0.5 * x)


@dataclass(frozen=True)
class ShapedReward:
    """Another reward, shaped among each four texts in the order in which they come."""

    base: Scorer

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.cat([*map(shaped, self.base.score(prompts, completions).split(CHUNK))])
