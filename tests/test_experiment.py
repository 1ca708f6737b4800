"""Whole studies, small, through the entry point: what a run leaves behind, and every way in.

The runs share one store, so that a variation pays only for the steps that it changes.
"""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, roc_auc_score
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from irl_exp import cli
from irl_exp.data import synthetic
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.models.reward_model import Facts
from irl_exp.models.saved_rewards import load_reward
from irl_exp.report import command
from irl_exp.steps import interpret
from irl_exp.steps.bench import derive
from tests.materials import (
    as_in_older_repositories,
    save_classifier,
    save_language_model,
    save_pythia,
    write_hub_cache,
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
    "summary.json",
    "report.md",
)
POLICIES = ("reference", "aligned", "realigned")
CONTROLS = ("log_ratio", "length", "untrained", "oracle")
FACTORS = ("length", "ended", "repetition", "likelihood")
NOT_APPLICABLE = "not applicable"
SEEDS = (
    *("data", "policy", "alignment", "demonstrations"),
    *("recovery", "initialization", "order"),
)
# Steps of a whole run, by the names under which the run reports them.
STEPS = (
    *("curate", "pretrain", "ground_truth", "ground_truth_quality", "align", "observe_reference"),
    *("observe_aligned", "demonstrate", "recover", *(f"control_{name}" for name in CONTROLS)),
    *("twin", "evaluate_panel", "evaluate", "identify", "interpret"),
    *("realign", "observe_realigned"),
)
# The numbers that every run must have.
NUMBERS = (
    *("ground_truth/auc", "ground_truth/accuracy"),
    *(
        f"policy/{policy}/{name}"
        for policy in POLICIES
        for name in (
            *("toxicity_rate", "toxicity_rate_second", "mean_reward", "kl"),
            *("perplexity", "length", "distinct_2"),
        )
    ),
    *("policy/aligned/optimality", "policy/aligned/optimality_samples"),
    "policy/aligned/optimality_effective_sample_size",
    *("recovery/auc", "recovery/accuracy", "recovery/f1", "recovery/accuracy_at_zero"),
    *("recovery/pair_accuracy", "recovery/starc", "recovery/starc_floor"),
    *("recovery/pearson", "recovery/spearman", "recovery/kendall"),
    "validation/recovery_auc",
    *("recovery/identified_fraction", "recovery/identified_accuracy"),
    *("recovery/jointly_identified_fraction", "recovery/jointly_identified_accuracy"),
    *("recovery/ambiguous_fraction", "recovery/certified_fraction"),
    "recovery/contradicted_fraction",
    *("placebo/identified_fraction", "placebo/auc"),
    *("shuffled/identified_fraction", "shuffled/auc"),
    *("shortcut/truth", "shortcut/truth_given_all", "shortcut/length_matched_pair_accuracy"),
    *(
        f"shortcut/{name}"
        for factor in FACTORS
        for name in (factor, f"{factor}_in_truth", f"{factor}_given_truth", f"truth_given_{factor}")
    ),
    *("attribution/agreement", "attribution/words", "attribution/texts"),
    *(f"control/{control}/{name}" for control in CONTROLS for name in ("auc", "starc")),
    *(f"time/{step}_seconds" for step in (*STEPS, "total")),
    *("store/hits", "store/misses"),
)


class Lab:
    """Runs irl-exp in this process, with its files in a folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.patch = patch
        self.runs = 0

    def run(self, *overrides: str, store: Path | None = None) -> Path:
        """The directory of a small run."""
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        self.main(*overrides, f"hydra.run.dir={folder}", store=store)
        return folder

    def main(self, *arguments: str, store: Path | None = None) -> None:
        small = ("+debug=smoke", "trainer.threads=1", f"paths.store={store or self.store}")
        self.patch.setattr(sys, "argv", ["irl-exp", *arguments, *small])
        cli.main()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """What a run sets for its whole process is set back, so that no other test sees it."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        yield Lab(tmp_path_factory.mktemp("lab"), patch)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def smoke(lab: Lab) -> Path:
    return lab.run()


def summary(run: Path) -> dict[str, Any]:
    return read(run / "summary.json")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def results(run: Path) -> dict[str, Any]:
    """The summary without what may differ between two runs of one study."""
    return {n: v for n, v in summary(run).items() if not n.startswith(("time/", "store/"))}


