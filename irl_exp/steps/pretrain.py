"""pretrain: the reference policy, from random weights or from a checkpoint."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import DataLoader

from irl_exp import hub
from irl_exp.config import (
    CheckpointModel,
    CheckpointRLHF,
    CommentsDataset,
    FileDemonstrations,
    ModelConfig,
    ScratchModel,
    before_tuning,
)
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.data.comments import Comments
from irl_exp.hub import Source
from irl_exp.models import language_model, policies
from irl_exp.models.generation import NetworkPolicy
from irl_exp.models.language_model import LanguageModel
from irl_exp.modules.language_modeling import LanguageModeling
from irl_exp.modules.training import fit
from irl_exp.steps.bench import Bench, derive, read_jsonl, write_summary
from irl_exp.store import Artifact

VERSION = 5
CALIBRATION_FILE = "calibration.parquet"
# Completions of calibration prompts, from which every reward gets its unit.
CALIBRATION_COMPLETIONS = 1024


def pretrain(bench: Bench, comments: Artifact) -> Artifact:
    """Artifact: the model folder, its curves, and its completions of calibration prompts.

    These not where pairs come from a file: then the model reads, and is nobody's reference.
    """
    config, rlhf = bench.config.model, bench.config.rlhf
    if isinstance(rlhf, CheckpointRLHF) and rlhf.path:
        # Somebody has aligned this very model: what it learned here, the other would lack.
        config = replace(config, epochs=0)
    artifact = _pretrain(bench, config, comments, "pretrain")
    numbers = bench.report(artifact)
    texts = "comments" if isinstance(bench.config.dataset, CommentsDataset) else "texts"
    for name, what, limit in (
        ("comments", texts, "the model's context"),
        ("prompts", "prompts", "what the context holds"),
    ):
        if count := numbers[f"model/truncated_{name}"]:
            hint = "; a model with a longer one reads them whole" * (texts == "texts")
            bench.tracker.warn(
                f"{count:.0f} {what} are longer than {limit}: their beginning is cut off{hint}"
            )
    return artifact


def pretrain_base(bench: Bench, comments: Artifact) -> Artifact:
    """The same of the model as it was before it was fine-tuned."""
    return _pretrain(bench, before_tuning(bench.config.model), comments, "base")


def _pretrain(bench: Bench, config: ModelConfig, comments: Artifact, label: str) -> Artifact:
    seed = bench.config.seeds.policy
    max_new_tokens = bench.config.dataset.max_new_tokens
    source = _source(config)
    writes = not isinstance(bench.config.demonstrations, FileDemonstrations)
    # A study goes on from the openings of comments; an audit asks as a model is asked.
    asks = isinstance(bench.config.rlhf, CheckpointRLHF)

    def compute(folder: Path) -> None:
        table = Comments.load(comments.path)
        model = _initial(config, table, source, seed)
        if model.chats and not asks:
            model.tokenizer.chat_template = None
        numbers: dict[str, float] = {"model/parameters": model.network.num_parameters()}
        numbers |= _truncated(model, table, max_new_tokens)
        if config.epochs > 0:
            numbers |= _train(bench, config, model, table, folder, seed)
        model.network.eval()
        model.save(folder)
        policies.save_policy(folder, "network")
        policy = NetworkPolicy(model, max_new_tokens, bench.config.trainer.sample_batch_size)
        model.network.to(bench.device)  # type: ignore[arg-type]
        if writes:
            _write_calibration(bench, policy, table, folder, seed)
        write_summary(folder, numbers)

    return bench.do(
        "pretrain",
        VERSION,
        compute,
        config={
            "model": _identity(config, source),
            "max_new_tokens": max_new_tokens,
            **({} if writes else {"writes": False}),
            **({"asks": True} if asks else {}),
        },
        inputs={"comments": comments},
        seed=seed,
        label=label,
    )


def _truncated(model: LanguageModel, comments: Comments, max_new_tokens: int) -> dict[str, float]:
    """How many texts the model cannot read whole: comments with their end, prompts with room for a
    completion."""

    def count(texts: list[str], room: int) -> int:
        rows = language_model.token_ids(model, texts)
        limit = model.context - room - len(model.opening)
        return sum(len(row) > limit for row in rows)

    return {
        "model/truncated_comments": count(comments.texts, 1),
        "model/truncated_prompts": count(comments.prompts, max_new_tokens),
    }


def _source(config: ModelConfig) -> Source | None:
    if isinstance(config, CheckpointModel):
        return hub.resolve(config.path, config.revision, "model")
    return None


def _initial(
    config: ModelConfig, comments: Comments, source: Source | None, seed: int
) -> LanguageModel:
    if source:
        return language_model.load(source.folder())
    assert isinstance(config, ScratchModel)
    texts = comments.split("train").texts
    tokenizer = language_model.train_tokenizer(texts, config.vocab_size)
    return language_model.build(config, tokenizer, derive(seed, "weights"))


def _train(
    bench: Bench,
    config: ModelConfig,
    model: LanguageModel,
    comments: Comments,
    folder: Path,
    seed: int,
) -> dict[str, float]:
    language_model.require_plain_head(model.network)
    eos = model.tokenizer.eos_token_id

    def rows(split: str) -> list[list[int]]:
        encoded = language_model.token_ids(model, comments.split(split).texts)
        limit = model.context - len(model.opening)
        return [[*model.opening, *[*row, eos][-limit:]] for row in encoded]

    collate = partial(language_model.pad, value=model.tokenizer.pad_token_id, side="right")
    train, validation = rows("train"), rows("validation")
    order = torch.Generator().manual_seed(derive(seed, "pretrain"))
    batches = LengthBatches([len(row) for row in train], config.batch_size, order)
    fit(
        LanguageModeling(model, config.learning_rate, config.weight_decay, config.warmup),
        ResumableLoader(train, batches, collate),
        bench.config.trainer,
        folder,
        epochs=config.epochs,
        max_grad_norm=1.0,
        validation=DataLoader(validation, batch_size=config.batch_size, collate_fn=collate),  # type: ignore[arg-type]
    )
    losses = [
        r["validation_loss"] for r in read_jsonl(folder / "metrics.jsonl") if "validation_loss" in r
    ]
    return {"model/validation_loss": losses[-1]}


def _write_calibration(
    bench: Bench, policy: NetworkPolicy, comments: Comments, folder: Path, seed: int
) -> None:
    prompts = comments.split("calibration").prompts
    k = max(1, round(CALIBRATION_COMPLETIONS / len(prompts)))
    samples = policy.sample(
        prompts[:CALIBRATION_COMPLETIONS], k, bench.generator(seed, "calibration")
    )
    flat_prompts, completions = samples.flat()
    table = pd.DataFrame({"prompt": flat_prompts, "completion": completions})
    table.to_parquet(folder / CALIBRATION_FILE, index=False)


def _identity(config: ModelConfig, source: Source | None) -> dict[str, Any]:
    facts = asdict(config) | (source.identity if source else {})
    for other in ("base", "base_revision"):
        facts.pop(other, None)
    return facts
