"""A small network reward, and texts for it."""

from pathlib import Path

import pytest
import torch

from irl_exp.models.language_model import LanguageModel
from irl_exp.models.network_reward import NetworkReward, from_body


@pytest.fixture(scope="module")
def reward(tiny_folder: Path) -> NetworkReward:
    """The tiny body with a random head."""
    reward = from_body(tiny_folder, torch.Generator().manual_seed(0), batch_size=8)
    reward.network.eval()
    return reward


@pytest.fixture(scope="module")
def pairs(texts: list[str], tiny: LanguageModel) -> tuple[list[str], list[str]]:
    """100 comments of many lengths, cut at their fourth word; one has neither part.

    All fit into the context, so that nothing is cut off.
    """
    short = [text for text in texts if len(tiny.tokenizer(text)["input_ids"]) <= 64]
    words = [text.split(" ") for text in short[:99]]
    prompts = [" ".join(row[:4]) for row in words]
    completions = [" " + " ".join(row[4:]) for row in words]
    return [*prompts, ""], [*completions, ""]
