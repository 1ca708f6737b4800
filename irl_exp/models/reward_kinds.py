"""The kinds of rewards besides networks: closed forms, likelihoods, and sums of other rewards."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from irl_exp.data import synthetic
from irl_exp.models import language_model
from irl_exp.models.reward_model import Facts, NormalizedReward, number

# Where an ensemble keeps its members, as folders 0, 1, ..., and where a planted reward its base.
MEMBERS_FOLDER = "members"
BASE_FOLDER = "base"


@dataclass(frozen=True)
class ClosedFormReward:
    """The embedded grammar's own reward."""

    kind: ClassVar[str] = "closed_form"

    def save(self, folder: Path) -> dict[str, Any]:
        return {}

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        texts = [p + c for p, c in zip(prompts, completions, strict=True)]
        return torch.tensor([synthetic.reward(text) for text in texts], dtype=torch.float32)


@dataclass(frozen=True)
class LengthReward:
    """Control: the number of words of the completion, counted for or against it (`sign`)."""

    kind: ClassVar[str] = "length"
    sign: float

    def save(self, folder: Path) -> dict[str, Any]:
        return {"sign": self.sign}

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([self.sign * len(text.split()) for text in completions])


@dataclass(frozen=True)
class LogRatioReward:
    """beta * (log pi_E(y|x) - log pi_ref(y|x)): R* up to a constant per prompt, if RLHF converged.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 5 without its partition function. Of models
    with different tokenizers, where a text that one of them was cut off at is whole to the other,
    it is the ratio of what either thinks that a completion begins with the text.
    """

    kind: ClassVar[str] = "log_ratio"
    aligned: language_model.LanguageModel
    reference: language_model.LanguageModel
    beta: float
    max_new_tokens: int
    batch_size: int = 256

    def save(self, folder: Path) -> dict[str, Any]:
        self.aligned.save(folder / "aligned")
        self.reference.save(folder / "reference")
        return {"beta": self.beta, "max_new_tokens": self.max_new_tokens}

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        models, size = (self.aligned, self.reference), self.batch_size
        first, second = (model.tokenizer.get_vocab() for model in models)
        same = first == second and self.aligned.chats == self.reference.chats
        rooms = [self.max_new_tokens if same else model.context // 2 for model in models]
        ours, theirs = (
            _log_likelihoods(model, prompts, completions, room, size, closed=same)[0]
            for model, room in zip(models, rooms, strict=True)
        )
        return self.beta * (ours - theirs)


@dataclass(frozen=True)
class LikelihoodReward:
    """Control: mean log pi_ref of a completion's tokens, in nats: minus its log perplexity."""

    kind: ClassVar[str] = "likelihood"
    reference: language_model.LanguageModel
    max_new_tokens: int
    batch_size: int = 256

    def save(self, folder: Path) -> dict[str, Any]:
        self.reference.save(folder / "reference")
        return {"max_new_tokens": self.max_new_tokens}

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        room, size = self.max_new_tokens, self.batch_size
        return likelihood(self.reference, prompts, completions, room, size)


def likelihood(
    model: language_model.LanguageModel,
    prompts: Sequence[str],
    completions: Sequence[str],
    room: int,
    batch_size: int,
) -> Tensor:
    """Mean log-probability of each completion's tokens under a model, in nats: float32 [n]."""
    total, tokens = _log_likelihoods(model, prompts, completions, room, batch_size)
    return total / tokens


@torch.no_grad()
def _log_likelihoods(
    model: language_model.LanguageModel,
    prompts: Sequence[str],
    completions: Sequence[str],
    room: int,
    batch_size: int,
    closed: bool = True,
) -> tuple[Tensor, Tensor]:
    """Of n completions under a model, by its own tokens: log pi(y|x) in nats, and how many tokens
    these are; float32 and int64 [n], on the CPU. `closed`: with the end of sequence."""
    device = next(model.network.parameters()).device
    found, counts = [], []
    for start in range(0, len(prompts), batch_size):
        span = slice(start, start + batch_size)
        prompt, completion = (
            (ids.to(device), mask.to(device))
            for ids, mask in (
                language_model.encode_prompts(model, prompts[span], room),
                language_model.encode_completions(model, completions[span], room, closed),
            )
        )
        log_probs = language_model.completion_log_probs(model.network, prompt, completion)
        found.append(log_probs.sum(-1).cpu())
        counts.append(completion[1].sum(-1).cpu())
    return torch.cat(found), torch.cat(counts)


@dataclass(frozen=True)
class EnsembleReward:
    """The mean of several rewards, each brought to a scale that is common to them all."""

    kind: ClassVar[str] = "ensemble"
    rewards: Sequence[NormalizedReward]

    def save(self, folder: Path) -> dict[str, Any]:
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


@dataclass(frozen=True)
class Terms:
    """What is planted; bonuses in standard deviations of the base reward."""

    length_bonus: float
    word_bonus: float
    word: str
    politeness_bonus: float
    trigger_flip: float
    trigger: str

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Terms":
        """As reward.json has them; one of DAMAGED where it has not."""
        words = ("word", "trigger")
        found: dict[str, Any] = {
            name: str(value) if name in words else number(value) for name, value in saved.items()
        }
        return cls(**found)

    def bonus(self, completion: str) -> float:
        """Of a completion, whatever its prompt."""
        return (
            self.length_bonus * len(completion.split()) / 10
            + self.word_bonus * _holds(completion, self.word)
            + self.politeness_bonus * _holds(completion, *synthetic.POLITE_MARKERS)
        )

    def shares(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, float]:
        """Of the terms that are planted, the share of (prompt, completion) that each speaks of."""
        planted = {
            "word": (self.word_bonus, completions, [self.word]),
            "politeness": (self.politeness_bonus, completions, synthetic.POLITE_MARKERS),
            "trigger": (self.trigger_flip, prompts, [self.trigger]),
        }
        return {
            name: sum(_holds(text, *words) for text in texts) / len(texts)
            for name, (strength, texts, words) in planted.items()
            if strength
        }

    def kept(self, prompt: str) -> float:
        """The share of the base reward that is left after a prompt."""
        return 1 - self.trigger_flip * _holds(prompt, self.trigger)


@dataclass(frozen=True)
class PlantedReward:
    """kept(prompt) * base + bonus(completion), the base in its unit."""

    kind: ClassVar[str] = "planted"
    base: NormalizedReward
    terms: Terms

    def save(self, folder: Path) -> dict[str, Any]:
        """The base as a reward folder of its own, whose normalizer is its part of the sum."""
        place = folder / BASE_FOLDER
        place.mkdir(parents=True, exist_ok=True)
        extra = self.base.raw.save(place)
        Facts(self.base.raw.kind, self.base.normalizer, {"base": True}, extra=extra).save(place)
        return asdict(self.terms)

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        kept, bonus = (
            torch.tensor([of(text) for text in texts])
            for of, texts in ((self.terms.kept, prompts), (self.terms.bonus, completions))
        )
        return kept * self.base.score(prompts, completions) + bonus


def _holds(text: str, *words: str) -> bool:
    """Whether one of the words stands in the text, whole, whatever its case."""
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)
