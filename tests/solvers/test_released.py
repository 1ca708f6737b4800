"""What the paper's released code does, each departure by an answer that is known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from irl_exp.config import MarginSolver, ReleasedSolver, TrainerConfig
from irl_exp.data.pairs import Demonstrations
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.max_margin import aligned_over_reference, collate
from irl_exp.modules.training import fit
from irl_exp.solvers import SOLVERS
from irl_exp.solvers.problem import Problem
from irl_exp.solvers.released import Released

RECIPE: dict[str, Any] = {
    "objective": "asymmetric",
    "epochs": 2,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 1e9,
    "trainable": "all",
    "last_layers": 1,
    "lora_rank": 2,
    "patience": None,
    "trace": False,
}
TOLD = ReleasedSolver(
    name="released",
    last_characters=False,
    accumulate_gradients=False,
    shuffle=True,
    late=False,
    **RECIPE,
)
# The last characters of the training prompts' texts; of the fourth the reference writes nothing.
ALIGNED = [" Thanks!", " fine.", " ok?", " well", "!", " (yes)"]
REFERENCE = [" you", " no;", " sad", "", " z", " a,"]


@pytest.fixture
def problem(tiny_folder: Path, trainer: TrainerConfig, tmp_path: Path) -> Problem:
    n = len(ALIGNED)
    return Problem(
        config=TOLD,
        demonstrations=Demonstrations(
            prompts=[f"Prompt {i}" for i in range(n)] + ["Held out", "Held back"],
            aligned=[[text] for text in [*ALIGNED, " kind", " good"]],
            reference=[[text] for text in [*REFERENCE, " rude", " bad"]],
            splits=["train"] * n + ["validation"] * 2,
        ),
        reference=tiny_folder,
        aligned=tiny_folder,
        truth=tiny_folder,
        kl_coef=0.5,
        max_new_tokens=16,
        trainer=trainer,
        device="cpu",
        initialization=0,
        order=0,
        folder=tmp_path,
    )


def solve(problem: Problem, **changes: Any) -> NetworkReward:
    config = replace(TOLD, **changes)
    reward = SOLVERS[config.name](replace(problem, config=config))
    assert isinstance(reward, NetworkReward)
    return reward


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What each training step reads, as text."""
    batches: list[list[str]] = []
    measure = Released.measure

    def spy(self: Released, rows: Sequence[Sequence[int]], order: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            batches.append([self.reward.tokenizer.decode(row) for row in rows])
        return measure(self, rows, order)

    monkeypatch.setattr(Released, "measure", spy)
    return batches


def test_it_sees_two_last_characters_as_one_text(problem: Problem, seen: list[list[str]]) -> None:
    """The expert's of two prompts, and the reference's; of an empty completion its prompt's."""
    solve(problem, last_characters=True, shuffle=False)
    once = [["!.", "u;"], ["?l", "d3"], ["!)", "z,"]]
    assert seen == 2 * once


def test_it_learns_from_a_pair_of_such_texts(problem: Problem, seen: list[list[str]]) -> None:
    """One difference a step, and shuffled prompts meet others in each epoch."""
    solve(problem, last_characters=True, epochs=3)
    assert [len(rows) for rows in seen] == 9 * [2]
    epochs = [[rows[0] for rows in seen[i : i + 3]] for i in (0, 3, 6)]
    assert all(sorted("".join(each)) == sorted("!.?l!)") for each in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


@pytest.mark.parametrize("shuffle", [False, True])
def test_prompts_come_in_one_order_unless_shuffled(
    problem: Problem, seen: list[list[str]], shuffle: bool
) -> None:
    solve(problem, shuffle=shuffle, epochs=3)
    texts = [f"Prompt {i}{ALIGNED[i]}" for i in range(6)]
    orders = [[text for rows in seen[i : i + 3] for text in rows[::2]] for i in (0, 3, 6)]
    assert all(sorted(order) == texts for order in orders)
    assert (orders == 3 * [texts]) is not shuffle


class Line(nn.Module):
    """R = w * x of rows of one number, w = -1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0]))

    @property
    def network(self) -> nn.Module:
        return self

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows).float().flatten() * self.weight


class Norms(pl.Callback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        (weight,) = module.parameters()
        assert weight.grad is not None
        self.found.append(float(weight.grad.norm()))


def gradients(trainer: TrainerConfig, folder: Path, accumulate: bool) -> list[float]:
    """Five equal steps, of one violated pair: the gradient of -2x is 2 long."""
    config = replace(TOLD, accumulate_gradients=accumulate, learning_rate=1e-12)
    module = Released(Line(), config)  # type: ignore[arg-type]
    pairs = [([[1], [0]], aligned_over_reference(1, 1)[0])] * 5
    norms = Norms()
    loader = DataLoader(pairs, batch_size=1, collate_fn=collate)  # type: ignore[arg-type]
    fit(module, loader, trainer, folder, callbacks=[norms])
    return norms.found


def test_gradients_pile_up(trainer: TrainerConfig, tmp_path: Path) -> None:
    assert gradients(trainer, tmp_path, accumulate=True) == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert gradients(trainer, tmp_path, accumulate=False) == [2.0] * 5


@pytest.mark.parametrize("accumulate", [True, False])
def test_what_piled_up_is_part_of_a_checkpoint(accumulate: bool) -> None:
    config = replace(TOLD, accumulate_gradients=accumulate)
    killed, next_one = (Released(Line(), config) for _ in range(2))  # type: ignore[arg-type]
    next(killed.parameters()).grad = torch.tensor([6.0])
    checkpoint: dict[str, Any] = {}
    killed.on_save_checkpoint(checkpoint)
    next_one.on_load_checkpoint(checkpoint)
    found = next(next_one.parameters()).grad
    assert (found is not None and found.tolist() == [6.0]) if accumulate else found is None


def test_with_every_switch_off_it_is_the_published_solver(problem: Problem) -> None:
    """In a single step, for only later does the published solver's rate fall."""
    texts = problem.demonstrations.pool()
    found = solve(problem, epochs=1, batch_size=6)
    published = MarginSolver(name="asymmetric", **{**RECIPE, "epochs": 1, "batch_size": 6})
    expected = SOLVERS["asymmetric"](replace(problem, config=published))
    torch.testing.assert_close(found.score(*texts), expected.score(*texts))
    before = problem.new_reward().score(*texts)
    assert not torch.allclose(found.score(*texts), before, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"shuffle": False, "accumulate_gradients": True}])
def test_an_epoch_less_is_what_it_was_before_its_last(
    problem: Problem, changes: dict[str, Any], tmp_path: Path
) -> None:
    """As `late` has it: the rate is constant, so nothing depends on how many are still to come."""
    prompts, completions = problem.demonstrations.pool()
    texts = pd.DataFrame({"prompt": prompts, "completion": completions})
    solve(replace(problem, traced=texts), epochs=3, **changes)
    trace = pd.read_parquet(tmp_path / "trace.parquet")
    (tmp_path / "less").mkdir()
    less = solve(replace(problem, folder=tmp_path / "less"), epochs=2, **changes)
    scores = torch.tensor(trace["epoch_2"].tolist())
    torch.testing.assert_close(less.score(prompts, completions), scores, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scores, torch.tensor(trace["epoch_3"].tolist()), atol=1e-3)
