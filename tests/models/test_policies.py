"""Policies that choose among the reference's completions, by enumeration; saved ones."""

from pathlib import Path
from typing import Any

import pytest
import torch

from irl_exp.models import policies
from irl_exp.models.generation import NetworkPolicy
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.policies import BestOfNPolicy, TiltedPolicy
from irl_exp.models.reward_kinds import LengthReward
from irl_exp.models.reward_model import Facts, Normalizer

PROMPTS = ["You", "On the harbour article,", "", "Looking over Mira's last edit, thanks again,"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_tilted_policy_approaches_what_it_stands_for(world: Any) -> None:
    """Frequencies, KL and effective size against enumeration; better with more candidates."""
    errors = {}
    for candidates in (16, 10_000):
        tilted = TiltedPolicy(
            NetworkPolicy(world.reference, 2, 10_000), world, world.beta, candidates
        )
        drawn = tilted.sample(world.prompts, 10_000, seeded())
        distance = (world.frequencies(drawn.completions) - world.aligned_probs).abs().sum(-1) / 2
        errors[candidates] = float(distance.mean())
    assert errors[10_000] < 0.03 < 0.06 < errors[16]

    assert drawn.kl is not None and drawn.effective_size is not None
    torch.testing.assert_close(drawn.kl[:, 0].double(), world.kl, rtol=0.05, atol=0)
    assert (drawn.kl == drawn.kl[:, :1]).all()
    assert drawn.overlap is not None
    torch.testing.assert_close(drawn.overlap[:, 0].double(), overlap(world), rtol=0.05, atol=0)
    # 1 / (N sum w^2) -> 1 / E_ref (pi/pi_ref)^2
    shares = drawn.effective_size / 10_000
    exact = 1 / (world.aligned_probs**2 / world.reference_probs).sum(-1)
    torch.testing.assert_close(shares, exact, rtol=0.1, atol=0)
    assert drawn.lengths.tolist() == [
        [min(len(text) + 1, 2) for text in row] for row in drawn.completions
    ]


def overlap(world: Any) -> torch.Tensor:
    """What the aligned and the reference policy share, by enumeration: [3]."""
    return torch.minimum(world.aligned_probs, world.reference_probs).sum(-1)


def test_a_network_says_by_its_own_samples_what_it_shares_with_the_reference(world: Any) -> None:
    policy = NetworkPolicy(world.aligned, 2, 10_000)
    drawn = policy.sample(world.prompts, 20_000, seeded(), world.reference)
    assert drawn.overlap is not None
    torch.testing.assert_close(drawn.overlap.double().mean(-1), overlap(world), rtol=0.02, atol=0)


def test_a_large_beta_leaves_the_reference(world: Any) -> None:
    tilted = TiltedPolicy(NetworkPolicy(world.reference, 2, 10_000), world, 1e6, 5_000)
    drawn = tilted.sample(world.prompts, 5_000, seeded())
    distance = (world.frequencies(drawn.completions) - world.reference_probs).abs().sum(-1) / 2
    assert distance.max() < 0.04
    assert drawn.kl is not None and drawn.kl.abs().max() < 1e-4


def test_the_best_of_n_is_the_largest_of_n_draws(world: Any) -> None:
    """P(the best is y) = F(y)^n - F(before y)^n, F the reference's shares in the order of rewards;
    its KL is below the bound that stands beside it."""
    n, k = 4, 20_000
    policy = BestOfNPolicy(NetworkPolicy(world.reference, 2, 10_000), world, n)
    drawn = policy.sample(world.prompts, k, seeded())
    order = world.rewards.argsort(-1)
    below = world.reference_probs.gather(1, order).cumsum(-1)
    shares = below**n - torch.cat([torch.zeros(3, 1), below[:, :-1]], dim=1) ** n
    expected = torch.zeros_like(shares).scatter(1, order, shares)
    distance = (world.frequencies(drawn.completions) - expected).abs().sum(-1) / 2
    assert distance.max() < 0.02

    assert drawn.kl is not None and drawn.effective_size is None
    exact = (expected * (expected / world.reference_probs).clamp_min(1e-30).log()).sum(-1)
    assert drawn.kl.unique().item() == pytest.approx(1.386294 - 0.75, abs=1e-5)
    assert exact.max() < drawn.kl[0, 0]
    # With no two alike the best of 4 has density 4 u^3, of which 1 covers what is below it.
    assert drawn.overlap is not None
    grid = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    bound = float((4 * grid**3).clamp(max=1).mean())
    assert drawn.overlap.unique().item() == pytest.approx(bound, abs=1e-5)
    assert torch.minimum(expected, world.reference_probs).sum(-1).min() > bound
    assert drawn.lengths.tolist() == [
        [min(len(text) + 1, 2) for text in row] for row in drawn.completions
    ]


# --- saved policies ---------------------------------------------------------------------------


def test_a_saved_network_samples_as_before(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    policies.save_policy(tmp_path, "network", stopped="iteration 3: KL")
    loaded = policies.load_policy(tmp_path, max_new_tokens=6, batch_size=4)
    assert policies.stop_reason(tmp_path) == "iteration 3: KL"
    expected = NetworkPolicy(tiny, 6, 4).sample(PROMPTS, 2, seeded())
    assert loaded.sample(PROMPTS, 2, seeded()).completions == expected.completions


def test_a_saved_tilted_policy_samples_with_the_normalized_reward(
    tiny: LanguageModel, tmp_path: Path
) -> None:
    """What is saved is the raw reward; (R - 4) / 2 drives the policy."""
    for name in ("reference", "reward"):
        (tmp_path / name).mkdir()
    tiny.save(tmp_path / "reference")
    raw = LengthReward(-1.0)
    Facts("length", Normalizer(4.0, 2.0), {}, extra=raw.save(tmp_path)).save(tmp_path / "reward")
    policies.save_policy(tmp_path, "tilted", beta=0.5, candidates=64)
    assert policies.stop_reason(tmp_path) is None

    loaded = policies.load_policy(tmp_path, max_new_tokens=6, batch_size=64)
    drawn = loaded.sample(["You"], 8, seeded())
    pool = NetworkPolicy(tiny, 6, 64).sample(["You"], 64, seeded())
    lengths = torch.tensor([len(text.split()) for text in pool.completions[0]]).double()
    weights = ((-lengths - 4) / 2 / 0.5).softmax(-1)
    assert drawn.kl is not None
    expected = (weights * (64 * weights).log()).sum()
    assert float(drawn.kl[0, 0]) == pytest.approx(float(expected), abs=1e-5)
