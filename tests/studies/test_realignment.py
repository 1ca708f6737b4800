"""Realigned policies spend what the aligned one does, or the multiple of it that was asked for."""

import pytest

from irl_exp.models.policies import best_of_n_kl
from irl_exp.steps import realign
from irl_exp.steps.bench import read_summary
from tests.studies.lab import Lab, artifact, lines, read, summary


@pytest.mark.parametrize("n", [1, 2, 4, 16, 100])
def test_the_kl_of_a_best_of_n_policy_says_its_n(n: int) -> None:
    assert realign._candidates(best_of_n_kl(n)) == n
    assert realign._candidates(best_of_n_kl(n) + 1e-4) == n


@pytest.mark.slow
def test_a_tilted_policy_is_realigned_at_the_kl_of_the_aligned_one(lab: Lab) -> None:
    """By another beta, for R̂ is another reward; a multiple of the KL by yet another."""
    run = lab.run("rlhf=tilted", "rlhf.kl_coef=0.3", "evaluation.frontier=[0.25]")
    numbers = summary(run)
    target = numbers["policy/realigned/kl_target"]
    # Validation prompts say what to aim at, test prompts what became of it.
    assert numbers["policy/aligned/kl"] == pytest.approx(target, rel=0.15)
    assert numbers["policy/realigned/kl"] == pytest.approx(target, rel=0.15)
    assert numbers["policy/realigned_0.25/kl_target"] == pytest.approx(target / 4)
    assert numbers["policy/realigned_0.25/kl"] == pytest.approx(target / 4, rel=0.25)
    betas = [
        read(artifact(lab, run, label) / "policy.json")["beta"]
        for label in ("align", "realign", "realign_0.25")
    ]
    assert betas[0] == 0.3 and betas[1] != 0.3 and betas[2] > betas[1]
    # R̂ chose them, so it likes the one that went further better.
    near, far = (numbers[f"policy/realigned{end}/mean_recovered"] for end in ("_0.25", ""))
    assert 0 < near < far
    report = (run / "report.md").read_text()
    assert "## Realigned at several KLs" in report and "figures/frontier.png" in report


@pytest.mark.slow
def test_ppo_realigns_by_a_beta_that_follows_the_kl(lab: Lab) -> None:
    run = lab.run("until=realign")
    target = read_summary(artifact(lab, run, "spent"))["kl"]
    identity = read(artifact(lab, run, "realign") / "manifest.json")["identity"]
    assert identity["config"]["rlhf"]["kl_target"] == target
    betas = [x["objective/kl_coef"] for x in lines(run / "metrics.jsonl") if x["step"] == "realign"]
    assert len(set(betas)) == len(betas) > 1
    fixed = {x["objective/kl_coef"] for x in lines(run / "metrics.jsonl") if x["step"] == "align"}
    assert len(fixed) == 1
