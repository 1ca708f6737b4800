"""interpret: what R̂ goes by: factors it may take for a shortcut, and the words that move it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from irl_exp.config import CheckpointRLHF, EvaluationConfig
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.metrics import agreement, attribution, findings, shortcuts
from irl_exp.models import generation, language_model
from irl_exp.models.reward_model import NormalizedReward
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.models.word_classifier import WordClassifier
from irl_exp.steps.bench import Bench, write_summary
from irl_exp.steps.calibration import bootstrap
from irl_exp.store import Artifact
from irl_exp.tracking import NOT_APPLICABLE, Value

VERSION = 2
ATTRIBUTION_FILE = "attribution.parquet"
FINDINGS_FILE = "findings.parquet"
# Completions are of like length that differ by at most this share of the longer one.
LENGTH_TOLERANCE = 0.1
# A word that stands less often has no average worth a place in a table.
MINIMUM_COUNT = 5

Columns = dict[str, NDArray[np.float64]]


def interpret(
    bench: Bench,
    comments: Artifact,
    pairs: Artifact,
    reference: Artifact,
    truth: Artifact | None,
    recovered: Artifact,
    label_model: Artifact | None,
) -> Artifact:
    """Artifact: the numbers shortcut/..., attribution/... and findings/..., `attribution.parquet`,
    a row a word, and `findings.parquet`, a row for each thing that R̂ could go by. Both rewards in
    their units, so that effects on them can be held against each other; without R*, R̂ alone."""
    config, trainer = bench.config.evaluation, bench.config.trainer
    max_new_tokens = bench.config.dataset.max_new_tokens

    def compute(folder: Path) -> None:
        ours, theirs = (
            load_normalized(artifact.path, trainer.score_batch_size, bench.device)
            if artifact
            else None
            for artifact in (recovered, truth)
        )
        assert ours is not None
        pool = Demonstrations.load(pairs.path).split("test")
        factors = factors_of(bench, pool, reference)
        true = _scores(theirs, pool) if theirs else None
        numbers = _shortcuts(config, _scores(ours, pool), true, factors)
        test = Comments.load(comments.path).split("test")
        table, counted = _words(config, ours, theirs, *_texts(pool, test, config.interpret_texts))
        table.to_parquet(folder / ATTRIBUTION_FILE, index=False)
        expected = _expected(bench, pool, Comments.load(comments.path), label_model)
        found = _findings(_scores(ours, pool), expected, factors, pool, config.level)
        found.to_parquet(folder / FINDINGS_FILE, index=False)
        told = {"findings/candidates": len(found), "findings/count": int(found["stands_out"].sum())}
        write_summary(folder, numbers | counted | told)

    artifact = bench.do(
        "interpret",
        VERSION,
        compute,
        config={
            "texts": config.interpret_texts,
            "draws": config.draws,
            "level": config.level,
            "max_new_tokens": max_new_tokens,
        },
        inputs={
            "comments": comments,
            "pairs": pairs,
            "reference": reference,
            "truth": truth,
            "recovered": recovered,
            "label_model": label_model,
        },
        seed=0,
    )
    bench.report(artifact)
    for name in (ATTRIBUTION_FILE, FINDINGS_FILE):
        shutil.copyfile(artifact.path / name, bench.tracker.folder / name)
    return artifact


def _scores(reward: NormalizedReward, pool: Demonstrations) -> NDArray[np.float64]:
    return reward.score(*pool.pool()).numpy().astype(np.float64).reshape(len(pool), -1)


# --- shortcuts ------------------------------------------------------------------------------------


@torch.no_grad()
def factors_of(bench: Bench, pool: Demonstrations, reference: Artifact) -> Columns:
    """What R̂ could go by instead of reading, of each completion: [n, 2k]."""
    model = generation.load_network(reference.path, bench.device)
    limit, size = bench.config.dataset.max_new_tokens, bench.config.trainer.score_batch_size
    prompts, completions = pool.pool()
    length, ended, likelihood = [], [], []
    for start in range(0, len(prompts), size):
        span = slice(start, start + size)
        encoded = (
            language_model.encode_prompts(model, prompts[span], limit),
            language_model.encode_completions(model, completions[span], limit),
        )
        prompt, (ids, mask) = (
            (ids.to(bench.device), mask.to(bench.device)) for ids, mask in encoded
        )
        log_probs = language_model.completion_log_probs(model.network, prompt, (ids, mask))
        tokens = mask.sum(-1)
        last = ids[torch.arange(len(ids), device=ids.device), tokens - 1]
        length.append(tokens.cpu())
        ended.append((last == model.tokenizer.eos_token_id).cpu())
        likelihood.append(log_probs.cpu().double().sum(-1) / tokens.cpu())
    columns = {
        "length": torch.cat(length).numpy(),
        "ended": torch.cat(ended).numpy(),
        "repetition": shortcuts.repetition(completions),
        "likelihood": torch.cat(likelihood).numpy(),
    }
    if isinstance(bench.config.rlhf, CheckpointRLHF):
        del columns["ended"]  # where a model was to stop is a matter of its own tokens
    return {k: v.astype(np.float64).reshape(len(pool), -1) for k, v in columns.items()}


def _shortcuts(
    config: EvaluationConfig,
    recovered: NDArray[np.float64],
    truth: NDArray[np.float64] | None,
    factors: Columns,
) -> dict[str, Value]:
    """Within prompts: R̂ with each factor, with and without R*; R̂ with R*, without the factors."""
    if truth is None:
        numbers: dict[str, Value] = {}
        for name, factor in factors.items():
            numbers |= _measured(config, name, shortcuts.partial_correlation, recovered, factor)
        return numbers
    # Which two columns are related, and what is taken out of both before.
    questions = {
        "truth": (recovered, truth),
        "truth_given_all": (recovered, truth, *factors.values()),
    }
    for name, factor in factors.items():
        questions |= {
            name: (recovered, factor),
            f"{name}_in_truth": (truth, factor),
            f"{name}_given_truth": (recovered, factor, truth),
            f"truth_given_{name}": (recovered, truth, factor),
        }
    numbers = {}
    for name, columns in questions.items():
        numbers |= _measured(config, name, shortcuts.partial_correlation, *columns)
    agreeing, total = shortcuts.matched_pair_counts(
        truth, recovered, factors["length"], LENGTH_TOLERANCE
    )
    accuracy = "length_matched_pair_accuracy"
    numbers |= _measured(config, accuracy, agreement.pooled_share, agreeing, total)
    return numbers | {"shortcut/length_matched_pairs": int(total.sum())}


def _measured(
    config: EvaluationConfig,
    name: str,
    statistic: Callable[..., float],
    *columns: NDArray[np.number],
) -> dict[str, Value]:
    """shortcut/NAME with its interval over prompts; not applicable where it is not defined, such as
    for a factor that is the same for all completions."""
    if np.isnan(statistic(*columns)):
        return {f"shortcut/{name}": NOT_APPLICABLE}
    return {**bootstrap(config, {f"shortcut/{name}": statistic}, None, *columns)}


# --- what stands out ------------------------------------------------------------------------------


def _expected(
    bench: Bench, pool: Demonstrations, comments: Comments, label_model: Artifact | None
) -> list[NDArray[np.float64]]:
    """What human labels make of the completions [n, 2k]: by words, and by a network if there is one
    of R*'s kind. Neither has seen R*. Nothing, where there are no labels."""
    if not comments.labelled:
        return []
    train = comments.split("train")
    classifier = WordClassifier.fit(train.texts, train.labels)
    texts = [prompt + completion for prompt, completion in zip(*pool.pool(), strict=True)]
    expected = [classifier.score(texts).reshape(len(pool), -1)]
    if label_model:
        batch = bench.config.trainer.score_batch_size
        expected.append(_scores(load_normalized(label_model.path, batch, bench.device), pool))
    return expected


