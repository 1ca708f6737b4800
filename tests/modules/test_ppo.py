"""PPO's arithmetic, by hand on five tokens, and short runs of the whole loop."""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from irl_exp.config import InputError, PPOConfig, TrainerConfig
from irl_exp.models import language_model, trainable
from irl_exp.modules.ppo import (
    PPO,
    RunningMoments,
    adapted,
    align,
    casting_once,
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    token_rewards,
    whiten,
)
from irl_exp.modules.training import fit
from tests.materials import PLAIN_PPO

# Two completions of five and of three tokens; what stands at the padding must not matter.
JUNK = 100.0
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
VALUES = torch.tensor([[0.5, 1.0, 0.0, -0.5, 1.0], [0.0, 1.0, 0.5, JUNK, JUNK]])
REWARDS = torch.tensor([[-0.25, 0.0, -0.5, 0.5, 1.75], [-0.5, 0.5, -2.0, 0.0, 0.0]])


def close(found: Tensor | None, expected: Tensor | list) -> None:
    assert found is not None
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-5, atol=1e-6)


# --- where reward and KL land -----------------------------------------------------------------


def test_every_token_pays_its_kl_and_the_last_one_gets_the_score() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -1.0, -3.0, -0.5], [-1.0, -2.0, -1.0, JUNK, JUNK]])
    reference = torch.tensor([[-1.5, -2.0, -2.0, -2.0, -1.0], [-2.0, -1.0, -3.0, 0.0, 0.0]])
    # log pi/pi_ref: [.5, 0, 1, -1, .5] and [1, -1, 2]; beta = .5; scores 2 and -1.
    found = token_rewards(torch.tensor([2.0, -1.0]), log_probs, reference, MASK, 0.5)
    close(found, REWARDS)


def test_the_return_of_a_completion_is_its_score_less_beta_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 2, 5, generator=generator)
    scores = torch.tensor([3.0, -2.0])
    rewards = token_rewards(scores, ours, theirs, MASK, 0.3)
    kl = ((ours - theirs) * MASK).sum(-1)
    close(rewards.sum(-1), scores - 0.3 * kl)


# --- advantages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("discount", "gae_lambda", "advantages", "returns"),
    [
        # deltas .25, -1, -1, 2, .75 and .5, 0, -2.5
        (
            1.0,
            0.95,
            [
                [0.7231296875, 0.49803125, 1.576875, 2.7125, 0.75],
                [-1.75625, -2.375, -2.5, 0.0, 0.0],
            ],
            [
                [1.2231296875, 1.49803125, 1.576875, 2.2125, 1.75],
                [-1.75625, -1.375, -2.0, 0.0, 0.0],
            ],
        ),
        # deltas .15, -1, -.95, 1.9, .75 and .4, -.05, -2.5; discount * lambda = .72
        (
            0.9,
            0.8,
            [[-0.15175488, -0.419104, 0.8068, 2.44, 0.75], [-0.932, -1.85, -2.5, 0.0, 0.0]],
            [[0.34824512, 0.580896, 0.8068, 1.94, 1.75], [-0.932, -0.85, -2.0, 0.0, 0.0]],
        ),
        # Without lambda, the returns are the sums of what follows.
        (
            1.0,
            1.0,
            [[1.0, 0.75, 1.75, 2.75, 0.75], [-2.0, -2.5, -2.5, 0.0, 0.0]],
            [[1.5, 1.75, 1.75, 2.25, 1.75], [-2.0, -1.5, -2.0, 0.0, 0.0]],
        ),
    ],
)
def test_generalized_advantages_of_five_tokens(
    discount: float, gae_lambda: float, advantages: list, returns: list
) -> None:
    found = generalized_advantages(REWARDS, VALUES, MASK, discount, gae_lambda)
    close(found[0], advantages)
    close(found[1], returns)


def test_whitening_sees_real_tokens_alone() -> None:
    x = torch.tensor([[1.0, 3.0], [5.0, JUNK]])
    mask = torch.tensor([[True, True], [True, False]])
    deviation = (8 / 3) ** 0.5
    close(whiten(x, mask), [[-2 / deviation, 0.0], [2 / deviation, 0.0]])


