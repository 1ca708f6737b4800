"""curate: texts with labels become comments, cut into prompt and completion and split by prompt."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from irl_exp import hub
from irl_exp.config import DatasetConfig, FileDataset, HubDataset, SyntheticDataset, TableDataset
from irl_exp.data import comments, sources, synthetic
from irl_exp.data.sources import Columns, Labelled
from irl_exp.hub import Source
from irl_exp.steps.bench import Bench, derive, write_summary
from irl_exp.store import Artifact, content_digest

VERSION = 1


def curate(bench: Bench) -> Artifact:
    """Artifact: `comments.parquet`, and how many comments each rule dropped."""
    dataset, seed = bench.config.dataset, bench.config.seeds.data
    source = _source(dataset)

    def compute(folder: Path) -> None:
        found = _read(dataset, source, seed)
        curated, counts = comments.curate(
            found.texts,
            found.labels,
            prompts=found.prompts,
            prompt_words=dataset.prompt_words,
            shares=asdict(dataset.shares),
            max_comments=dataset.size,
            balance=getattr(dataset, "balance", False),
            rng=np.random.default_rng(derive(seed, "curate")),
        )
        curated.save(folder)
        if found.unscored is not None:
            counts["comments/read"] += found.unscored
            counts["comments/dropped_unscored"] = found.unscored
        write_summary(folder, counts)

    artifact = bench.do(
        "curate", VERSION, compute, config=_identity(dataset, source), inputs={}, seed=seed
    )
    bench.report(artifact)
    bench.tracker.note(data=artifact.fingerprint)
    return artifact


def _source(dataset: DatasetConfig) -> Source | None:
    if isinstance(dataset, HubDataset):
        return hub.resolve(dataset.path, dataset.revision, "dataset")
    return None


def _read(dataset: DatasetConfig, source: Source | None, seed: int) -> Labelled:
    if isinstance(dataset, TableDataset):
        labels = dataset.label_column
        columns = Columns(
            text=dataset.text_column,
            labels=labels if isinstance(labels, list) else [labels],
            toxic_values=dataset.toxic_values,
            prompt=dataset.prompt_column,
            toxic_from=dataset.toxic_from,
        )
        if isinstance(dataset, FileDataset):
            return sources.read_file(dataset.path, columns)
        assert isinstance(dataset, HubDataset) and source
        return sources.read_split(source.folder(), dataset.path, dataset.split, columns)
    assert isinstance(dataset, SyntheticDataset) and dataset.size
    made = synthetic.generate(
        dataset.size, derive(seed, "comments"), politeness=dataset.politeness, length=dataset.length
    )
    return Labelled([text for text, _ in made], [toxic for _, toxic in made])


def _identity(dataset: DatasetConfig, source: Source | None) -> dict[str, Any]:
    """What decides the comments: a file by its content, not by where it lies."""
    facts = asdict(dataset)
    del facts["max_new_tokens"]  # belongs to the policies
    if isinstance(dataset, FileDataset):
        facts["path"] = content_digest(Path(dataset.path).expanduser())
    return facts | (source.identity if source else {})
