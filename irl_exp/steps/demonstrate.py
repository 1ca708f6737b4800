"""demonstrate: for each prompt, k completions of the aligned and k of the reference policy."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from irl_exp.config import (
    STEPS,
    CommentsDataset,
    FileDemonstrations,
    InputError,
    SampledDemonstrations,
)
from irl_exp.data import given
from irl_exp.data.comments import Comments
from irl_exp.data.formats import file_identity
from irl_exp.data.pairs import SPLITS, Demonstrations
from irl_exp.data.skipped import Skipped
from irl_exp.models import policies
from irl_exp.steps.bench import Bench, derive, read_summary, write_summary
from irl_exp.steps.pretrain import pretrain_base
from irl_exp.store import Artifact

VERSION = 2
# Pairs of a split of a file, below which nothing can be said of it.
FEWEST = 2
# How far what a split gets may lie from its share without a word.
FAR = 0.1
# What a reader of the results must know, of each contrast but the true one.
NOTHING_TO_FIND = {
    "placebo": "what recovery learned from as the expert's was written by the reference",
    "shuffled": "who wrote what recovery learned from was drawn at random",
}


def require_prompts(bench: Bench, comments: Artifact) -> None:
    """Refuse a study that will ask for more prompts than there are, before it starts to compute."""
    config = bench.config.demonstrations
    if bench.config.until in STEPS[: STEPS.index("demonstrate")] or not isinstance(
        config, SampledDemonstrations
    ):
        return
    counts = read_summary(comments.path)
    short = [
        f"{key}={n}: the {split} split has {available}"
        for split, (key, n) in _wanted(config).items()
        if n is not None and n > (available := int(counts[f"comments/{split}_prompts"]))
    ]
    if short:
        dataset, why = bench.config.dataset, ""
        if isinstance(dataset, CommentsDataset):
            words = f"dataset.prompt_words={dataset.prompt_words} words"
            why = f" (comments with the same first {words} share a prompt)"
        raise InputError(f"{'; '.join(short)} prompts; expected no more than that{why}")


def _wanted(config: SampledDemonstrations) -> dict[str, tuple[str, int | None]]:
    """Split -> the key that says how many of its prompts are asked for, and that number (None: all
    that there are)."""
    return {
        "train": ("demonstrations.prompts", config.prompts),
        "validation": ("demonstrations.validation_prompts", config.validation_prompts),
        "test": ("demonstrations.test_prompts", config.test_prompts),
    }


def demonstrate(
    bench: Bench, comments: Artifact, aligned: Artifact, reference: Artifact
) -> Artifact:
    """Artifact: `demonstrations.parquet`. Neither policy sees what the other drew.

    Where `contrast` is not the true one there is nothing to find in training and validation; with
    `against=base` the base writes there in the reference's place. The test split is the same under
    all, so that numbers of different contrasts can be compared.
    """
    config, seed = bench.config.demonstrations, bench.config.seeds.demonstrations
    assert isinstance(config, SampledDemonstrations)
    trainer = bench.config.trainer
    base = pretrain_base(bench, comments) if config.against == "base" else None
    max_new_tokens = bench.config.dataset.max_new_tokens

    def compute(folder: Path) -> None:
        table = Comments.load(comments.path)
        prompts, splits = [], []
        for split, (_, n) in _wanted(config).items():
            chosen = table.split(split).prompts[:n]
            prompts += chosen
            splits += [split] * len(chosen)

        def sample(artifact: Artifact, purpose: str, count: int) -> list[list[str]]:
            """k completions of each of the first prompts."""
            policy = policies.load_policy(
                artifact.path,
                max_new_tokens,
                trainer.sample_batch_size,
                bench.device,
                greedy=config.greedy,
            )
            generator = bench.generator(seed, f"demonstrate {purpose}")
            return policy.sample(prompts[:count], config.k, generator).completions

        ours = sample(aligned, "aligned", len(prompts))
        theirs = sample(reference, "reference", len(prompts))
        learned = splits.index("test")
        if base:
            theirs[:learned] = sample(base, "base", learned)
        if config.contrast == "placebo":
            ours[:learned] = sample(reference, "placebo", learned)
        elif config.contrast == "shuffled":
            rng = np.random.default_rng(derive(seed, "demonstrate shuffled"))
            for row in range(learned):
                pool = [*ours[row], *theirs[row]]
                mixed = [pool[place] for place in rng.permutation(len(pool))]
                ours[row], theirs[row] = mixed[: config.k], mixed[config.k :]
        Demonstrations(prompts, ours, theirs, splits).save(folder)

    artifact = bench.do(
        "demonstrate",
        VERSION,
        compute,
        config=_identity(config),
        inputs={
            "comments": comments,
            "aligned": aligned,
            "reference": reference,
            **({"base": base} if base else {}),
        },
        seed=seed,
    )
    if config.contrast in NOTHING_TO_FIND:
        bench.tracker.warn(
            f"demonstrations.contrast={config.contrast}: {NOTHING_TO_FIND[config.contrast]}; "
            "R̂ shows what the solver makes of nothing"
        )
    return artifact


def read(bench: Bench) -> Artifact:
    """The same artifact, of the pairs in a file; splits by prompt, or by pair where it has none."""
    config, seed = bench.config.demonstrations, bench.config.seeds.data
    assert isinstance(config, FileDemonstrations)

    def compute(folder: Path) -> None:
        skipped = Skipped.asked(config)
        found = given.read_pairs(
            config.path,
            config.prompt_column,
            config.aligned_column,
            config.reference_column,
            skipped,
        )
        shares = asdict(config.shares)
        keys = [given.key_of(found, row) for row in range(len(found.prompts))]
        drawn = [given.split_of(key, shares, seed) for key in keys]
        places = [(SPLITS.index(split), order) for split, order in drawn]
        rows = sorted(range(len(keys)), key=places.__getitem__)
        splits = [drawn[row][0] for row in rows]
        counts = {split: splits.count(split) for split in SPLITS}
        if min(counts.values()) < FEWEST:
            fallen = ", ".join(f"{n} to {split}" for split, n in counts.items())
            error = InputError(
                f"{config.path} has {len(rows)} pairs, which split by {len(set(keys))} different "
                f"prompts (or texts, without one): {fallen}; expected at least {FEWEST} each"
            )
            raise skipped.beside(error) if skipped else error
        Demonstrations(
            [found.prompts[row] for row in rows],
            [found.aligned[row] for row in rows],
            [found.reference[row] for row in rows],
            splits,
        ).save(folder)
        numbers = {f"pairs/{split}": n for split, n in counts.items()}
        numbers["pairs/prompts"] = len(set(keys))
        numbers["pairs/identical"] = found.identical
        if skipped:
            numbers["pairs/skipped"] = skipped.count
            skipped.save(folder)
        write_summary(folder, numbers)

    artifact = bench.do(
        "read_pairs",
        2,
        compute,
        config=pairs_identity(config) | {"path": file_identity(config.path)},
        inputs={},
        seed=seed,
        label="demonstrate",
    )
    numbers = bench.report(artifact)
    if count := numbers["pairs/identical"]:
        bench.tracker.warn(f"{count} pairs were left out: both of their sides are the same")
    if numbers.get("pairs/skipped"):
        bench.tracker.warn(f"demonstrations.on_error=skip: {Skipped.load(artifact.path)}")
    counts = {split: int(numbers[f"pairs/{split}"]) for split in SPLITS}
    total, shares = sum(counts.values()), asdict(config.shares)
    if any(abs(n / total - shares[split]) > FAR for split, n in counts.items()):
        fallen = ", ".join(f"{n} to {split}" for split, n in counts.items())
        why = "they are few"
        if (different := int(numbers["pairs/prompts"])) < total:
            why = f"those of one prompt stay together, and {different} are different"
        bench.tracker.warn(f"{total} pairs split unevenly, for {why}: {fallen}")
    return artifact


def pairs_identity(config: FileDemonstrations) -> dict[str, Any]:
    """That nothing is left out goes without saying, as before it could be."""
    facts = asdict(config)
    if config.on_error == "stop":
        del facts["on_error"]
    return facts


def _identity(config: SampledDemonstrations) -> dict[str, Any]:
    """The true contrast goes without saying, as before there were others; a base is an input."""
    facts = asdict(config)
    del facts["against"]
    if config.contrast == "aligned":
        del facts["contrast"]
    return facts
