"""identify where the answer is known: a linear R* and exactly its tilted expert, and noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from irl_exp.data.comments import Comments
from irl_exp.data.pairs import Demonstrations
from irl_exp.models.network_reward import NetworkReward, from_body, output_layer
from irl_exp.models.reward_model import Facts, Normalizer
from irl_exp.steps import identify
from irl_exp.steps.bench import Bench, read_summary
from irl_exp.steps.curate import curate
from irl_exp.steps.pretrain import pretrain
from irl_exp.store import Artifact, Store
from irl_exp.tracking import NOT_APPLICABLE, Tracker, Value
from tests.test_step_versions import studies

pytestmark = pytest.mark.usefixtures("one_thread")
# What the reference writes to a prompt: one of so many texts, each as often.
SUPPORT = 16
SPREAD = 1.5  # standard deviation of R/beta over what the reference writes


def identified(folder: Path, k: int, prompts: int = 400) -> tuple[dict[str, Value], pd.DataFrame]:
    """(numbers, table) of the step on planted demonstrations of a tiny reference's texts."""
    config = studies(folder / "store")["ppo"]
    evaluation = replace(config.evaluation, level=0.95, identify_pairs=100)
    config = replace(config, evaluation=evaluation)
    with Tracker(folder / "run", "planted") as tracker:
        tracker.start({"seeds": {}}, "", [])
        bench = Bench(config, Store(folder / "store"), tracker)
        comments = curate(bench)
        reference = pretrain(bench, comments)
        reward = from_body(reference.path, torch.Generator().manual_seed(1), 256)
        texts = Comments.load(comments.path).completions
        plant(folder, reward, texts, k, prompts)
        pairs, truth = (Artifact(n, n, folder / n, False, 0.0) for n in ("pairs", "truth"))
        found = identify.identify(bench, comments, pairs, reference, truth, truth)
    return read_summary(found.path), pd.read_parquet(found.path / identify.IDENTIFIED_FILE)


def plant(folder: Path, reward: NetworkReward, texts: list[str], k: int, prompts: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"page {i}:" for i in range(prompts)]
    support = [[texts[i] for i in rng.choice(len(texts), SUPPORT, False)] for _ in names]
    flat = ([n for n in names for _ in range(SUPPORT)], [t for some in support for t in some])
    head = output_layer(reward.network, folder)
    with torch.no_grad():
        head.weight *= SPREAD / float(reward.score(*flat).std())
    chance = reward.score(*flat).double().view(-1, SUPPORT).softmax(-1).numpy()
    splits = ["train"] * (prompts - 80) + ["validation"] * 20 + ["test"] * 60
    expert = [list(rng.choice(s, k, p=p)) for s, p in zip(support, chance, strict=True)]
    others = [list(rng.choice(s, k)) for s in support]
    for name in ("pairs", "truth"):
        (folder / name).mkdir()
    Demonstrations(names, expert, others, splits).save(folder / "pairs")
    facts = Facts("network", Normalizer(0.0, 1.0), {}, 0.0, reward.save(folder / "truth"))
    facts.save(folder / "truth")


def test_a_planted_reward_is_identified_and_noise_is_not(tmp_path: Path) -> None:
    numbers, table = identified(tmp_path, k=4)
    assert float(numbers["recovery/identified_fraction"]) > 0.4
    assert float(numbers["recovery/identified_accuracy"]) > 0.93
    # R̂ is R* here, so that it contradicts where R* does.
    wrong = 1 - float(numbers["recovery/identified_accuracy"])
    assert numbers["recovery/contradicted_fraction"] == pytest.approx(wrong)
    assert 0 < numbers["recovery/jointly_identified_fraction"] < 1  # type: ignore[operator]
    assert float(numbers["recovery/jointly_identified_accuracy"]) > 0.99
    for noise in ("placebo", "shuffled"):
        assert float(numbers[f"{noise}/identified_fraction"]) < 0.12
        # Eight draws of eight: the mean is 0.5, as the interval says more finely.
        low, high = (float(numbers[f"{noise}/auc{end}"]) for end in ("_low", "_high"))
        assert low - 0.05 < 0.5 < high + 0.05

    # The numbers follow from the table, and the intervals cover what was planted.
    assert len(table) == 100
    share = (table["sign"] != 0).mean()
    assert numbers["recovery/identified_fraction"] == pytest.approx(share)
    assert numbers["recovery/ambiguous_fraction"] == pytest.approx(1 - share)
    assert ((table["low"] <= table["truth"]) & (table["truth"] <= table["high"])).mean() > 0.85
    bounded = (table["low"] > 0).astype(int) - (table["high"] < 0).astype(int)
    assert (bounded[bounded != 0] == table["sign"][bounded != 0]).all()
    assert (table["sign"][table["joint_sign"] != 0] != 0).all()
    # 60 prompts, so 40 of them have a second pair; and its own file is in the run directory.
    assert table["prompt"].nunique() == 60
    copy = pd.read_parquet(tmp_path / "run" / identify.IDENTIFIED_FILE)
    pd.testing.assert_frame_equal(copy, table)


def test_one_completion_of_either_policy_has_no_placebo(tmp_path: Path) -> None:
    numbers, table = identified(tmp_path, k=1, prompts=100)
    assert len(table) == 60  # all there are
    assert numbers["placebo/auc"] == numbers["placebo/identified_fraction"] == NOT_APPLICABLE
    assert 0 <= float(numbers["shuffled/identified_fraction"]) <= 1


def test_pairs_are_of_every_prompt_before_a_second_of_any_and_blind() -> None:
    rng = np.random.default_rng(0)
    rows, first, second = identify._places(rng, (50, 8), 120)
    assert np.bincount(rows).tolist().count(3) == 20 and np.bincount(rows).min() == 2
    assert (first != second).all()
    ends = np.sort(np.stack([first, second], 1), axis=1)
    assert len({(row, *pair) for row, pair in zip(rows, ends.tolist(), strict=True)}) == 120
    # The expert's completions, which come first in a pool, are first as often as second.
    rows, first, second = identify._places(rng, (400, 8), 2000)
    assert abs((first < second).mean() - 0.5) < 0.05
    assert abs((first < 4).mean() - 0.5) < 0.05
    rows, *_ = identify._places(rng, (5, 4), 1000)
    assert len(rows) == 5 * 6


def test_noise_takes_from_where_it_should() -> None:
    rng, phi = np.random.default_rng(0), torch.arange(200 * 6.0).view(200, 6, 1)
    placebo = identify._placebo(phi, rng)
    assert placebo is not None and placebo.shape == (200, 2, 1)  # k = 3: one stays out
    places = (placebo - phi[:, :1]).long().squeeze(-1)
    assert places.min() == 3 and places.max() == 5
    assert (places[:, 0] != places[:, 1]).all()
    shuffled = identify._shuffled(phi, rng)
    assert torch.equal(shuffled.sort(1).values, phi)
    first = (shuffled[:, :3] - phi[:, :1]).long().flatten()
    assert abs(float((first < 3).double().mean()) - 0.5) < 0.06
    assert identify._placebo(phi[:, :2], rng) is None
