"""evaluate: how good is R̂, how sure can we be; beside it, every control by the same measures."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from irl_exp.config import EvaluationConfig, InputError
from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.metrics import agreement, resampled, reward_distance
from irl_exp.metrics.disagreement import agreed_signs, disagreement
from irl_exp.metrics.identifiability import identification
from irl_exp.models.reward_kinds import EnsembleReward
from irl_exp.models.reward_model import Facts
from irl_exp.models.saved_rewards import load_reward
from irl_exp.modules.trace import EPOCH, TRACE_FILE
from irl_exp.modules.training import CURVES_FILE
from irl_exp.solvers import frozen
from irl_exp.steps import evaluate_panel
from irl_exp.steps.bench import Bench, read_jsonl, write_jsonl, write_summary
from irl_exp.steps.calibration import bootstrap, bootstrap_at_once
from irl_exp.steps.features import Texts, features
from irl_exp.steps.observe import OF_OTHER_STEPS, OF_SECOND, SAMPLES_FILE, write_samples
from irl_exp.steps.scores import Scores, scores
from irl_exp.store import Artifact
from irl_exp.tracking import NOT_APPLICABLE, Value

VERSION = 5
# STARC distance of two rewards whose correlation is a half.
SAME_ENOUGH = 0.5


class Course(TypedDict):
    """What R̂ was worth on the panel after so many epochs, a line of the curves."""

    global_step: int
    auc: float
    accuracy_at_zero: float
    pair_accuracy: float
    starc: float


def evaluate(
    bench: Bench,
    comments: Artifact,
    pairs: Artifact,
    reference: Artifact,
    truth: Artifact,
    recovered: Artifact,
    controls: Mapping[str, Artifact | None],
    twin: Artifact | None,
    observed: Mapping[str, Artifact],
) -> Artifact:
    """Artifact: the numbers of R̂ and of each control (None: not applicable), and two tables.

    `panel.parquet` holds every reward on a fixed panel of texts, `samples.jsonl` what the observed
    policies wrote, now with R̂ beside R*. Where R̂ was traced, there are curves over its epochs.
    """
    completions = evaluate_panel.completions(bench, comments, reference)
    people, demonstrations = Comments.load(comments.path), Demonstrations.load(pairs.path)
    table = evaluate_panel.texts(comments, completions)
    rewards = {"truth": truth, "recovered": recovered}
    rewards |= {"twin": twin} if twin else {}
    rewards |= {f"control/{name}": c for name, c in controls.items() if c is not None}
    texts = asked(bench.config.evaluation, people, demonstrations, table)
    sources = {"comments": comments, "pairs": pairs, "panel": completions}
    scored = score_each(bench, rewards, reference, texts, sources)

    def compute(folder: Path) -> None:
        study = _Evaluation(bench, people, demonstrations, table, scored)
        numbers = study.recovery(truth, recovered) | study.consensus(truth, recovered)
        for name, control in controls.items():
            numbers |= study.control(name, truth, control)
        numbers |= study.floor(truth, twin) | study.opinion(recovered)
        study.panel(rewards).to_parquet(folder / evaluate_panel.PANEL_FILE, index=False)
        records = [r for o in observed.values() for r in read_jsonl(o.path / SAMPLES_FILE)]
        write_samples(folder, records, bench, recovered)
        write_summary(folder, numbers)
        if (recovered.path / TRACE_FILE).is_file():
            trace = pd.read_parquet(recovered.path / TRACE_FILE)
            write_jsonl(folder / CURVES_FILE, study.course(truth, trace))

    evaluation = asdict(bench.config.evaluation)
    del evaluation["controls"]  # they are inputs
    for unused in (*OF_SECOND, *OF_OTHER_STEPS, "greedy_tokens"):
        del evaluation[unused]
    if evaluation["texts"] == "held_out":  # as before there were others
        del evaluation["texts"]
    artifact = bench.do(
        "evaluate",
        VERSION,
        compute,
        config=evaluation,
        inputs={
            "comments": comments,
            "pairs": pairs,
            "panel": completions,
            "truth": truth,
            "recovered": recovered,
            "twin": twin,
            **{f"control/{name}": control for name, control in controls.items()},
            **{f"observed/{name}": observation for name, observation in observed.items()},
        },
        seed=0,
    )
    floor = bench.report(artifact)["recovery/starc_floor"]
    if isinstance(floor, float) and floor > SAME_ENOUGH:
        bench.tracker.warn(
            f"a second R* by the same recipe lies at STARC {floor:.2f} from R* (0.71: unrelated): "
            "what R* is depends on its seed, and distances from it say little"
        )
    for name in (evaluate_panel.PANEL_FILE, SAMPLES_FILE):
        shutil.copyfile(artifact.path / name, bench.tracker.folder / name)
    bench.tracker.note(
        panel_digest=evaluate_panel.digest(artifact.path / evaluate_panel.PANEL_FILE)
    )
    return artifact


def score_each(
    bench: Bench,
    rewards: Mapping[str, Artifact],
    reference: Artifact,
    texts: Mapping[str, Texts],
    sources: Mapping[str, Artifact],
) -> dict[str, Scores]:
    """By the fingerprint of each reward: an artifact each, for most of these rewards are those of
    other runs too, and where runs differ in R̂'s seeds alone, all that nothing is drawn for."""
    config = bench.config
    solvers = {f"control/{name}": solver for name, solver in config.evaluation.controls.items()}
    solvers["recovered"] = config.solver
    states = None
    if frozen(config.solver):
        states = features(bench, "evaluate", reference, list(texts.values()), sources)
    return {
        reward.fingerprint: scores(
            bench,
            name,
            reward,
            texts,
            sources,
            states if name in solvers and frozen(solvers[name]) else None,
        )
        for name, reward in rewards.items()
    }


