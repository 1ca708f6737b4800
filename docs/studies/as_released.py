"""What do the departures of the paper's released code do to a recovered reward? Tables in Markdown.

    python docs/studies/as_released.py --launch   # ten variants on seeds 0-4, then the tables
    python docs/studies/as_released.py            # the tables, of what is in sweeps/

Runs are in sweeps/as_released_VARIANT. All share comments, reference, R* and
expert of a seed: our PPO's, for the paper's rate does not align a network of this size. What R̂ is
worth is measured on the panel of each run, the same texts for all variants of a seed: AUC and
accuracy on held-out comments, STARC and accuracy within prompts on the reference's completions.
Means over seeds with 95 % t-intervals. Beside them, what the run itself states.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from irl_exp import cli
from irl_exp.metrics.agreement import accuracy, auc, pair_accuracy, spearman
from irl_exp.metrics.reward_distance import starc
from irl_exp.metrics.statistics import mean_interval
from irl_exp.models.reward_model import Facts
from irl_exp.models.shaped_reward import CHUNK, shaped

SHARED = [
    *("model=neox-50k", "dataset.size=7000"),
    # Our PPO in the place of the paper's, whatever the experiment says.
    *("rlhf.kl_coef=0.25", "rlhf.iterations=40", "rlhf.batch_size=320", "rlhf.epochs=1"),
    *("rlhf.minibatch_size=80", "rlhf.trainable=all", "rlhf.scale_scores=false"),
    *("rlhf.learning_rate=4e-4", "rlhf.value_learning_rate=1e-2", "rlhf.warmup=0.05"),
    *("rlhf.value_clip_range=0.5", "rlhf.value_coef=0.1"),
    # One panel for all, and no numbers that the tables do not read.
    *("demonstrations.validation_prompts=80", "demonstrations.test_prompts=280"),
    *("evaluation.draws=20", "evaluation.greedy_tokens=50", "evaluation.prompts=100"),
    *("evaluation.optimality_prompts=16", "trainer.threads=1"),
    *(f"~evaluation.controls.{name}" for name in ("log_ratio", "length", "untrained", "oracle")),
]
# The recipe as the paper tells it: every switch of the released code off, pairs against the
# reference, everything measured on held-out texts.
TOLD = [
    *("+experiment=paper_70m_as_released", "solver.last_characters=false"),
    *("solver.accumulate_gradients=false", "solver.shuffle=true", "solver.late=false"),
    *("demonstrations.against=reference", "evaluation.texts=held_out"),
]
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "default": ("our defaults (`logistic`, 2,000 prompts, k = 4)", []),
    "paper": ("`paper_70m`", ["+experiment=paper_70m"]),
    "released": ("`paper_70m_as_released`", ["+experiment=paper_70m_as_released"]),
    "told": ("as told: none of the departures", TOLD),
    "D1": ("D1, last characters", [*TOLD, "solver.last_characters=true"]),
    "D3": ("D3, gradients pile up", [*TOLD, "solver.accumulate_gradients=true"]),
    "D15": ("D15, pairs against the base", [*TOLD, "demonstrations.against=base"]),
    "D8": ("D8, no shuffling", [*TOLD, "solver.shuffle=false"]),
    "D6": ("D6, an epoch late", [*TOLD, "solver.late=true"]),
    "D5": ("D5, measured on training texts", [*TOLD, "evaluation.texts=training"]),
}
NAMED = ("default", "paper", "released", "told")
MEASURES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "at_zero": "accuracy at zero",
    "within": "within-prompt accuracy",
    "starc": "STARC",
    "stated_auc": "stated AUC",
    "stated_accuracy": "stated accuracy",
}


def launch(seeds: list[int]) -> None:
    """A seed after the other, so that a study that is stopped has whole seeds."""
    for seed in seeds:
        for name, (_, overrides) in VARIANTS.items():
            chosen = {word.split("=")[0]: word for word in [*SHARED, *overrides]}
            folder = f"hydra.run.dir=sweeps/as_released_{name}/seed-{seed}"
            sys.argv = ["irl-exp", f"seed={seed}", "until=evaluate", folder, *chosen.values()]
            cli.main()


def read(name: str) -> pd.DataFrame:
    runs = sorted(Path(f"sweeps/as_released_{name}").glob("*/panel.parquet"))
    return pd.DataFrame([measure(path.parent) for path in runs])


def measure(run: Path) -> dict[str, float]:
    manifest = json.loads((run / "manifest.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    steps = manifest["steps"]
    reward = Path(manifest["store"]) / "recover" / steps.get("measured", steps["recover"])
    panel = pd.read_parquet(run / "panel.parquet")
    comments = panel[panel["kind"] == "comment"]
    written = panel[panel["kind"] == "reference"]
    labels = comments["toxic"].to_numpy(np.int64)
    scores = comments["recovered"].to_numpy()
    threshold = Facts.load(reward).threshold
    assert threshold is not None
    truth, recovered = (
        written.groupby("prompt", sort=False)[name].apply(list).tolist()
        for name in ("truth", "recovered")
    )
    return {
        "seed": manifest["seeds"]["data"],
        "auc": auc(scores, labels),
        "accuracy": accuracy(scores, labels, threshold),
        "at_zero": accuracy(scores, labels, 0.0),
        "within": pair_accuracy(np.array(truth), np.array(recovered)),
        "starc": starc(np.array(truth), np.array(recovered)),
        "stated_auc": pd.to_numeric(summary["recovery/auc"], errors="coerce"),
        "stated_accuracy": float(summary["recovery/accuracy"]),
    }


def shaping() -> None:
    """What D21 leaves of R* itself, on the reference's completions in random fours."""
    rows = []
    for run in sorted(Path("sweeps/as_released_default").glob("*/panel.parquet")):
        panel = pd.read_parquet(run)
        truth = panel[panel["kind"] == "reference"]["truth"].to_numpy()
        fours = np.random.default_rng(0).permutation(truth).reshape(-1, CHUNK)
        left = np.stack([shaped(torch.from_numpy(four)).numpy() for four in fours])
        kept = np.mean(fours.argmax(1) == left.argmax(1))
        rows.append({"kept": kept, "rho": spearman(fours.ravel(), left.ravel())})
    found = pd.DataFrame(rows)
    print(f"\nSpearman's correlation of R* with shaped R*: {spread(found['rho'])};")
    print(f"fours whose best text is still the best: {spread(found['kept'])} (by chance 0.25)")


