"""A solver outside the package: the one of docs/extending.md, run as the page says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from irl_exp.config import ForeignError, InputError, PluginSolver
from irl_exp.solvers import require
from irl_exp.solvers.plugin import SOURCE_FILE, Plugin
from tests import warm

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines()]


# --- the file -------------------------------------------------------------------------------------


def write(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def solve(problem:\n", "mine.py, line 1: SyntaxError: '(' was never closed; expected a "),
        ("\nimport no_such_thing\n", "mine.py, line 2: ModuleNotFoundError: No module named "),
        ("\n\nimport sys; sys.exit(0)\n", "mine.py, line 3: SystemExit: 0; expected a Python"),
        (
            "def f():\n    assert 0\nf()\n",
            "mine.py, line 2: AssertionError; expected a Python file ",
        ),
        ("solve = 3\n", "mine.py: no function solve in it; expected a Python file that defines "),
        (
            "",
            "mine.py: no function solve in it; expected a Python file that defines solve(problem)",
        ),
    ],
)
def test_a_file_that_gives_no_solver(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(InputError) as refused:
        Plugin.read(write(tmp_path, text)).load()
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.py", "."):
        solver = PluginSolver("plugin", str(tmp_path / name), {})
        with pytest.raises(InputError, match=r"; expected a Python file that defines solve"):
            require(solver, "solver")


def test_it_counts_by_content_and_runs_as_it_was_read(tmp_path: Path) -> None:
    """At once, too, and at the same length: no stale bytecode; and none is left."""
    first = Plugin.read(write(tmp_path, "def solve(problem):\n    return 1\n"))
    second = Plugin.read(write(tmp_path, "def solve(problem):\n    return 2\n"))
    assert (first.load()(None), second.load()(None)) == (1, 2)  # type: ignore[arg-type]
    (tmp_path / "mine.py").rename(tmp_path / "moved.py")
    assert Plugin.read(str(tmp_path / "moved.py")).digest == second.digest != first.digest
    assert {path.name for path in tmp_path.iterdir()} == {"moved.py"}


def test_dataclasses_of_the_file(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int\ndef solve(problem):\n    return A(3).x\n"
    )
    assert Plugin.read(write(tmp_path, text)).load()(None) == 3  # type: ignore[arg-type]


# --- what it returns ------------------------------------------------------------------------------


class Stub:
    """Of a problem, what a file that asks for nothing needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def solved(tmp_path: Path, body: str) -> Any:
    plugin = Plugin.read(write(tmp_path, f"def solve(problem):\n    {body}\n"))
    folder = tmp_path / "artifact"
    folder.mkdir()
    return plugin.solve(Stub(folder))  # type: ignore[arg-type]


def test_what_it_raises(tmp_path: Path) -> None:
    with pytest.raises(
        ForeignError, match=r"mine\.py, line 2: ZeroDivisionError: .* by zero$"
    ) as e:
        solved(tmp_path, "return 1 / 0")
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    assert "1 / 0" in (tmp_path / "artifact" / SOURCE_FILE).read_text()


@pytest.mark.parametrize("body", ["import sys; sys.exit(0)", "raise BaseException('odd')"])
def test_it_cannot_end_a_sweep_without_a_word(tmp_path: Path, body: str) -> None:
    with pytest.raises(
        ForeignError, match=r"mine\.py, line 2: (SystemExit: 0|BaseException: odd)$"
    ):
        solved(tmp_path, body)


def test_an_input_error_passes(tmp_path: Path) -> None:
    line = "solver.options.ridge=-1: expected 0 or more"
    with pytest.raises(InputError, match=line):
        solved(tmp_path, f"from irl_exp.config import InputError; raise InputError('{line}')")


@pytest.mark.parametrize(
    "body", ["return 3.0", "return None", "pass", "import torch; return torch"]
)
def test_what_is_no_reward(tmp_path: Path, body: str) -> None:
    with pytest.raises(InputError, match=r"mine\.py: solve returned a \w+; expected a reward, as"):
        solved(tmp_path, body)


# --- the page -------------------------------------------------------------------------------------


