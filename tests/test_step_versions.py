"""A step's VERSION rises whenever its output changes: else the store would hand out what is stale.

Two minute studies run here, and what each step wrote is compared with step_versions.json, which
goes by step and VERSION. When this test fails, its message says what to do.
"""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from irl_exp import experiment
from irl_exp.cli import reset_process_state
from irl_exp.config import (
    Config,
    EvaluationConfig,
    MarginSolver,
    PathsConfig,
    SampledDemonstrations,
    ScratchModel,
    SeedsConfig,
    Shares,
    SolverConfig,
    SyntheticDataset,
    TiltedConfig,
    TrackerConfig,
    TrainedGroundTruth,
    TrainerConfig,
)
from irl_exp.steps.bench import Bench
from irl_exp.store import Store
from irl_exp.tracking import Tracker
from tests.materials import PLAIN_PPO

GOLDEN = Path(__file__).with_name("step_versions.json")
FILES = [path.stem for path in (GOLDEN.parents[1] / "irl_exp" / "steps").glob("[a-z]*.py")]
REWRITE = "IRL_EXP_REWRITE_GOLDEN"
COMMAND = f"{REWRITE}=1 pytest tests/test_step_versions.py"

# "step vVERSION, as STUDY LABEL" -> what it wrote, flat: texts as digests, numbers as they are. In
# the order in which the studies run, so that no step stands before what it reads.
Facts = dict[str, float | str]
Golden = dict[str, Facts]


# Wider registers add up in another order, and a text that is drawn goes another way at the first
# difference: the studies run with what every processor of the kind has.
PROCESSOR = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


# So it does with another release of torch: the file is of the one that constraints.txt names.
CONSTRAINTS = GOLDEN.parents[1] / "constraints.txt"
PINNED = re.search(r"^torch==(\S+)", CONSTRAINTS.read_text(), re.MULTILINE)


