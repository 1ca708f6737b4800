"""Our PPO beside TRL's, from the same models with the same reward: a table and a figure.

    python -m benchmarks.peers.trl_ppo.side_by_side PEER FIGURE RUN...

Runs in the project's own environment. RUN are run directories of several seeds, until=align; what
train.py made of the run of seed N lies in PEER/separate/N and PEER/shared/N; of either, what is not
there is left out. All final policies are measured alike, on validation prompts.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from irl_exp.data.comments import Comments
from irl_exp.metrics.statistics import mean_interval
from irl_exp.models import language_model
from irl_exp.models.generation import NetworkPolicy
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.report.style import QUIET, RECOVERED, STYLE, TRUTH

OURS = "irl_exp"
ARMS = {OURS: TRUTH, "TRL, a value model": RECOVERED, "TRL, our value head": QUIET}
FOLDERS = dict(zip(ARMS, (None, "separate", "shared"), strict=True))
# Completions of each validation prompt by which a policy is measured.
COMPLETIONS = 8


@dataclass(frozen=True)
class Alignment:
    """One arm of one seed: its curves, and its final policy measured."""

    curves: list[dict[str, Any]]
    numbers: dict[str, float]


def alignments(run: Path, peer: Path) -> tuple[int, dict[str, Alignment]]:
    """The seed of a run, and all arms."""
    manifest = json.loads((run / "manifest.json").read_text())
    config = OmegaConf.load(run / "config.yaml")
    store = Path(manifest["store"])
    place = {
        step: store / step / manifest["steps"][step]
        for step in ("curate", "pretrain", "ground_truth", "align")
    }
    seed = int(config.seed)
    found = {}
    for arm, kind in FOLDERS.items():
        folder = peer / kind / str(seed) if kind else run
        if not (folder / "metrics.jsonl").is_file():
            continue
        policy = folder if kind else place["align"]
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        curves = [x for x in lines if x.get("step") == "align" and "objective/kl" in x]
        found[arm] = Alignment(curves, measure(policy, place, config))
    return seed, found


def measure(policy: Path, place: dict[str, Path], config: Any) -> dict[str, float]:
    """E R, KL from the reference (nats) and J = E R - beta KL; equal draws for equal policies."""
    prompts = Comments.load(place["curate"]).split("validation").prompts
    reference = language_model.load(place["pretrain"])
    writer = NetworkPolicy(language_model.load(policy), config.dataset.max_new_tokens, 256)
    samples = writer.sample(prompts, COMPLETIONS, torch.Generator().manual_seed(0), reference)
    assert samples.kl is not None
    reward = load_normalized(place["ground_truth"]).score(*samples.flat()).mean().item()
    kl = samples.kl.mean().item()
    length = samples.lengths.float().mean().item()
    return {"E R": reward, "KL": kl, "J": reward - config.rlhf.kl_coef * kl, "tokens": length}


def table(seeds: dict[int, dict[str, Alignment]]) -> str:
    """Mean and standard deviation over seeds, and by how much J is below ours, seed by seed."""
    names = ["E R", "KL", "J", "tokens"]
    header = ["", "seeds", *names, "J: ours less this, 95 %"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for arm in ARMS:
        both = [
            (found[OURS].numbers, found[arm].numbers) for found in seeds.values() if arm in found
        ]
        columns = [np.array([row[name] for _, row in both]) for name in names]
        cells = [f"{x.mean():.3f} ± {x.std(ddof=1):.3f}" for x in columns]
        mean, low, high = mean_interval([ours["J"] - row["J"] for ours, row in both])
        cells.append("–" if arm == OURS else f"{mean:.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {arm} | {len(both)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(seeds: dict[int, dict[str, Alignment]], path: Path) -> None:
    """Reward against KL of each seed's rollouts; and what they come to, the mean over seeds."""
    means: dict[str, list[list[float]]] = defaultdict(list)
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 5.4))
        *panels, last = figure.subplots(2, 3).flat
        for ax, (seed, found) in zip(panels, sorted(seeds.items()), strict=False):
            for arm, alignment in found.items():
                names = ("kl", "scores", "rlhf_reward")
                kl, scores, total = (
                    [line[f"objective/{name}"] for line in alignment.curves] for name in names
                )
                ax.plot(kl, scores, "o", color=ARMS[arm], label=arm, ms=4, alpha=0.7)
                means[arm].append(total)
            ax.set(title=f"seed {seed}", xlabel="KL from the reference, nats", ylabel="reward R*")
        for arm, totals in means.items():
            last.plot(np.arange(len(totals[0])), np.mean(totals, axis=0), color=ARMS[arm])
        last.set(title="mean over seeds", xlabel="rollout", ylabel="R* − β KL")
        panels[0].legend(loc="lower right")
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", type=Path)
    parser.add_argument("figure", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    seeds = dict(alignments(run, given.peer) for run in given.runs)
    if len(seeds) < 2:
        sys.exit("RUN: runs of one seed; expected two seeds or more, as intervals are over seeds")
    draw(seeds, given.figure)
    print(table(seeds))


if __name__ == "__main__":
    main()
