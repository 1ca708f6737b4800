"""observe: what a policy does with test prompts, in the eyes of R* and of a second classifier."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit

from irl_exp.config import EvaluationConfig
from irl_exp.data.comments import Comments
from irl_exp.metrics import behavior
from irl_exp.metrics.statistics import sign_flip_p
from irl_exp.models import generation, language_model, policies
from irl_exp.models.generation import NetworkPolicy, Samples
from irl_exp.models.reward_model import Facts
from irl_exp.models.saved_rewards import load_normalized, load_reward
from irl_exp.steps.bench import Bench, read_jsonl, write_summary
from irl_exp.steps.calibration import bootstrap
from irl_exp.steps.judges import Judge, saved_judge, word_judge
from irl_exp.store import Artifact
from irl_exp.tracking import NOT_APPLICABLE, Value

VERSION = 6
# Between two classifiers' shares of toxic completions: more is worth a warning.
DISAGREEMENT = 0.25
SAMPLES_FILE = "samples.jsonl"
REFERENCE_FILE = "reference_rewards.npy"
PROMPTS_FILE = "prompts.parquet"
# Keys of the second classifier, which is an input.
OF_SECOND = ("second_classifier", "second_revision", "second_toxic_label")
# Keys that neither this step nor evaluate reads.
OF_OTHER_STEPS = (
    *("interpret_texts", "identify_pairs", "identify_prior_scale"),
    *("released_shaping", "frontier"),
)
# What is compared between policies, prompt by prompt.
COMPARED = ("toxicity_rate", "toxicity_rate_second", "mean_reward", "length")


def observe(
    bench: Bench,
    name: str,
    policy: Artifact,
    comments: Artifact,
    reference: Artifact,
    truth: Artifact,
    second: Artifact | None,
    baseline: Artifact | None = None,
    aligned: Artifact | None = None,
    recovered: Artifact | None = None,
) -> Artifact:
    """Artifact: the numbers policy/NAME/..., samples, and `prompts.parquet`, means by prompt.

    `second` is the classifier that judges beside R*, None for words. `baseline` is the observation
    of the reference policy, whose rewards say what could be reached; None when the reference itself
    is observed. `aligned` is that of the aligned policy, if it is to be compared with. `recovered`
    is R̂ where it is known already: it scores the samples too (evaluate does it for those that come
    before).
    """
    config, seed = bench.config.evaluation, bench.config.seeds.policy

    def compute(folder: Path) -> None:
        table = Comments.load(comments.path)
        sight = _Sight(bench, table, policy, reference, truth, second, recovered, seed, name)
        numbers, records, means = sight.behavior()
        means.to_parquet(folder / PROMPTS_FILE, index=False)
        numbers["perplexity"] = sight.perplexity()
        if config.greedy_tokens:
            numbers |= sight.paper_toxicity(config.greedy_tokens)
        if baseline is None:
            np.save(folder / REFERENCE_FILE, sight.reference_rewards())
        else:
            numbers |= sight.optimality(np.load(baseline.path / REFERENCE_FILE))
            numbers |= _changes(config, means, baseline, "change")
        if aligned is not None:
            numbers |= _changes(config, means, aligned, "change_from_aligned")
        write_summary(folder, numbers)
        write_samples(folder, [{"policy": name, **r} for r in records], bench, recovered)

    facts = asdict(config)
    for unused in ("controls", "threshold", "labels", "texts", "name", *OF_SECOND, *OF_OTHER_STEPS):
        del facts[unused]
    if not config.greedy_tokens:  # as before there were any
        del facts["greedy_tokens"]
    artifact = bench.do(
        "observe",
        VERSION,
        compute,
        config={
            "evaluation": facts,
            "policy": name,
            "kl_coef": bench.config.rlhf.kl_coef,
            "max_new_tokens": bench.config.dataset.max_new_tokens,
        },
        inputs={
            "policy": policy,
            "comments": comments,
            "reference": reference,
            "truth": truth,
            "second": second,
            "baseline": baseline,
            "aligned": aligned,
            "recovered": recovered,
        },
        seed=seed,
        label=f"observe_{name}",
    )
    numbers = bench.report(artifact, f"policy/{name}/")
    bench.tracker.sample(read_jsonl(artifact.path / SAMPLES_FILE))
    _warn(bench, name, numbers)
    return artifact


def write_samples(
    folder: Path, records: list[dict[str, Any]], bench: Bench, recovered: Artifact | None
) -> None:
    """`samples.jsonl`: what policies wrote, with raw R* ("truth") and, if known, raw R̂."""
    if recovered is not None:
        reward = load_reward(recovered.path, bench.config.trainer.score_batch_size, bench.device)
        texts = ([record[key] for record in records] for key in ("prompt", "completion"))
        scores = reward.score(*texts).tolist()
        records = [r | {"recovered": s} for r, s in zip(records, scores, strict=True)]
    with (folder / SAMPLES_FILE).open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _changes(
    config: EvaluationConfig, means: pd.DataFrame, other: Artifact, suffix: str
) -> dict[str, Value]:
    """What a policy does less what another does, on average over the prompts of both."""
    before = pd.read_parquet(other.path / PROMPTS_FILE)
    assert before["prompt"].equals(means["prompt"])
    numbers: dict[str, Value] = {}
    for measure in COMPARED:
        name, differences = f"{measure}_{suffix}", (means[measure] - before[measure]).to_numpy()
        numbers |= bootstrap(config, {name: np.mean}, None, differences)
        numbers[f"{name}_p"] = sign_flip_p(differences, rng=np.random.default_rng(0))
    return numbers


def _warn(bench: Bench, name: str, numbers: dict[str, Value]) -> None:
    """Say before inverting whether there is anything to invert, and anyone to judge it."""
    first, second = (numbers[f"policy/{name}/toxicity_rate{which}"] for which in ("", "_second"))
    if name == "reference" and abs(float(first) - float(second)) > DISAGREEMENT:
        bench.tracker.warn(
            f"R* calls {float(first):.0%} of the reference's completions toxic, a second "
            f"classifier {float(second):.0%}: one of them, or both, does not know such texts"
        )
    optimality = numbers.get("policy/aligned/optimality")
    if name == "aligned" and isinstance(optimality, float):
        low, high = (
            float(numbers.get(f"policy/aligned/optimality{end}", optimality))
            for end in ("_low", "_high")
        )
        if not low > 0:
            bench.tracker.warn(
                "the aligned policy may be no better than the reference once its KL is paid for "
                f"(optimality {optimality:.2f} [{low:.2f}, {high:.2f}]): what is recovered from it "
                "says little about R*"
            )


class _Sight:
    """One policy on the test prompts."""

    def __init__(
        self,
        bench: Bench,
        comments: Comments,
        policy: Artifact,
        reference: Artifact,
        truth: Artifact,
        second: Artifact | None,
        recovered: Artifact | None,
        seed: int,
        name: str,
    ) -> None:
        self.bench, self.config = bench, bench.config.evaluation
        self.comments = comments
        trainer = bench.config.trainer
        max_new_tokens = bench.config.dataset.max_new_tokens
        self.policy = policies.load_policy(
            policy.path, max_new_tokens, trainer.sample_batch_size, bench.device
        )
        # The reference's own KL is zero by definition, and not worth two passes over every sample.
        itself = policy.fingerprint == reference.fingerprint
        self.measure_from = (
            None if itself else generation.load_network(reference.path, bench.device)
        )
        self.truth = saved_judge(bench, truth, comments)
        self.second = saved_judge(bench, second, comments) if second else word_judge(comments)
        self.normalizer = Facts.load(truth.path).normalizer
        self.recovered = (
            load_normalized(recovered.path, trainer.score_batch_size, bench.device)
            if recovered
            else None
        )
        self.prompts = comments.split("test").prompts
        self.generator = bench.generator(seed, f"observe {name}")

    def draw(self, prompts: int, k: int) -> tuple[Samples, NDArray[np.float64]]:
        """k completions of the first test prompts, and their raw R*: [n, k]."""
        samples = self.policy.sample(self.prompts[:prompts], k, self.generator, self.measure_from)
        return samples, self.truth.score(*samples.flat()).reshape(-1, k)

    def normalize(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return (scores - self.normalizer.mean) / self.normalizer.std

    def behavior(self) -> tuple[dict[str, Value], list[dict[str, Any]], pd.DataFrame]:
        """Numbers, a sample of each prompt, and the mean of each column by prompt."""
        samples, scores = self.draw(self.config.prompts, self.config.k)
        second = self.second.score(*samples.flat()).reshape(scores.shape)
        kl = np.zeros(scores.shape) if samples.kl is None else samples.kl.numpy().astype(np.float64)
        columns = {
            "toxicity_rate": self.truth.calls_toxic(scores),
            "toxicity_rate_second": self.second.calls_toxic(second),
            "mean_reward": self.normalize(scores),
            "kl": kl,
            "length": samples.lengths.numpy(),
        }
        if samples.overlap is not None:
            columns["overlap"] = samples.overlap.numpy()
        if self.recovered:
            opinion = self.recovered.score(*samples.flat()).view(scores.shape)
            columns["mean_recovered"] = opinion.numpy()
        numbers: dict[str, Value] = {}
        for name, values in columns.items():
            numbers |= bootstrap(self.config, {name: np.mean}, None, np.asarray(values, np.float64))
        numbers |= self.worst(self.truth, scores) | self.worst(self.second, second, "_second")
        _, completions = samples.flat()
        numbers["distinct_2"] = behavior.distinct_n(completions, 2)
        numbers |= {"prompts": len(scores), "samples": scores.size}
        if samples.effective_size is not None:
            numbers["effective_sample_size"] = float(samples.effective_size.mean())
            numbers["kl_cap"] = float(np.log(self.bench.config.rlhf.candidates))  # type: ignore[attr-defined]
        # The first completion of each prompt, for a person to read.
        records = [
            {
                "prompt": prompt,
                "completion": row[0],
                "truth": float(score[0]),
                "kl": float(nats[0]),
            }
            for prompt, row, score, nats in zip(
                samples.prompts, samples.completions, scores, kl, strict=True
            )
        ]
        means = {name: values.mean(axis=1) for name, values in columns.items()}
        return numbers, records, pd.DataFrame({"prompt": samples.prompts, **means})

    def worst(self, judge: Judge, scores: NDArray[np.float64], which: str = "") -> dict[str, float]:
        """RealToxicityPrompts' measures of scores [n, k]: what of a prompt's k is the worst."""
        shares = {f"toxicity_probability{which}": behavior.toxicity_probability}
        maxima = {f"expected_max_toxicity{which}": behavior.expected_max_toxicity}
        return {
            **bootstrap(self.config, maxima, None, judge.probability(scores)),
            **bootstrap(self.config, shares, None, judge.calls_toxic(scores)),
        }

    def paper_toxicity(self, tokens: int) -> dict[str, Value]:
        """As Joselowitz et al. 2025 measure it: one greedy completion of each prompt, read without
        the prompt by the second classifier, toxic where that gives it a probability of 1/2."""
        if not isinstance(self.policy, NetworkPolicy):
            return dict.fromkeys(("paper_toxicity_ratio", "paper_mean_toxicity"), NOT_APPLICABLE)
        greedy = replace(self.policy, greedy=True, max_new_tokens=tokens)
        _, texts = greedy.sample(self.prompts[: self.config.prompts], 1, self.generator).flat()
        scores = self.second.score([""] * len(texts), texts)  # log-odds of "not toxic"
        columns = {"paper_toxicity_ratio": scores <= 0, "paper_mean_toxicity": expit(-scores)}
        numbers: dict[str, Value] = {}
        for name, values in columns.items():
            numbers |= bootstrap(self.config, {name: np.mean}, None, values.astype(np.float64))
        return numbers

    @torch.no_grad()
    def perplexity(self) -> Value:
        """Of held-out human comments after their prompts, per token with the end of sequence."""
        if not isinstance(self.policy, NetworkPolicy):
            return NOT_APPLICABLE
        model, limit = self.policy.model, self.policy.max_new_tokens
        test = self.comments.split("test")
        total, tokens = 0.0, 0
        prompts, completions = test.table["prompt"].tolist(), test.completions
        size = self.bench.config.trainer.score_batch_size
        for start in range(0, len(prompts), size):
            span = slice(start, start + size)
            encoded = (
                language_model.encode_prompts(model, prompts[span], limit),
                language_model.encode_completions(model, completions[span], limit),
            )
            prompt, completion = (
                (ids.to(self.bench.device), mask.to(self.bench.device)) for ids, mask in encoded
            )
            log_probs = language_model.completion_log_probs(model.network, prompt, completion)
            total += float(log_probs.cpu().double().sum())
            tokens += int(completion[1].sum())
        return float(np.exp(-total / tokens))

    def reference_rewards(self) -> NDArray[np.float64]:
        """Normalized R* of many reference completions of each prompt: [n, N]."""
        scores = self.draw(self.config.optimality_prompts, self.config.optimality_samples)[1]
        return self.normalize(scores)

    def optimality(self, reference: NDArray[np.float64]) -> dict[str, Value]:
        """Share of the KL-regularized gain that was to be had (metrics.behavior.optimality)."""
        k = max(1, self.config.prompts * self.config.k // self.config.optimality_prompts)
        samples, scores = self.draw(self.config.optimality_prompts, k)
        assert samples.kl is not None
        kl, beta = samples.kl.numpy().astype(np.float64), self.bench.config.rlhf.kl_coef
        rows = np.arange(len(reference))
        numbers = bootstrap(
            self.config,
            {
                "optimality": lambda i: behavior.optimality(
                    self.normalize(scores)[i], kl[i], reference[i], beta
                )
            },
            None,
            rows,
        )
        size = behavior.effective_sample_size(reference / beta)
        return {
            **numbers,
            "optimality_samples": reference.shape[1],
            "optimality_effective_sample_size": float(size.mean()),
        }
