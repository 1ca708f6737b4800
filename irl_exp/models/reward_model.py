"""Rewards: texts in, one number a text out, higher = better = less toxic.

Every reward reads (prompt, completion) as text and tokenizes with its own tokenizer, so policies
and rewards never share token ids. A saved reward emits raw scores; `normalized` is for the places
where a reward drives a policy.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from irl_exp.config import InputError
from irl_exp.data import synthetic
from irl_exp.models import language_model

REWARD_FILE = "reward.json"
# Where an ensemble keeps its members, as folders 0, 1, ...
MEMBERS_FOLDER = "members"
# Texts of a training batch that pass the network at once, in the order of their lengths.
TRAINING_ROWS = 64


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


@dataclass(frozen=True)
class NetworkReward:
    """A sequence classifier with one output, read at the last token that is not padding.

    Texts longer than the context lose their beginning: what was completed is at the end.
    """

    kind: ClassVar[str] = "network"
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 256

    def save(self, folder: Path) -> dict[str, float]:
        """A plain Hugging Face folder: AutoModelForSequenceClassification loads it."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return {}

    @torch.no_grad()
    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        rows = encode(self.tokenizer, self.network, prompts, completions)
        scores = self._in_passes(rows, self.batch_size).cpu()
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).sum())
            raise InputError(
                f"the reward {self.network.name_or_path} gave {bad} of {len(rows)} texts "
                "a score that is not finite"
            )
        return scores

    @torch.no_grad()
    def features(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """What the output layer reads, float32 [n, d]: the body's state at the last real token.

        For decoders, whose scores are `features @ weight`; on the CPU.
        """

        def last_state(ids: Tensor, mask: Tensor) -> Tensor:
            states = self.network.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            return states[torch.arange(len(ids), device=ids.device), mask.sum(-1) - 1]

        rows = encode(self.tokenizer, self.network, prompts, completions)
        return self._in_passes(rows, self.batch_size, last_state).cpu()

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Scores of token rows, float32 [n], with gradient."""
        return self._in_passes(rows, TRAINING_ROWS)

    def _scores(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.network(input_ids=ids, attention_mask=mask).logits[:, 0]

    def _in_passes(
        self,
        rows: Sequence[Sequence[int]],
        size: int,
        read: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """What `read` (by default the scores) makes of (ids, mask). Rows of like length pass the
        network together, so that little of its work is on padding; none depends on its neighbours.
        """
        read = read or self._scores
        device = next(self.network.parameters()).device
        order = torch.tensor([len(row) for row in rows]).argsort(stable=True)
        found = []
        for chosen in order.split(size):
            some = [rows[i] for i in chosen.tolist()]
            ids, mask = language_model.pad(some, self.tokenizer.pad_token_id, side="right")
            found.append(read(ids.to(device), mask.to(device)).float())
        return torch.cat(found).index_select(0, order.argsort().to(device))


def encode(
    tokenizer: PreTrainedTokenizerBase,
    network: PreTrainedModel,
    prompts: Sequence[str],
    completions: Sequence[str],
) -> list[list[int]]:
    """Token rows of prompt + completion and what the tokenizer adds; never empty or too long."""
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    tokenizer.truncation_side = "left"
    # A text that spells the name of a special token is still only text.
    rows = tokenizer(
        texts, truncation=True, max_length=context(tokenizer, network), split_special_tokens=True
    )
    return [row or [tokenizer.eos_token_id] for row in rows["input_ids"]]


def context(tokenizer: PreTrainedTokenizerBase, network: PreTrainedModel) -> int:
    """Longest sequence, in tokens, that the network can read."""
    limit = getattr(network.config, "max_position_embeddings", None) or tokenizer.model_max_length
    # RoBERTa counts its positions from pad_token_id + 1, so two of them hold no token.
    if getattr(network.config, "model_type", "") in {"roberta", "xlm-roberta", "camembert"}:
        limit -= tokenizer.pad_token_id + 1
    return min(int(limit), 2**31 - 1)  # a tokenizer that knows no limit says 1e30


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
    return lambda prompts, completions, **kwargs: reward.score(prompts, completions).tolist()


# --- networks ---------------------------------------------------------------------------------


def from_body(folder: Path, generator: torch.Generator, batch_size: int) -> NetworkReward:
    """The body of the language model in `folder` with a new linear head on the last real token."""
    model = language_model.load(folder)
    network = _quietly(
        AutoModelForSequenceClassification.from_pretrained,
        folder,
        num_labels=1,
        dtype=torch.float32,
    )
    language_model.ensure_pad_token(model.tokenizer, network)
    head = output_layer(network, folder)
    # Unit-variance features (the body ends in a layer norm) give scores of unit order.
    with torch.no_grad():
        head.weight.normal_(0.0, head.in_features**-0.5, generator=generator)
    language_model.use_eager_attention(network)
    model.tokenizer.padding_side = "right"
    return NetworkReward(network, model.tokenizer, batch_size)


def from_classifier(folder: Path, toxic_label: str, batch_size: int) -> NetworkReward:
    """The text classifier in a folder as a reward with one output.

    A head of mutually exclusive labels (softmax): mean of the other logits minus the toxic logit,
    for two labels the log-odds of "not toxic". A head of one or of independent labels (sigmoid):
    minus the toxic logit, as in Joselowitz et al. 2025. Both are linear in the logits, so they
    fold into the output layer exactly. Raises InputError if `toxic_label` is not in the model's
    id2label.
    """
    network, tokenizer = language_model.read_checkpoint(
        AutoModelForSequenceClassification, folder, "a text classifier with its tokenizer"
    )
    names = network.config.id2label or {}
    labels = {str(name).lower(): int(index) for index, name in names.items()}
    if toxic_label.lower() not in labels:
        known = ", ".join(map(str, names.values()))
        raise InputError(
            f"ground_truth.toxic_label={toxic_label}: {folder} has the labels {known}; "
            "expected one of them"
        )
    toxic = labels[toxic_label.lower()]
    weights = torch.zeros(len(labels))
    if len(labels) > 1 and network.config.problem_type != "multi_label_classification":
        weights += 1.0 / (len(labels) - 1)
    weights[toxic] = -1.0
    language_model.ensure_pad_token(tokenizer, network)
    _fold(network, output_layer(network, folder), weights)
    return NetworkReward(network.eval(), tokenizer, batch_size)


def _fold(network: PreTrainedModel, layer: nn.Linear, weights: Tensor) -> None:
    """Replace the output layer by the one combination `weights` of its outputs."""
    layer.weight = nn.Parameter(weights.unsqueeze(0) @ layer.weight.data)
    if layer.bias is not None:
        layer.bias = nn.Parameter((weights @ layer.bias.data).unsqueeze(0))
    layer.out_features = 1
    network.config.num_labels = 1
    network.num_labels = 1  # type: ignore[assignment]
    network.config.problem_type = "regression"


def output_layer(network: PreTrainedModel, folder: Path) -> nn.Linear:
    """The last linear layer of a classification head, by the names that transformers gives it."""
    for name in ("score", "classifier.out_proj", "classifier", "classification_head.out_proj"):
        try:
            layer = network.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(layer, nn.Linear):
            return layer
    raise InputError(f"{folder}: expected a classification head that ends in one linear layer")


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


def load_network_reward(folder: Path, batch_size: int = 256) -> NetworkReward:
    """A folder with one output: saved by us, or by anyone who keeps the sign."""
    network, tokenizer = language_model.read_checkpoint(
        AutoModelForSequenceClassification, folder, "a saved reward"
    )
    if network.config.num_labels != 1:
        raise InputError(f"{folder}: expected one output, found {network.config.num_labels}")
    language_model.ensure_pad_token(tokenizer, network)
    language_model.use_eager_attention(network)
    return NetworkReward(network.eval(), tokenizer, batch_size)


def _quietly(load: Any, *args: Any, **kwargs: Any) -> Any:
    """from_pretrained warns that the head is new: here it is meant to be."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng():
            return load(*args, **kwargs)
    finally:
        logging.set_verbosity(before)
