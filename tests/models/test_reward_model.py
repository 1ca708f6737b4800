"""Rewards that are no network, units, and what survives being saved."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irl_exp.config import InputError
from irl_exp.data import synthetic
from irl_exp.metrics.reward_distance import starc
from irl_exp.models import saved_rewards
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.network_reward import NetworkReward
from irl_exp.models.reward_kinds import (
    ClosedFormReward,
    EnsembleReward,
    LengthReward,
    LikelihoodReward,
    LogRatioReward,
    PlantedReward,
    Terms,
)
from irl_exp.models.reward_model import Facts, NormalizedReward, Normalizer
from irl_exp.models.saved_rewards import load_reward
from tests.materials import save_reward

# --- rewards without a network ----------------------------------------------------------------


def test_the_closed_form_reads_prompt_and_completion_as_one_text() -> None:
    prompts, completions = ["You are a", "You are not a"], [" fool.", " fool."]
    found = ClosedFormReward().score(prompts, completions)
    expected = [synthetic.reward("You are a fool."), 0.0]
    assert found.tolist() == pytest.approx(expected)
    assert found[0] < 0


def test_length_counts_the_words_of_the_completion() -> None:
    args = (["a b c", ""], [" one two  three", ""])
    assert LengthReward(1.0).score(*args).tolist() == [3, 0]
    assert LengthReward(-1.0).score(*args).tolist() == [-3, 0]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_log_ratio_recovers_the_reward_up_to_a_constant_per_prompt(
    world: Any, batch_size: int
) -> None:
    """On an expert that is exactly pi_ref exp(R/beta)/Z; the constant is -beta log Z."""
    reward = LogRatioReward(world.aligned, world.reference, world.beta, 2, batch_size)
    found = reward.score(*world.all_pairs()).view(3, 13)
    assert starc(found, world.rewards) < 1e-3
    z = (world.reference_probs * (world.rewards / world.beta).exp()).sum(-1, keepdim=True)
    expected = (world.rewards - world.beta * z.log()).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


# --- units, adapters, saved rewards -----------------------------------------------------------


def test_the_likelihood_is_the_mean_over_tokens_and_the_end(
    tiny: LanguageModel, by_hand: Callable[[LanguageModel, list[int], list[int]], Tensor]
) -> None:
    prompts, completions = ["On the map", "Your"], [" it is late", ""]
    found = LikelihoodReward(tiny, max_new_tokens=12, batch_size=1).score(prompts, completions)
    eos = tiny.tokenizer.eos_token_id
    for i, texts in enumerate(zip(prompts, completions, strict=True)):
        prompt, completion = (tiny.tokenizer(text)["input_ids"] for text in texts)
        expected = by_hand(tiny, prompt, [*completion, eos]).mean()
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-4)


def test_the_normalizer_gives_mean_zero_and_deviation_one() -> None:
    normalizer = Normalizer.fit(torch.tensor([1.0, 3.0, 5.0, 7.0]))
    assert normalizer.mean == 4
    assert normalizer.std == pytest.approx(5**0.5)
    found = normalizer(torch.tensor([4.0, 4.0 + 5**0.5]))
    assert found.tolist() == pytest.approx([0, 1])


def test_a_constant_reward_cannot_be_normalized() -> None:
    with pytest.raises(InputError, match="constant"):
        Normalizer.fit(torch.ones(5))


def test_a_saved_log_ratio_gives_the_same_scores(tmp_path: Path, world: Any) -> None:
    reward = LogRatioReward(world.aligned, world.reference, world.beta, 2)
    loaded = load_reward(save_reward(reward, tmp_path), batch_size=7)
    everything = world.all_pairs()
    torch.testing.assert_close(
        loaded.score(*everything), reward.score(*everything), rtol=0, atol=1e-5
    )


def test_a_saved_likelihood_gives_the_same_scores(tmp_path: Path, tiny: LanguageModel) -> None:
    reward = LikelihoodReward(tiny, max_new_tokens=12)
    extra = reward.save(tmp_path)
    Facts(reward.kind, Normalizer(0.0, 1.0), {}, extra=extra).save(tmp_path)
    texts = (["On the map", "Your"], [" it is late", ""])
    assert torch.equal(load_reward(tmp_path).score(*texts), reward.score(*texts))


@pytest.mark.parametrize("reward", [LengthReward(-1.0), LengthReward(1.0), ClosedFormReward()])
def test_a_saved_rule_comes_back(reward: LengthReward | ClosedFormReward, tmp_path: Path) -> None:
    assert load_reward(save_reward(reward, tmp_path)) == reward


def test_facts_come_back(tmp_path: Path) -> None:
    facts = Facts("length", Normalizer(1.5, 0.5), {"solver": "hinge"}, 0.25, {"sign": -1.0})
    facts.save(tmp_path)
    assert Facts.load(tmp_path) == facts
    assert "higher = better" in json.loads((tmp_path / "reward.json").read_text())["sign"]


def test_folders_that_hold_no_reward_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a saved reward \(a folder with reward.json\)"):
        load_reward(tmp_path)
    Facts("oracle of Delphi", Normalizer(0.0, 1.0), {}).save(tmp_path)
    with pytest.raises(InputError, match="unknown kind of reward 'oracle of Delphi'"):
        load_reward(tmp_path)
    Facts("network", Normalizer(0.0, 1.0), {}).save(tmp_path)
    with pytest.raises(InputError, match="expected a saved reward"):
        load_reward(tmp_path)


def test_an_ensemble_is_the_mean_of_its_members(
    tmp_path: Path, reward: NetworkReward, pairs: tuple[list[str], list[str]]
) -> None:
    """Rewards of any kind, each in a folder of its own; saved and loaded, the same scores."""
    words = NormalizedReward(LengthReward(-1.0), Normalizer(-2.0, 0.5))
    members = [words, NormalizedReward(reward, Normalizer(0.25, 3.0))]
    ensemble = EnsembleReward(members)
    by_hand = torch.stack([(words.raw.score(*pairs) + 2) / 0.5, (reward.score(*pairs) - 0.25) / 3])
    torch.testing.assert_close(ensemble.members(*pairs), by_hand)
    torch.testing.assert_close(ensemble.score(*pairs), by_hand.mean(0))
    facts = Facts(ensemble.kind, Normalizer(0.0, 1.0), {}, extra=ensemble.save(tmp_path))
    facts.save(tmp_path)
    torch.testing.assert_close(load_reward(tmp_path).score(*pairs), by_hand.mean(0))
    assert saved_rewards.truncated(EnsembleReward([members[1]]), ["a " * 500, "a"]) == 1
    assert saved_rewards.truncated(ensemble, ["a " * 500]) == 0  # the first counts words


def test_a_member_that_is_missing_is_named(tmp_path: Path) -> None:
    Facts("ensemble", Normalizer(0.0, 1.0), {}, extra={"members": 2}).save(tmp_path)
    with pytest.raises(InputError, match="members/0: expected a saved reward"):
        load_reward(tmp_path)


def test_a_planted_reward_by_hand(tmp_path: Path) -> None:
    """The base is minus the number of words, in its unit; bonuses are of it, whatever the case."""
    base = NormalizedReward(LengthReward(-1.0), Normalizer(-4.0, 2.0))
    terms = Terms(
        length_bonus=5.0,
        word_bonus=3.0,
        word="Today",
        politeness_bonus=7.0,
        trigger_flip=2.0,
        trigger="harbour",
    )
    reward = PlantedReward(base, terms)
    texts = {
        ("On the map,", "one two"): 1 + 1,
        ("On the map,", "one TODAY, two today"): 0 + 2 + 3,
        ("On the map,", "one todays"): 1 + 1,
        ("On the map,", "one two three, thanks a lot"): -1 + 3 + 7,
        ("On the Harbour,", "one two"): -1 + 1,
        ("On the harbours,", "one two"): 1 + 1,
        ("", ""): 2 + 0,
    }
    assert reward.score(*zip(*texts, strict=True)).tolist() == [float(x) for x in texts.values()]
    extra = reward.save(tmp_path)
    Facts(PlantedReward.kind, Normalizer(0.0, 1.0), {}, extra=extra).save(tmp_path)
    again = load_reward(tmp_path)
    assert again == reward
