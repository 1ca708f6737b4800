"""Members are independent, on one scale, and are not trained twice when the study is killed."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irl_exp.config import EnsembleSolver, MarginSolver, TrainerConfig
from irl_exp.data.pairs import Demonstrations
from irl_exp.models.reward_kinds import EnsembleReward
from irl_exp.models.reward_model import REWARD_FILE, Facts, Normalizer
from irl_exp.models.saved_rewards import load_normalized, load_reward
from irl_exp.modules import training
from irl_exp.modules.max_margin import MaxMargin
from irl_exp.modules.training import WORKING_FOLDER
from irl_exp.solvers import SOLVERS
from irl_exp.solvers.ensemble import write_mean_curves
from irl_exp.solvers.problem import Problem
from irl_exp.steps.bench import Bench, read_jsonl
from irl_exp.store import Artifact, Store
from irl_exp.tracking import Tracker
from tests.test_step_versions import studies

PROMPTS, BATCH, EPOCHS = 24, 4, 2
STEPS = EPOCHS * PROMPTS // BATCH  # of one member
BASE = MarginSolver(
    name="asymmetric",
    objective="asymmetric",
    epochs=EPOCHS,
    batch_size=BATCH,
    learning_rate=3e-3,
    warmup=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    trainable="all",
    last_layers=1,
    lora_rank=4,
    patience=None,
    trace=False,
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As `one_thread`, for what the module shares as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def problem(
    tiny_folder: Path,
    texts: list[str],
    trainer: TrainerConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Problem:
    """A reference with dropout, which draws from the generator that all members share."""
    reference = tmp_path_factory.mktemp("dropout")
    shutil.copytree(tiny_folder, reference, dirs_exist_ok=True)
    facts = json.loads((reference / "config.json").read_text())
    (reference / "config.json").write_text(json.dumps(facts | {"hidden_dropout": 0.1}))
    words = [f" {text.split()[i % 5]}" for i, text in enumerate(texts)]
    splits = ["train"] * PROMPTS + ["validation"] * 4
    demonstrations = Demonstrations(
        prompts=[f"prompt {i}" for i in range(len(splits))],
        aligned=[[words[4 * i], words[4 * i + 1] + " thanks"] for i in range(len(splits))],
        reference=[[words[4 * i + 2], words[4 * i + 3]] for i in range(len(splits))],
        splits=splits,
    )
    return Problem(
        config=EnsembleSolver("ensemble", members=3, base=BASE),
        demonstrations=demonstrations,
        reference=reference,
        aligned=reference,
        truth=reference,
        kl_coef=0.5,
        max_new_tokens=8,
        trainer=trainer,
        device="cpu",
        initialization=7,
        order=7,
        folder=reference,
    )


def recover(problem: Problem, folder: Path) -> Artifact:
    """As the step does it: in the store, which keeps what a killed attempt left."""

    def compute(attempt: Path) -> None:
        reward = SOLVERS["ensemble"](replace(problem, folder=attempt))
        extra = reward.save(attempt)
        Facts(reward.kind, Normalizer(0.0, 1.0), {}, extra=extra).save(attempt)

    with Tracker(folder / "run", "ensemble") as tracker:
        tracker.start({"seeds": {}}, "", [])
        bench = Bench(studies(folder / "store")["ppo"], Store(folder / "store"), tracker)
        return bench.do("recover", 1, compute, config={}, inputs={}, seed=0)


@pytest.fixture(scope="module")
def whole(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return recover(problem, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[int]]:
    """Counts training steps from now on, with checkpoints as often as can be; kills at one."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "COST_FACTOR", 0.0)
    original = MaxMargin.training_step

    def watch(kill: int | None) -> list[int]:
        taken = [0]

        def step(self: MaxMargin, *batch: Any) -> Tensor | None:
            if taken[0] == kill:
                raise Killed
            taken[0] += 1
            return original(self, *batch)

        monkeypatch.setattr(MaxMargin, "training_step", step)
        return taken

    return watch


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != "manifest.json"}


