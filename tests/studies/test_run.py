"""What a run leaves behind: its directory, and numbers that follow from its files."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score
from transformers import (
    AutoTokenizer,
)

from irl_exp.data.pairs import Demonstrations
from irl_exp.models.reward_model import Facts
from irl_exp.models.saved_rewards import load_reward
from tests.studies.lab import (
    CONTROLS,
    NOT_APPLICABLE,
    NUMBERS,
    POLICIES,
    STEPS,
    Lab,
    artifact,
    lines,
    read,
    results,
    summary,
)

FILES = (
    "config.yaml",
    "overrides.yaml",
    "manifest.json",
    "status.json",
    "metrics.jsonl",
    "samples.jsonl",
    "panel.parquet",
    "identified.parquet",
    "attribution.parquet",
    "findings.parquet",
    "summary.json",
    "report.md",
)
SEEDS = (
    *("data", "policy", "alignment", "demonstrations"),
    *("recovery", "initialization", "order"),
)


def test_run_directory_is_complete(smoke: Path, lab: Lab) -> None:
    assert [name for name in FILES if not (smoke / name).stat().st_size] == []
    assert any((smoke / "figures").glob("*.png"))
    assert "+debug=smoke" in (smoke / "overrides.yaml").read_text()
    status, manifest = read(smoke / "status.json"), read(smoke / "manifest.json")
    assert status["status"] == "done"
    assert status["run_id"] == manifest["run_id"]
    assert manifest["seeds"] == dict.fromkeys(SEEDS, 0)
    assert {"python", "torch", "transformers"} <= manifest["versions"].keys()
    assert tuple(manifest["steps"]) == STEPS
    kept = {folder.name for folder in lab.store.glob("*/*") if (folder / "manifest.json").exists()}
    assert set(manifest["steps"].values()) <= kept


def test_every_number_is_there(smoke: Path) -> None:
    numbers = summary(smoke)
    assert [name for name in NUMBERS if name not in numbers] == []
    # Of the few prompts of a smoke study all pairs at once may identify none.
    without = {n: v for n, v in numbers.items() if v != NOT_APPLICABLE}
    assert numbers.keys() - without.keys() <= {"recovery/jointly_identified_accuracy"}
    assert [name for name, value in without.items() if not math.isfinite(value)] == []
    for name in (name.removesuffix("_low") for name in numbers if name.endswith("_low")):
        assert numbers[f"{name}_low"] <= numbers[f"{name}_high"], name
    shares = [name for name in NUMBERS if name.endswith(("auc", "accuracy", "f1", "rate"))]
    assert all(0 <= without.get(name, 0) <= 1 for name in shares)
    assert numbers["policy/reference/kl"] == 0
    assert numbers["store/hits"] == 0
    assert numbers["store/misses"] == len(STEPS)


def test_curves_and_samples(smoke: Path) -> None:
    curves = lines(smoke / "metrics.jsonl")
    assert all(isinstance(record["global_step"], int) and len(record) > 2 for record in curves)
    trained = {"pretrain", "ground_truth", "align", "recover", "control_oracle", "realign"}
    assert trained <= {record["step"] for record in curves} <= set(STEPS)
    samples = lines(smoke / "samples.jsonl")
    # The smoke study looks at 32 prompts, and shows one completion of each policy to each.
    assert Counter(sample["policy"] for sample in samples) == dict.fromkeys(POLICIES, 32)
    assert all(sample["prompt"] and math.isfinite(sample["truth"]) for sample in samples)


def test_the_numbers_follow_from_the_panel(smoke: Path) -> None:
    """Recomputed from the panel's scores and labels: the sign, the split and the formula agree."""
    panel = pd.read_parquet(smoke / "panel.parquet")
    comments, numbers = comments_of(panel), summary(smoke)
    toxic = comments["toxic"].astype(int)
    assert len(comments) == numbers["comments/test"]
    for name, column in {
        "ground_truth/auc": "truth",
        "recovery/auc": "recovered",
        **{f"control/{control}/auc": f"control/{control}" for control in CONTROLS},
    }.items():
        assert numbers[name] == pytest.approx(roc_auc_score(toxic, -comments[column]), abs=1e-9)
    expected = pearsonr(comments["truth"], comments["recovered"]).statistic
    assert numbers["recovery/pearson"] == pytest.approx(expected, abs=1e-5)
    zero = ((comments["recovered"] <= 0) == toxic).mean()
    assert numbers["recovery/accuracy_at_zero"] == pytest.approx(zero, abs=0.004)


def test_differences_follow_from_the_prompts(smoke: Path, lab: Lab) -> None:
    numbers, tables = summary(smoke), {}
    for policy in POLICIES:
        folder = artifact(lab, smoke, f"observe_{policy}")
        tables[policy] = pd.read_parquet(folder / "prompts.parquet").set_index("prompt")
        assert len(tables[policy]) == numbers[f"policy/{policy}/prompts"]
    for policy, other, end in (
        ("aligned", "reference", "change"),
        ("realigned", "reference", "change"),
        ("realigned", "aligned", "change_from_aligned"),
    ):
        for measure in ("toxicity_rate", "toxicity_rate_second", "mean_reward", "length"):
            change = numbers[f"policy/{policy}/{measure}_{end}"]
            paired = tables[policy][measure] - tables[other][measure]
            assert change == pytest.approx(paired.mean())
            before, after = (numbers[f"policy/{p}/{measure}"] for p in (other, policy))
            assert change == pytest.approx(after - before)


