"""Rewards: texts in, one number a text out, higher = better = less toxic.

Every reward reads (prompt, completion) as text and tokenizes with its own tokenizer, so policies
and rewards never share token ids. A saved reward emits raw scores; `normalized` is for the places
where a reward drives a policy.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from irl_exp.config import InputError

REWARD_FILE = "reward.json"


class Scorer(Protocol):
    """What a policy is driven by: texts in, float32 [n] out."""

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor: ...


class Reward(Scorer, Protocol):
    """A scorer that can be saved.

    `kind` names the class in a saved folder; `save` writes what the class needs to be loaded again
    and returns the few facts that belong in reward.json.
    """

    kind: ClassVar[str]

    def save(self, folder: Path) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Normalizer:
    """Affine: mean 0, standard deviation 1 on reference completions of calibration prompts."""

    mean: float
    std: float

    @classmethod
    def fit(cls, scores: Tensor, texts: str = "the reference's completions") -> "Normalizer":
        """From raw scores [n] of `texts`; raises InputError if they are constant."""
        std = float(scores.std(correction=0))
        if not std > 0:
            raise InputError(f"the reward is constant on {texts}: nothing to optimize")
        return cls(float(scores.mean()), std)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Normalizer":
        """As reward.json has it; one of DAMAGED where it has not."""
        found = cls(number(saved["mean"]), number(saved["std"]))
        if not found.std > 0:
            raise ValueError("a standard deviation that is not positive")
        return found

    def __call__(self, scores: Tensor) -> Tensor:
        return (scores - self.mean) / self.std


# What a file raises, where it is read, that does not hold what it should.
DAMAGED = (KeyError, TypeError, ValueError, ArithmeticError)


def number(value: Any) -> float:
    """A finite number of a file; one of DAMAGED where it is none."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return float(value)


@dataclass(frozen=True)
class NormalizedReward:
    """A reward in the unit in which beta is measured; only raw rewards are saved."""

    raw: Reward
    normalizer: Normalizer

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return self.normalizer(self.raw.score(prompts, completions))


# --- saved rewards ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What stands beside the weights of a saved reward: reward.json."""

    kind: str
    normalizer: Normalizer
    origin: dict[str, Any]
    threshold: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        text = {
            "kind": self.kind,
            "sign": "higher = better = less toxic",
            "normalizer": {"mean": self.normalizer.mean, "std": self.normalizer.std},
            "threshold": self.threshold,
            "origin": self.origin,
            "extra": self.extra,
        }
        # Whole or not there: it comes last, and says that the folder is a reward.
        part = folder / f"{REWARD_FILE}.part"
        part.write_text(json.dumps(text, indent=2) + "\n")
        os.replace(part, folder / REWARD_FILE)

    @classmethod
    def load(cls, folder: Path) -> "Facts":
        path = folder / REWARD_FILE
        if not path.is_file():
            raise InputError(f"{folder}: expected a saved reward (a folder with {REWARD_FILE})")
        try:
            text = json.loads(path.read_text())
            threshold = text["threshold"]
            return cls(
                kind=text["kind"],
                normalizer=Normalizer.of(text["normalizer"]),
                origin=dict(text["origin"]),
                threshold=threshold if threshold is None else number(threshold),
                extra=dict(text["extra"]),
            )
        except (*DAMAGED, RecursionError) as error:
            raise InputError(f"{path}: not as it was saved ({error!r})") from error
