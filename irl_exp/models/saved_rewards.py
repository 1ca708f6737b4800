"""Rewards of any kind, out of the folders that they were saved in."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from irl_exp.config import InputError
from irl_exp.models import language_model
from irl_exp.models.network_reward import NetworkReward, context, load_network_reward
from irl_exp.models.reward_kinds import (
    BASE_FOLDER,
    MEMBERS_FOLDER,
    ClosedFormReward,
    EnsembleReward,
    LengthReward,
    LikelihoodReward,
    LogRatioReward,
    PlantedReward,
    Terms,
)
from irl_exp.models.reward_model import (
    DAMAGED,
    REWARD_FILE,
    Facts,
    NormalizedReward,
    Reward,
    number,
)
from irl_exp.store import require_sound


def load_reward(folder: Path, batch_size: int = 256, device: str = "cpu") -> Reward:
    """The raw reward saved in `folder`; InputError where it is none."""
    facts = Facts.load(folder)
    try:
        return _load(folder, facts, batch_size, device)
    except (*DAMAGED, RecursionError) as error:  # of `extra`; of a folder that is inside itself
        if facts.kind == NetworkReward.kind:
            raise  # nothing of `extra` is read
        raise InputError(f"{folder / REWARD_FILE}: not as it was saved ({error!r})") from error


def _load(folder: Path, facts: Facts, batch_size: int, device: str) -> Reward:
    if facts.kind == NetworkReward.kind:
        reward = load_network_reward(folder, batch_size)
        reward.network.to(device)  # type: ignore[arg-type]
        return reward
    if facts.kind == ClosedFormReward.kind:
        return ClosedFormReward()
    if facts.kind == LengthReward.kind:
        return LengthReward(number(facts.extra["sign"]))
    if facts.kind == LogRatioReward.kind:
        aligned, reference = (
            language_model.load(folder / name) for name in ("aligned", "reference")
        )
        for model in (aligned, reference):
            model.network.to(device)  # type: ignore[arg-type]
        beta, limit = number(facts.extra["beta"]), int(facts.extra["max_new_tokens"])
        return LogRatioReward(aligned, reference, beta, limit, batch_size)
    if facts.kind == LikelihoodReward.kind:
        model = language_model.load(folder / "reference")
        model.network.to(device)  # type: ignore[arg-type]
        return LikelihoodReward(model, int(facts.extra["max_new_tokens"]), batch_size)
    if facts.kind == EnsembleReward.kind:
        members = range(int(facts.extra["members"]))
        if not members:
            raise ValueError("no members")
        places = (folder / MEMBERS_FOLDER / str(i) for i in members)
        return EnsembleReward([load_normalized(place, batch_size, device) for place in places])
    if facts.kind == PlantedReward.kind:
        base = load_normalized(folder / BASE_FOLDER, batch_size, device)
        return PlantedReward(base, Terms.of(facts.extra))
    raise InputError(
        f"{folder}: unknown kind of reward '{facts.kind}'; expected one that irl-exp saves"
    )


def load_any(folder: Path, batch_size: int = 256, device: str = "cpu") -> Reward:
    """A reward of ours by its reward.json, or anybody's network with one output.

    Raises:
        InputError: there is none, or it is not as it was written.
    """
    require_sound(folder)
    if (folder / REWARD_FILE).is_file():
        return load_reward(folder, batch_size, device)
    reward = load_network_reward(folder, batch_size)
    reward.network.to(device)  # type: ignore[arg-type]
    return reward


def load_normalized(folder: Path, batch_size: int = 256, device: str = "cpu") -> NormalizedReward:
    """The reward saved in `folder`, in the unit in which it drives a policy."""
    return NormalizedReward(load_reward(folder, batch_size, device), Facts.load(folder).normalizer)


def truncated(reward: Reward, texts: Sequence[str]) -> int:
    """How many of the texts are longer than the reward can read: it sees their end alone."""
    if isinstance(reward, EnsembleReward):
        reward = reward.rewards[0].raw  # all are read by networks of one kind
    if isinstance(reward, PlantedReward):
        reward = reward.base.raw
    if not isinstance(reward, NetworkReward):
        return 0
    limit = context(reward.tokenizer, reward.network)
    backend = reward.tokenizer.backend_tokenizer
    if backend.normalizer is None and isinstance(backend.pre_tokenizer, ByteLevel):
        # No more tokens than bytes, and what the tokenizer adds: most texts need not be counted.
        room = limit - reward.tokenizer.num_special_tokens_to_add()
        texts = [text for text in texts if len(text.encode()) > room]
    if not texts:
        return 0
    rows = reward.tokenizer(list(texts), split_special_tokens=True, verbose=False)["input_ids"]
    return sum(len(row) > limit for row in rows)