def spread(values: "pd.Series[float]") -> str:
    if values.isna().any():
        return "–"
    if len(values) < 2:
        return f"{values.iloc[0]:.3f}"
    mean, low, high = mean_interval(values.tolist())
    return f"{mean:.3f} ± {(high - low) / 2:.3f}"


def table(first: str, names: list[str]) -> None:
    """Of the seeds that all of its rows have."""
    found = {name: read(name).set_index("seed") for name in names}
    seeds = sorted(set.intersection(*(set(rows.index) for rows in found.values())))
    print(f"\nSeeds {', '.join(map(str, seeds))}:")
    print(f"\n| {first} | {' | '.join(MEASURES.values())} |")
    print("|---" * (1 + len(MEASURES)) + "|")
    for name, rows in found.items():
        cells = [spread(rows.loc[seeds, measure]) for measure in MEASURES]
        print(f"| {VARIANTS[name][0]} | {' | '.join(cells)} |", flush=True)


def differences(names: list[str], against: str = "told") -> None:
    """What a departure changes on the same seed, so that seeds do not count as noise."""
    told = read(against).set_index("seed")
    print("\n| departure alone | AUC | STARC | stated AUC | AUC, each seed |")
    print("|---" * 5 + "|")
    for name in names:
        less = read(name).set_index("seed").sort_index() - told
        each = ", ".join(f"{value:+.3f}" for value in less["auc"])
        cells = [spread(less[measure].dropna()) for measure in ("auc", "starc", "stated_auc")]
        print(f"| {VARIANTS[name][0]} | {' | '.join(cells)} | {each} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--launch", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    arguments = parser.parse_args()
    if arguments.launch:
        launch(arguments.seeds)
    table("recipe", list(NAMED))
    alone = [name for name in VARIANTS if name not in NAMED]
    table("departure alone", ["told", *alone])
    differences(alone)
    shaping()


if __name__ == "__main__":
    main()