def _findings(
    recovered: NDArray[np.float64],
    expected: list[NDArray[np.float64]],
    factors: Columns,
    pool: Demonstrations,
    level: float,
) -> pd.DataFrame:
    """Factors and words by what R̂ owes to them beyond the labels; words beyond the length, too."""
    _, completions = pool.pool()
    words = findings.presence(completions, recovered.shape, MINIMUM_COUNT)
    comparisons = len(factors) + len(words)
    given = {"factor": expected, "word": [*expected, factors["length"]]}
    candidates: dict[str, Mapping[str, NDArray[Any]]] = {"factor": factors, "word": words}
    tables = {
        kind: findings.stand_out(recovered, given[kind], columns, level, comparisons)
        for kind, columns in candidates.items()
    }
    table = pd.concat([part.assign(kind=kind) for kind, part in tables.items()], ignore_index=True)
    table = findings.in_order(table)
    table["stands_out"] = (table["low"] > 0) | (table["high"] < 0)
    return table[["kind", "name", "correlation", "low", "high", "stands_out"]]


# --- words ----------------------------------------------------------------------------------------


def _texts(pool: Demonstrations, comments: Comments, n: int) -> tuple[list[str], list[str]]:
    """Held-out (prompts, completions), n or as many as there are: a quarter by the aligned policy,
    a quarter by the reference, half by people; without comments half by either policy."""
    people = n - 2 * (n // 4) if comments.labelled else 0
    sources = [
        (pool.aligned_texts(), (n - people) // 2),
        (pool.reference_texts(), (n - people) // 2),
        ((comments.table["prompt"].tolist(), comments.completions), people),
    ]
    rng = np.random.default_rng(0)
    chosen: tuple[list[str], list[str]] = ([], [])
    for (prompts, completions), share in sources:
        for row in rng.permutation(len(prompts))[:share]:
            chosen[0].append(prompts[row])
            chosen[1].append(completions[row])
    return chosen


def _words(
    config: EvaluationConfig,
    recovered: NormalizedReward,
    truth: NormalizedReward | None,
    prompts: list[str],
    completions: list[str],
) -> tuple[pd.DataFrame, dict[str, Value]]:
    """What each word adds to R̂ and to R*, and how far the two agree."""
    tables = [
        attribution.by_word(
            _effects(reward, prompts, completions),
            prompts,
            minimum=MINIMUM_COUNT,
            draws=config.draws,
            level=config.level,
            rng=np.random.default_rng(0),  # the same draws for both
        )
        for reward in (recovered, truth)
        if reward
    ]
    table = attribution.side_by_side(*tables)
    alike = attribution.word_agreement(table) if truth else float("nan")
    return table, {
        "attribution/agreement": NOT_APPLICABLE if np.isnan(alike) else alike,
        "attribution/words": len(table),
        "attribution/texts": len(completions),
    }


def _effects(
    reward: NormalizedReward, prompts: list[str], completions: list[str]
) -> attribution.Effects:
    def score(some_prompts: list[str], variants: list[str]) -> NDArray[np.float32]:
        return reward.score(some_prompts, variants).numpy()

    return attribution.leave_one_out(score, prompts, completions)