def test_the_planted_reward_of_the_page(tmp_path: Path) -> None:
    solver, planted = blocks("python")
    (tmp_path / "lda.py").write_text(solver)
    (tmp_path / "planted.py").write_text(planted)
    command = [sys.executable, "-c", "import runpy; runpy.run_path('planted.py')"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    worse = planted.replace("phi[:, :k] +=", "phi[:, :k] -=")  # the assertion can fail
    (tmp_path / "planted.py").write_text(worse)
    assert subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True).returncode


class Desk:
    """A folder outside of the package with what the page has one write, and runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.solver = folder / "lda.py"
        self.solver.write_text(blocks("python")[0])
        (folder / "conf" / "solver").mkdir(parents=True)
        (folder / "conf" / "solver" / "lda.yaml").write_text(blocks("yaml")[0])

    def type(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        """In a process of its own."""
        words = [word.strip("'") for word in command.split()[1:]]
        return subprocess.run(
            [warm.command("irl-exp"), *words, "trainer.threads=1", *more],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
        )

    def run(self, command: str, name: str) -> dict[str, Any]:
        """The summary of a run that must succeed; the fingerprints of its steps under `steps`."""
        done = self.type(command, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        manifest = json.loads((self.folder / name / "manifest.json").read_text())
        summary = json.loads((self.folder / name / "summary.json").read_text())
        return {**summary, "steps": manifest["steps"], "inputs": manifest["inputs"]}


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(PAGE.parents[1]), *filter(None, sys.path)])
    kept = {name: value for name, value in os.environ.items() if name != "IRL_EXP_STORE"}
    return kept | {"PYTHONPATH": path}


@pytest.mark.slow
def test_the_page_as_a_newcomer_types_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    plain, with_option, control, beside, _, _ = commands()

    first = desk.run(plain, "first")
    assert 0 <= first["recovery/auc"] <= 1
    assert "control/oracle/auc" in first
    folder = tmp_path / "outputs" / "store" / "recover" / first["steps"]["recover"]
    assert (folder / SOURCE_FILE).read_text() == desk.solver.read_text()
    origin = json.loads((folder / "reward.json").read_text())["origin"]["solver"]
    assert origin["file"] == first["inputs"]["solver.file"] == Plugin.read(str(desk.solver)).digest

    changed = desk.run(with_option, "option")
    assert differing(first, changed) == AFTER
    desk.solver.write_text(desk.solver.read_text().replace("0.1)", "0.2)"))
    edited = desk.run(plain, "edited")
    assert differing(first, edited) == AFTER
    assert edited["recovery/starc"] != first["recovery/starc"]
    # In the same directory: what was done with another file is not done.
    again = desk.type(plain, "hydra.run.dir=first")
    assert "was done with other files: run again" in again.stdout + again.stderr
    desk.solver.rename(tmp_path / "moved.py")
    moved = desk.run(plain.replace("lda.py", "moved.py"), "moved")
    assert (moved["store/misses"], differing(edited, moved)) == (0, set())
    (tmp_path / "moved.py").rename(desk.solver)

    controlled = desk.run(control, "control")
    assert controlled["control/lda/starc"] == edited["recovery/starc"]
    done = desk.type(beside, "hydra.sweep.dir=sweep", "until=evaluate")
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "sweep").glob("*/summary.json"))
    found = [json.loads(path.read_text())["recovery/starc"] for path in runs]
    assert len(set(found)) == 2


# What an edit of the solver computes anew.
AFTER = {
    *("recover", "scores_recovered", "evaluate", "identify", "interpret"),
    *("realign", "observe_realigned"),
}


def differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    assert one["steps"].keys() == other["steps"].keys()
    return {step for step in one["steps"] if one["steps"][step] != other["steps"][step]}


@pytest.mark.slow
def test_a_search_path_in_its_long_form(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    path = f"hydra.searchpath=[file://{tmp_path}/conf]"
    done = desk.type(f"irl-exp --cfg job --package solver solver=lda {path}")
    assert done.returncode == 0, done.stderr
    assert "name: lda\nfile: lda.py\noptions:\n  ridge: 0.1\n" in done.stdout
