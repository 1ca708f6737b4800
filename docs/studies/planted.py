"""Solvers on a planted reward, as a Markdown table: python -m docs.studies.planted [MOST_PROMPTS].

R = w . phi of 32 correlated Gaussian features, an expert tilted exactly, k = 4, |w|/beta = 1
(tests/solvers/planted.py). Cosine of the w found and the true one / correlation of the two rewards
over reference completions: means of five draws, of three from 10,000 prompts on.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from irl_exp.solvers import bayesian, choice, convex, planning
from tests.solvers.planted import Planted, plant

PENALTIES = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
PROMPTS = (100, 300, 1000, 2000, 10_000)


def svm(planted: Planted, penalty: float) -> Tensor:
    return convex.maximum_margin(planted.phi, penalty)


def max_margin_planning(planted: Planted, penalty: float) -> Tensor:
    answer = planning.reweighted(planted.phi, planted.kl_coef)
    *_, last = planning.plan(planted.phi, penalty, answer, 5)
    return last.w


def max_entropy(planted: Planted, penalty: float) -> Tensor:
    return torch.from_numpy(choice.most_likely(planted.phi, 1.0))


def posterior_mean(planted: Planted, penalty: float) -> Tensor:
    prior = bayesian.Gaussian.prior(planted.phi.shape[-1], 1.0)
    *_, last = bayesian.rounds(prior, planted.phi, 5)
    return torch.from_numpy(last.mean)


def projection(planted: Planted, penalty: float) -> Tensor:
    *_, last = convex.project(planted.phi, planted.kl_coef, 0.01, 500)
    return last.w


# The penalty is that of the margin, from held-out prompts; where there is none it is not read.
SOLVERS: dict[str, Callable[[Planted, float], Tensor]] = {
    "svm": svm,
    "max_entropy": max_entropy,
    "bayesian": posterior_mean,
    "max_margin_planning": max_margin_planning,
    "projection": projection,
}


def main(most: int) -> None:
    torch.set_num_threads(1)
    print("| prompts | " + " | ".join(f"`{name}`" for name in SOLVERS) + " |")
    print("|---" * (1 + len(SOLVERS)) + "|")
    for n in (n for n in PROMPTS if n <= most):
        problems = []
        for seed in range(3 if n >= 10_000 else 5):
            planted = plant(n, seed=seed)
            losses = convex.held_out_losses(planted.phi, PENALTIES, 5)
            problems.append((planted, convex.best(losses)))
        cells = []
        for solve in SOLVERS.values():
            found = [(planted, solve(planted, penalty)) for planted, penalty in problems]
            cosine = sum(planted.cosine(w) for planted, w in found) / len(found)
            correlation = sum(planted.correlation(w) for planted, w in found) / len(found)
            cells.append(f"{cosine:.3f} / {correlation:.3f}")
        print(f"| {n:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else max(PROMPTS))
