"""Recovery of a reward that is known, from experts that are exactly what theory says."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from irl_exp.config import (
    BayesianSolver,
    ClassifierSolver,
    EnsembleSolver,
    FailureAwareSolver,
    MarginSolver,
    MaxEntropySolver,
    PlanningSolver,
    ProjectionSolver,
    SeedsConfig,
    SolverConfig,
    SvmSolver,
    TrainerConfig,
)
from irl_exp.data import synthetic
from irl_exp.data.pairs import Demonstrations
from irl_exp.metrics.agreement import pair_accuracy
from irl_exp.metrics.reward_distance import starc
from irl_exp.models.network_reward import NetworkReward
from irl_exp.models.reward_kinds import ClosedFormReward, LengthReward
from irl_exp.models.reward_model import Facts, Normalizer
from irl_exp.models.saved_rewards import load_reward
from irl_exp.modules import ppo
from irl_exp.solvers import DRAWN, SOLVERS, seeds
from irl_exp.solvers.bayesian import Gaussian
from irl_exp.solvers.problem import Problem
from tests.materials import PLAIN_PPO

# Clauses of two words, so that a completion's length says nothing, and what each one costs.
COST = {
    ", you goose": 0.5,
    ", you fool": 1.0,
    ", you blockhead": 1.5,
    ", good map": 0.0,
    ", clear edit": 0.0,
    ", new page": 0.0,
}
CLAUSES = 4
BETA = 0.5
K = 4
OPENINGS = ["On the harbour article", "Your last castle edit", "About the bridge vote", "Before it"]


def true_reward(completion: str) -> float:
    """R*, linear in the number of times each clause stands in the completion."""
    return -sum(cost * completion.count(clause) for clause, cost in COST.items())


def draw(rng: np.random.Generator, n: int) -> list[str]:
    """n completions of the reference: clauses drawn alike."""
    return ["".join(row) for row in rng.choice(list(COST), size=(n, CLAUSES)).tolist()]


def expert(rng: np.random.Generator, k: int) -> list[str]:
    """k completions of pi_ref exp(R/beta)/Z, each from 64 candidates of its own."""
    chosen = []
    for _ in range(k):
        pool = draw(rng, 64)
        weights = np.exp(np.array([true_reward(text) for text in pool]) / BETA)
        chosen.append(pool[rng.choice(64, p=weights / weights.sum())])
    return chosen


@pytest.fixture(scope="module")
def demonstrations() -> Demonstrations:
    rng = np.random.default_rng(0)
    splits = ["train"] * 160 + ["validation"] * 20 + ["test"] * 60
    return Demonstrations(
        prompts=[OPENINGS[i % len(OPENINGS)] for i in range(len(splits))],
        aligned=[expert(rng, K) for _ in splits],
        reference=[draw(rng, K) for _ in splits],
        splits=splits,
    )


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    Facts(ClosedFormReward.kind, Normalizer(0.0, 1.0), {}).save(folder)
    return folder


RECIPE: dict[str, Any] = {
    "epochs": 3,
    "learning_rate": 3e-3,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "trainable": "all",
    "last_layers": 1,
    "lora_rank": 4,
    "patience": None,
    "trace": False,
}


def margin(name: str, objective: str) -> MarginSolver:
    return MarginSolver(name=name, objective=objective, batch_size=16, max_grad_norm=1.0, **RECIPE)


CONFIGS: dict[str, SolverConfig] = {
    name: margin(name, "logistic" if name == "oracle" else name)
    for name in ("asymmetric", "hinge", "squared_hinge", "logistic", "oracle")
}
CONFIGS["max_entropy_network"] = margin("max_entropy_network", "max_entropy")
CONFIGS |= {name: SolverConfig(name) for name in ("untrained", "length", "log_ratio", "perplexity")}
CONFIGS["membership"] = ClassifierSolver(name="membership", batch_size=64, **RECIPE)
PENALTIES = [1.0, 10.0, 100.0]
CONFIGS |= {
    "max_entropy": MaxEntropySolver("max_entropy", prior_scale=1.0),
    "bayesian": BayesianSolver("bayesian", prior_scale=None, rounds=2, family="laplace"),
    "svm": SvmSolver("svm", PENALTIES, folds=3),
    "projection": ProjectionSolver("projection", tolerance=0.01, rounds=500),
    "max_margin_planning": PlanningSolver(
        "max_margin_planning", PENALTIES, folds=3, rounds=3, rlhf=None
    ),
    "ensemble": EnsembleSolver("ensemble", members=2, base=CONFIGS["asymmetric"]),
}
CONFIGS |= {
    name: FailureAwareSolver(name, CONFIGS[base], objective, 1.0, rounds=3, penalties=PENALTIES)
    for name, base, objective in (
        ("failure_aware", "hinge", "squared_hinge"),
        ("failure_aware_max_entropy", "max_entropy", "logistic"),
    )
}


@pytest.fixture(scope="module")
def problem(
    tiny_folder: Path,
    truth: Path,
    demonstrations: Demonstrations,
    trainer: TrainerConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Problem:
    return Problem(
        config=CONFIGS["hinge"],
        demonstrations=demonstrations,
        reference=tiny_folder,
        aligned=tiny_folder,
        truth=truth,
        kl_coef=BETA,
        max_new_tokens=24,
        trainer=trainer,
        device="cpu",
        initialization=0,
        order=0,
        folder=tmp_path_factory.mktemp("curves"),
    )


@pytest.fixture(scope="module")
def solve(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tensor]:
    """Scores [n, 2k] that a solver's reward gives the test prompts' pools, each solved once.

    In a folder of its own: where training takes long, it leaves a checkpoint to go on from.
    """
    done: dict[str, Tensor] = {}

    def scores(name: str) -> Tensor:
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            reward = SOLVERS[name](replace(problem, config=CONFIGS[name], folder=folder))
            done[name] = reward.score(*problem.demonstrations.split("test").pool()).view(-1, 2 * K)
        return done[name]

    return scores


@pytest.fixture(scope="module")
def true_scores(demonstrations: Demonstrations) -> Tensor:
    _, completions = demonstrations.split("test").pool()
    return torch.tensor([true_reward(text) for text in completions]).view(-1, 2 * K)


def test_the_problem_is_what_it_says(demonstrations: Demonstrations) -> None:
    """R* orders texts as the embedded grammar does, and the expert is better than the reference."""
    prompts, completions = demonstrations.pool()
    grammar = [synthetic.reward(p + c) for p, c in zip(prompts, completions, strict=True)]
    exact = [float(np.tanh(true_reward(text))) for text in completions]
    assert grammar == pytest.approx(exact, abs=1e-9)
    aligned, reference = (
        np.mean([true_reward(text) for text in texts])
        for _, texts in (demonstrations.aligned_texts(), demonstrations.reference_texts())
    )
    assert reference == pytest.approx(-CLAUSES * 0.5, abs=0.15)
    assert aligned > reference + 0.8


@pytest.mark.parametrize(
    "name",
    ["hinge", "logistic", "squared_hinge", "max_entropy_network", "membership", "failure_aware"],
)
def test_gradient_solvers_recover_the_reward(
    name: str, solve: Callable[[str], Tensor], true_scores: Tensor
) -> None:
    """Held-out completions of the same prompt, ordered as R* orders them. Who wrote a completion
    tells as much here, where prompts have no part in the reward."""
    assert pair_accuracy(true_scores, solve(name)) > 0.9
    assert starc(true_scores, solve(name)) < 0.35


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("svm", 0.9, 0.3), ("max_margin_planning", 0.9, 0.3), ("projection", 0.8, 0.35)],
)
def test_solvers_on_frozen_features_recover_the_reward(
    name: str, least: float, most: float, solve: Callable[[str], Tensor], true_scores: Tensor
) -> None:
    """Of a body that was never trained: its last state counts clauses well enough."""
    assert pair_accuracy(true_scores, solve(name)) > least
    assert starc(true_scores, solve(name)) < most


def test_the_published_objective_finds_the_direction(
    solve: Callable[[str], Tensor], true_scores: Tensor
) -> None:
    assert pair_accuracy(true_scores, solve("asymmetric")) > 0.8


def test_so_do_several_of_it(solve: Callable[[str], Tensor], true_scores: Tensor) -> None:
    assert pair_accuracy(true_scores, solve("ensemble")) > 0.8


@pytest.mark.parametrize("name", ["max_entropy", "bayesian", "failure_aware_max_entropy"])
def test_frozen_features_of_a_random_body_hold_much_of_the_reward(
    name: str, solve: Callable[[str], Tensor], true_scores: Tensor
) -> None:
    assert pair_accuracy(true_scores, solve(name)) > 0.7


def test_rlhf_may_answer_in_every_round(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second round meets what PPO wrote in the first, and who was killed in between trains only
    what was not done."""
    config = PlanningSolver("max_margin_planning", PENALTIES, folds=3, rounds=2, rlhf=PLAIN_PPO)

    def planned(folder: Path) -> Tensor:
        reward = SOLVERS["max_margin_planning"](replace(problem, config=config, folder=folder))
        return reward.score(*problem.demonstrations.split("test").pool())

    scores = planned(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["effective_sample_size"] for line in lines] == [K] * len(lines)
    written = [
        json.loads((tmp_path / "working" / f"round-{i}" / "completions.json").read_text())
        for i in range(len(lines))
    ]
    prompts = len(problem.demonstrations.split("train"))
    assert all([len(row) for row in round] == [K] * prompts for round in written)
    assert len(lines) == 2 and written[0] != written[1]

    shutil.rmtree(tmp_path / "working" / "round-1")
    (tmp_path / "metrics.jsonl").unlink()
    trained: list[Path] = []
    align = ppo.align

    def watched(*args: Any, folder: Path, **more: Any) -> str | None:
        trained.append(folder)
        return align(*args, folder=folder, **more)

    monkeypatch.setattr(ppo, "align", watched)
    assert torch.equal(planned(tmp_path), scores)
    assert [folder.name for folder in trained] == ["round-1"]


