"""Rewards: texts in, one number a text out, higher = better = less toxic.

Every reward reads (prompt, completion) as text and tokenizes with its own tokenizer, so policies
and rewards never share token ids. A saved reward emits raw scores; `normalized` is for the places
where a reward drives a policy.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from irl_exp.config import InputError
from irl_exp.data import synthetic
from irl_exp.models import language_model
from irl_exp.models.network_reward import NetworkReward, context, load_network_reward

REWARD_FILE = "reward.json"
# Where an ensemble keeps its members, as folders 0, 1, ...
MEMBERS_FOLDER = "members"


class Scorer(Protocol):
    """What a policy is driven by: texts in, float32 [n] out."""

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor: ...


class Reward(Scorer, Protocol):
    """A scorer that can be saved.

    `kind` names the class in a saved folder; `save` writes what the class needs to be loaded again
    and returns the few numbers that belong in reward.json.
    """

    kind: ClassVar[str]

    def save(self, folder: Path) -> dict[str, float]: ...


def truncated(reward: Reward, texts: Sequence[str]) -> int:
    """How many of the texts are longer than the reward can read: it sees their end alone."""
    if isinstance(reward, EnsembleReward):
        reward = reward.rewards[0].raw  # all are read by networks of one kind
    if not isinstance(reward, NetworkReward):
        return 0
    limit = context(reward.tokenizer, reward.network)
    rows = reward.tokenizer(list(texts), split_special_tokens=True, verbose=False)["input_ids"]
    return sum(len(row) > limit for row in rows)


@dataclass(frozen=True)
class ClosedFormReward:
    """The embedded grammar's own reward."""

    kind: ClassVar[str] = "closed_form"

    def save(self, folder: Path) -> dict[str, float]:
        return {}

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        texts = [p + c for p, c in zip(prompts, completions, strict=True)]
        return torch.tensor([synthetic.reward(text) for text in texts], dtype=torch.float32)


@dataclass(frozen=True)
class LengthReward:
    """Control: the number of words of the completion, counted for or against it (`sign`)."""

    kind: ClassVar[str] = "length"
    sign: float

    def save(self, folder: Path) -> dict[str, float]:
        return {"sign": self.sign}

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([self.sign * len(text.split()) for text in completions])


@dataclass(frozen=True)
class LogRatioReward:
    """beta * (log pi_E(y|x) - log pi_ref(y|x)): R* up to a constant per prompt, if RLHF converged.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 5 without its partition function.
    """

    kind: ClassVar[str] = "log_ratio"
    aligned: language_model.LanguageModel
    reference: language_model.LanguageModel
    beta: float
    max_new_tokens: int
    batch_size: int = 256

    def save(self, folder: Path) -> dict[str, float]:
        self.aligned.save(folder / "aligned")
        self.reference.save(folder / "reference")
        return {"beta": self.beta, "max_new_tokens": self.max_new_tokens}

    @torch.no_grad()
    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        scores = []
        for prompt, completion in _batches(self, prompts, completions):
            ours, theirs = (
                language_model.completion_log_probs(model.network, prompt, completion).sum(-1)
                for model in (self.aligned, self.reference)
            )
            scores.append((self.beta * (ours - theirs)).cpu())
        return torch.cat(scores)


@dataclass(frozen=True)
class LikelihoodReward:
    """Control: mean log pi_ref of a completion's tokens, in nats: minus its log perplexity."""

    kind: ClassVar[str] = "likelihood"
    reference: language_model.LanguageModel
    max_new_tokens: int
    batch_size: int = 256

    def save(self, folder: Path) -> dict[str, float]:
        self.reference.save(folder / "reference")
        return {"max_new_tokens": self.max_new_tokens}

    @torch.no_grad()
    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        scores = []
        for prompt, completion in _batches(self, prompts, completions):
            network = self.reference.network
            log_probs = language_model.completion_log_probs(network, prompt, completion)
            scores.append((log_probs.sum(-1) / completion[1].sum(-1)).cpu())
        return torch.cat(scores)


