"""The wheel, away from any checkout: the configuration is inside, the commands find it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from irl_exp import cli
from irl_exp.data import synthetic

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def away(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to stand in; its `site` holds the installed wheel, its `bin` the commands."""
    folder = tmp_path_factory.mktemp("away")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target"]
    subprocess.run([*command, folder / "site", wheel], check=True, capture_output=True)
    return folder


def run(away: Path, command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the wheel; what it stands on comes from the tests' own environment."""
    return subprocess.run(
        [sys.executable, away / "site" / "bin" / command, *words],
        capture_output=True,
        text=True,
        cwd=away,
        env={**os.environ, "PYTHONPATH": str(away / "site")},
    )


@pytest.mark.slow
def test_every_file_of_conf_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    there = {path.relative_to(cli.CONF) for path in cli.CONF.rglob("*.yaml")}
    assert there and {f"irl_exp/conf/{path}" for path in there} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "outputs/"))]


@pytest.mark.slow
def test_what_would_run_is_what_would_run_here(away: Path) -> None:
    done = run(away, "irl-exp", "--cfg", "job", "--resolve", "paths.store=store")
    assert (done.returncode, done.stderr) == (0, "")
    expected = yaml.safe_load((ROOT / "docs" / "config.yaml").read_text())
    assert yaml.safe_load(done.stdout) == {
        **expected,
        "paths": {"store": "store"},
    }
    searched = run(away, "irl-exp", "--info", "searchpath").stdout
    assert str(away / "site" / "irl_exp" / "conf") in searched


@pytest.mark.slow
def test_a_run_and_scores_by_its_reward(away: Path) -> None:
    small = ["+debug=smoke", "dataset.size=600", "until=ground_truth", "paths.store=store"]
    done = run(away, "irl-exp", *small, "hydra.run.dir=run", "trainer.threads=1")
    assert (done.returncode, done.stderr) == (0, "")
    [reward] = (away / "store" / "ground_truth").glob("*/reward.json")
    texts = [comment.text for comment in synthetic.generate(5, seed=0)]
    (away / "texts.txt").write_text("".join(text + "\n" for text in texts))
    done = run(away, "irl-score", str(reward.parent), "texts.txt")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 5)


@pytest.mark.slow
def test_the_module_runs_too(away: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "irl_exp", "--cfg", "job", "--package", "seeds"],
        capture_output=True,
        text=True,
        cwd=away,
        env={**os.environ, "PYTHONPATH": str(away / "site")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "recovery" in done.stdout
