"""ground_truth: R*, the reward that RLHF will use."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from irl_exp import hub
from irl_exp.config import (
    ClassifierGroundTruth,
    ClosedFormGroundTruth,
    GroundTruthConfig,
    PlantedGroundTruth,
    PromptsDataset,
    RandomGroundTruth,
    RewardGroundTruth,
    TrainedGroundTruth,
    innermost,
)
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.data.comments import Comments
from irl_exp.hub import Source
from irl_exp.metrics import agreement
from irl_exp.models import network_reward, saved_rewards
from irl_exp.models.network_reward import NetworkReward
from irl_exp.models.reward_kinds import ClosedFormReward, PlantedReward, Terms
from irl_exp.models.reward_model import Facts, Reward
from irl_exp.models.saved_rewards import load_normalized, load_reward
from irl_exp.modules.reward_modeling import RewardModeling, collate
from irl_exp.modules.training import fit
from irl_exp.steps.bench import Bench, derive, write_summary
from irl_exp.steps.calibration import bootstrap, save_calibrated, unit_texts
from irl_exp.store import Artifact

VERSION = 2
# Shares of completions below which what is planted will hardly be found.
RARE = 0.01


def fit_ground_truth(
    bench: Bench, comments: Artifact, reference: Artifact, pairs: Artifact | None = None
) -> Artifact:
    """Artifact: a reward folder with threshold and unit. Its agreement with labels: to the run.

    `pairs` are those of a file, if the reference is known by them alone.
    """
    config, seed = bench.config.ground_truth, bench.config.seeds.policy
    artifact = _fit(bench, config, comments, reference, seed, "ground_truth", pairs)
    if isinstance(bench.config.dataset, PromptsDataset):
        return artifact  # nobody says of a text what it is
    auc, low, high = _measure(bench, comments, artifact, "ground_truth")
    if not low > 0.5:
        bench.tracker.warn(
            f"R* may tell toxic comments from others no better than chance (AUC {auc:.2f} "
            f"[{low:.2f}, {high:.2f}]): what is recovered is then no one's idea of toxicity"
        )
    if isinstance(config, PlantedGroundTruth):
        _look_for(bench, config, reference, pairs)
    return artifact


def fit_twin(
    bench: Bench, comments: Artifact, reference: Artifact
) -> tuple[Artifact | None, Artifact | None]:
    """A second R* by the same recipe from another seed, the noise floor of distances; and the same
    without what is planted in it, which is what human labels alone make of a text.

    Neither where R* is not trained on labels.
    """
    config, seed = bench.config.ground_truth, derive(bench.config.seeds.policy, "twin")
    if not isinstance(innermost(config), TrainedGroundTruth):
        return None, None
    twin = _fit(bench, config, comments, reference, seed, "twin")
    if not isinstance(config, PlantedGroundTruth):
        return twin, twin
    return twin, _fit(bench, innermost(config), comments, reference, seed, "label_model")


def second_classifier(bench: Bench, comments: Artifact, reference: Artifact) -> Artifact | None:
    """A text classifier that judges beside R*, by the recipe of R* as one; None: words will."""
    config, seed = bench.config.evaluation.second, bench.config.seeds.policy
    if config is None:
        return None
    classifier = _fit(bench, config, comments, reference, seed, "second_classifier")
    auc, low, high = _measure(bench, comments, classifier, "second_classifier")
    if not low > 0.5:
        bench.tracker.warn(
            f"the second classifier may tell toxic comments from others no better than chance (AUC "
            f"{auc:.2f} [{low:.2f}, {high:.2f}]): what it says of policies means nothing"
        )
    return classifier


def _fit(
    bench: Bench,
    config: GroundTruthConfig,
    comments: Artifact,
    reference: Artifact,
    seed: int,
    label: str,
    pairs: Artifact | None = None,
) -> Artifact:
    """The reward, and before it the one that it is built on."""
    source = _source(config)
    base: Artifact | None = None
    if isinstance(config, PlantedGroundTruth):
        base = _fit(bench, config.base, comments, reference, seed, f"{label}_base", pairs)

    def compute(folder: Path) -> None:
        table = Comments.load(comments.path)
        if isinstance(config, PlantedGroundTruth):
            assert base is not None
            trainer = bench.config.trainer
            driver = load_normalized(base.path, trainer.score_batch_size, bench.device)
            reward: Reward = PlantedReward(driver, Terms(**_planted(config)))
        else:
            reward = _reward(bench, config, table, reference, source, folder, seed)
        unit = unit_texts(reference, pairs)
        save_calibrated(reward, folder, table, unit, origin={"ground_truth": config.name})

    inputs = {"comments": comments, "reference": reference} | ({"pairs": pairs} if pairs else {})
    return bench.do(
        "ground_truth",
        VERSION,
        compute,
        config=_identity(config, source),
        inputs=inputs | ({"base": base} if base else {}),
        seed=seed,
        label=label,
    )


def _look_for(
    bench: Bench, config: PlantedGroundTruth, reference: Artifact, pairs: Artifact | None
) -> None:
    """How often the reference meets what is planted: what it never writes, RLHF cannot find."""
    prompts, completions = unit_texts(reference, pairs)
    shares = Terms(**_planted(config)).shares(prompts, completions)
    bench.tracker.summarize({f"planted/{name}_share": share for name, share in shares.items()})
    for name, share in shares.items():
        if share < RARE:
            bench.tracker.warn(
                f"planted: {share:.1%} of the reference's completions meet the {name}; RLHF can "
                "hardly find what is so rare, and recovery cannot show it"
            )


def _planted(config: PlantedGroundTruth) -> dict[str, Any]:
    """What is planted, without the reward that it is planted in."""
    return {name: value for name, value in vars(config).items() if name not in ("name", "base")}


def _measure(
    bench: Bench, comments: Artifact, truth: Artifact, label: str
) -> tuple[float, float, float]:
    """A judge against the labels of held-out comments: its AUC and the ends of the interval. An
    artifact of its own, so that another number of bootstrap draws does not make another R*."""
    evaluation = bench.config.evaluation

    def compute(folder: Path) -> None:
        reward = load_reward(truth.path, bench.config.trainer.score_batch_size, bench.device)
        threshold = Facts.load(truth.path).threshold
        assert threshold is not None
        test = Comments.load(comments.path).split("test")
        scores = reward.score(test.table["prompt"].tolist(), test.completions).numpy()
        statistics = {
            "auc": agreement.auc,
            "accuracy": lambda s, y: agreement.accuracy(s, y, threshold),
        }
        numbers = bootstrap(evaluation, statistics, test.group_ids, scores, test.labels)
        numbers["truncated_comments"] = saved_rewards.truncated(reward, test.texts)
        write_summary(folder, numbers)

    measured = bench.do(
        "ground_truth_quality",
        VERSION,
        compute,
        config={"draws": evaluation.draws, "level": evaluation.level},
        inputs={"comments": comments, "truth": truth},
        seed=0,
        label=f"{label}_quality",
    )
    numbers = bench.report(measured, f"{label}/")
    if count := numbers[f"{label}/truncated_comments"]:
        who = {"ground_truth": "R*", "second_classifier": "the second classifier"}[label]
        bench.tracker.warn(
            f"{count} test comments are longer than {who} reads: it sees their end alone"
        )
    # Of a single draw there is no interval.
    ends = (numbers.get(f"{label}/auc{end}", numbers[f"{label}/auc"]) for end in ("_low", "_high"))
    auc, low, high = (float(value) for value in (numbers[f"{label}/auc"], *ends))
    return auc, low, high


def _source(config: GroundTruthConfig) -> Source | None:
    if isinstance(config, ClassifierGroundTruth | RewardGroundTruth):
        return hub.resolve(config.path, config.revision, "model")
    return None


def _reward(
    bench: Bench,
    config: GroundTruthConfig,
    comments: Comments,
    reference: Artifact,
    source: Source | None,
    folder: Path,
    seed: int,
) -> Reward:
    if isinstance(config, ClosedFormGroundTruth):
        return ClosedFormReward()
    if isinstance(config, ClassifierGroundTruth):
        assert source is not None
        batch = bench.config.trainer.score_batch_size
        reward = network_reward.from_classifier(source.folder(), config.toxic_label, batch)
        reward.network.to(bench.device)  # type: ignore[arg-type]
        return reward
    if isinstance(config, RewardGroundTruth):
        assert source is not None
        batch = bench.config.trainer.score_batch_size
        return saved_rewards.load_any(source.folder(), batch, bench.device)
    if isinstance(config, RandomGroundTruth):
        head = torch.Generator().manual_seed(derive(seed, "head"))
        batch = bench.config.trainer.score_batch_size
        reward = network_reward.from_body(reference.path, head, batch)
        reward.network.eval().to(bench.device)  # type: ignore[arg-type]
        return reward
    assert isinstance(config, TrainedGroundTruth)
    return _trained(bench, config, comments, reference, folder, seed)


def _trained(
    bench: Bench,
    config: TrainedGroundTruth,
    comments: Comments,
    reference: Artifact,
    folder: Path,
    seed: int,
) -> NetworkReward:
    reward = network_reward.from_body(
        reference.path,
        torch.Generator().manual_seed(derive(seed, "head")),
        bench.config.trainer.score_batch_size,
    )
    train = comments.split("train")
    rows = network_reward.encode(
        reward.tokenizer, reward.network, train.table["prompt"].tolist(), train.completions
    )
    order = torch.Generator().manual_seed(derive(seed, "ground_truth"))
    batches = LengthBatches([len(row) for row in rows], config.batch_size, order)
    examples = list(zip(rows, train.labels.tolist(), strict=True))
    fit(
        RewardModeling(reward, config.learning_rate, config.weight_decay, config.warmup),
        ResumableLoader(examples, batches, collate),
        bench.config.trainer,
        folder,
        epochs=config.epochs,
        max_grad_norm=1.0,
    )
    reward.network.to(bench.device)  # type: ignore[arg-type]
    return reward


def _identity(config: GroundTruthConfig, source: Source | None) -> dict[str, Any]:
    if isinstance(config, PlantedGroundTruth):
        return {"name": config.name} | _planted(config)  # the base is an input
    return asdict(config) | (source.identity if source else {})