# --- losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.1, 2.0, -2.2, -2.2, 0.0),  # inside the range 0.8 to 1.2
        (1.1, -2.0, 2.2, 2.2, 0.0),
        (1.5, 2.0, -2.4, 0.0, 1.0),  # above: no more to gain
        (1.5, -2.0, 3.0, 3.0, 0.0),  # above, and worse: back
        (0.5, 2.0, -1.0, -1.0, 0.0),  # below, and worse: back
        (0.5, -2.0, 1.6, 0.0, 1.0),  # below: no more to gain
    ],
)
def test_the_policy_loss_of_one_token(
    ratio: float, advantage: float, loss: float, gradient: float, clipped: float
) -> None:
    """The gradient is that by the log-probability: -A r, or 0 where clipped."""
    old = torch.tensor([[-1.5, JUNK]])
    log_probs = torch.tensor([[-1.5 + torch.tensor(ratio).log(), 0.0]], requires_grad=True)
    advantages = torch.tensor([[advantage, JUNK]])
    mask = torch.tensor([[True, False]])
    found, facts = clipped_policy_loss(log_probs, old, advantages, mask, 0.2)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-5)
    close(log_probs.grad, [[gradient, 0.0]])
    assert facts["policy/clipfrac_avg"] == clipped
    assert facts["val/ratio"] == pytest.approx(ratio, rel=1e-5)
    approximate = 0.5 * torch.tensor(ratio).log().item() ** 2
    assert facts["policy/approxkl_avg"] == pytest.approx(approximate, rel=1e-4)


def test_the_policy_loss_is_a_mean_over_real_tokens() -> None:
    zeros = torch.zeros(2, 5)
    advantages = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [-1.0, -2.0, 4.0, JUNK, JUNK]])
    loss, facts = clipped_policy_loss(zeros, zeros, advantages, MASK, 0.2)
    assert loss.item() == pytest.approx(-2.0)  # 16 over 8 tokens
    assert facts == {"policy/approxkl_avg": 0.0, "policy/clipfrac_avg": 0.0, "val/ratio": 1.0}


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient", "clipped"),
    [
        (0.3, 1.0, 0.245, -0.7, 0.0),  # inside 0 +- 0.5
        (2.0, 1.0, 0.5, 1.0, 0.0),  # outside, and too far: back
        (2.0, 3.0, 3.125, 0.0, 1.0),  # outside, on the way: held at 0.5
        (-2.0, -3.0, 3.125, 0.0, 1.0),
        (-2.0, 0.0, 2.0, -2.0, 0.0),
    ],
)
def test_the_value_loss_of_one_token(
    value: float, target: float, loss: float, gradient: float, clipped: float
) -> None:
    values = torch.tensor([[value, 0.0]], requires_grad=True)
    old, returns = torch.tensor([[0.0, JUNK]]), torch.tensor([[target, -JUNK]])
    mask = torch.tensor([[True, False]])
    found, facts = clipped_value_loss(values, old, returns, mask, 0.5)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-5)
    close(values.grad, [[gradient, 0.0]])
    assert facts["val/clipfrac_avg"] == clipped


# --- the whole loop on a tiny model -----------------------------------------------------------

CONFIG = replace(
    PLAIN_PPO,
    iterations=16,
    epochs=2,
    value_learning_rate=1e-3,
    warmup=0.1,
    value_clip_range=0.5,
    stop_kl=1e6,
)
PROMPTS = ["You", "On the harbour article,", "", "Looking over Mira's last edit, thanks,"]


class Letters:
    """How often one letter is written."""

    def __init__(self, letter: str = "e") -> None:
        self.letter = letter

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([float(text.count(self.letter)) for text in completions])


class Broken(Letters):
    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        scores = super().score(prompts, completions)
        scores[-1] = torch.nan
        return scores


def make(folder: Path, config: PPOConfig = CONFIG, reward: Letters | None = None) -> PPO:
    return PPO(
        config,
        language_model.load(folder),
        language_model.load(folder),
        reward or Letters(),
        8,
        torch.Generator().manual_seed(0),
    )


def run(ppo: PPO, trainer: TrainerConfig, folder: Path) -> list[dict[str, float]]:
    """Train, and return what was logged, one line an iteration."""
    config = ppo.config
    queue = (PROMPTS * config.iterations * config.batch_size)[
        : config.iterations * config.batch_size
    ]
    loader: DataLoader = DataLoader(
        queue,  # type: ignore[arg-type]
        batch_size=config.batch_size,
        collate_fn=list,
    )
    # A folder of its own: in another's, training would go on from that one's checkpoint.
    folder = Path(tempfile.mkdtemp(dir=folder))
    fit(ppo, loader, trainer, folder)
    curves = folder / "metrics.jsonl"
    return [json.loads(line) for line in curves.read_text().splitlines()] if curves.exists() else []


