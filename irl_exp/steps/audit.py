"""audit: what somebody else's alignment changed, what R̂ makes of it, and what would come of more.

All of it from the two models' completions of held-out prompts; what needs a ground truth, weights
or labelled texts is left out where there are none.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from irl_exp.config import LabelsGroundTruth
from irl_exp.data import sources
from irl_exp.data.comments import Comments, group_ids
from irl_exp.data.formats import file_identity
from irl_exp.data.given import joined
from irl_exp.data.pairs import Demonstrations
from irl_exp.data.sources import Columns
from irl_exp.metrics import agreement, behavior, changes, findings, reward_distance, shortcuts
from irl_exp.metrics.disagreement import agreed_signs, disagreement
from irl_exp.metrics.statistics import sign_flip_p
from irl_exp.metrics.uncertainty import calibration_error
from irl_exp.models import generation, policies
from irl_exp.models.reward_kinds import EnsembleReward, LogRatioReward, likelihood
from irl_exp.models.reward_model import Facts, NormalizedReward
from irl_exp.models.saved_rewards import load_normalized
from irl_exp.steps.bench import Bench, write_summary
from irl_exp.steps.calibration import bootstrap
from irl_exp.store import Artifact
from irl_exp.tracking import NOT_APPLICABLE, Value

VERSION = 2
COMPLETIONS_FILE = "completions.parquet"
WORDS_FILE = "words.parquet"
BEST_OF_N_FILE = "best_of_n.parquet"
# Test prompts, and candidates of each, of which R̂ chooses the best; candidates of one seed, so that
# solvers choose among the same.
PROMPTS, CANDIDATES = 128, 16
# A word that differs within fewer prompts says nothing.
MINIMUM_COUNT = 5

Texts = tuple[list[str], list[str]]
Floats = NDArray[np.float64]


def audit(
    bench: Bench,
    comments: Artifact,
    pairs: Artifact,
    aligned: Artifact | None,
    reference: Artifact,
    truth: Artifact | None,
    recovered: Artifact,
    controls: Mapping[str, Artifact | None],
) -> Artifact:
    """Artifact: the numbers audit/..., recovery/... and control/..., and three tables: the held-out
    completions under R̂, the words whose share changed, and the best of n by R̂."""
    config = bench.config.evaluation
    labels = bench.config.ground_truth
    candidates = _candidates(bench, comments, reference) if aligned else None

    def compute(folder: Path) -> None:
        study = _Audit(bench, Demonstrations.load(pairs.path), reference, truth, recovered)
        words = study.words()
        optimized = study.optimized(candidates)
        study.completions().to_parquet(folder / COMPLETIONS_FILE, index=False)
        words.to_parquet(folder / WORDS_FILE, index=False)
        numbers = study.changes(words) | study.spent(aligned) | study.preferences(controls)
        numbers |= study.calibration() | study.members() | study.against_truth(controls)
        numbers |= study.on_labels(_held_out(bench, Comments.load(comments.path)), controls)
        if optimized is None:
            numbers["audit/best_of_n"] = NOT_APPLICABLE
        else:
            optimized.to_parquet(folder / BEST_OF_N_FILE, index=False)
            numbers["audit/best_of_n"] = int(optimized["n"].max())
        write_summary(folder, numbers)

    identity: dict[str, Any] = {"draws": config.draws, "level": config.level}
    identity["max_new_tokens"] = bench.config.dataset.max_new_tokens
    if isinstance(labels, LabelsGroundTruth):
        identity["labels"] = asdict(labels) | {"path": file_identity(labels.path)}
    artifact = bench.do(
        "audit",
        VERSION,
        compute,
        config=identity,
        inputs={
            "comments": comments,
            "pairs": pairs,
            "aligned": aligned,
            "reference": reference,
            "truth": truth,
            "recovered": recovered,
            "candidates": candidates,
            **{f"control/{name}": control for name, control in controls.items()},
        },
        seed=0,
    )
    numbers = bench.report(artifact)
    for name in (COMPLETIONS_FILE, WORDS_FILE, BEST_OF_N_FILE):
        if (artifact.path / name).is_file():
            shutil.copyfile(artifact.path / name, bench.tracker.folder / name)
    _warn(bench, numbers)
    return artifact


def _warn(bench: Bench, numbers: Mapping[str, Value]) -> None:
    """Say whether there is anything to recover, and what was not held out."""
    if learned := numbers.get("audit/labelled_learned"):
        bench.tracker.warn(
            f"{learned} labelled texts stand among the pairs that R̂ learned from: left out of AUC"
        )
    share = numbers["audit/preference_accuracy"]
    low, high = (numbers.get(f"audit/preference_accuracy_{end}") for end in ("low", "high"))
    if low is None or high is None:
        bench.tracker.warn("too few prompts are held out to say whether the two models differ")
    elif float(high) < 0.5:
        bench.tracker.warn(
            f"R̂ prefers what the reference wrote in most held-out pairs ({float(share):.2f} the "
            "other way): what it learned is turned around there; look for texts that stand on "
            "both sides of the training pairs, and at how prompts split"
        )
    elif not float(low) > 0.5:
        bench.tracker.warn(
            f"R̂ tells the aligned model's held-out completions from the reference's no better than "
            f"chance ({float(share):.2f}): nothing that it says can be trusted"
        )


def _candidates(bench: Bench, comments: Artifact, reference: Artifact) -> Artifact:
    """What the reference writes after test prompts, for R̂ to choose from."""
    trainer, max_new_tokens = bench.config.trainer, bench.config.dataset.max_new_tokens

    def compute(folder: Path) -> None:
        size = trainer.sample_batch_size
        policy = policies.load_policy(reference.path, max_new_tokens, size, bench.device)
        prompts = Comments.load(comments.path).split("test").prompts[:PROMPTS]
        written = policy.sample(prompts, CANDIDATES, bench.generator(0, "candidates")).flat()
        table = pd.DataFrame({"prompt": written[0], "completion": written[1]})
        table.to_parquet(folder / BEST_OF_N_FILE, index=False)

    return bench.do(
        "audit_candidates",
        VERSION,
        compute,
        config={"prompts": PROMPTS, "k": CANDIDATES, "max_new_tokens": max_new_tokens},
        inputs={"comments": comments, "reference": reference},
        seed=0,
    )


@dataclass(frozen=True)
class HeldOut:
    """Texts with labels that nothing has learned from; `groups`: which of them share a prompt."""

    texts: Texts
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None

    @classmethod
    def read(cls, labels: LabelsGroundTruth) -> "HeldOut":
        """Of a file; InputError where it is not what its columns promise."""
        rows = sources.file_rows(labels.path, Columns.of(labels))
        found = [row for row in rows if row.toxic is not None]
        numbers = np.array([row.toxic for row in found], dtype=np.int64)
        texts, prompts = [row.text for row in found], [row.prompt or "" for row in found]
        if labels.prompt_column is None:
            return cls((prompts, texts), numbers, None)
        completions = [joined(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        return cls((prompts, completions), numbers, group_ids(prompts))

    def without(self, known: set[str]) -> "HeldOut":
        """Those that are not among these, as `_words` has them."""
        new = np.array([_words(p + c) not in known for p, c in zip(*self.texts, strict=True)], bool)
        prompts, completions = (list(compress(texts, new)) for texts in self.texts)
        groups = None if self.groups is None else self.groups[new]
        return HeldOut((prompts, completions), self.labels[new], groups)


def _words(text: str) -> str:
    """A text, however its words are spaced."""
    return " ".join(text.split())


def require_labels(bench: Bench) -> None:
    """Refuse labelled texts that cannot be read, before hours are spent on what precedes them."""
    if isinstance(labels := bench.config.ground_truth, LabelsGroundTruth):
        HeldOut.read(labels)


def _held_out(bench: Bench, comments: Comments) -> HeldOut | None:
    """Of a file, or comments."""
    if isinstance(labels := bench.config.ground_truth, LabelsGroundTruth):
        return HeldOut.read(labels)
    if not comments.labelled:
        return None
    test = comments.split("test")
    return HeldOut((test.table["prompt"].tolist(), test.completions), test.labels, test.group_ids)


class _Audit:
    """Scores the held-out completions under each reward, and measures. Columns are [n, 2k]."""

    def __init__(
        self,
        bench: Bench,
        pairs: Demonstrations,
        reference: Artifact,
        truth: Artifact | None,
        recovered: Artifact,
    ) -> None:
        self.bench, self.config = bench, bench.config.evaluation
        self.pool, self.validation = pairs.split("test"), pairs.split("validation")
        # Whole, and without their prompts, as a file of labelled texts may have them.
        self.learned = {
            _words(text)
            for part in (pairs.split("train"), self.validation)
            for prompt, completion in zip(*part.pool(), strict=True)
            for text in (prompt + completion, completion)
        }
        self.groups = self.pool.group_ids
        self.loaded: dict[str, NormalizedReward] = {}
        self.scored: dict[str, Floats] = {}
        self.reader = generation.load_network(reference.path, bench.device)
        self.recovered, self.truth = self.load(recovered), self.load(truth) if truth else None
        self.threshold = Facts.load(truth.path).threshold if truth else None
        self.ours = self.pool_scores(recovered)
        self.true = self.pool_scores(truth) if truth else None
        self.validated = self.score(self.recovered, self.validation)
        self.columns = self.describe(self.pool.pool(), self.ours.shape, self.true)

    def load(self, reward: Artifact) -> NormalizedReward:
        if reward.fingerprint not in self.loaded:
            size = self.bench.config.trainer.score_batch_size
            found = load_normalized(reward.path, size, self.bench.device)
            self.loaded[reward.fingerprint] = found
        return self.loaded[reward.fingerprint]

    def pool_scores(self, reward: Artifact) -> Floats:
        if reward.fingerprint not in self.scored:
            self.scored[reward.fingerprint] = self.score(self.load(reward), self.pool)
        return self.scored[reward.fingerprint]

    def score(self, reward: NormalizedReward, pool: Demonstrations) -> Floats:
        return reward.score(*pool.pool()).numpy().astype(np.float64).reshape(len(pool), -1)

    def describe(
        self, texts: Texts, shape: tuple[int, ...], true: Floats | None = None
    ) -> dict[str, Floats]:
        """What can be said of any completion: words, repetition, likelihood, and R* if known (as
        `true`, where that has been scored)."""
        size, limit = self.bench.config.trainer.score_batch_size, self.limit
        columns = {
            "length": np.array([len(text.split()) for text in texts[1]], dtype=np.float64),
            "repetition": shortcuts.repetition(texts[1]),
            "likelihood": likelihood(self.reader, *texts, limit, size).numpy().astype(np.float64),
        }
        if true is not None:
            columns["reward"] = true
        elif self.truth:
            columns["reward"] = self.truth.score(*texts).numpy().astype(np.float64)
        return {name: values.reshape(shape) for name, values in columns.items()}

    @property
    def limit(self) -> int:
        return self.bench.config.dataset.max_new_tokens

    def interval(self, name: str, statistic: Any, *columns: NDArray[Any]) -> dict[str, Value]:
        return {**bootstrap(self.config, {name: statistic}, self.groups, *columns)}

    # --- what changed ---------------------------------------------------------------------------

    def changes(self, words: pd.DataFrame) -> dict[str, Value]:
        """Means of both sides, and what the aligned model does less what the reference does."""
        columns = {**self.columns, "recovered": self.ours}
        if self.true is not None and self.threshold is not None and self.truth:
            unit = self.truth.normalizer
            raw = self.true * unit.std + unit.mean
            columns["toxicity"] = (raw < self.threshold).astype(np.float64)
        numbers: dict[str, Value] = {"audit/prompts": len(self.pool), "audit/k": self.pool.k}
        p_values = {}
        for name, column in columns.items():
            both = changes.sides(column)
            for side, values in zip(("aligned", "reference"), both, strict=True):
                numbers |= self.interval(f"audit/{name}_{side}", np.mean, values)
            difference = both[0] - both[1]
            numbers |= self.interval(f"audit/{name}_change", np.mean, difference)
            if name != "recovered":  # which was made to differ
                means = pd.Series(difference).groupby(self.groups).mean().to_numpy()
                p_values[name] = sign_flip_p(means, rng=np.random.default_rng(0))
        for name, p in changes.corrected(p_values).items():
            numbers |= {f"audit/{name}_change_p": p_values[name], f"audit/{name}_change_holm": p}
        for side, texts in (
            ("aligned", self.pool.aligned_texts()),
            ("reference", self.pool.reference_texts()),
        ):
            numbers[f"audit/distinct_2_{side}"] = behavior.distinct_n(texts[1], 2)
        numbers["audit/words"] = len(words)
        numbers["audit/words_changed"] = int(((words["low"] > 0) | (words["high"] < 0)).sum())
        for name in sorted({"reward", "toxicity"} - columns.keys()):
            numbers[f"audit/{name}_change"] = NOT_APPLICABLE
        return numbers

    def words(self) -> pd.DataFrame:
        _, completions = self.pool.pool()
        present = findings.presence(completions, self.ours.shape, MINIMUM_COUNT)  # type: ignore[arg-type]
        return changes.word_changes(present, self.groups, self.config.level)

    def spent(self, aligned: Artifact | None) -> dict[str, Value]:
        """E_aligned[log pi_E/pi_ref] of held-out completions, each model by its own tokens; where
        these differ, of texts without their end in their usual spelling (LogRatioReward)."""
        if aligned is None:
            return {"audit/kl": NOT_APPLICABLE}
        ours = generation.load_network(aligned.path, self.bench.device)
        size = self.bench.config.trainer.score_batch_size
        ratio = LogRatioReward(ours, self.reader, 1.0, self.limit, size)
        nats = ratio.score(*self.pool.aligned_texts()).numpy().astype(np.float64)
        return self.interval("audit/kl", np.mean, nats.reshape(len(self.pool), -1))

    # --- how sure R̂ is --------------------------------------------------------------------------

    def preferences(self, controls: Mapping[str, Artifact | None]) -> dict[str, Value]:
        """How often each reward prefers what the aligned model wrote; and R̂ on validation pairs."""
        numbers = self.preference("audit", self.ours)
        for name, control in controls.items():
            if control is None:
                numbers[f"control/{name}/preference_accuracy"] = NOT_APPLICABLE
            else:
                numbers |= self.preference(f"control/{name}", self.pool_scores(control))
        if self.true is not None:
            numbers |= self.preference("ground_truth", self.true)
        held_out = changes.preferred(self.validated)
        numbers["validation/preference_accuracy"] = agreement.pooled_share(*held_out)
        return numbers

    def preference(self, name: str, scores: Floats) -> dict[str, Value]:
        counts = changes.preferred(scores)
        return self.interval(f"{name}/preference_accuracy", agreement.pooled_share, *counts)

    def calibration(self) -> dict[str, Value]:
        """Whether R̂'s odds come true: P(aligned preferred) = sigmoid(a d), a by validation."""
        slope = changes.fit_slope(changes.matched(self.validated))
        differences = changes.matched(self.ours)
        odds, told = slope * differences, differences[differences != 0]  # a tie prefers none
        stated, came = 1 / (1 + np.exp(-slope * np.abs(told))), (told > 0).astype(np.float64)

        def loss(d: Floats) -> float:
            return float(np.logaddexp(0, -d).mean())

        return {
            "audit/slope": slope,
            **self.interval("audit/log_loss", loss, odds),
            "audit/calibration_error": calibration_error(stated, came)
            if told.size
            else NOT_APPLICABLE,
        }

    def members(self) -> dict[str, Value]:
        """Of an ensemble: how far recoveries from other seeds are the same reward."""
        names = ("agreed_fraction", "disagreement", "members_starc")
        ensemble = self.recovered.raw
        if not isinstance(ensemble, EnsembleReward):
            return {f"audit/{name}": NOT_APPLICABLE for name in names}
        scores = ensemble.members(*self.pool.pool()).numpy().astype(np.float64)
        scores = scores.reshape(len(scores), *self.ours.shape)
        first, second = np.triu_indices(len(scores), 1)
        apart = [
            reward_distance.starc(scores[i], scores[j]) for i, j in zip(first, second, strict=True)
        ]
        signs = (agreed_signs(scores.swapaxes(0, 1)) != 0).mean(axis=1)
        return {
            **self.interval("audit/agreed_fraction", np.mean, signs),
            **self.interval("audit/disagreement", disagreement, scores.swapaxes(0, 1)),
            "audit/members_starc": float(np.mean(apart)),
        }

    # --- against what is known ------------------------------------------------------------------

    def against_truth(self, controls: Mapping[str, Artifact | None]) -> dict[str, Value]:
        """R̂'s and each control's order and distance within prompts, against R*'s."""
        measures = {"pair_accuracy": agreement.pair_accuracy, "starc": reward_distance.starc}
        found: dict[str, Value] = {}
        for prefix, artifact in {"recovery": None, **_prefixed(controls)}.items():
            for name, measure in measures.items():
                if self.true is None or (artifact is None and prefix != "recovery"):
                    found[f"{prefix}/{name}"] = NOT_APPLICABLE
                    continue
                scores = self.pool_scores(artifact) if artifact else self.ours
                found |= self.interval(f"{prefix}/{name}", measure, self.true, scores)
        return found

    def on_labels(
        self,
        labelled: HeldOut | None,
        controls: Mapping[str, Artifact | None],
    ) -> dict[str, Value]:
        """How well each reward tells labelled texts apart that nothing has learned from: without
        those that stand among the pairs."""
        found: dict[str, Value] = {}
        held_out = labelled.without(self.learned) if labelled else None
        usable = held_out is not None and len(set(held_out.labels)) == 2
        for prefix, artifact in {"recovery": None, **_prefixed(controls)}.items():
            if not held_out or not usable or (artifact is None and prefix != "recovery"):
                found[f"{prefix}/auc"] = NOT_APPLICABLE
                continue
            reward = self.load(artifact) if artifact else self.recovered
            columns = reward.score(*held_out.texts).numpy(), held_out.labels
            name = f"{prefix}/auc"
            found |= bootstrap(self.config, {name: agreement.auc}, held_out.groups, *columns)
        if labelled and held_out:
            found |= {
                "audit/labelled": len(held_out.labels),
                "audit/labelled_toxic": int(held_out.labels.sum()),
                "audit/labelled_learned": len(labelled.labels) - len(held_out.labels),
            }
        return found

    # --- what to read, and what more would bring -------------------------------------------------

    def completions(self) -> pd.DataFrame:
        """Held-out completions: prompt, completion, policy, `recovered`, and `truth` if known."""
        prompts, completions = self.pool.pool()
        k = self.pool.k
        policy = (["aligned"] * k + ["reference"] * k) * len(self.pool)
        table = pd.DataFrame({"prompt": prompts, "completion": completions, "policy": policy})
        table = table.assign(recovered=self.ours.ravel())
        return table if self.true is None else table.assign(truth=self.true.ravel())

    def optimized(self, candidates: Artifact | None) -> pd.DataFrame | None:
        """The best of n by R̂, n = 1, 2, 4, ...: a row a measure, with intervals. Candidates are
        what the reference writes, or what of it is in the file, if several of each prompt are."""
        if candidates:
            table = pd.read_parquet(candidates.path / BEST_OF_N_FILE)
            texts, size = (table["prompt"].tolist(), table["completion"].tolist()), CANDIDATES
        else:
            texts, size = self.pool.reference_texts(), self.pool.k
        if size < 2:
            return None
        shape = (len(texts[0]) // size, size)
        scores = self.recovered.score(*texts).numpy().astype(np.float64).reshape(shape)
        columns = {"recovered": scores, **self.describe(texts, shape)}
        rows = []
        for n in 2 ** np.arange(int(np.log2(size)) + 1):
            for name, column in columns.items():
                best = changes.best_of(scores, column, int(n))
                numbers = bootstrap(self.config, {"value": np.mean}, None, best)
                ends = (numbers.get(f"value{end}", np.nan) for end in ("", "_low", "_high"))
                rows.append((int(n), name, *ends))
        return pd.DataFrame(rows, columns=["n", "measure", "value", "low", "high"])


def _prefixed(controls: Mapping[str, Artifact | None]) -> dict[str, Artifact | None]:
    return {f"control/{name}": control for name, control in controls.items()}
