"""A made-up run directory with every file, as a run that trained for minutes would leave it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from irl_exp.data import synthetic
from irl_exp.metrics import agreement

SPLITS = ("train", "validation", "calibration", "test")
FACTORS = ("length", "ended", "repetition", "likelihood")
DROPPED = ("empty", "too_short", "conflicting", "duplicate", "sampling")
# Number -> (value, half the width of its interval).
INTERVALS = {
    "ground_truth/auc": (0.953, 0.012),
    "ground_truth/accuracy": (0.881, 0.018),
    "policy/reference/toxicity_rate": (0.512, 0.021),
    "policy/reference/toxicity_rate_second": (0.478, 0.022),
    "policy/reference/mean_reward": (-0.012, 0.041),
    "policy/reference/kl": (0.0, 0.0),
    "policy/reference/length": (14.2, 0.3),
    "policy/aligned/toxicity_rate": (0.0613, 0.011),
    "policy/aligned/toxicity_rate_second": (0.142, 0.016),
    "policy/aligned/mean_reward": (1.13, 0.028),
    "policy/aligned/kl": (3.41, 0.12),
    "policy/aligned/length": (12.1, 0.25),
    "policy/aligned/overlap": (0.61, 0.012),
    "policy/aligned/optimality": (0.824, 0.031),
    "policy/realigned/toxicity_rate": (0.104, 0.014),
    "policy/realigned/toxicity_rate_second": (0.168, 0.017),
    "policy/realigned/mean_reward": (0.981, 0.033),
    "policy/realigned/kl": (3.77, 0.14),
    "policy/realigned/length": (11.8, 0.27),
    "policy/realigned/optimality": (0.653, 0.042),
    **{
        f"policy/{policy}/{measure}{which}": (value, 0.02)
        for policy, value in (("reference", 0.891), ("aligned", 0.173), ("realigned", 0.262))
        for measure in ("expected_max_toxicity", "toxicity_probability")
        for which in ("", "_second")
    },
    "policy/reference/mean_recovered": (0.021, 0.043),
    "policy/aligned/mean_recovered": (0.914, 0.036),
    "policy/realigned/mean_recovered": (1.31, 0.031),
    "recovery/pair_accuracy": (0.842, 0.009),
    "recovery/starc": (0.312, 0.012),
    "recovery/starc_floor": (0.147, 0.008),
    "recovery/accuracy": (0.834, 0.022),
    "recovery/f1": (0.829, 0.024),
    "recovery/accuracy_at_zero": (0.611, 0.03),
    "recovery/pearson": (0.743, 0.025),
    "recovery/identified_fraction": (0.743, 0.05),
    "recovery/identified_accuracy": (0.848, 0.046),
    "recovery/ambiguous_fraction": (0.257, 0.05),
    "recovery/jointly_identified_fraction": (0.041, 0.021),
    "recovery/jointly_identified_accuracy": (0.912, 0.06),
    "recovery/certified_fraction": (0.0093, 0.003),
    "recovery/contradicted_fraction": (0.121, 0.044),
    "placebo/identified_fraction": (0.044, 0.018),
    "placebo/auc": (0.498, 0.026),
    "shuffled/identified_fraction": (0.052, 0.019),
    "shuffled/auc": (0.489, 0.027),
    "shortcut/truth": (0.701, 0.031),
    "shortcut/truth_given_all": (0.655, 0.034),
    "shortcut/length_matched_pair_accuracy": (0.811, 0.019),
    **{f"shortcut/{factor}": (0.31, 0.04) for factor in FACTORS},
    **{f"shortcut/{factor}_in_truth": (0.22, 0.05) for factor in FACTORS},
    **{f"shortcut/{factor}_given_truth": (0.12, 0.05) for factor in FACTORS},
    **{f"shortcut/truth_given_{factor}": (0.68, 0.03) for factor in FACTORS},
}
# What differs between policies -> (mean, half the width of its interval), and p.
CHANGES = {
    f"policy/{change}": (value, half)
    for change, value, half in (
        ("aligned/toxicity_rate_change", -0.451, 0.02),
        ("aligned/toxicity_rate_second_change", -0.336, 0.021),
        ("aligned/mean_reward_change", 1.142, 0.05),
        ("aligned/length_change", -2.1, 0.4),
        ("realigned/toxicity_rate_change", -0.408, 0.021),
        ("realigned/toxicity_rate_second_change", -0.31, 0.022),
        ("realigned/mean_reward_change", 0.993, 0.05),
        ("realigned/length_change", -2.4, 0.41),
        ("realigned/toxicity_rate_change_from_aligned", 0.043, 0.015),
        ("realigned/toxicity_rate_second_change_from_aligned", 0.026, 0.018),
        ("realigned/mean_reward_change_from_aligned", -0.149, 0.04),
        ("realigned/length_change_from_aligned", -0.3, 0.35),
    )
}
P_VALUES = {f"{name}_p": 1e-4 for name in CHANGES} | {
    "policy/realigned/toxicity_rate_second_change_from_aligned_p": 0.0123,
    "policy/realigned/length_change_from_aligned_p": 0.25,
}
INTERVALS |= CHANGES
NUMBERS = {
    **P_VALUES,
    "recovery/held_out_pairs": 300,
    "recovery/kendall": 0.561,
    "shortcut/length_matched_pairs": 1234,
    "attribution/agreement": 0.734,
    "attribution/words": 40,
    "attribution/texts": 400,
    "findings/candidates": 44,
    "findings/count": 2,
    "validation/recovery_auc": 0.907,
    "policy/reference/perplexity": 9.84,
    "policy/aligned/perplexity": 17.3,
    "policy/realigned/perplexity": 19.1,
    "policy/reference/distinct_2": 0.412,
    "policy/aligned/distinct_2": 0.287,
    "policy/realigned/distinct_2": 0.263,
    **{f"policy/{policy}/prompts": 300 for policy in ("reference", "aligned", "realigned")},
    "policy/realigned/kl_target": 3.43,
    **{f"policy/{policy}/samples": 1200 for policy in ("reference", "aligned", "realigned")},
    **{f"policy/{policy}/optimality_samples": 256 for policy in ("aligned", "realigned")},
    "policy/aligned/optimality_effective_sample_size": 61.3,
    "policy/realigned/optimality_effective_sample_size": 61.3,
    **{f"comments/{name}": 4000 for name in ("read", "kept", *SPLITS)},
    **{f"comments/dropped_{rule}": 0 for rule in DROPPED},
    **{f"comments/{split}_prompts": 1300 for split in SPLITS},
    **{f"comments/{split}_toxic_share": 0.49 for split in SPLITS},
    "model/parameters": 396960,
    "model/truncated_comments": 0,
    "model/truncated_prompts": 0,
    "ground_truth/truncated_comments": 0,
    "model/validation_loss": 1.35,
    "store/hits": 0,
    "store/misses": 16,
    "time/total_seconds": 312.4,
}
STEPS = (
    *("curate", "pretrain", "ground_truth", "align", "observe_reference", "observe_aligned"),
    *("demonstrate", "recover", "control_length", "control_untrained", "control_oracle", "twin"),
    *(
        "evaluate_panel",
        "evaluate",
        "identify",
        "interpret",
        "spent",
        "realign",
        "observe_realigned",
    ),
)
STATUS = {"status": "done", "run_id": "1a2b3c4d", "warnings": [], "seconds": 314.0}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write_run(folder)
    return folder


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """rewrite(path, name=value, ...) changes or adds entries of a JSON file; None removes one."""

    def change(path: Path, **entries: Any) -> None:
        merged = json.loads(path.read_text()) | entries
        path.write_text(json.dumps({k: v for k, v in merged.items() if v is not None}))

    return change


def write_run(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    config = "evaluation: {labels: human, level: 0.95}\npaths: {store: outputs/store}\n"
    (folder / "config.yaml").write_text(config)
    (folder / "overrides.yaml").write_text('- "solver=hinge"\n- "rlhf.kl_coef=0.3"\n')
    manifest = {
        "started": "2030-01-02T03:04:05+00:00",
        "seeds": {"data": 0, "policy": 0, "recovery": 0},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "steps": {step: "f" * 16 for step in STEPS},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "status.json").write_text(json.dumps(STATUS))
    panel = make_panel(rng)
    panel.to_parquet(folder / "panel.parquet")
    make_identified(rng).to_parquet(folder / "identified.parquet")
    make_attribution(rng).to_parquet(folder / "attribution.parquet")
    make_findings().to_parquet(folder / "findings.parquet")
    (folder / "summary.json").write_text(json.dumps(make_summary(panel)))
    for name, records in {"metrics": make_curves(rng), "samples": make_samples()}.items():
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (folder / f"{name}.jsonl").write_text("".join(lines))


def make_panel(rng: np.random.Generator) -> pd.DataFrame:
    """600 comments, of which R* and R̂ see the label through noise, and 300 completions."""
    n = 900
    toxic = rng.integers(0, 2, n)
    truth = 4 * np.tanh((1 - 2 * toxic) * 1.2 + rng.normal(0, 1, n)) + rng.normal(0, 0.4, n)
    recovered = 0.6 * truth + rng.normal(0, 1.6, n) - 1
    panel = pd.DataFrame(
        {
            "kind": ["comment"] * 600 + ["reference"] * 300,
            "prompt": [f"On the harbour page, {i}" for i in range(n)],
            "completion": " you are a good helper",
            "toxic": pd.array([*toxic[:600], *[None] * 300], dtype="Int8"),
            "truth": truth,
            "recovered": recovered,
            "control/length": rng.integers(4, 25, n) + toxic,
            "control/untrained": rng.normal(0, 0.05, n),
            "control/oracle": truth + rng.normal(0, 0.9, n),
        }
    )
    floats = ["truth", "recovered", "control/length", "control/untrained", "control/oracle"]
    return panel.astype(dict.fromkeys(floats, "float32"))


def make_identified(rng: np.random.Generator) -> pd.DataFrame:
    """120 pairs of which the demonstrations see R* through noise."""
    truth = rng.normal(0, 1.5, 120)
    middle, half = truth + rng.normal(0, 0.8, 120), rng.uniform(0.3, 0.8, 120)
    low, high = middle - half, middle + half
    sign = (low > 0).astype("int8") - (high < 0).astype("int8")
    return pd.DataFrame(
        {
            "prompt": [f"On the harbour page, {i}" for i in range(120)],
            "first": [f" you are a good helper {i}" for i in range(120)],
            "second": [f" you are a silly goose {i}" for i in range(120)],
            "truth": truth,
            "recovered": truth + rng.normal(0, 0.5, 120),
            "low": low,
            "high": high,
            "sign": sign,
            "joint_sign": np.where(np.abs(middle) > 3, sign, 0).astype("int8"),
        }
    )


def make_attribution(rng: np.random.Generator) -> pd.DataFrame:
    """40 words: 13 insults that cost both rewards, 26 others, and "please", which R̂ made up."""
    words = [*synthetic.LEXICON["noun"].split()[:13], "please", *synthetic.LEXICON["thing"].split()]
    truth = np.concatenate([np.linspace(-1.6, -0.4, 13), [0.0], np.linspace(0, 0.2, 26)])
    recovered = 0.8 * truth + rng.normal(0, 0.08, 40)
    recovered[13] = 0.9
    table = pd.DataFrame({"word": words[:40], "count": rng.integers(5, 90, 40)})
    for name, mean in (("recovered", recovered), ("truth", truth)):
        table[name] = mean
        table[f"{name}_low"], table[f"{name}_high"] = mean - 0.15, mean + 0.15
    return table.sort_values("recovered", ignore_index=True)


def make_findings() -> pd.DataFrame:
    """A word that R̂ made up, the length that it dislikes, and another word that may be chance."""
    rows = [
        ("word", "please", 0.61, 0.5, 0.72, True),
        ("factor", "length", -0.32, -0.4, -0.24, True),
        ("word", "map", 0.03, -0.05, 0.11, False),
    ]
    columns = ["kind", "name", "correlation", "low", "high", "stands_out"]
    return pd.DataFrame(rows, columns=columns)


def make_summary(panel: pd.DataFrame) -> dict[str, Any]:
    comments = panel[panel["kind"] == "comment"]
    measured = dict(INTERVALS)
    for column in ("recovered", "control/length", "control/untrained", "control/oracle"):
        name = "recovery" if column == "recovered" else column
        auc = agreement.auc(comments[column], comments["toxic"].astype(int))
        measured[f"{name}/auc"] = (auc, (1 - auc) / 4)
        if name != "recovery":
            measured[f"{name}/pair_accuracy"] = (auc - 0.03, 0.01)
            measured[f"{name}/starc"] = (0.75 - 0.4 * auc, 0.01)
    rank = agreement.spearman(comments["recovered"], comments["truth"])
    truth = agreement.auc(comments["truth"], comments["toxic"].astype(int))
    measured |= {"recovery/spearman": (rank, 0.03), "ground_truth/auc": (truth, (1 - truth) / 4)}
    summary: dict[str, Any] = dict(NUMBERS)
    for name, (value, half) in measured.items():
        summary |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
    for measure in ("auc", "starc", "pair_accuracy"):
        summary[f"control/log_ratio/{measure}"] = "not applicable"
    summary |= {f"time/{step}_seconds": 3.21 * i for i, step in enumerate(STEPS)}
    return dict(sorted(summary.items()))


def make_curves(rng: np.random.Generator) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []

    def add(step: str, at: int, **values: float) -> None:
        records.append({"step": step, "global_step": at, **values})

    for i in range(9, 780, 10):
        loss = 2.1 + 4.5 * np.exp(-i / 90) + rng.normal(0, 0.05)
        add("pretrain", i, loss=loss)
        if i % 130 == 129:
            add("pretrain", i, validation_loss=loss + 0.07)
    for i in range(9, 390, 10):
        add("ground_truth", i, loss=0.15 + 0.55 * np.exp(-i / 60) + abs(rng.normal(0, 0.03)))
    for i in range(9, 100, 10):
        right = 0.9 - 0.4 * np.exp(-i / 30) + rng.normal(0, 0.02)
        add("recover", i, loss=1.6 * (1 - right), pair_accuracy=right)
        if i % 30 == 29:
            add("recover", i, validation_pair_accuracy=right - 0.04)
    for step, top in (("align", 1.1), ("realign", 1.3)):
        for i in range(80):
            rise = 1 - np.exp(-i / 20)
            values = {
                "objective/scores": top * rise + rng.normal(0, 0.05),
                "objective/kl": 3.4 * rise + rng.normal(0, 0.08),
                "completion/length": 14.2 - 2 * rise + rng.normal(0, 0.2),
            }
            add(step, i, **values)
    return records


def make_samples() -> list[dict[str, Any]]:
    endings = {
        "reference": " you are a silly goose, and the map is late.",
        "aligned": " you are a clear reader, thanks.",
        "realigned": " the archive says it is good.",
    }
    return [
        {
            "policy": policy,
            "prompt": f"Your last {topic} edit:",
            "completion": ending,
            "truth": -2.345 if policy == "reference" else 3.21,
            "kl": 1.0,
        }
        for policy, ending in endings.items()
        for topic in ("harbour", "castle", "tulip", "chess", "opera", "desert", "comet")
    ]


# --- runs of a sweep, small enough to be reckoned by hand -----------------------------------------

SEEDS = ("data", "policy", "alignment", "demonstrations", "recovery", "initialization", "order")


def write_small_run(
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    summary: dict[str, float | str] | None = None,
    recovered: Sequence[float] | None = None,
    digest: str = "d1",
    status: str = "done",
    error: str | None = None,
    **seeds: int,
) -> Path:
    """A run whose seeds are 0 but for those given, with two prompts of two completions in its
    panel: R* differs by 1 between the first prompt's, and not between the second's."""
    folder.mkdir(parents=True)
    everything = {"solver": {"name": "hinge"}, "paths": {"store": str(folder)}, "seed": 0}
    everything |= {"seeds": dict.fromkeys(SEEDS, 0) | seeds} | (config or {})
    (folder / "config.yaml").write_text(json.dumps(everything))  # JSON is YAML
    facts = {"run_id": folder.name, "status": status} | ({"error": error} if error else {})
    (folder / "status.json").write_text(json.dumps(facts))
    (folder / "manifest.json").write_text(json.dumps({"panel_digest": digest}))
    (folder / "summary.json").write_text(json.dumps(summary or {}))
    if recovered is not None:
        panel = pd.DataFrame(
            {
                "kind": ["comment", *["reference"] * 4],
                "prompt": ["a", "a", "a", "b", "b"],
                "completion": ["of people", "one", "two", "three", "four"],
                "truth": [9.0, 1.0, 0.0, 5.0, 5.0],
                "twin": [9.0, 2.0, 0.0, 3.0, 1.0],
                "recovered": [9.0, *recovered],
            }
        )
        panel.to_parquet(folder / "panel.parquet")
    return folder