@pytest.mark.parametrize("family", ["laplace", "mean_field"])
def test_a_posterior_is_saved_beside_its_mean(
    problem: Problem, family: str, tmp_path: Path
) -> None:
    """What the reward says of a pair is what the posterior expects; each round leaves a line."""
    config = BayesianSolver("bayesian", prior_scale=0.5, rounds=3, family=family)
    reward = SOLVERS["bayesian"](replace(problem, config=config, folder=tmp_path))
    posterior, scale = Gaussian.load(tmp_path)
    pool = problem.demonstrations.split("test").pool()
    assert isinstance(reward, NetworkReward)
    features = reward.features(*pool).double().numpy() / scale
    expected, _ = posterior.of(features[1:] - features[:-1])
    np.testing.assert_allclose(np.diff(reward.score(*pool).double().numpy()), expected, atol=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["global_step"] for line in lines] == [1, 2, 3]
    volumes = [line["posterior_log_volume"] for line in lines]
    assert volumes == sorted(volumes, reverse=True)


@pytest.mark.parametrize("name", ["asymmetric", "hinge", "logistic", "max_entropy_network"])
def test_the_oracle_is_an_upper_bound(
    name: str, problem: Problem, solve: Callable[[str], Tensor], true_scores: Tensor
) -> None:
    """It is told how much better, too: it comes nearer to R* than who sees the choices alone."""
    truth = load_reward(problem.truth).score(*problem.demonstrations.split("test").pool())
    oracle, solver = (starc(truth.view(-1, 2 * K), solve(of)) for of in ("oracle", name))
    assert oracle < solver
    assert pair_accuracy(true_scores, solve("oracle")) > 0.9


