"""One reward from two experts at different temperatures, as a Markdown table.

    python docs/studies/two_temperatures.py RUN...

RUN are run directories in pairs: of each seed two that differ in rlhf.kl_coef alone, at least as
far as until=demonstrate. Prints a Markdown table of means over seeds with 95 % t-intervals.
"""

import argparse
import json
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from irl_exp.data.pairs import Demonstrations
from irl_exp.metrics.agreement import pair_accuracy
from irl_exp.metrics.identifiability import Array, RewardSet, identification, minimum, slack
from irl_exp.metrics.reward_distance import starc
from irl_exp.metrics.statistics import mean_interval
from irl_exp.models.network_reward import from_body
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.solvers.choice import choice_loss, roughness
from irl_exp.solvers.linear import Features

LEVEL = 0.95
# Of a weight on a standardized feature, where R has standard deviation 1 over the reference.
PRIOR_SCALE = 1.0


class Expert:
    """One run's demonstrations, on features that all experts of a seed share."""

    def __init__(self, run: Path) -> None:
        manifest = json.loads((run / "manifest.json").read_text())
        config = OmegaConf.load(run / "config.yaml")
        steps, store = manifest["steps"], Path(manifest["store"])
        self.seed, self.kl_coef = int(config.seed), float(config.rlhf.kl_coef)
        self.demonstrations = Demonstrations.load(store / "demonstrate" / steps["demonstrate"])
        self.reference = store / "pretrain" / steps["pretrain"]
        self.truth = store / "ground_truth" / steps["ground_truth"]


def compare(cold: Expert, warm: Expert) -> dict[str, dict[str, float]]:
    """What either expert and half of each say, at the same number of prompts."""
    body = from_body(cold.reference, torch.Generator(), 256)
    features = Features.read(body, cold.demonstrations, "cpu")

    def pools(expert: Expert, split: str) -> Tensor:
        part = expert.demonstrations.split(split)
        return features.texts(*part.pool()).unflatten(0, (-1, 2 * part.k))

    # R/beta = w . (phi/beta): every expert speaks of the same w.
    train = [pools(expert, "train") / expert.kl_coef for expert in (cold, warm)]
    half = torch.arange(len(train[0])) % 2 == 0
    arms = {
        f"beta = {cold.kl_coef:g}": train[0],
        f"beta = {warm.kl_coef:g}": train[1],
        "half of each": torch.cat([train[0][half], train[1][~half]]),
    }
    held_out = torch.cat([pools(expert, "test") for expert in (cold, warm)], dim=1)
    reward = load_normalized(cold.truth)
    truth = torch.cat(
        [
            reward.score(*expert.demonstrations.split("test").pool()).unflatten(
                0, (-1, 2 * expert.demonstrations.k)
            )
            for expert in (cold, warm)
        ],
        dim=1,
    ).double()
    return {name: measure(phi, held_out, truth.numpy()) for name, phi in arms.items()}


def measure(phi: Tensor, held_out: Tensor, truth: Array) -> dict[str, float]:
    """Of pools [n, 2k, d] in units of beta; held out are pools [m, 4k, d] with rewards [m, 4k]."""
    d = phi.shape[-1]
    loss = choice_loss(phi, np.zeros(d), np.eye(d) / PRIOR_SCALE**2)
    best = minimum(loss, np.zeros(d))
    rewards = RewardSet.of(loss, best, slack(LEVEL, 1), roughness(phi, loss(best)[2]))
    scores = (held_out @ torch.from_numpy(best)).numpy()
    # One pair of each held-out prompt, blind to who wrote which.
    ends = np.array(list(combinations(range(truth.shape[1]), 2)))
    first, second = ends[np.random.default_rng(0).integers(len(ends), size=len(truth))].T
    rows = np.arange(len(truth))
    deltas = (held_out[rows, first] - held_out[rows, second]).numpy()
    found = identification(rewards.signs(deltas), truth[rows, first] - truth[rows, second])
    centred = [values - values.mean(axis=1, keepdims=True) for values in (scores, truth)]
    return {
        "pairs identified": found["identified_fraction"],
        "of these as R* has it": found["identified_accuracy"],
        "pair accuracy": pair_accuracy(truth, scores),
        "STARC": starc(truth, scores),
        "sd of R̂ / sd of R*": float(centred[0].std() / centred[1].std()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    seeds: dict[int, list[Expert]] = defaultdict(list)
    for run in parser.parse_args().runs:
        expert = Expert(run)
        seeds[expert.seed].append(expert)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for experts in seeds.values():
        cold, warm = sorted(experts, key=lambda expert: expert.kl_coef)
        for name, numbers in compare(cold, warm).items():
            found[name].append(numbers)
    names = list(next(iter(found.values()))[0])
    print("| demonstrations | " + " | ".join(names) + " |")
    print("|---" * (1 + len(names)) + "|")
    for arm, rows in found.items():
        cells = [mean_interval([row[name] for row in rows]) for name in names]
        texts = [f"{mean:.3f} ± {(high - mean):.3f}" for mean, _, high in cells]
        print(f"| {arm} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    main()
