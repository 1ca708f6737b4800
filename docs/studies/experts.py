"""Which property of an expert makes its reward recoverable? Tables in Markdown, and a figure.

    python docs/studies/experts.py RUN... [--figure FILE]

RUN are run directories, or sweeps of them, that differ in how the reference was aligned and in the
seed; of each seed the same experts, as far as until=evaluate. Prints what each kind of expert is
like and what is recovered from it, means over seeds with 95 % t-intervals, and how closely each
property goes with what is recovered: Spearman's correlation over the experts of one seed, whose
comments, reference and R* are the same, as the mean over seeds with its t-interval. Of all experts,
of those at one beta, and of PPO's at all: how well, and how far, are two questions.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from irl_exp.metrics.statistics import mean_interval
from irl_exp.report.run import Run, number

PROPERTIES = {
    "optimality": "optimality",
    "kl": "KL, nats",
    "length_shift": "shift in length",
    "diversity": "distinct bigrams",
    "toxicity": "toxicity",
    "overlap": "overlap",
    # Both what the expert does otherwise than the reference and what it still does like it.
    "balance": "overlap × (1 − overlap)",
    "log_ratio_auc": "log-ratio AUC",
}
OUTCOMES = {
    "pair_accuracy": "within-prompt accuracy",
    "starc": "STARC",
    "auc": "AUC of R̂",
    "identified": "identified",
}
LEVEL = 0.95


def read(folders: list[Path]) -> pd.DataFrame:
    """A row for each run: its seed, its expert, what that is like and what is recovered."""
    places = {path.parent for folder in folders for path in folder.glob("**/status.json")}
    rows = [row(Run.read(place)) for place in sorted(places)]
    return pd.DataFrame(rows).drop_duplicates(["seed", "expert"]).sort_values(["expert", "seed"])


def row(run: Run) -> dict[str, float | str]:
    def value(name: str) -> float:
        found = run.summary.get(name)
        return float(found) if isinstance(found, int | float) else float("nan")

    rlhf = run.config["rlhf"]
    name = f"{rlhf['name']}, β = {rlhf['kl_coef']:g}"
    before, after = (value(f"policy/{policy}/length") for policy in ("reference", "aligned"))
    overlap = value("policy/aligned/overlap")
    return {
        "seed": run.config["seed"],
        "way": rlhf["name"],
        "kl_coef": rlhf["kl_coef"] if rlhf["name"] != "best_of_n" else float("nan"),
        "expert": name if rlhf["name"] != "best_of_n" else f"best of {rlhf['candidates']}",
        "optimality": value("policy/aligned/optimality"),
        "kl": value("policy/aligned/kl"),
        "length_shift": abs(after / before - 1),
        "diversity": value("policy/aligned/distinct_2"),
        "toxicity": value("policy/aligned/toxicity_rate"),
        "overlap": overlap,
        "balance": overlap * (1 - overlap),
        "log_ratio_auc": value("control/log_ratio/auc"),
        "pair_accuracy": value("recovery/pair_accuracy"),
        "starc": value("recovery/starc"),
        "auc": value("recovery/auc"),
        "identified": value("recovery/identified_fraction"),
    }


def means(table: pd.DataFrame) -> str:
    """What each kind of expert is like, the one with the least STARC distance first."""
    columns = {**PROPERTIES, **OUTCOMES}
    lines = [["expert", "n", *columns.values()], ["---"] * (len(columns) + 2)]
    kinds = table.groupby("expert")
    for kind in kinds["starc"].mean().sort_values().index:
        part = kinds.get_group(kind)
        lines.append([kind, str(len(part)), *(spread(part[column]) for column in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: pd.Series) -> str:
    known = values.dropna().to_numpy()
    if len(known) < 2:
        return number(float(known[0])) if len(known) else "–"
    mean, low, _ = mean_interval(known, LEVEL)
    return f"{number(mean)} ± {number(mean - low)}"


def correlations(table: pd.DataFrame) -> str:
    """Of each property with each outcome. STARC is a distance: there less is better."""
    table = table.dropna(subset=["starc"])
    lines = [["property", *OUTCOMES.values()], ["---"] * (len(OUTCOMES) + 1)]
    for name, label in PROPERTIES.items():
        cells = [spread(pd.Series(within_seeds(table, name, outcome))) for outcome in OUTCOMES]
        lines.append([label, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def subsets(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Experts among which to compare: all, those at the commonest beta, PPO's at every beta."""
    beta = table["kl_coef"].mode()[0]
    return {
        "all experts": table,
        f"experts at β = {beta:g}": table[table["kl_coef"] == beta],
        "ppo at every β": table[table["way"] == "ppo"],
    }


def within_seeds(table: pd.DataFrame, name: str, outcome: str) -> list[float]:
    """Spearman's correlation over the experts of each seed that have both numbers."""
    parts = (part[[name, outcome]].dropna() for _, part in table.groupby("seed"))
    return [float(stats.spearmanr(part).statistic) for part in parts if len(part) > 2]


def explained(table: pd.DataFrame, names: list[str]) -> str:
    """How much of STARC's ranks within a seed a linear function of the ranks of these explains."""
    shares = []
    for _, part in table.groupby("seed"):
        ranks = part[[*names, "starc"]].dropna().rank()
        ranks = ranks - ranks.mean()
        x, y = ranks[names].to_numpy(), ranks["starc"].to_numpy()
        rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        shares.append(1 - float(np.square(rest).sum() / np.square(y).sum()))
    return f"{' and '.join(PROPERTIES[name] for name in names)}: {spread(pd.Series(shares))}"


def draw(table: pd.DataFrame, path: Path) -> None:
    """STARC over each property: a dot for each run, a colour for each way to align."""
    hues = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#222222")
    figure = Figure(figsize=(12.0, 8.6), layout="constrained", dpi=130)
    panels = figure.subplots(3, 3, sharey=True).flatten()
    for axes, (name, label) in zip(panels, PROPERTIES.items(), strict=False):
        for (way, part), hue in zip(table.groupby("way"), hues, strict=False):
            axes.scatter(part[name], part["starc"], s=22, color=hue, label=way, alpha=0.85)
        rho = np.mean(within_seeds(table, name, "starc"))
        axes.set(xlabel=label, title=f"Spearman {number(float(rho))}")
        axes.grid(color="#E6E6E6")
        axes.set_axisbelow(True)
    for axes in panels[::3]:
        axes.set_ylabel("STARC distance of R̂")
    panels[-1].axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    table = read(arguments.runs)
    print(means(table))
    for name, part in subsets(table).items():
        print(f"\nSpearman's correlation, {name}:\n\n{correlations(part)}")
    print("\nShare of the variance of STARC's ranks within a seed, all experts:\n")
    for names in (["optimality"], ["optimality", "balance"]):
        print(f"- {explained(table, names)}")
    if arguments.figure:
        draw(table, arguments.figure)


if __name__ == "__main__":
    main()
