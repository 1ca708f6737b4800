"""What the reference's body makes of texts is computed once: for all seeds, as it would again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_exp import experiment
from irl_exp.config import BayesianSolver, Config, SolverConfig, SvmSolver
from irl_exp.models.network_reward import NetworkReward, States, encode, from_body
from irl_exp.steps.bench import Bench
from irl_exp.steps.features import features
from irl_exp.store import Artifact, Store
from irl_exp.tracking import Tracker
from tests.test_step_versions import studies

pytestmark = pytest.mark.usefixtures("one_thread")
SVM = SvmSolver("svm", [1.0, 10.0], folds=3)
BAYESIAN = BayesianSolver("bayesian", prior_scale=1.0, rounds=2, family="laplace")
TEXTS = (["On a page", "On a page", "Your edit"], [", you fool", ", thanks", " is kind"])


def study(folder: Path, solver: SolverConfig, order: int) -> Config:
    config = studies(folder / "store")["tilted"]
    few = {name: config.evaluation.controls[name] for name in ("length", "untrained")}
    evaluation = replace(config.evaluation, controls=few)
    seeds = replace(config.seeds, order=order)
    return replace(config, solver=solver, evaluation=evaluation, seeds=seeds, until="evaluate")


def run(folder: Path, config: Config) -> Tracker:
    with Tracker(folder / f"run-{config.seeds.order}", "seeds") as tracker:
        tracker.start({"seeds": {}}, "", [])
        experiment.run(Bench(config, Store(Path(config.paths.store)), tracker))
    return tracker


def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows went through a network, call by call."""
    counts: list[int] = []
    through = NetworkReward._in_passes

    def counted(self: NetworkReward, rows: Sequence[Any], *args: Any) -> torch.Tensor:
        counts.append(len(rows))
        return through(self, rows, *args)

    monkeypatch.setattr(NetworkReward, "_in_passes", counted)
    return counts


def test_another_seed_reads_no_text_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path, study(tmp_path, BAYESIAN, order=0))
    counts = passed(monkeypatch)
    second = run(tmp_path, study(tmp_path, BAYESIAN, order=1))
    samples = (second.folder / "samples.jsonl").read_text().splitlines()
    assert counts == [len(samples)]
    changed = {name for name in first.steps if first.steps[name] != second.steps[name]}
    assert changed == {"recover", "scores_recovered", "evaluate"}


def test_where_nothing_is_drawn_all_seeds_are_one(tmp_path: Path) -> None:
    runs = [run(tmp_path, study(tmp_path, SVM, order)) for order in (0, 1)]
    assert runs[0].steps == runs[1].steps


def test_they_are_what_the_body_gives(tmp_path: Path, tiny_folder: Path) -> None:
    config = studies(tmp_path / "store")["tilted"]
    with Tracker(tmp_path / "run", "features") as tracker:
        tracker.start({"seeds": {}}, "", [])
        bench = Bench(config, Store(tmp_path / "store"), tracker)
        reference = Artifact("pretrain", "reference", tiny_folder, False, 0.0)
        states = States.load(features(bench, "some", reference, [TEXTS, TEXTS], {}).path)
    body = from_body(tiny_folder, torch.Generator().manual_seed(3), batch_size=8)
    body.network.eval()
    rows = encode(body.tokenizer, body.network, *TEXTS)
    assert list(states.places) == [tuple(row) for row in rows]
    assert torch.equal(states.values, body.features(*TEXTS))

    known = replace(body, known=states)
    torch.testing.assert_close(known.score(*TEXTS), body.score(*TEXTS), rtol=1e-5, atol=1e-5)
    more = ([*TEXTS[0], "Nobody knows"], [*TEXTS[1], ", this"])
    torch.testing.assert_close(known.score(*more), body.score(*more), rtol=1e-5, atol=1e-5)