def comments_of(panel: pd.DataFrame) -> pd.DataFrame:
    return panel[panel["kind"] == "comment"]


# --- what a run leaves behind ---------------------------------------------------------------------


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
    assert {name.partition("/")[0] for name in extra} == {"shortcut", "attribution"}


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


def test_a_second_run_finds_everything(smoke: Path, lab: Lab) -> None:
    again = lab.run()
    assert summary(again)["store/misses"] == 0
    assert summary(again)["store/hits"] == len(STEPS)
    assert results(again) == results(smoke)
    assert lines(again / "samples.jsonl") == lines(smoke / "samples.jsonl")
    assert lines(again / "metrics.jsonl") == lines(smoke / "metrics.jsonl")


def test_a_finished_run_is_not_run_again(smoke: Path, lab: Lab) -> None:
    before = (smoke / "status.json").read_bytes()
    lab.main(f"hydra.run.dir={smoke}")
    assert (smoke / "status.json").read_bytes() == before


@pytest.mark.parametrize("last", ["curate", "demonstrate", "identify"])
def test_until_stops_after_a_step(smoke: Path, lab: Lab, last: str) -> None:
    run = lab.run(f"until={last}")
    assert read(run / "status.json")["status"] == "done"
    done = tuple(read(run / "manifest.json")["steps"])
    assert done == STEPS[: STEPS.index(last) + 1]
    expected = {name: v for name, v in results(smoke).items() if name in results(run)}
    assert results(run) == expected
    assert any(n.startswith("recovery/") for n in results(run)) == (last == "identify")
    assert (run / "report.md").stat().st_size


@pytest.mark.slow
def test_the_same_seed_gives_the_same_digits(smoke: Path, lab: Lab, tmp_path: Path) -> None:
    fresh = lab.run(store=tmp_path / "store")
    assert summary(fresh)["store/hits"] == 0
    assert results(fresh) == results(smoke)


@pytest.mark.slow
def test_another_seed_gives_another_study(smoke: Path, lab: Lab) -> None:
    other = lab.run("seed=1", "until=pretrain")
    assert summary(other)["store/hits"] == 0
    assert results(other)["model/validation_loss"] != results(smoke)["model/validation_loss"]


@pytest.mark.slow
def test_a_sweep_of_recovery_computes_what_it_shares_once(lab: Lab, tmp_path: Path) -> None:
    sweep, store = tmp_path / "sweep", tmp_path / "store"
    arguments = ("-m", "solver=hinge,asymmetric", "seeds=recovery_only", "seed=range(0,2)")
    lab.main(*arguments, f"hydra.sweep.dir={sweep}", store=store)
    runs = sorted(path.parent for path in sweep.glob("*/status.json"))
    assert [read(run / "status.json")["status"] for run in runs] == ["done"] * 4
    computed = Counter(path.parent.parent.name for path in store.glob("*/[!.]*/manifest.json"))
    assert computed == {
        **{"curate": 1, "pretrain": 1, "demonstrate": 1},
        **{"ground_truth": 2, "ground_truth_quality": 1},  # R* and its twin; R* alone is measured
        "align": 1 + 4,  # the expert, and a realigned policy of each run
        "observe": 2 + 4,
        "recover": 4 + 2 * len(CONTROLS),  # each run's own, and for each seed the controls
        **{"evaluate_panel": 1, "evaluate": 4, "identify": 4, "interpret": 4},
    }
    assert sum(summary(run)["store/misses"] for run in runs) == sum(computed.values())
    upstream = STEPS[: STEPS.index("demonstrate") + 1]
    shared = {tuple(read(run / "manifest.json")["steps"][s] for s in upstream) for run in runs}
    assert len(shared) == 1
    assert len({results(run)["recovery/starc"] for run in runs}) == 4


# --- demonstrations with nothing to find ----------------------------------------------------------