class _Evaluation:
    """Measures, from the scores of each reward by its fingerprint (steps/scores.py).

    `table` has the texts of the panel (steps/evaluate_panel.py).
    """

    def __init__(
        self,
        bench: Bench,
        comments: Comments,
        pairs: Demonstrations,
        table: pd.DataFrame,
        scored: Mapping[str, Scores],
    ) -> None:
        self.bench = bench
        self.config = bench.config.evaluation
        self.test, self.validation = comments.split("test"), comments.split("validation")
        self.width = 2 * pairs.k
        self.table = table
        self.pairs, self.scored = pairs, scored
        # Where the pooled numbers are from, and the clusters of its texts.
        self.pooled, self.clusters = "test", self.test.group_ids
        if self.config.texts == "training":
            count = len(pairs.split("train"))
            self.pooled, self.clusters = "training", np.arange(count).repeat(self.width)

    def score(self, artifact: Artifact, where: str) -> NDArray[np.float32]:
        return self.scored[artifact.fingerprint][where]

    def recovery(self, truth: Artifact, recovered: Artifact) -> dict[str, Value]:
        """Identified numbers (order and distance within a prompt), then the pooled ones."""
        threshold = Facts.load(recovered.path).threshold
        assert threshold is not None
        if self.config.threshold == "zero":
            threshold = 0.0
        ours, theirs = self.score(recovered, self.pooled), self.score(truth, self.pooled)
        labels = self.labels(truth, self.pooled)
        pooled = bootstrap_at_once(
            self.config,
            {
                "auc": (lambda s, t, y: _auc(s, y), lambda c, s, t, y: resampled.auc(c, s, y)),
                "accuracy": (
                    lambda s, t, y: agreement.accuracy(s, y, threshold),
                    lambda c, s, t, y: resampled.accuracy(c, s, y, threshold),
                ),
                "f1": (
                    lambda s, t, y: agreement.f1(s, y, threshold),
                    lambda c, s, t, y: resampled.f1(c, s, y, threshold),
                ),
                "accuracy_at_zero": (
                    lambda s, t, y: agreement.accuracy_at_zero(s, y),
                    lambda c, s, t, y: resampled.accuracy_at_zero(c, s, y),
                ),
                "pearson": (
                    lambda s, t, y: agreement.pearson(s, t),
                    lambda c, s, t, y: resampled.pearson(c, s, t),
                ),
                "spearman": (
                    lambda s, t, y: agreement.spearman(s, t),
                    lambda c, s, t, y: resampled.spearman(c, s, t),
                ),
            },
            self.clusters,
            ours,
            theirs,
            labels,
        )
        numbers = {f"recovery/{name}": value for name, value in pooled.items()}
        # A bootstrap of Kendall's tau would cost minutes; Spearman's interval tells as much.
        numbers["recovery/kendall"] = agreement.kendall(ours, theirs)
        within = self.within_prompt(truth, recovered)
        numbers |= {f"recovery/{name}": value for name, value in within.items()}
        validation = self.score(recovered, "validation")
        numbers["validation/recovery_auc"] = agreement.auc(validation, self.validation.labels)
        return dict(numbers)

    def opinion(self, recovered: Artifact) -> dict[str, Value]:
        """What R̂ thinks, in its unit, of either policy that it was recovered from."""
        facts = Facts.load(recovered.path)
        scores = self.score(recovered, "pool").reshape(-1, self.width).astype(np.float64)
        sides = np.split((scores - facts.normalizer.mean) / facts.normalizer.std, 2, axis=1)
        numbers: dict[str, Value] = {}
        for policy, side in zip(("aligned", "reference"), sides, strict=True):
            found = bootstrap(self.config, {"mean_recovered": np.mean}, None, side)
            numbers |= {f"policy/{policy}/{name}": value for name, value in found.items()}
        return numbers

    def consensus(self, truth: Artifact, recovered: Artifact) -> dict[str, Value]:
        """Of an ensemble: what its members agree on, and whether that is right."""
        if Facts.load(recovered.path).kind != EnsembleReward.kind:
            return {}
        size, device = self.bench.config.trainer.score_batch_size, self.bench.device
        reward = load_reward(recovered.path, size, device)
        assert isinstance(reward, EnsembleReward)
        members = reward.members(*self.pairs.split("test").pool()).numpy()
        members = members.reshape(len(members), -1, self.width).swapaxes(0, 1)
        aligned, reference = np.split(self.score(truth, "pool").reshape(-1, self.width), 2, axis=1)
        signs = agreed_signs(members)
        true = (aligned[:, :, None] - reference[:, None, :]).reshape(signs.shape)

        def of_agreed(name: str, s: NDArray[np.int8], t: NDArray[np.float32]) -> float:
            return identification(s.ravel(), t.ravel())[name]

        numbers = bootstrap(
            self.config,
            {
                "agreed_fraction": lambda s, t, m: of_agreed("identified_fraction", s, t),
                "agreed_accuracy": lambda s, t, m: of_agreed("identified_accuracy", s, t),
                "disagreement": lambda s, t, m: disagreement(m),
            },
            None,
            signs,
            true,
            members,
        )
        return {f"recovery/{name}": value for name, value in numbers.items()}

    def labels(self, truth: Artifact, where: str) -> NDArray[np.int64]:
        """What R̂ is asked to tell apart: human labels, or as in the paper R*'s own at zero."""
        if self.config.labels == "human":
            return self.test.labels
        toxic = (self.score(truth, where) <= 0).astype(np.int64)
        if where == "test" and toxic.min() == toxic.max():
            raise InputError(
                f"evaluation.labels=ground_truth: R* calls {'every' if toxic[0] else 'no'} test "
                "comment toxic at zero; expected an R* whose zero parts them, or labels=human"
            )
        return toxic

    def within_prompt(self, truth: Artifact, other: Artifact) -> dict[str, float]:
        theirs, ours = (
            self.score(artifact, "pool").reshape(-1, self.width) for artifact in (truth, other)
        )
        return bootstrap_at_once(
            self.config,
            {
                "pair_accuracy": (agreement.pair_accuracy, resampled.pair_accuracy),
                "starc": (reward_distance.starc, resampled.starc),
            },
            None,
            theirs,
            ours,
        )

    def control(self, name: str, truth: Artifact, control: Artifact | None) -> dict[str, Value]:
        if control is None:
            return {
                f"control/{name}/{metric}": NOT_APPLICABLE
                for metric in ("auc", "starc", "pair_accuracy")
            }
        pooled = bootstrap_at_once(
            self.config,
            {"auc": (_auc, resampled.auc)},
            self.clusters,
            self.score(control, self.pooled),
            self.labels(truth, self.pooled),
        )
        numbers = pooled | self.within_prompt(truth, control)
        return {f"control/{name}/{metric}": value for metric, value in numbers.items()}

    def floor(self, truth: Artifact, twin: Artifact | None) -> dict[str, Value]:
        """How far two runs of R*'s own recipe lie apart."""
        if twin is None:
            return {"recovery/starc_floor": NOT_APPLICABLE}
        floor = self.within_prompt(truth, twin)
        return {
            f"recovery/starc_floor{name.removeprefix('starc')}": value
            for name, value in floor.items()
            if name.startswith("starc")
        }

    def panel(self, rewards: Mapping[str, Artifact]) -> pd.DataFrame:
        """The panel's texts under every reward."""
        scores = {
            name: np.concatenate([self.score(artifact, part) for part in ("test", "panel")])
            for name, artifact in rewards.items()
        }
        return self.table.assign(**scores)

    def course(self, truth: Artifact, trace: pd.DataFrame) -> Iterator[Course]:
        """How good R̂ was on the panel before training and after each epoch."""
        comments, labels = (
            (trace["kind"] == evaluate_panel.COMMENT).to_numpy(),
            self.labels(truth, "test"),
        )
        theirs = self.score(truth, "panel").reshape(-1, evaluate_panel.COMPLETIONS)
        for epoch, column in enumerate(trace.columns[trace.columns.str.startswith(EPOCH)]):
            scores = trace[column].to_numpy()
            pools = scores[~comments].reshape(theirs.shape)
            yield {
                "global_step": epoch,
                "auc": agreement.auc(scores[comments], labels),
                "accuracy_at_zero": agreement.accuracy_at_zero(scores[comments], labels),
                "pair_accuracy": agreement.pair_accuracy(theirs, pools),
                "starc": reward_distance.starc(theirs, pools),
            }


def asked(
    config: EvaluationConfig, comments: Comments, pairs: Demonstrations, table: pd.DataFrame
) -> dict[str, Texts]:
    """The sets of texts on which rewards are compared; `table` is the panel's."""
    completions = table[table["kind"] == evaluate_panel.REFERENCE]
    texts: dict[str, Texts] = {
        "test": _texts(comments.split("test")),
        "validation": _texts(comments.split("validation")),
        "pool": pairs.split("test").pool(),
        "panel": (completions["prompt"].tolist(), completions["completion"].tolist()),
    }
    if config.texts == "training":
        texts["training"] = pairs.split("train").pool()
    return texts


def _auc(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """NaN where all labels are one, as R*'s of what policies wrote can be."""
    return agreement.auc(scores, labels) if 0 < labels.mean() < 1 else float("nan")


def _texts(comments: Comments) -> Texts:
    return comments.table["prompt"].tolist(), comments.completions
