"""curate: texts with labels become comments, cut into prompt and completion and split by prompt."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from irl_exp.config import DatasetConfig, FileDataset, SyntheticDataset
from irl_exp.data import comments, sources, synthetic
from irl_exp.steps.bench import Bench, derive, write_summary
from irl_exp.store import Artifact, content_digest

VERSION = 1


def curate(bench: Bench) -> Artifact:
    """Artifact: `comments.parquet`, and how many comments each rule dropped."""
    dataset, seed = bench.config.dataset, bench.config.seeds.data

    def compute(folder: Path) -> None:
        texts, labels = _read(dataset, seed)
        curated, counts = comments.curate(
            texts,
            labels,
            prompt_words=dataset.prompt_words,
            shares=asdict(dataset.shares),
            max_comments=dataset.size,
            balance=getattr(dataset, "balance", False),
            rng=np.random.default_rng(derive(seed, "curate")),
        )
        curated.save(folder)
        write_summary(folder, counts)

    artifact = bench.do("curate", VERSION, compute, config=_identity(dataset), inputs={}, seed=seed)
    bench.report(artifact)
    bench.tracker.note(data=artifact.fingerprint)
    return artifact


def _read(dataset: DatasetConfig, seed: int) -> tuple[list[str], list[int]]:
    if isinstance(dataset, FileDataset):
        return sources.read_file(
            Path(dataset.path), dataset.text_column, dataset.label_column, dataset.toxic_values
        )
    assert isinstance(dataset, SyntheticDataset) and dataset.size
    made = synthetic.generate(
        dataset.size, derive(seed, "comments"), politeness=dataset.politeness, length=dataset.length
    )
    return [text for text, _ in made], [toxic for _, toxic in made]


def _identity(dataset: DatasetConfig) -> dict[str, Any]:
    """What decides the comments: a file by its content, not by where it lies."""
    facts = asdict(dataset)
    del facts["max_new_tokens"]  # belongs to the policies
    if isinstance(dataset, FileDataset):
        facts["path"] = content_digest(Path(dataset.path))
    return facts