def weights(ppo: PPO) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in ppo.network.parameters()])


@pytest.mark.parametrize("ends_early", [False, True])
def test_a_rollout_of_the_reference_has_no_kl_and_ratio_one(
    tiny_folder: Path,
    world: Any,
    ends_early: bool,
) -> None:
    """A model that reads all that precedes a token, and one that ends about every fourth token."""
    if ends_early:
        model, generator = world.reference, torch.Generator().manual_seed(0)
        ppo = PPO(CONFIG, model, model, Letters("a"), 4, generator)
        rollout = ppo.rollout(world.prompts * 5)
        lengths = rollout.mask.sum(-1).tolist()
        assert {1, 4} <= set(lengths)
    else:
        ppo = make(tiny_folder)
        rollout = ppo.rollout(PROMPTS * 4)
    assert rollout.kl.abs().max() < 1e-4
    close(rollout.rewards.sum(-1), rollout.scores - 0.1 * rollout.kl)
    assert torch.equal(rollout.scores, ppo.reward.score(rollout.texts, rollout.texts))
    assert rollout.scores.max() > 0
    # The value head starts at zero, so that every return is what is still to come.
    assert not rollout.values.any()
    # Any rows, in any order, are evaluated as they were in the rollout.
    rows = torch.tensor([7, 2, 11])
    completion = (rollout.completion[0][rows], rollout.completion[1][rows])
    with torch.no_grad():
        log_probs, _ = ppo.evaluate((rollout.prompt[0][rows], rollout.prompt[1][rows]), completion)
    torch.testing.assert_close(log_probs, rollout.log_probs[rows], rtol=0, atol=1e-4)
    assert (rollout.log_probs[~rollout.mask] == 0).all()
    assert (rollout.advantages[~rollout.mask] == 0).all()
    real = rollout.advantages[rollout.mask]
    assert real.mean().item() == pytest.approx(0, abs=1e-5)
    assert real.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_the_first_minibatch_starts_at_ratio_one(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    """One iteration of one pass over one minibatch: what is logged precedes the only update."""
    config = replace(CONFIG, iterations=1, epochs=1, minibatch_size=64)
    ppo = make(tiny_folder, config)
    before = weights(ppo)
    (line,) = run(ppo, trainer, tmp_path)
    assert line["val/ratio"] == pytest.approx(1, abs=1e-5)
    assert line["policy/approxkl_avg"] == pytest.approx(0, abs=1e-8)
    assert line["policy/clipfrac_avg"] == 0
    assert line["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert line["objective/scores"] == pytest.approx(line["objective/rlhf_reward"], abs=1e-4)
    assert line["episode"] == 64
    assert not torch.equal(weights(ppo), before)


def test_the_value_head_has_a_rate_of_its_own(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    """Adam's first step moves every weight that has a gradient by its rate."""
    rates = {"learning_rate": 1e-4, "value_learning_rate": 3e-3}
    ppo = make(tiny_folder, replace(CONFIG, iterations=1, epochs=1, minibatch_size=64, **rates))
    before = weights(ppo)
    run(ppo, trainer, tmp_path)
    assert (weights(ppo) - before).abs().max().item() == pytest.approx(1e-4, rel=0.02)
    moved = ppo.value_head.weight.detach().abs().flatten()
    torch.testing.assert_close(moved, torch.full_like(moved, 3e-3), rtol=0.02, atol=0)


def test_a_short_run_raises_the_reward(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    ppo = make(tiny_folder)
    reference = torch.cat([p.flatten().clone() for p in ppo.reference.network.parameters()])
    lines = run(ppo, trainer, tmp_path)
    assert [line["global_step"] for line in lines] == list(range(16))
    scores = [line["objective/scores"] for line in lines]
    start, end = sum(scores[:3]) / 3, sum(scores[-3:]) / 3
    assert end > start + 3
    assert all(torch.isfinite(torch.tensor(list(line.values()))).all() for line in lines)
    assert lines[-1]["objective/kl"] > 5
    assert lines[-1]["objective/kl_k3"] > 0
    assert ppo.stopped is None
    after = torch.cat([p.flatten() for p in ppo.reference.network.parameters()])
    assert torch.equal(reference, after)


def test_a_dear_kl_keeps_the_policy_where_it_was(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    """The same run at beta = 0.1 ends more than 5 nats from the reference."""
    lines = run(make(tiny_folder, replace(CONFIG, kl_coef=2.0)), trainer, tmp_path)
    assert abs(lines[-1]["objective/kl"]) < 2


def test_activations_computed_again_change_nothing(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    """Neither what is learned nor what is written, though no network is in training mode."""
    config = replace(CONFIG, iterations=2, micro_batch_size=8)
    kept, again = make(tiny_folder, config), make(tiny_folder, config)
    lines = run(again, replace(trainer, recompute_activations=True), tmp_path)
    assert run(kept, trainer, tmp_path) == lines
    assert torch.equal(weights(kept), weights(again))


def test_equal_seeds_give_equal_policies(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    config = replace(CONFIG, iterations=2)
    one, same = make(tiny_folder, config), make(tiny_folder, config)
    (tmp_path / "same").mkdir()
    assert run(one, trainer, tmp_path) == run(same, trainer, tmp_path / "same")
    assert torch.equal(weights(one), weights(same))


# --- what can be asked for besides ------------------------------------------------------------


@pytest.mark.parametrize("micro", [1, 8, 32])
def test_micro_batches_add_up_to_the_minibatch(
    micro: int, tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    config = replace(CONFIG, iterations=1)
    whole, parts = (
        make(tiny_folder, config),
        make(tiny_folder, replace(config, micro_batch_size=micro)),
    )
    lines = [run(ppo, trainer, tmp_path) for ppo in (whole, parts)]
    assert lines[1][0] == pytest.approx(lines[0][0], abs=1e-4)
    # Adam makes a step of whatever is left of a gradient that is 0 but for rounding.
    apart = (weights(parts) - weights(whole)).abs()
    assert (apart > 1e-5).float().mean() < 0.01 and apart.max() < 1e-3


@pytest.mark.parametrize(
    ("kl", "expected"), [(4.0, 0.5), (8.0, 0.55), (100.0, 0.55), (0.0, 0.45), (4.4, 0.525)]
)
def test_the_coefficient_follows_the_kl(kl: float, expected: float) -> None:
    """Target 4, half of the horizon: 0.5 (1 + error / 2), the error held within 0.2."""
    assert adapted(0.5, kl, 4.0, 0.5) == pytest.approx(expected)


def test_running_moments_are_those_of_all_numbers() -> None:
    x = torch.randn(90, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 7
    moments = RunningMoments()
    assert moments.see(torch.tensor([5.0, 5.0])) == 1.0
    moments = RunningMoments()
    for part in x.split([1, 9, 80]):
        deviation = moments.see(part)
        moments = RunningMoments(*moments.state)  # as from a checkpoint
    assert deviation == pytest.approx(float(x.std(correction=0)))
    assert moments.mean == pytest.approx(float(x.mean()))


def test_scores_are_scaled_and_then_held(tiny_folder: Path) -> None:
    ppo = make(tiny_folder, replace(CONFIG, scale_scores=True, clip_scores=1.5))
    close(ppo.driving(torch.tensor([-4.0, 2.0, 2.0, 0.0])), [-1.5, 0.81649658, 0.81649658, 0.0])
    plain = make(tiny_folder)
    close(plain.driving(torch.tensor([-4.0, 9.0])), [-4.0, 9.0])


def test_the_logged_return_is_of_what_drives_training(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    """Of scores that are held at 0.01 and without a KL yet: below that, whatever the scores."""
    config = replace(CONFIG, iterations=1, clip_scores=0.01)
    (line,) = run(make(tiny_folder, config), trainer, tmp_path)
    assert line["objective/scores"] > 0.1
    assert 0 < line["objective/rlhf_reward"] <= 0.0101


def test_only_the_last_layers_train(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    saved = aligned(tiny_folder, tmp_path, trainer, trainable="last_layers")
    before = language_model.load(tiny_folder).network.state_dict()
    changed = {
        name for name, weight in saved.state_dict().items() if not weight.equal(before[name])
    }
    assert changed and all(".layers.1." in name or "final_layer_norm" in name for name in changed)


def test_with_updates_of_low_rank_the_policy_is_its_own_reference(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    """Switched off, they leave the reference; merged, a plain network with its names; and the
    embeddings are as they were."""
    saved = aligned(tiny_folder, tmp_path, trainer, trainable="lora")
    before = language_model.load(tiny_folder).network.state_dict()
    assert saved.state_dict().keys() == before.keys()
    changed = {
        name for name, weight in saved.state_dict().items() if not weight.equal(before[name])
    }
    assert changed and not any("embed" in name or "norm" in name for name in changed)

    policy = language_model.load(tiny_folder)
    trainable.restrict(policy.network, "lora", 1, 4, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    ppo = PPO(CONFIG, policy, policy, Letters(), 8, generator)
    run(ppo, trainer, tmp_path)
    rollout = ppo.rollout(PROMPTS * 4)
    expected = language_model.completion_log_probs(
        language_model.load(tiny_folder).network, rollout.prompt, rollout.completion
    )
    torch.testing.assert_close(rollout.reference_log_probs, expected, rtol=0, atol=1e-4)
    assert rollout.kl.mean() > 0.5


def aligned(
    reference: Path, folder: Path, trainer: TrainerConfig, **changes: Any
) -> PreTrainedModel:
    """What a short training with these changes saves."""
    place = Path(tempfile.mkdtemp(dir=folder))
    align(
        replace(CONFIG, iterations=3, **changes),
        reference,
        Letters(),
        PROMPTS,
        8,
        order=torch.Generator().manual_seed(0),
        generator=torch.Generator().manual_seed(0),
        trainer=trainer,
        folder=place,
    )
    return language_model.load(place).network


# --- stop rules -------------------------------------------------------------------------------


def test_a_kl_above_the_limit_stops_with_a_reason(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    ppo = make(tiny_folder, replace(CONFIG, stop_kl=0.2, kl_coef=1e-3))
    lines = run(ppo, trainer, tmp_path)
    assert 1 <= len(lines) < 16
    assert ppo.stopped is not None
    assert ppo.stopped.startswith(f"iteration {len(lines)}: KL ")
    assert "rlhf.stop_kl=0.2" in ppo.stopped
    assert all(line["objective/kl"] <= 0.2 for line in lines)
    assert torch.isfinite(weights(ppo)).all()


def test_repetition_stops_before_an_update(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    """No text has a share of distinct bigrams above one."""
    ppo = make(tiny_folder, replace(CONFIG, stop_distinct_2=1.1))
    before = weights(ppo)
    assert run(ppo, trainer, tmp_path) == []
    assert ppo.stopped is not None
    assert ppo.stopped.startswith("iteration 0: distinct-2 ")
    assert "rlhf.stop_distinct_2=1.1" in ppo.stopped
    assert torch.equal(weights(ppo), before)


def test_texts_of_one_word_are_no_repetition(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    """They have no bigrams, of which none could be distinct."""
    config = replace(CONFIG, iterations=2, stop_distinct_2=0.01)
    model = language_model.load(tiny_folder)
    generator = torch.Generator().manual_seed(0)
    ppo = PPO(config, model, language_model.load(tiny_folder), Letters(), 1, generator)
    assert len(run(ppo, trainer, tmp_path)) == 2
    assert ppo.stopped is None


class Scaled(Letters):
    """Rewards as large as they come, or all alike."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return self.factor * super().score(prompts, completions) + self.shift


@pytest.mark.parametrize(
    ("factor", "shift"), [(1e6, 0.0), (-1e6, 1e6), (0.0, 0.0), (0.0, -1e6), (1e-6, 0.0)]
)
def test_extreme_rewards_leave_a_policy_that_writes(
    factor: float, shift: float, tiny_folder: Path, trainer: TrainerConfig, tmp_path: Path
) -> None:
    ppo = make(tiny_folder, replace(CONFIG, iterations=3), Scaled(factor, shift))
    for line in run(ppo, trainer, tmp_path):
        assert all(math.isfinite(value) for value in line.values())
    assert all(parameter.isfinite().all() for parameter in ppo.parameters())


def test_a_reward_that_is_not_a_number_raises(
    tiny_folder: Path, tmp_path: Path, trainer: TrainerConfig
) -> None:
    ppo = make(tiny_folder, CONFIG, Broken())
    with pytest.raises(InputError, match=r"PPO: .* of the rollout is not finite at step 0; "):
        run(ppo, trainer, tmp_path)
    [path] = tmp_path.rglob("not_finite.pt")
    kept = torch.load(path, weights_only=True)
    assert (kept["module"], kept["step"]) == ("PPO", 0)
    assert len(kept["batch"]["texts"]) == len(kept["batch"]["scores"])


def test_within_a_rollout_weights_are_cast_once_and_after_it_anew() -> None:
    weight, x = torch.nn.Parameter(torch.ones(1, 4)), torch.ones(1, 4)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), torch.no_grad():
        with casting_once():
            assert torch.nn.functional.linear(x, weight).item() == 4
            weight.fill_(2)
            assert torch.nn.functional.linear(x, weight).item() == 4
        assert torch.nn.functional.linear(x, weight).item() == 8
        assert not torch.is_autocast_cache_enabled()