def test_an_untrained_reward_knows_nothing(problem: Problem, true_scores: Tensor) -> None:
    """One random head may lean to either side; twelve of them lean to none."""
    pool = problem.demonstrations.split("test").pool()
    accuracies = []
    for seed in range(12):
        mine = replace(problem, config=CONFIGS["untrained"], initialization=seed)
        reward = SOLVERS["untrained"](mine)
        accuracies.append(pair_accuracy(true_scores, reward.score(*pool).view(-1, 2 * K)))
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.1)
    assert max(accuracies) < 0.85


@pytest.mark.parametrize(
    ("aligned", "reference", "sign"),
    [(" one two three", " one", 1.0), (" one", " one two", -1.0), (" a b", " c d", 1.0)],
)
def test_length_goes_where_rlhf_went(
    problem: Problem, aligned: str, reference: str, sign: float
) -> None:
    """Of the training prompts: what the others say plays no part."""
    pairs = Demonstrations(
        prompts=["p"] * 3,
        aligned=[[aligned], [" x"], [" x"]],
        reference=[[reference], [" x" * 9], [" x" * 9]],
        splits=["train", "validation", "test"],
    )
    reward = SOLVERS["length"](replace(problem, config=CONFIGS["length"], demonstrations=pairs))
    assert reward == LengthReward(sign)


def test_the_closed_form_is_exact_for_an_optimal_expert(
    problem: Problem,
    tmp_path: Path,
    world: Any,
) -> None:
    """beta log pi_E/pi_ref is R* up to a constant per prompt, from the policies' folders."""
    for name in ("aligned", "reference"):
        getattr(world, name).save(tmp_path / name)
    enumerable = replace(
        problem,
        config=CONFIGS["log_ratio"],
        aligned=tmp_path / "aligned",
        reference=tmp_path / "reference",
        kl_coef=world.beta,
        max_new_tokens=2,
    )
    found = SOLVERS["log_ratio"](enumerable).score(*world.all_pairs()).view(3, 13)
    assert starc(found, world.rewards) < 1e-3
    assert pair_accuracy(world.rewards, found) == 1
    centred = world.rewards - world.rewards.mean(-1, keepdim=True)
    ours = (found - found.mean(-1, keepdim=True)).double()
    torch.testing.assert_close(ours, centred, rtol=0, atol=1e-3)