@pytest.mark.parametrize("contrast", ["placebo", "shuffled"])
def test_nothing_to_find(smoke: Path, lab: Lab, contrast: str) -> None:
    """Training and validation tell nothing of the expert; the test split is that of any other run,
    and so are the texts that rewards are measured on."""
    run = lab.run(f"demonstrations={contrast}", "solver=svm", "until=evaluate")
    true, blank = (Demonstrations.load(artifact(lab, r, "demonstrate")) for r in (smoke, run))
    assert (blank.prompts, blank.splits, blank.k) == (true.prompts, true.splits, true.k)
    assert blank.split("test") == true.split("test")
    assert (
        read(run / "manifest.json")["panel_digest"] == read(smoke / "manifest.json")["panel_digest"]
    )
    for name in ("train", "validation"):
        old, new = true.split(name), blank.split(name)
        if contrast == "placebo":
            assert new.reference == old.reference
            assert not set(map(tuple, new.aligned)) & set(map(tuple, old.aligned))
        else:
            rows = [*zip(old.aligned, old.reference, new.aligned, new.reference, strict=True)]
            assert all(Counter(a + b) == Counter(c + d) for a, b, c, d in rows)
            kept = np.mean([text in a for a, _, c, _ in rows for text in c])
            assert kept == pytest.approx(0.5, abs=0.2)
    said = [w for w in read(run / "status.json")["warnings"] if "demonstrations.contrast" in w]
    assert len(said) == 1 and said[0].startswith(f"demonstrations.contrast={contrast}: ")
    assert said[0] in (run / "report.md").read_text()
    assert not any("contrast" in w for w in read(smoke / "status.json").get("warnings", []))
    # The identity of the true contrast is as it was before there were others.
    folder = artifact(lab, smoke, "demonstrate")
    assert "contrast" not in read(folder / "manifest.json")["identity"]["config"]
    again = lab.run(f"demonstrations={contrast}", "solver=svm", "until=demonstrate")
    assert summary(again)["store/misses"] == 0