def test_what_r_hat_goes_by_follows_from_the_store(smoke: Path, lab: Lab) -> None:
    """Recomputed from the demonstrations and the saved rewards, by the formula for one factor."""
    numbers, steps = summary(smoke), read(smoke / "manifest.json")["steps"]
    # The one correlation that recovery/starc is made of.
    assert numbers["shortcut/truth"] == pytest.approx(1 - 2 * numbers["recovery/starc"] ** 2)

    pool = Demonstrations.load(lab.store / "demonstrate" / steps["demonstrate"]).split("test")
    prompts, completions = pool.pool()
    tokenizer = AutoTokenizer.from_pretrained(lab.store / "pretrain" / steps["pretrain"])
    tokens = [len(ids) for ids in tokenizer(completions, add_special_tokens=False)["input_ids"]]
    limit = yaml.safe_load((smoke / "config.yaml").read_text())["dataset"]["max_new_tokens"]
    words = [text.split() for text in completions]
    columns = {
        "R̂": load_reward(lab.store / "recover" / steps["recover"]).score(prompts, completions),
        "R*": load_reward(lab.store / "ground_truth" / steps["ground_truth"]).score(
            prompts, completions
        ),
        "length": [min(n + 1, limit) for n in tokens],
        "ended": [n < limit for n in tokens],
        "repetition": [1 - len(set(w)) / len(w) if w else 0 for w in words],
    }
    within = {}
    for name, values in columns.items():
        rows = np.asarray(values, dtype=float).reshape(len(pool), -1)
        within[name] = (rows - rows.mean(axis=1, keepdims=True)).ravel()
    for factor in ("length", "ended", "repetition"):
        ours, theirs, both = (
            pearsonr(within[a], within[b]).statistic
            for a, b in (("R̂", factor), ("R*", factor), ("R̂", "R*"))
        )
        assert numbers[f"shortcut/{factor}"] == pytest.approx(ours, abs=1e-6)
        assert numbers[f"shortcut/{factor}_in_truth"] == pytest.approx(theirs, abs=1e-6)
        left = (ours - both * theirs) / math.sqrt((1 - both**2) * (1 - theirs**2))
        assert numbers[f"shortcut/{factor}_given_truth"] == pytest.approx(left, abs=1e-6)
        left = (both - ours * theirs) / math.sqrt((1 - ours**2) * (1 - theirs**2))
        assert numbers[f"shortcut/truth_given_{factor}"] == pytest.approx(left, abs=1e-6)


def test_words_are_in_the_run_directory(smoke: Path) -> None:
    words, numbers = pd.read_parquet(smoke / "attribution.parquet"), summary(smoke)
    assert len(words) == numbers["attribution/words"] > 10
    assert numbers["attribution/texts"] == 64
    rho = spearmanr(words["recovered"], words["truth"]).statistic
    assert numbers["attribution/agreement"] == pytest.approx(rho)
    assert (words["count"] >= 5).all() and words["recovered"].is_monotonic_increasing
    for reward in ("recovered", "truth"):
        assert (words[f"{reward}_low"] <= words[reward] + 1e-9).all()
        assert (words[reward] <= words[f"{reward}_high"] + 1e-9).all()


def test_interpretation_can_be_left_out(smoke: Path, lab: Lab) -> None:
    """And changes nothing else: all other steps are found."""
    run = lab.run("evaluation.interpret_texts=0")
    assert summary(run)["store/misses"] == 0
    assert not (run / "attribution.parquet").exists()
    assert tuple(read(run / "manifest.json")["steps"]) == tuple(
        s for s in STEPS if s != "interpret"
    )
    extra = results(smoke).keys() - results(run).keys()
    assert {name.partition("/")[0] for name in extra} == {"shortcut", "attribution", "findings"}


def test_what_is_identified_follows_from_the_store(smoke: Path, lab: Lab) -> None:
    """R* and R̂ of the pairs recomputed, and the shares from the table."""
    pairs, numbers = pd.read_parquet(smoke / "identified.parquet"), summary(smoke)
    steps = read(smoke / "manifest.json")["steps"]
    assert len(pairs) == 40
    for name, step in (("truth", "ground_truth"), ("recovered", "recover")):
        folder = lab.store / step / steps[step]
        reward, unit = load_reward(folder), Facts.load(folder).normalizer
        first, second = (
            reward.score(pairs["prompt"].tolist(), pairs[end].tolist()).numpy()
            for end in ("first", "second")
        )
        np.testing.assert_allclose(pairs[name], (first - second) / unit.std, atol=1e-4)
    found = pairs[pairs["sign"] != 0]
    assert numbers["recovery/identified_fraction"] == pytest.approx(len(found) / 40)
    right = (found["sign"] == np.sign(found["truth"])).mean()
    assert numbers["recovery/identified_accuracy"] == pytest.approx(right)
    against = (found["sign"] != np.sign(found["recovered"])).mean()
    assert numbers["recovery/contradicted_fraction"] == pytest.approx(against)


def test_identification_can_be_left_out(smoke: Path, lab: Lab) -> None:
    """And changes nothing else: all other steps are found."""
    run = lab.run("evaluation.identify_pairs=0", "until=interpret")
    assert summary(run)["store/misses"] == 0
    assert not (run / "identified.parquet").exists()
    assert "identify" not in read(run / "manifest.json")["steps"]


# --- materials ----------------------------------------------------------------------------------


def comments_of(panel: pd.DataFrame) -> pd.DataFrame:
    return panel[panel["kind"] == "comment"]
