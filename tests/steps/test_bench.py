"""What the bench takes to decide a result."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from irl_exp import cli
from irl_exp.config import Config
from irl_exp.steps.bench import Bench
from irl_exp.store import Store
from irl_exp.tracking import Tracker


@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_processes_count_where_they_train(tmp_path: Path, trainer: str) -> None:
    """Comments and numbers are made by the first one, as if it were alone."""

    def bench(*overrides: str) -> Bench:
        with initialize_config_dir(str(cli.CONF), version_base="1.3"):
            config = OmegaConf.to_object(compose("config", overrides=list(overrides)))
        assert isinstance(config, Config)
        return Bench(config, Store(tmp_path / "store"), Tracker(tmp_path / "run", "1a2b3c4d"))

    alone, several = bench(), bench(f"trainer={trainer}")
    for step in ("curate", "demonstrate", "observe", "evaluate", "identify", "interpret"):
        assert several.numerics(step) == alone.numerics(step)
    for step in ("pretrain", "ground_truth", "align", "recover"):
        assert several.numerics(step)["processes"] == 2
        assert several.numerics(step).get("sharded", False) == (trainer == "fsdp")