def test_a_solver_is_decided_by_its_seeds(
    problem: Problem, tmp_path_factory: pytest.TempPathFactory
) -> None:
    few = problem.demonstrations
    keep = [i for i, split in enumerate(few.splits) if split != "train" or i < 32]
    small = Demonstrations(
        prompts=[few.prompts[i] for i in keep],
        aligned=[few.aligned[i] for i in keep],
        reference=[few.reference[i] for i in keep],
        splits=[few.splits[i] for i in keep],
    )
    pool = few.split("test").pool()

    def scores(**seeds: int) -> Tensor:
        folder = tmp_path_factory.mktemp("hinge")
        mine = replace(problem, demonstrations=small, folder=folder, **seeds)
        return SOLVERS["hinge"](mine).score(*pool)

    one, same = scores(initialization=1, order=1), scores(initialization=1, order=1)
    assert torch.equal(one, same)
    for other in (scores(initialization=1, order=2), scores(initialization=2, order=1)):
        assert not torch.allclose(one, other)


def test_each_seed_drives_its_own(problem: Problem) -> None:
    """A head is drawn from one of them, all else from the other."""

    def draws(purpose: str) -> list[float]:
        problems = (replace(problem, initialization=i, order=j) for i in (0, 1) for j in (0, 1))
        return [float(torch.rand((), generator=p.generator(purpose))) for p in problems]

    head, order = draws("head"), draws("order")
    assert head[0] == head[1] != head[2] == head[3]
    assert order[0] == order[2] != order[1] == order[3]


@pytest.mark.parametrize("name", ["svm", "projection"])
def test_a_convex_solver_has_one_answer(
    name: str, problem: Problem, solve: Callable[[str], Tensor]
) -> None:
    """Whatever the seed."""
    other = SOLVERS[name](replace(problem, config=CONFIGS[name], initialization=1, order=1))
    pool = problem.demonstrations.split("test").pool()
    assert torch.equal(other.score(*pool).view(-1, 2 * K), solve(name))


def test_the_chosen_penalty_is_told(problem: Problem, tmp_path: Path) -> None:
    """In the last line of the curves: that of the least loss, and what became of it."""
    reward = SOLVERS["svm"](replace(problem, config=CONFIGS["svm"], folder=tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    tried, last = {line["penalty"]: line["held_out_loss"] for line in lines[:-1]}, lines[-1]
    assert list(tried) == PENALTIES
    assert tried[last["penalty"]] == min(tried.values())
    scores = reward.score(*problem.demonstrations.split("train").pool()).view(-1, 2 * K)
    x = scores[:, :K, None] - scores[:, None, K:]
    assert last["loss"] == pytest.approx(float((1 - x).relu().mean()), abs=1e-4)
    assert last["pair_accuracy"] == pytest.approx(float((x > 0).double().mean()), abs=1e-3)


def test_a_recovered_reward_is_saved_and_loaded(problem: Problem, tmp_path: Path) -> None:
    """In evaluation mode, one text at a time or all at once."""
    reward = SOLVERS["untrained"](replace(problem, config=CONFIGS["untrained"]))
    assert isinstance(reward, NetworkReward)
    assert not reward.network.training
    Facts(reward.kind, Normalizer(0.0, 1.0), {}, extra=reward.save(tmp_path)).save(tmp_path)
    pool = problem.demonstrations.split("validation").pool()
    loaded = load_reward(tmp_path, batch_size=3)
    torch.testing.assert_close(loaded.score(*pool), reward.score(*pool), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DRAWN)
def test_seeds_that_it_is_said_not_to_draw_from_change_no_bit(
    name: str, problem: Problem, tmp_path: Path
) -> None:
    others = {"initialization": 7, "order": 8}
    others |= {seed: getattr(problem, seed) for seed in DRAWN[name]}
    scores = [
        SOLVERS[name](replace(given, config=CONFIGS[name], folder=tmp_path)).score(
            *problem.demonstrations.split("test").pool()
        )
        for given in (problem, replace(problem, **others))  # type: ignore[arg-type]
    ]
    assert torch.equal(*scores)


def test_seeds_count_as_far_as_they_are_drawn_from() -> None:
    given = SeedsConfig(*[0] * 5, initialization=1, order=2)
    expected = {"svm": (0, 0), "bayesian": (2, 2), "untrained": (1, 1), "hinge": (1, 2)}
    expected |= {"failure_aware": (1, 2), "failure_aware_max_entropy": (0, 0), "ensemble": (1, 2)}
    assert {name: seeds(CONFIGS[name], given) for name in expected} == expected