def test_a_killed_ensemble_goes_on(
    problem: Problem, whole: Artifact, steps: Callable[[int | None], list[int]], tmp_path: Path
) -> None:
    """Killed within the second member: the first is not trained again, the second not from its
    beginning, and every file comes out as it does undisturbed."""
    steps(STEPS + STEPS // 2)
    with pytest.raises(Killed):
        recover(problem, tmp_path)
    (left,) = (tmp_path / "store").glob("*/.tmp-*")
    assert [(left / WORKING_FOLDER / name / REWARD_FILE).is_file() for name in "01"] == [
        True,
        False,
    ]
    taken = steps(None)
    resumed = recover(problem, tmp_path)
    # No checkpoint is taken where a curve is due, so that it may be some steps old.
    assert STEPS + STEPS // 2 <= taken[0] <= STEPS + STEPS // 2 + 2
    assert contents(resumed.path) == contents(whole.path)
    assert not (resumed.path / WORKING_FOLDER).exists()


def test_killed_between_its_last_step_and_its_end(
    problem: Problem,
    whole: Artifact,
    steps: Callable[[int | None], list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is half saved is no member."""
    steps(None)
    with monkeypatch.context() as patch:
        patch.setattr(Facts, "save", lambda self, folder: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            recover(problem, tmp_path)
    assert contents(recover(problem, tmp_path).path) == contents(whole.path)


def test_a_member_is_the_same_in_a_smaller_ensemble(
    problem: Problem, whole: Artifact, tmp_path: Path
) -> None:
    """And no two are alike."""
    two = recover(replace(problem, config=EnsembleSolver("ensemble", 2, BASE)), tmp_path)
    members = [contents(whole.path / "members" / name) for name in "012"]
    assert [contents(two.path / "members" / name) for name in "01"] == members[:2]
    assert len({member["model.safetensors"] for member in members}) == 3


def test_members_are_brought_to_one_scale(problem: Problem, whole: Artifact) -> None:
    """Over the training pool; R̂ is their mean, and each is a reward folder of its own."""
    pool = problem.demonstrations.split("train").pool()
    reward = load_reward(whole.path)
    assert isinstance(reward, EnsembleReward)
    scores = reward.members(*pool)
    assert scores.shape == (3, PROMPTS * 4)
    torch.testing.assert_close(scores.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.std(1, correction=0), torch.ones(3))
    torch.testing.assert_close(reward.score(*pool), scores.mean(0))
    raw = torch.stack([member.raw.score(*pool) for member in reward.rewards])
    assert (raw.std(1) - 1).abs().min() > 0.01  # they were not on it before
    alone = load_normalized(whole.path / "members" / "1")
    assert torch.equal(alone.score(*pool), scores[1])


def test_curves_are_the_mean_of_the_members(whole: Artifact, tmp_path: Path) -> None:
    lines = read_jsonl(whole.path / "metrics.jsonl")
    assert [line["global_step"] for line in lines] == sorted({x["global_step"] for x in lines})
    assert {"loss", "pair_accuracy", "validation_pair_accuracy"} <= set().union(*lines)
    for name, text in {
        "0": '{"global_step": 9, "loss": 1.0}\n{"global_step": 11, "accuracy": 0.5}\n',
        "1": '{"global_step": 9, "loss": 3.0}\n{"global_step": 19, "loss": 2.0}\n',
        "2": None,
    }.items():
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / "metrics.jsonl").write_text(text)
    write_mean_curves(tmp_path / "mean.jsonl", [tmp_path / name for name in "012"])
    assert read_jsonl(tmp_path / "mean.jsonl") == [
        {"global_step": 9, "loss": 2.0},
        {"global_step": 11, "accuracy": 0.5},
        {"global_step": 19, "loss": 2.0},
    ]