def _batches(
    reward: LogRatioReward | LikelihoodReward, prompts: Sequence[str], completions: Sequence[str]
) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Encoded prompts and completions, ids and mask each, on the device of the reference."""
    model, room = reward.reference, reward.max_new_tokens
    device = next(model.network.parameters()).device
    for start in range(0, len(prompts), reward.batch_size):
        span = slice(start, start + reward.batch_size)
        prompt = language_model.encode_prompts(model, prompts[span], room)
        completion = language_model.encode_completions(model, completions[span], room)
        yield (
            (prompt[0].to(device), prompt[1].to(device)),
            (completion[0].to(device), completion[1].to(device)),
        )


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

    def __call__(self, scores: Tensor) -> Tensor:
        return (scores - self.mean) / self.std


@dataclass(frozen=True)
class NormalizedReward:
    """A reward in the unit in which beta is measured; only raw rewards are saved."""

    raw: Reward
    normalizer: Normalizer

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return self.normalizer(self.raw.score(prompts, completions))


@dataclass(frozen=True)
class EnsembleReward:
    """The mean of several rewards, each brought to a scale that is common to them all."""

    kind: ClassVar[str] = "ensemble"
    rewards: Sequence[NormalizedReward]

    def save(self, folder: Path) -> dict[str, float]:
        """Each member as a reward folder of its own, whose normalizer is its part of the scale."""
        for i, member in enumerate(self.rewards):
            place = folder / MEMBERS_FOLDER / str(i)
            place.mkdir(parents=True, exist_ok=True)
            extra = member.raw.save(place)
            Facts(member.raw.kind, member.normalizer, {"member": i}, extra=extra).save(place)
        return {"members": len(self.rewards)}

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return self.members(prompts, completions).mean(0)

    def members(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """What each of the m members gives to each text, on the common scale: float32 [m, n]."""
        return torch.stack([member.score(prompts, completions) for member in self.rewards])


def as_reward_func(reward: Scorer) -> Any:
    """The same reward as TRL's trainers call it: reward_func(prompts, completions, **kwargs)."""

    def score(prompts: Sequence[str], completions: Sequence[str], **kwargs: Any) -> list[float]:
        return reward.score(prompts, completions).tolist()

    return score


# --- saved rewards ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What stands beside the weights of a saved reward: reward.json."""

    kind: str
    normalizer: Normalizer
    origin: dict[str, Any]
    threshold: float | None = None
    extra: dict[str, float] = field(default_factory=dict)

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
            return cls(
                kind=text["kind"],
                normalizer=Normalizer(**text["normalizer"]),
                origin=text["origin"],
                threshold=text["threshold"],
                extra=text["extra"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not as it was saved ({error!r})") from error


def load_reward(folder: Path, batch_size: int = 256, device: str = "cpu") -> Reward:
    """The raw reward saved in `folder`."""
    facts = Facts.load(folder)
    if facts.kind == NetworkReward.kind:
        reward = load_network_reward(folder, batch_size)
        reward.network.to(device)  # type: ignore[arg-type]
        return reward
    if facts.kind == ClosedFormReward.kind:
        return ClosedFormReward()
    if facts.kind == LengthReward.kind:
        return LengthReward(facts.extra["sign"])
    if facts.kind == LogRatioReward.kind:
        aligned, reference = (
            language_model.load(folder / name) for name in ("aligned", "reference")
        )
        for model in (aligned, reference):
            model.network.to(device)  # type: ignore[arg-type]
        return LogRatioReward(
            aligned, reference, facts.extra["beta"], int(facts.extra["max_new_tokens"]), batch_size
        )
    if facts.kind == LikelihoodReward.kind:
        model = language_model.load(folder / "reference")
        model.network.to(device)  # type: ignore[arg-type]
        return LikelihoodReward(model, int(facts.extra["max_new_tokens"]), batch_size)
    if facts.kind == EnsembleReward.kind:
        places = (folder / MEMBERS_FOLDER / str(i) for i in range(int(facts.extra["members"])))
        return EnsembleReward([load_normalized(place, batch_size, device) for place in places])
    raise InputError(f"{folder}: unknown kind of reward '{facts.kind}'")


def load_normalized(folder: Path, batch_size: int = 256, device: str = "cpu") -> NormalizedReward:
    """The reward saved in `folder`, in the unit in which it drives a policy."""
    return NormalizedReward(load_reward(folder, batch_size, device), Facts.load(folder).normalizer)