@pytest.mark.slow
def test_a_sweep_is_reported(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named sweep, less of it: what its seeds vary is what the report says, on one panel."""
    sweep = tmp_path / "sweep"
    place = f"hydra.sweep.dir={sweep}"
    lab.main("+sweep=non_identifiability", "seeds.demonstrations=0", "seeds.alignment=0", place)
    lab.main("-m", "until=evaluate", "seeds.demonstrations=1", place)
    runs = [path.parent for path in sorted(sweep.glob("*/status.json"))]
    assert len(runs) == 5 and {read(run / "status.json")["status"] for run in runs} == {"done"}
    assert len({read(run / "manifest.json")["panel_digest"] for run in runs}) == 1
    assert len({read(run / "manifest.json")["steps"]["demonstrate"] for run in runs}) == 2
    assert len({read(run / "manifest.json")["steps"]["align"] for run in runs}) == 1

    monkeypatch.setattr(sys, "argv", ["irl-report", str(sweep)])
    command.main()
    pairs = pd.read_csv(sweep / "report" / "starc-pairs.csv")
    counts = {"initialization": 2, "order of data": 2, "recovery (initialization, order)": 2}
    assert Counter(pairs["varied"]) == {**counts, "demonstrations": 1, "several of these": 3}
    assert ((pairs["starc"] > 1e-3) & (pairs["starc"] < 1)).all()
    [square] = (sweep / "report").glob("starc-????????????????.csv")
    assert len(pd.read_csv(square)) == 5 + 1
    assert len(pd.read_csv(sweep / "report" / "results.csv")) == 5


@pytest.mark.slow
def test_seeds_can_be_set_apart(smoke: Path, lab: Lab) -> None:
    """Each changes its own step and what follows from that, and nothing before."""
    known = read(smoke / "manifest.json")["steps"]
    for seed, step in {
        "alignment": "align",
        "demonstrations": "demonstrate",
        "initialization": "recover",
        "order": "recover",
    }.items():
        steps = read(lab.run(f"seeds.{seed}=1", f"until={step}") / "manifest.json")["steps"]
        changed = [name for name, fingerprint in steps.items() if known[name] != fingerprint]
        follows = {"align": ["align", "observe_aligned"]}.get(step, [step])
        assert changed == follows, seed


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "line", "steps"),
    [
        (
            "demonstrations.prompts=100000",
            "demonstrations.prompts=100000: the train split has",
            {"curate"},
        ),
        ("model.learning_rate=1e30", "LanguageModeling: training diverged", {"curate", "pretrain"}),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_published(
    lab: Lab, tmp_path: Path, override: str, line: str, steps: set[str]
) -> None:
    with pytest.raises(SystemExit, match=line):
        lab.run(override, store=tmp_path / "store")
    assert {folder.name for folder in (tmp_path / "store").glob("[!.]*")} == steps
    published = {path.parent.name for path in (tmp_path / "store").glob("[!.]*/[!.]*")}
    assert published == {"curate"}


# --- every way in ---------------------------------------------------------------------------------


def test_your_own_file_of_comments(smoke: Path, lab: Lab, tmp_path: Path) -> None:
    """The embedded comments, taken out to a file and read in again, are the same comments; and a
    file counts by its content, wherever it lies."""
    made = synthetic.generate(2000, derive(0, "comments"), politeness=0.3, length=0.3)
    path = tmp_path / "comments.csv"
    write_csv(path, [(text, "rude" if toxic else "fine") for text, toxic in made])
    columns = ("dataset.text_column=comment", "dataset.label_column=verdict")
    choice = ("dataset=file", *columns, "dataset.toxic_values=[rude]", "until=curate")
    run = lab.run(*choice, f"dataset.path={path}")
    ours, embedded = (artifact(lab, folder, "curate") for folder in (run, smoke))
    pd.testing.assert_frame_equal(Comments.load(ours).table, Comments.load(embedded).table)
    moved = path.rename(tmp_path / "moved.csv")
    again = lab.run(*choice, f"dataset.path={moved}")
    assert summary(again)["store/hits"] == 1


@pytest.mark.parametrize("meant", [True, False])
def test_a_ground_truth_that_knows_nothing_is_warned_of(
    meant: bool, lab: Lab, tmp_path: Path
) -> None:
    """Labels drawn at random have nothing to learn; the same comments with their own labels do."""
    made = synthetic.generate(2000, 7, politeness=0.3, length=0.3)
    drawn = np.random.default_rng(0).permutation([toxic for _, toxic in made])
    labels = [toxic for _, toxic in made] if meant else drawn.tolist()
    path = tmp_path / "comments.csv"
    write_csv(path, [(text, str(label)) for (text, _), label in zip(made, labels, strict=True)])
    run = lab.run(
        *("dataset=file", f"dataset.path={path}", "until=ground_truth"),
        *("dataset.text_column=comment", "dataset.label_column=verdict"),
    )
    said = [w for w in read(run / "status.json").get("warnings", []) if "than chance" in w]
    assert len(said) == (0 if meant else 1)


def test_a_data_set_with_a_cut_of_its_own(lab: Lab, tmp_path: Path) -> None:
    """Jigsaw's columns, in a folder: prompts and completions are the columns of the data set."""
    rows = save_jigsaw(tmp_path / "jigsaw", 400)
    run = lab.run("dataset=jigsaw", f"dataset.path={tmp_path / 'jigsaw'}", "until=curate")
    table = Comments.load(artifact(lab, run, "curate")).table
    found = table[["prompt", "completion", "toxic"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(rows)
    assert {len(prompt.split()) for prompt, _, _ in rows} == {3, 4, 5, 6}
    assert "comments/dropped_unscored" not in summary(run)


def test_rows_without_a_score_are_counted(lab: Lab, tmp_path: Path) -> None:
    """RealToxicityPrompts' nested records: either half can be toxic, or lack its score."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    scores = [(0.1, 0.2), (0.6, 0.1), (0.2, 0.5), (0.9, None)]
    with (folder / "prompts.jsonl").open("w") as lines:
        for i in range(200):
            halves = zip(("prompt", "continuation"), (f"A b {i}", " c"), scores[i % 4], strict=True)
            record = {half: {"text": text, "toxicity": score} for half, text, score in halves}
            lines.write(json.dumps(record) + "\n")
    choice = ("dataset=real_toxicity_prompts", f"dataset.path={folder}", "dataset.size=null")
    run = lab.run(*choice, "until=curate")
    numbers = summary(run)
    names = ("read", "dropped_unscored", "kept")
    assert [numbers[f"comments/{name}"] for name in names] == [200, 50, 150]
    table = Comments.load(artifact(lab, run, "curate")).table
    expected = [(f"A b {i}", " c", int(i % 4 > 0)) for i in range(200) if i % 4 < 3]
    found = table[["prompt", "completion", "toxic"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(expected)


@pytest.mark.slow
def test_real_prompts(lab: Lab) -> None:
    real = os.environ.get("IRL_EXP_REAL_DATA")
    if real is None:
        pytest.skip("IRL_EXP_REAL_DATA is not set: no real prompts to read")
    path = Path(real) / "rtp_prompts"
    run = lab.run(
        "dataset=real_toxicity_prompts", f"dataset.path={path}", "dataset.max_new_tokens=16"
    )
    numbers = summary(run)
    assert [name for name in NUMBERS if name not in numbers] == []
    assert (numbers["comments/read"], numbers["comments/dropped_unscored"]) == (2396, 19)


@pytest.mark.slow
def test_ids_of_the_hub(tmp_path: Path) -> None:
    """Model, data set and classifier by id, from a cache and without a network. They count by their
    commits: when one moves, what rests on it is computed again, and nothing else."""
    made = {name: tmp_path / name for name in ("model", "data", "classifier")}
    rows = save_jigsaw(made["data"], 400)
    texts = [prompt + completion for prompt, completion, _ in rows]
    save_pythia(made["model"], texts)
    save_classifier(made["classifier"], texts)
    as_in_older_repositories(made["classifier"])
    cached = {
        "model": "models--EleutherAI--pythia-14m",
        "data": "datasets--jaredjoss--jigsaw-long-2000",
        "classifier": "models--s-nlp--roberta_toxicity_classifier",
    }

    def publish(name: str, commit: str) -> None:
        write_hub_cache(tmp_path / "hub", cached[name], commit * 40, made[name])

    def run(number: int, **settings: str) -> dict[str, Any]:
        """The summary of a run, and the identities of its artifacts by step."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {"HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)} | settings
        folder, store = tmp_path / f"run-{number}", tmp_path / "store"
        choices = (
            *("model=pythia-14m", "dataset=jigsaw", "ground_truth=classifier"),
            *("+debug=smoke", "model.epochs=0", "until=ground_truth", "trainer.threads=1"),
            "ground_truth.path=s-nlp/roberta_toxicity_classifier",
        )
        places = (f"hydra.run.dir={folder}", f"paths.store={store}")
        command = [sys.executable, "-m", "irl_exp", *choices, *places]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        steps = read(folder / "manifest.json")["steps"]
        keys = {step: next(store.glob(f"*/{steps[step]}/manifest.json")) for step in steps}
        return summary(folder) | {step: read(path)["identity"] for step, path in keys.items()}

    for name in made:
        publish(name, "a")
    first = run(1, HF_HUB_OFFLINE="1")
    identities = {
        "curate": ("jaredjoss/jigsaw-long-2000", first["curate"]["config"]),
        "pretrain": ("EleutherAI/pythia-14m", first["pretrain"]["config"]["model"]),
        "ground_truth": ("s-nlp/roberta_toxicity_classifier", first["ground_truth"]["config"]),
    }
    for path, config in identities.values():
        assert (config["path"], config["revision"]) == (path, "a" * 40)

    again = run(2, HF_ENDPOINT="http://127.0.0.1:9")
    assert again["store/misses"] == 0
    publish("classifier", "b")
    moved = run(3, HF_HUB_OFFLINE="1")
    assert moved["ground_truth"]["config"]["revision"] == "b" * 40
    assert moved["store/misses"] == 2  # R* and its quality
    publish("data", "b")
    assert run(4, HF_HUB_OFFLINE="1")["store/hits"] == 0


@pytest.mark.slow
def test_a_whole_study_of_your_own_file(lab: Lab, tmp_path: Path) -> None:
    made = synthetic.generate(1500, 7)
    path = tmp_path / "comments.csv"
    write_csv(path, [(text, str(toxic)) for text, toxic in made])
    columns = ("dataset.text_column=comment", "dataset.label_column=verdict")
    run = lab.run("dataset=file", f"dataset.path={path}", *columns)
    assert [name for name in NUMBERS if name not in summary(run)] == []


@pytest.mark.slow
def test_the_tilted_expert(smoke: Path, lab: Lab) -> None:
    run = lab.run("rlhf=tilted", "rlhf.kl_coef=0.3")
    numbers = summary(run)
    assert [
        name for name in NUMBERS if name not in {*numbers, "time/control_log_ratio_seconds"}
    ] == []
    without = {name for name, value in numbers.items() if value == NOT_APPLICABLE}
    assert without == {
        *(f"control/log_ratio/{name}" for name in ("auc", "starc", "pair_accuracy")),
        *("policy/aligned/perplexity", "policy/realigned/perplexity"),
    }
    # The log-ratio of the PPO expert is in the store, and must not stand in for it.
    assert "control/log_ratio" not in pd.read_parquet(run / "panel.parquet")
    # Resampling by exp(R/beta) raises R: this expert is aligned by construction.
    assert numbers["policy/aligned/mean_reward_low"] > numbers["policy/reference/mean_reward_high"]
    assert 0 < numbers["policy/aligned/kl"] < numbers["policy/aligned/kl_cap"]
    assert numbers["policy/aligned/kl_cap"] == pytest.approx(math.log(64))
    assert numbers["policy/aligned/optimality"] == pytest.approx(1, abs=0.35)


@pytest.mark.slow
def test_the_grammars_own_reward(smoke: Path, lab: Lab) -> None:
    run = lab.run("ground_truth=closed_form")
    panel, numbers = pd.read_parquet(run / "panel.parquet"), summary(run)
    texts = panel["prompt"] + panel["completion"]
    np.testing.assert_allclose(
        panel["truth"], [synthetic.reward(text) for text in texts], rtol=1e-6
    )
    assert numbers["ground_truth/auc"] == 1  # labels follow from it
    assert numbers["recovery/starc_floor"] == NOT_APPLICABLE  # nothing was trained: no second R*
    assert [name for name in NUMBERS if name not in {*numbers, "time/twin_seconds"}] == []

    # What each word does to R*, one text and one word at a time.
    steps = read(run / "manifest.json")["steps"]
    pool = Demonstrations.load(lab.store / "demonstrate" / steps["demonstrate"]).split("test")
    comments = Comments.load(lab.store / "curate" / steps["curate"]).split("test")
    unit = Facts.load(lab.store / "ground_truth" / steps["ground_truth"]).normalizer.std
    effects: dict[str, list[float]] = {}
    for prompt, completion in zip(*interpret._texts(pool, comments, 64), strict=True):
        whole = synthetic.reward(prompt + completion)
        for word in re.finditer(r" *([^\W_]+('[^\W_]+)*)", completion):
            rest = completion[: word.start()] + completion[word.end() :]
            loss = (whole - synthetic.reward(prompt + rest)) / unit
            effects.setdefault(word[1].lower(), []).append(loss)
    words = pd.read_parquet(run / "attribution.parquet").set_index("word")
    assert set(words.index) == {word for word, found in effects.items() if len(found) >= 5}
    for word, row in words.iterrows():
        assert row["count"] == len(effects[word])
        assert row["truth"] == pytest.approx(np.mean(effects[word]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "epochs"), [("gpt2", 1), ("llama", 0)])
def test_a_checkpoint_of_your_own(
    smoke: Path, lab: Lab, tmp_path: Path, family: str, epochs: int
) -> None:
    given, moved = tmp_path / "given", tmp_path / "moved"
    save_language_model(given, family, training_texts(lab, smoke))
    choice = ("model=checkpoint", f"model.epochs={epochs}", "dataset.max_new_tokens=12")
    run = lab.run(*choice, f"model.path={given}")
    numbers = summary(run)
    assert [name for name in NUMBERS if name not in numbers] == []
    assert ("model/validation_loss" in numbers) == (epochs > 0)
    # What was kept is again a plain folder: the same tokenizer, and the weights as far as epochs=0.
    kept = artifact(lab, run, "pretrain")
    text = "Please don't revert this, it's sourced."
    ids = [AutoTokenizer.from_pretrained(folder)(text)["input_ids"] for folder in (kept, given)]
    assert ids[0] == ids[1]
    before, after = (network_logits(folder, ids[0]) for folder in (given, kept))
    vocabulary = before.shape[-1]  # a pad token may have been added behind it
    assert torch.equal(before, after[..., :vocabulary]) == (epochs == 0)
    # A checkpoint counts by its content, wherever it lies.
    shutil.move(given, moved)
    again = lab.run(*choice, f"model.path={moved}", "until=pretrain")
    assert summary(again)["store/misses"] == 0


@pytest.mark.slow
def test_a_classifier_of_your_own(smoke: Path, lab: Lab, tmp_path: Path) -> None:
    """R* is the classifier's log-odds of "not toxic", as plain transformers computes them."""
    save_classifier(tmp_path / "classifier", training_texts(lab, smoke))
    run = lab.run("ground_truth=classifier", f"ground_truth.path={tmp_path / 'classifier'}")
    panel = pd.read_parquet(run / "panel.parquet")
    expected = log_odds(tmp_path / "classifier", (panel["prompt"] + panel["completion"]).tolist())
    np.testing.assert_allclose(panel["truth"], expected, rtol=1e-3, atol=1e-4)
    assert [name for name in NUMBERS if name not in {*summary(run), "time/twin_seconds"}] == []


@pytest.mark.slow
def test_the_papers_demonstrations(smoke: Path, lab: Lab) -> None:
    """One greedy completion of each policy: what transformers' own search finds."""
    run = lab.run("demonstrations=paper", "demonstrations.k=1")
    assert [name for name in NUMBERS if name not in summary(run)] == []
    table = pd.read_parquet(artifact(lab, run, "demonstrate") / "demonstrations.parquet")
    assert table["split"].value_counts().to_dict() == {"train": 64, "test": 32, "validation": 16}
    for label, name in {"align": "aligned", "pretrain": "reference"}.items():
        prompts, written = table["prompt"][:8].tolist(), table[name][:8].tolist()
        assert written == [[text] for text in greedy(artifact(lab, run, label), prompts, tokens=32)]


@pytest.mark.slow
def test_the_papers_evaluation(smoke: Path, lab: Lab) -> None:
    """Zero as the threshold, and R*'s own verdict at zero as the label."""
    run = lab.run("evaluation=paper")
    comments, numbers = comments_of(pd.read_parquet(run / "panel.parquet")), summary(run)
    toxic, called = comments["truth"] <= 0, comments["recovered"] <= 0
    assert numbers["recovery/accuracy"] == pytest.approx((toxic == called).mean(), abs=0.004)
    assert numbers["recovery/f1"] == pytest.approx(f1_score(toxic, called), abs=0.01)
    assert numbers["recovery/auc"] == pytest.approx(roc_auc_score(toxic, -comments["recovered"]))


@pytest.mark.slow
def test_labels_at_zero_that_part_nothing_are_refused(
    smoke: Path, lab: Lab, tmp_path: Path
) -> None:
    folder = tmp_path / "classifier"
    save_classifier(folder, training_texts(lab, smoke))
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        network.classifier.out_proj.bias[network.config.label2id["toxic"]] -= 1000
    network.save_pretrained(folder)
    with pytest.raises(SystemExit, match=r"R\* calls no test comment toxic at zero"):
        lab.run("evaluation=paper", "ground_truth=classifier", f"ground_truth.path={folder}")


# --- materials ------------------------------------------------------------------------------------


def artifact(lab: Lab, run: Path, label: str) -> Path:
    """The folder in the store that a run used under a label."""
    (folder,) = lab.store.glob(f"*/{read(run / 'manifest.json')['steps'][label]}")
    return folder


def training_texts(lab: Lab, run: Path) -> list[str]:
    return Comments.load(artifact(lab, run, "curate")).split("train").texts


def save_jigsaw(folder: Path, n: int) -> list[tuple[str, str, int]]:
    """Embedded comments as Jigsaw-2000 keeps its own: n rows of prompt, original_output, toxic,
    cut after three to six words; returned as curation keeps them."""
    folder.mkdir()
    rows = []
    for i, (text, toxic) in enumerate(synthetic.generate(n, seed=7)):
        words = text.split()
        at = 3 + i % 4
        rows.append((" ".join(words[:at]), " " + " ".join(words[at:]), toxic))
    table = pd.DataFrame(rows, columns=["prompt", "original_output", "toxic"])
    table.to_parquet(folder / "train-00000-of-00001.parquet", index=False)
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("comment", "verdict"))
        writer.writerows(rows)


@torch.no_grad()
def log_odds(folder: Path, texts: list[str]) -> list[float]:
    """log p(neutral)/p(toxic), one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    odds = []
    for text in texts:
        probability = network(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)
        odds.append(float((probability[0] / probability[1]).log()))
    return odds


@torch.no_grad()
def network_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    return network(torch.tensor([ids])).logits


def greedy(folder: Path, prompts: list[str], tokens: int) -> list[str]:
    """The likeliest continuation of each prompt, one prompt at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    texts: list[str] = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        mask = torch.ones_like(ids)
        whole = network.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False)
        texts += tokenizer.batch_decode(whole[:, ids.shape[1] :], skip_special_tokens=True)
    return texts
