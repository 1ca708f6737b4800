"""What is said of a policy that spends another KL than was aimed at."""

import json
from pathlib import Path

import pytest

from irl_exp.config import Config
from irl_exp.steps.bench import Bench
from irl_exp.steps.realign import check
from irl_exp.store import Artifact, Store
from irl_exp.tracking import Tracker


@pytest.mark.parametrize(
    ("name", "kl", "said"),
    [
        ("aligned", 0.95, []),
        ("aligned", 0.28, ["aligned: its KL is 0.28 nats where 1.00 were aimed at"]),
        (
            "realigned",
            1.3,
            [
                "realigned: its KL is 1.30 nats where 1.00 were aimed at, so it and the aligned "
                "policy do not stand on equal terms"
            ],
        ),
    ],
)
def test_a_kl_that_was_missed_is_said(
    tmp_path: Path, name: str, kl: float, said: list[str]
) -> None:
    """By more than a tenth, beyond what chance can do."""
    observation = tmp_path / "observation"
    observation.mkdir()
    numbers = {"kl": kl, "kl_low": kl - 0.05, "kl_high": kl + 0.05}
    (observation / "summary.json").write_text(json.dumps(numbers))
    with Tracker(tmp_path / "run", "1a2b3c4d") as tracker:
        bench = Bench(Config.__new__(Config), Store(tmp_path / "store"), tracker)
        check(bench, name, 1.0, Artifact("observe", "f" * 16, observation, hit=True, seconds=0.0))
        assert tracker.warnings == said
        assert tracker.summary[f"policy/{name}/kl_target"] == 1.0