@pytest.mark.skipif(
    not PINNED or torch.__version__.split("+")[0] != PINNED[1],
    reason="another torch than in constraints.txt",
)
def test_outputs_change_only_with_versions(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.test_step_versions", str(tmp_path)]
    done = subprocess.run(
        command,
        env={**os.environ, **PROCESSOR},
        cwd=GOLDEN.parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Golden = json.loads(done.stdout.splitlines()[-1])

    known: Golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    fault, news = compare(known, found)
    if fault:
        pytest.fail(fault, pytrace=False)
    if news and os.environ.get(REWRITE):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    elif news:
        pytest.fail(f"{news} If that is meant, write it down: {COMMAND}", pytrace=False)


def compare(known: Golden, found: Golden) -> tuple[str, str]:
    """(what is wrong, what is new), in words; both empty where nothing changed.

    Whatever comes after a step whose VERSION rose, or a new use of a step, may change with it.
    """
    for old, new in zip_longest(known, found):
        if old != new:
            return "", f"{GOLDEN.name} has {old or 'no more'} where the study now has {new}."
        changed = differences(known[old], found[new])
        if changed:
            # A file in steps/ may write more than one kind of artifact: ground_truth, ..._quality.
            step = max(filter(new.startswith, FILES), key=len)
            return (
                f"The output of {new}, changed:\n  "
                + "\n  ".join(changed[:8])
                + f"\nIf that is meant, raise VERSION in irl_exp/steps/{step}.py, so that no store "
                f"hands out the old one, and write down the new one: {COMMAND}\n"
                "(After an upgrade of libraries, too. Where neither code nor libraries changed, as "
                f"on another kind of processor, delete {GOLDEN.name} before that.)"
            ), ""
    return "", ""


def differences(old: Facts, new: Facts) -> list[str]:
    """Texts must be equal, numbers to half a percent or five thousandths: processors round in their
    own ways, and a threshold jumps from one text's score to the next."""

    def differ(a: Any, b: Any) -> bool:
        if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
            return a != b
        return not math.isclose(a, b, rel_tol=5e-3, abs_tol=5e-3)

    names = dict.fromkeys([*old, *new])
    return [f"{n}: {old.get(n)} -> {new.get(n)}" for n in names if differ(old.get(n), new.get(n))]


# --- what a step wrote ----------------------------------------------------------------------------


def contents(folder: Path) -> Facts:
    """Every number and text of the files of ours, by file and name; columns by mean and spread."""
    facts: Facts = {}
    for file in sorted(path for path in folder.rglob("*") if path.name != "manifest.json"):
        name = file.relative_to(folder).as_posix()
        if file.name in ("summary.json", "reward.json", "policy.json"):
            facts |= leaves(name, json.loads(file.read_text()))
        elif file.suffix == ".jsonl":
            facts |= columns(name, pd.read_json(file, lines=True))
        elif file.suffix == ".parquet":
            facts |= columns(name, pd.read_parquet(file))
        elif file.suffix == ".npy":
            facts |= columns(name, pd.DataFrame({"values": np.load(file).ravel()}))
        elif file.suffix == ".safetensors":
            tensors = [tensor.ravel() for tensor in load_file(file).values()]
            facts[f"{name} norm"] = rounded(float(np.linalg.norm(np.concatenate(tensors))))
    return facts


def leaves(name: str, value: Any) -> Facts:
    if isinstance(value, dict):
        return {k: v for key in value for k, v in leaves(f"{name} {key}", value[key]).items()}
    return {name: rounded(value) if isinstance(value, int | float) else str(value)}


def columns(name: str, table: pd.DataFrame) -> Facts:
    facts: Facts = {f"{name} rows": len(table)}
    for column in table:
        where = f"{name} {column}"
        if pd.api.types.is_numeric_dtype(table[column]):
            values = table[column].dropna().astype(float)
            facts |= {where: rounded(values.mean()), f"{where} sd": rounded(values.std(ddof=0))}
        else:
            rows = [
                cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in table[column]
            ]
            if name == "findings.parquet":  # by numbers that may be nearly the same
                rows = sorted(rows)
            facts[where] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]
    return facts


def rounded(number: float) -> float:
    return float(f"{number:.5g}")


# --- the studies: every value is pinned here, so that none of conf/ can change them ---------------


def run(config: Config, folder: Path) -> dict[str, Path]:
    """The artifacts of a study, by what the run calls them, in its order."""
    reset_process_state(config)
    store = Store(Path(config.paths.store))
    with Tracker(folder, "golden") as tracker:
        tracker.start({"seeds": {}}, "", [])
        experiment.run(Bench(config, store, tracker))
    return {label: next(store.root.glob(f"*/{key}")) for label, key in tracker.steps.items()}


def studies(store: Path) -> dict[str, Config]:
    ppo = Config(
        dataset=SyntheticDataset(
            name="synthetic",
            size=240,
            prompt_words=4,
            max_new_tokens=24,
            shares=Shares(train=0.4, validation=0.2, calibration=0.2, test=0.2),
            politeness=0.3,
            length=0.3,
        ),
        model=ScratchModel(
            name="golden",
            vocab_size=320,
            hidden_size=16,
            intermediate_size=32,
            layers=1,
            heads=2,
            context=64,
            epochs=2,
            batch_size=32,
            learning_rate=1e-2,
            warmup=0.1,
            weight_decay=0.01,
        ),
        ground_truth=TrainedGroundTruth(
            name="trained",
            epochs=2,
            batch_size=32,
            learning_rate=1e-2,
            warmup=0.1,
            weight_decay=0.01,
        ),
        rlhf=replace(
            PLAIN_PPO,
            kl_coef=0.5,
            batch_size=16,
            epochs=2,
            minibatch_size=8,
            learning_rate=1e-3,  # small: Adam makes much of the rounding of tiny gradients
            value_learning_rate=1e-3,
            warmup=0.5,
            value_clip_range=0.5,
            stop_kl=30.0,
            stop_distinct_2=0.01,
        ),
        demonstrations=SampledDemonstrations(
            name="sampled",
            prompts=16,
            validation_prompts=8,
            test_prompts=16,
            k=2,
            greedy=False,
            contrast="aligned",
            against="reference",
        ),
        solver=margin("hinge", "hinge"),
        evaluation=EvaluationConfig(
            name="sound",
            threshold="calibrated",
            labels="human",
            texts="held_out",
            draws=20,
            level=0.9,
            prompts=16,
            k=2,
            optimality_prompts=4,
            optimality_samples=16,
            interpret_texts=24,
            identify_pairs=20,
            identify_prior_scale=1.0,
            second_classifier=None,
            second_revision=None,
            second_toxic_label="toxic",
            greedy_tokens=0,
            released_shaping=False,
            frontier=[],
            controls={
                "log_ratio": SolverConfig("log_ratio"),
                "length": SolverConfig("length"),
                "untrained": SolverConfig("untrained"),
                "oracle": margin("oracle", "logistic"),
                # No controls, but solvers whose output is to be pinned as well.
                "asymmetric": margin("asymmetric", "asymmetric"),
                "squared_hinge": margin("squared_hinge", "squared_hinge"),
                "logistic": margin("logistic", "logistic"),
                "max_entropy_network": margin("max_entropy_network", "max_entropy"),
                "lora": replace(margin("hinge", "hinge"), trainable="lora", patience=1),
            },
        ),
        seeds=SeedsConfig(
            data=0,
            policy=0,
            alignment=0,
            demonstrations=0,
            recovery=0,
            initialization=0,
            order=0,
        ),
        trainer=TrainerConfig(
            name="cpu",
            accelerator="cpu",
            precision="32-true",
            matmul_precision="highest",
            threads=1,
            processes=1,
            sharded=False,
            recompute_activations=False,
            score_batch_size=64,
            sample_batch_size=64,
        ),
        tracker=TrackerConfig("local"),
        paths=PathsConfig(str(store)),
        seed=0,
        name=None,
        until=None,
        objective="validation/recovery_auc",
        deterministic=True,
        tags=[],
        extra_tags=[],
        rerun=False,
    )
    tilted = replace(ppo, rlhf=TiltedConfig("tilted", kl_coef=0.5, candidates=8), until="recover")
    return {"ppo": ppo, "tilted": tilted}


def margin(name: str, objective: str) -> MarginSolver:
    return MarginSolver(
        name=name,
        objective=objective,
        epochs=2,
        batch_size=8,
        learning_rate=1e-2,
        warmup=0.1,
        weight_decay=0.01,
        trainable="all",
        last_layers=2,
        lora_rank=8,
        patience=None,
        trace=False,
        max_grad_norm=1.0,
    )


def main(folder: Path) -> None:
    """Run them, and print what each step wrote."""
    found: Golden = {}
    for name, config in studies(folder / "store").items():
        for label, made in run(config, folder / name).items():
            manifest = json.loads((made / "manifest.json").read_text())
            step = f"{manifest['step']} v{manifest['identity']['version']}"
            found[f"{step}, as {name} {label}"] = contents(made)
    print(json.dumps(found))


# --- the comparison itself ------------------------------------------------------------------------


def test_compare_tells_a_fault_from_news() -> None:
    known: Golden = {"curate v1, as a": {"x": 1.0, "t": "abc"}, "align v1, as b": {"x": 2.0}}
    curate, align = known.values()

    assert compare(known, known) == ("", "")
    assert compare(known, {**known, "align v1, as b": {"x": 2.001}}) == ("", "")  # rounding
    fault, _ = compare(known, {**known, "align v1, as b": {"x": 2.1}})
    assert "align v1, as b, changed" in fault and "x: 2.0 -> 2.1" in fault
    assert "raise VERSION in irl_exp/steps/align.py" in fault and COMMAND in fault
    assert (
        "t: abc -> abd" in compare(known, {**known, "curate v1, as a": {**curate, "t": "abd"}})[0]
    )
    assert "y: None -> 1" in compare(known, {**known, "curate v1, as a": {**curate, "y": 1.0}})[0]
    quality: Golden = {"ground_truth_quality v1, as a": {"x": 1.0}}
    assert "steps/ground_truth.py" in compare(quality, {"ground_truth_quality v1, as a": {}})[0]
    # A risen VERSION is news, and what follows it may change; what precedes it may not.
    risen: Golden = {"curate v2, as a": curate, "align v1, as b": {"x": 9.0}}
    more: Golden = {"align v1, as c": align}
    assert compare(known, risen) == (
        "",
        "step_versions.json has curate v1, as a where the study now has curate v2, as a.",
    )
    assert compare(known, {"curate v1, as a": {"x": 9.0}, "align v2, as b": align})[0]
    # A use of a step that is new, or gone, is news too.
    assert compare(known, known | more)[1] and compare(known | more, known)[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
