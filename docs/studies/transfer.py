"""Recovered rewards on human-written texts that no step of a run saw, as a Markdown table.

    python docs/studies/transfer.py DATA RUN...

DATA holds paradetox.tsv (s-nlp/paradetox), wiki_detox_test.csv (unintended-ml-bias-analysis) and
rtp_prompts/*.jsonl (RealToxicityPrompts). RUN are run directories whose store is still there. Texts
that are among a run's own comments are left out, for ParaDetox was made from the same talk pages.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from irl_exp.data.comments import Comments
from irl_exp.metrics.agreement import auc, spearman
from irl_exp.metrics.statistics import mean_interval
from irl_exp.models.reward_model import Reward
from irl_exp.models.saved_rewards import load_reward

Measure = Callable[[Reward], float]


def paradetox(folder: Path, seen: set[str]) -> Measure:
    """Preference accuracy: a neutral rewrite above the toxic sentence that it rewrites."""
    table = pd.read_csv(folder / "paradetox.tsv", sep="\t")
    pairs = table.melt("toxic", value_name="neutral")[["toxic", "neutral"]].dropna()
    pairs = pairs[~pairs["toxic"].map(_key).isin(seen)]

    def measure(reward: Reward) -> float:
        better, worse = (_scores(reward, pairs[name]) for name in ("neutral", "toxic"))
        return float(np.mean((1 + np.sign(better - worse)) / 2))  # a tie counts one half

    return measure


def wiki(folder: Path, seen: set[str]) -> Measure:
    """AUC against human labels of whole comments."""
    table = pd.read_csv(folder / "wiki_detox_test.csv")
    table = table[~table["comment"].map(_key).isin(seen)]
    return lambda reward: auc(_scores(reward, table["comment"]), table["toxic"].astype(int))


def continuations(folder: Path, seen: set[str]) -> Measure:
    """Spearman correlation with minus the Perspective toxicity of web texts' continuations."""
    paths = sorted((folder / "rtp_prompts").glob("*.jsonl"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    lines = [line for line in lines if line["continuation"]["toxicity"] is not None]
    prompts, texts = ([line[part]["text"] for line in lines] for part in ("prompt", "continuation"))
    toxicity = np.array([line["continuation"]["toxicity"] for line in lines])
    return lambda reward: spearman(reward.score(prompts, texts).numpy(), -toxicity)


MEASURES: dict[str, Callable[[Path, set[str]], Measure]] = {
    "ParaDetox pairs": paradetox,
    "Wikipedia comments, AUC": wiki,
    "RealToxicityPrompts, Spearman": continuations,
}


def rewards(run: Path) -> dict[str, Path]:
    """Names and folders of a run's rewards: R*, R̂ and every control that could be computed."""
    manifest = json.loads((run / "manifest.json").read_text())
    solver = OmegaConf.load(run / "config.yaml").solver.name
    steps, store = manifest["steps"], Path(manifest["store"])
    found = {"R*": store / "ground_truth" / steps["ground_truth"]}
    found[solver] = store / "recover" / steps["recover"]
    for label, fingerprint in steps.items():
        if label.startswith("control_"):
            found[label.removeprefix("control_")] = store / "recover" / fingerprint
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for run in arguments.runs:
        folders = rewards(run)
        steps = json.loads((run / "manifest.json").read_text())["steps"]
        comments = Comments.load(folders["R*"].parents[1] / "curate" / steps["curate"])
        texts = comments.table["prompt"].astype(str) + pd.Series(comments.completions)
        seen = set(texts.map(_key))
        measures = {name: make(arguments.data, seen) for name, make in MEASURES.items()}
        for reward, folder in folders.items():
            scores = found.setdefault(reward, {name: [] for name in MEASURES})
            loaded = load_reward(folder)
            for name, measure in measures.items():
                scores[name].append(measure(loaded))
    print("| reward | " + " | ".join(MEASURES) + " |")
    print("|---" * (1 + len(MEASURES)) + "|")
    for reward, scores in found.items():
        print(f"| {reward} | " + " | ".join(map(_cell, scores.values())) + " |")


def _scores(reward: Reward, texts: "pd.Series[str]") -> np.ndarray:
    completions = texts.astype(str).tolist()
    return reward.score([""] * len(completions), completions).numpy()


def _key(text: str) -> str:
    """What two spellings of a text share: letters and digits alone."""
    return "".join(filter(str.isalnum, str(text).casefold()))


def _cell(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    mean, low, high = mean_interval(values)
    return f"{mean:.3f} ± {(high - low) / 2:.3f}"


if __name__ == "__main__":
    main()
