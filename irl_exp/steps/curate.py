"""curate: texts with labels become comments, cut into prompt and completion and split by prompt."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from irl_exp import hub
from irl_exp.config import (
    CommentsDataset,
    Config,
    DatasetConfig,
    FileDataset,
    FileDemonstrations,
    HubDataset,
    InputError,
    PromptsDataset,
    SyntheticDataset,
    TableDataset,
)
from irl_exp.data import comments, given, sources, synthetic
from irl_exp.data.comments import LabelledText
from irl_exp.data.formats import file_identity
from irl_exp.data.skipped import Skipped
from irl_exp.data.sources import Columns
from irl_exp.hub import Source
from irl_exp.steps.bench import Bench, derive, write_summary
from irl_exp.steps.demonstrate import pairs_identity
from irl_exp.store import Artifact

VERSION = 1


def curate(bench: Bench) -> Artifact:
    """Artifact: `comments.parquet`, and how many comments each rule dropped. Prompts without labels
    are kept as they are; with them what the pairs' file says after them, if they are from there."""
    dataset, seed = bench.config.dataset, bench.config.seeds.data
    source = _source(dataset)
    skipped = Skipped.asked(dataset) if isinstance(dataset, TableDataset) else None

    def compute(folder: Path) -> None:
        if isinstance(dataset, PromptsDataset):
            prompts, counts = _prompts(bench.config, dataset, seed)
            prompts.save(folder)
            write_summary(folder, counts)
            return
        assert isinstance(dataset, CommentsDataset)
        try:
            curated, counts = comments.curate(
                _rows(dataset, source, seed, skipped),
                prompt_words=dataset.prompt_words,
                shares=asdict(dataset.shares),
                max_comments=dataset.size,
                balance=getattr(dataset, "balance", False),
                rng=np.random.default_rng(derive(seed, "curate")),
            )
        except InputError as error:
            raise (skipped.beside(error) if skipped else error) from error.__cause__
        curated.save(folder)
        if getattr(dataset, "toxic_from", None) is None:  # no row was without a label
            del counts["comments/dropped_unscored"]
        if skipped:
            counts["comments/skipped"] = skipped.count
            skipped.save(folder)
        write_summary(folder, counts)

    artifact = bench.do(
        "curate",
        VERSION,
        compute,
        config=_identity(bench.config, source),
        inputs={},
        seed=seed,
    )
    numbers = bench.report(artifact)
    if numbers.get("comments/skipped"):
        bench.tracker.warn(f"dataset.on_error=skip: {Skipped.load(artifact.path)}")
    bench.tracker.note(data=artifact.fingerprint)
    return artifact


def _source(dataset: DatasetConfig) -> Source | None:
    if isinstance(dataset, HubDataset):
        return hub.resolve(dataset.path, dataset.revision, "dataset")
    return None


def _rows(
    dataset: DatasetConfig, source: Source | None, seed: int, skipped: Skipped | None
) -> Iterable[LabelledText]:
    if isinstance(dataset, TableDataset):
        columns = Columns.of(dataset)
        if isinstance(dataset, FileDataset):
            return sources.file_rows(dataset.path, columns, skipped)
        assert isinstance(dataset, HubDataset) and source
        return sources.split_rows(source.folder(), dataset.path, dataset.split, columns, skipped)
    assert isinstance(dataset, SyntheticDataset) and dataset.size
    made = synthetic.generate(
        dataset.size, derive(seed, "comments"), politeness=dataset.politeness, length=dataset.length
    )
    return [LabelledText(text, bool(toxic)) for text, toxic in made]


def _prompts(
    config: Config, dataset: PromptsDataset, seed: int
) -> tuple[comments.Comments, dict[str, float]]:
    """Split by the text of the prompt alone, so that the pairs of a file are split in the same way
    (steps/demonstrate.py). Rows in a random order, so that the first of a split are a sample."""
    pairs = config.demonstrations
    skipped = None
    if dataset.path:
        keys = prompts = given.read_prompts(dataset.path, dataset.prompt_column)
        completions = [""] * len(prompts)
    else:
        assert isinstance(pairs, FileDemonstrations)
        skipped = Skipped.asked(pairs)
        found = given.read_pairs(
            pairs.path, pairs.prompt_column, pairs.aligned_column, pairs.reference_column, skipped
        )
        written = [
            (given.key_of(found, row), found.prompts[row], text)
            for row in range(len(found.prompts))
            for text in (*found.aligned[row], *found.reference[row])
        ]
        keys, prompts, completions = (list(column) for column in zip(*written, strict=True))
    shares = asdict(dataset.shares)
    drawn = [given.split_of(key, shares, seed) for key in keys]
    table = pd.DataFrame({"prompt": prompts, "completion": completions})
    table = table.assign(split=[split for split, _ in drawn], order=[order for _, order in drawn])
    table = table.sort_values("order", kind="stable")
    counts: dict[str, float] = {"comments/read": len(table)}
    if dataset.size is not None:
        table = table[table["order"].isin(table["order"].drop_duplicates()[: dataset.size])]
    counts |= {"comments/kept": len(table)}
    found_prompts = comments.Comments(table)
    for name in comments.SPLITS:
        part = found_prompts.split(name)
        if not len(part) and (dataset.path or name != "calibration"):  # what pairs need not have
            error = InputError(
                f"the {name} split gets none of {table['order'].nunique()} prompts or pairs; "
                f"expected more of them, or a larger dataset.shares.{name}"
            )
            raise skipped.beside(error) if skipped else error
        counts[f"comments/{name}"] = len(part)
        counts[f"comments/{name}_prompts"] = len(part.prompts)
    return found_prompts, counts


def _identity(config: Config, source: Source | None) -> dict[str, Any]:
    """What decides the comments: a file by its content, not by where it lies."""
    dataset, pairs = config.dataset, config.demonstrations
    facts = asdict(dataset)
    del facts["max_new_tokens"]  # belongs to the policies
    if facts.get("on_error") == "stop":
        del facts["on_error"]  # nothing was left out
    if isinstance(dataset, PromptsDataset):
        facts["path"] = dataset.path and file_identity(dataset.path)
        if not dataset.path and isinstance(pairs, FileDemonstrations):
            facts["pairs"] = pairs_identity(pairs) | {
                "path": file_identity(pairs.path),
                "shares": None,  # its own are the data set's
            }
    elif isinstance(dataset, FileDataset):
        facts["path"] = file_identity(dataset.path)
    return facts | (source.identity if source else {})
