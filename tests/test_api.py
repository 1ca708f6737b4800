"""irl_exp from Python: what docs/python.md shows, and what a notebook can get wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

import irl_exp
from irl_exp import api, cli
from irl_exp.config import InputError
from irl_exp.finished_run import Run
from irl_exp.models.network_reward import from_body
from irl_exp.models.reward_kinds import LengthReward
from irl_exp.models.reward_model import Facts, Normalizer
from tests.conftest import SMALL_STUDY

ROOT = Path(__file__).parent.parent


@pytest.fixture
def words(tmp_path: Path) -> Path:
    reward = LengthReward(sign=1.0)
    facts = Facts(reward.kind, Normalizer(7.0, 0.01), {}, 3.5, extra=reward.save(tmp_path))
    facts.save(tmp_path)
    return tmp_path


# --- load_reward ----------------------------------------------------------------------------------


def test_to_import_costs_nothing() -> None:
    heavy = "{'torch', 'transformers', 'hydra', 'numpy', 'yaml'}"
    script = f"import sys, irl_exp; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n"
    assert irl_exp.__all__ == ["load_reward", "recover", "run"]
    with pytest.raises(AttributeError, match="no attribute 'recovery'"):
        _ = irl_exp.recovery  # type: ignore[attr-defined]


def test_scores_of_a_loaded_reward(words: Path) -> None:
    reward = irl_exp.load_reward(words)
    scores = reward.score(["a b", ""], ("c", "d e f"))
    assert scores.dtype == torch.float32 and scores.tolist() == [1.0, 3.0]
    assert reward.threshold == 3.5
    assert reward.score([], []).shape == (0,)


def test_a_network_without_our_facts(tiny_folder: Path, tmp_path: Path) -> None:
    made = from_body(tiny_folder, torch.Generator().manual_seed(0), batch_size=8)
    made.save(tmp_path)
    reward = irl_exp.load_reward(str(tmp_path))
    pairs = ["This edit", "I"], [" is fine", " agree"]
    assert torch.equal(reward.score(*pairs), made.score(*pairs))
    assert reward.threshold is None


@pytest.mark.parametrize(
    ("prompts", "completions", "error", "message"),
    [
        ("a", ["b"], TypeError, r"prompts: got one text; expected a list of texts, as \['a'\]"),
        (["a"], "b", TypeError, "completions: got one text"),
        (["a"], [3], TypeError, "completions: got int in it"),
        (["a"], [], ValueError, "1 prompts and 0 completions"),
    ],
)
def test_what_is_no_list_of_texts(
    prompts: Any, completions: Any, error: type[Exception], message: str, words: Path
) -> None:
    with pytest.raises(error, match=message):
        irl_exp.load_reward(words).score(prompts, completions)


def test_no_reward_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder, and no hub id"):
        irl_exp.load_reward(tmp_path / "none")
    with pytest.raises(InputError, match="expected a saved reward"):
        irl_exp.load_reward(tmp_path)


# --- run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(
            "svm",
            "true",
            "null",
            "1e3",
            "it's",
            "\\",
            "a\\'b",
            "",
            "a,b [c]",
            "~/x y",
            "line\nbreak",
        ),
        *(True, None, 3, 0.25, 1e-5, float("inf"), [1, "a,b"], {"k": [1, "x'"]}),
    ],
)
def test_values_arrive_as_they_are(value: Any) -> None:
    """Whatever Hydra's grammar would make of them."""
    override = cli.OverridesParser.create().parse_override(f"key={api._value(value)}")
    assert override.value() == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["solver=nope"], "solver=nope: expected one of "),
        ({"model.layer": 3}, "model.layer: no such key; did you mean layers?"),
        ({"seed": "x y"}, "seed: "),
        (["seed=1,2"], "seed=1,2: several values"),
        (["-m", "seed=1"], "-m: expected overrides of one run"),
        (["+sweep=planted"], r"\+sweep=planted: expected overrides of one run"),
        (["rlhf.kl_coef=-1"], "rlhf.kl_coef"),
    ],
)
def test_what_the_command_would_refuse(
    overrides: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as refused:
        irl_exp.run(overrides)
    assert "\n" not in str(refused.value)


def test_one_text_is_no_list_of_overrides() -> None:
    with pytest.raises(TypeError, match="overrides: got one text"):
        irl_exp.run("solver=svm")  # type: ignore[arg-type]


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the directory of a run"):
        Run.read(tmp_path)
    (tmp_path / "status.json").write_text('{"status": "failed", "run_id": "0"}')
    with pytest.raises(InputError, match="its run is failed; expected one that is done"):
        Run.read(tmp_path)


@pytest.mark.slow
def test_a_run_is_that_of_the_command(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same id and numbers; all is found in the store; and the process is as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IRL_EXP_STORE", str(study.parent / "store"))
    draws = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    run = irl_exp.run([*SMALL_STUDY, "until=evaluate", "tags=[from python]"])
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert torch.get_num_threads() == threads
    assert run.folder.is_relative_to(tmp_path / "outputs")
    expected = json.loads((study / "summary.json").read_text())
    assert run.summary == json.loads((run.folder / "summary.json").read_text())
    kept = {name for name in expected if not name.startswith(("time/", "store/"))}
    assert {name: run.summary[name] for name in kept} == {name: expected[name] for name in kept}
    assert run.summary["store/misses"] == 0
    assert run.manifest["run_id"] == json.loads((study / "manifest.json").read_text())["run_id"]
    assert run.recovered and (run.recovered / "reward.json").is_file()
    assert run.ground_truth and run.ground_truth != run.recovered
    assert run.config["tags"] == ["from python"]

    early = irl_exp.run([*SMALL_STUDY, "until=ground_truth"])
    assert early.recovered is None and early.ground_truth == run.ground_truth


# --- the page and the example ---------------------------------------------------------------------

# What is on the path only where the package is installed anew; and what makes a study small.
SHELL = f"""
irl-exp() {{ {sys.executable} -m irl_exp "$@" {" ".join(SMALL_STUDY[1:])}; }}
irl-export() {{ {sys.executable} -m irl_exp.export "$@"; }}
"""


@pytest.mark.slow
def test_the_blocks_of_the_page(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, in one notebook, each as it stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IRL_EXP_STORE", str(study.parent / "store"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S)
    assert [language for language, _ in blocks] == ["python", "python", "python", "bash", "python"]
    names: dict[str, Any] = {}
    for language, block in blocks:
        if language == "bash":
            subprocess.run(["bash", "-ec", SHELL + block], check=True)
        else:
            exec(block, names)
    assert names["run"].summary["recovery/pair_accuracy"] > 0
    assert names["other"].config["solver"]["name"] == "svm"
    assert names["other"].config["seeds"]["order"] == 3
    assert (tmp_path / "its-truth" / "README.md").is_file()


@pytest.mark.slow
def test_a_first_look(study: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "first_look.py", *SMALL_STUDY[1:]],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IRL_EXP_STORE": str(study.parent / "store"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    scores = re.findall(r"^([+-]\d\.\d{3})  This edit is", done.stdout, re.M)
    assert len(scores) == 2 and scores[0] != scores[1]
    assert (tmp_path / "first_look.png").stat().st_size > 10_000


# --- recover --------------------------------------------------------------------------------------

FEW = {"model": "neox-50k", "until": "recover", "trainer.threads": 1}


def test_pairs_in_memory_are_kept_and_recovered_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = [{"chosen": f"thanks for {n} edits", "rejected": f"what {n} fools"} for n in range(60)]
    run = irl_exp.recover(pairs, "svm", FEW)
    assert run.config["demonstrations"]["prompt_column"] is None
    assert run.config["solver"]["name"] == "svm" and run.ground_truth is None
    assert run.recovered is not None
    kept = Path(run.config["demonstrations"]["path"])
    assert kept.parent == tmp_path / "outputs" / "pairs"
    assert [json.loads(line) for line in kept.read_text().splitlines()] == pairs
    scores = irl_exp.load_reward(run.recovered).score(
        ["", ""], ["thanks for 3 edits", "what 3 fools"]
    )
    assert scores[0] > scores[1]
    # In a directory of its own: one that is named after the second may be the first run's.
    again = irl_exp.recover(kept, "svm", {**FEW, "hydra.run.dir": str(tmp_path / "again")})
    assert again.recovered == run.recovered and again.summary["store/misses"] == 0


def test_fields_of_a_parquet_file(tmp_path: Path) -> None:
    """Which are what decides whether there are prompts."""
    path = tmp_path / "pairs.parquet"
    pandas.DataFrame({"prompt": ["p"], "aligned": ["a"], "reference": ["b"]}).to_parquet(path)
    assert list(api._fields(path)) == ["prompt", "aligned", "reference"]


def test_pairs_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="has no pairs"):
        irl_exp.recover([])
    with pytest.raises(InputError, match="no column 'aligned'; there are"):
        irl_exp.recover([{"a": "x", "b": "y"}], "svm", FEW)
