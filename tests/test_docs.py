"""docs/metrics.md defines every name that a run can write, once, and none that no run writes; what
docs/wandb.md draws is there."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, call

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from irl_exp.modules import trl_trainers
from irl_exp.solvers.bayesian import Gaussian, doubt
from irl_exp.steps.evaluate import Course
from irl_exp.tracking import NOT_APPLICABLE
from tests import warm
from tests.report.conftest import STEPS, make_curves, make_panel, make_summary

ROOT = Path(__file__).parent.parent
ENDS = ("_low", "_high")
PLACEHOLDERS = {
    "P": "(?:reference|aligned|realigned(?:_[0-9.]+)?)",
    "C": "[a-z_]+",
    "S": "(?:train|validation|calibration|test)",
    "M": "(?:toxicity_rate|toxicity_rate_second|mean_reward|length)",
    "F": "(?:length|ended|repetition|likelihood)",
    "D": "(?:length|repetition|likelihood|reward|toxicity|recovered)",
    "A": "(?:aligned|reference)",
    "STEP": "(?!total)[a-z_0-9.]+",
}
# What a tilted policy alone has, and comments with scores.
TILTED = ["policy/aligned/kl_cap", "policy/realigned/effective_sample_size"]
SCORED = ["comments/dropped_unscored"]
# What only a run with on_error=skip has.
SKIPPED = ["comments/skipped", "pairs/skipped"]
# What only a run with something planted has.
PLANTED = [f"planted/{name}_share" for name in ("word", "politeness", "trigger")]
# What only a run with a second classifier of its own has; the first with intervals.
SECOND = [f"second_classifier/{name}" for name in ("auc", "accuracy")]
SECOND_COUNTED = ["second_classifier/truncated_comments"]
# What is counted as the paper counts, with intervals.
PAPER = [f"policy/aligned/paper_{name}" for name in ("toxicity_ratio", "mean_toxicity")]
# What an ensemble alone has, with intervals.
ENSEMBLE = [f"recovery/{n}" for n in ("agreed_fraction", "agreed_accuracy", "disagreement")]
# What an audit has: tests/test_audit.py holds the page against those that are run.
MEASURES = ("length", "repetition", "likelihood", "reward", "toxicity", "recovered")
SURE = ("slope", "log_loss", "calibration_error", "agreed_fraction", "disagreement")
AUDIT = [
    *(f"audit/{name}_{end}" for name in MEASURES for end in ("aligned", "change", "change_p")),
    *(f"audit/{name}_change_holm" for name in MEASURES),
    *(f"audit/{name}" for name in (*SURE, "prompts", "k", "kl", "words", "words_changed")),
    *(f"audit/{name}" for name in ("preference_accuracy", "members_starc", "best_of_n")),
    *(
        "audit/distinct_2_aligned",
        "audit/labelled",
        "audit/labelled_learned",
        "audit/labelled_toxic",
        "pairs/identical",
        "pairs/prompts",
    ),
    *("pairs/train", "pairs/validation", "pairs/test", "validation/preference_accuracy"),
    *("control/length/preference_accuracy", "ground_truth/preference_accuracy"),
]
SMALL = (
    *("+debug=smoke", "trainer.threads=1", "dataset.size=600", "dataset.max_new_tokens=8"),
    *("model.hidden_size=16", "model.intermediate_size=32", "model.layers=1", "model.epochs=1"),
    *("demonstrations.prompts=16", "demonstrations.test_prompts=16", "evaluation.draws=10"),
)


def documented() -> list[dict[str, str]]:
    """The rows of all tables: column -> cell, and `title`, the section they stand in."""
    rows: list[dict[str, str]] = []
    header: list[str] = []
    title = ""
    for line in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if line.startswith("## "):
            title = line
        elif not cells:
            header = []
        elif not header:
            header = cells
        elif not set(cells[0]) <= {"-"}:
            rows.append(dict(zip(header, cells, strict=True)) | {"title": title})
    return rows


def summary_rows() -> dict[str, str]:
    """Pattern of a name in the summary -> its definition."""
    rows = [row for row in documented() if row["title"] != "## Curves"]
    return {pattern(row["name"]): row["definition"] for row in rows}


def curve_rows() -> list[tuple[str, str]]:
    """(pattern of a step, name) of every curve; PPO's table has no column of steps."""
    return [
        (pattern(step), row["name"].strip("`"))
        for row in documented()
        if row["title"] == "## Curves"
        for step in row.get("step", "`align`, `realign`").split(", ")
    ]


def pattern(name: str) -> str:
    """`policy/P/kl` -> a regular expression of the names that this stands for."""
    parts = re.split(r"(?<![A-Za-z])(STEP|P|C|S|F|M|D|A)(?![A-Za-z])", name.strip("`"))
    return "".join(PLACEHOLDERS.get(part, re.escape(part)) for part in parts)


def undefined(summary: dict[str, Any]) -> list[str]:
    """The names that the page does not define exactly once, with or without an interval."""
    rows = summary_rows()
    wrong = []
    for name in summary:
        base = next((name.removesuffix(end) for end in ENDS if name.endswith(end)), name)
        definitions = [text for p, text in rows.items() if re.fullmatch(p, base)]
        promised = any("interval" in text for text in definitions)
        kept = promised == (f"{base}_low" in summary) or summary[base] == NOT_APPLICABLE
        if len(definitions) != 1 or not kept:
            wrong.append(name)
    return wrong


def undefined_curves(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    logged = {(r["step"], name) for r in records for name in r.keys() - {"step", "global_step"}}
    rows = curve_rows()
    return {
        (step, name)
        for step, name in logged
        if sum(name == known and bool(re.fullmatch(p, step)) for p, known in rows) != 1
    }


def logged_names() -> set[str]:
    """What modules and solvers log: arguments of self.log, of log_dict and log_metrics, and keys of
    dictionaries in ppo.py. And what the Bayesian solver says of each round, what TRL's trainers
    log, and what evaluation says of each epoch."""
    names = {"prior_scale", *doubt(Gaussian.prior(1, 1.0), np.ones((1, 1)))}
    names |= {*trl_trainers.NAMES.values()}
    names |= {*Course.__annotations__} - {"global_step"}
    folders = (ROOT / "irl_exp" / name for name in ("modules", "solvers"))
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            keys: list[ast.expr | None] = []
            if isinstance(node, ast.Dict) and path.name == "ppo.py":
                keys = node.keys
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self.log":
                keys = [node.args[0]]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                (".log_dict", ".log_metrics")
            ):
                assert isinstance(node.args[0], ast.Dict)
                keys = node.args[0].keys
            names |= {key.value for key in keys if isinstance(key, ast.Constant)}  # type: ignore[misc]
    return names


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return make_summary(make_panel(np.random.default_rng(0)))


def test_every_number_is_defined_once(summary: dict[str, Any]) -> None:
    with_ends = (*ENSEMBLE, *SECOND, *PAPER)
    intervals = [f"{name}{end}" for name in with_ends for end in ("", *ENDS)]
    special = dict.fromkeys(
        [*TILTED, *SCORED, *SKIPPED, *PLANTED, *SECOND_COUNTED, *intervals], 4.2
    )
    assert undefined({**summary, **special}) == []


def test_every_definition_is_of_a_number(summary: dict[str, Any]) -> None:
    names = [
        *summary,
        *TILTED,
        *SCORED,
        *SKIPPED,
        *PLANTED,
        *SECOND,
        *SECOND_COUNTED,
        *ENSEMBLE,
        *PAPER,
    ]
    names += AUDIT
    assert [p for p in summary_rows() if not any(re.fullmatch(p, name) for name in names)] == []


def test_a_name_that_is_not_defined_is_found() -> None:
    numbers = {"policy/aligned/kl": 1.0, "policy/expert/kl": 1.0, "recovery/kendall_low": 0.5}
    numbers |= {
        "policy/aligned/kl_low": 0.9,
        "policy/aligned/kl_high": 1.1,
        "recovery/kendall": 0.6,
    }
    assert undefined(numbers) == ["policy/expert/kl", "recovery/kendall_low", "recovery/kendall"]


def test_curves_are_those_that_are_logged() -> None:
    assert {name for _, name in curve_rows()} == logged_names()


def test_every_curve_is_defined_once_for_its_step() -> None:
    assert undefined_curves(make_curves(np.random.default_rng(0))) == set()
    assert undefined_curves([{"step": "align", "global_step": 0, "los": 1.0}]) == {("align", "los")}


def test_every_solver_has_a_row() -> None:
    """In docs/solvers.md, whether it is called a solver or a control."""
    lines = (ROOT / "docs" / "solvers.md").read_text(encoding="utf-8").splitlines()
    rows = [name[1] for line in lines if (name := re.match(r"\| `(\w+)` \|", line))]
    assert sorted(rows) == sorted(path.stem for path in (ROOT / "conf" / "solver").glob("*.yaml"))


def test_steps_of_the_curves_exist() -> None:
    """In every study, or in one against the base and with a solver that is measured late."""
    steps = (*STEPS, "base", "measured")
    patterns = {step for step, _ in curve_rows()}
    assert [p for p in patterns if not any(re.fullmatch(p, step) for step in steps)] == []


# --- docs/wandb.md ------------------------------------------------------------------------------


def fenced(language: str) -> list[str]:
    """The blocks of docs/wandb.md in that language."""
    text = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def is_drawn(name: str) -> bool:
    """Whether wandb has a number or a curve of that name."""
    step, _, curve = name.partition("/")
    rows = [known for pattern, known in curve_rows() if re.fullmatch(pattern, step)]
    in_summary = any(re.fullmatch(pattern, name) for pattern in summary_rows())
    return in_summary or (bool(rows) and curve in [*rows, "global_step"])


def is_configured(key: str) -> bool:
    default = OmegaConf.load(ROOT / "docs" / "config.yaml")
    return OmegaConf.select(default, key, default=default) is not default


def test_what_is_drawn_is_told_from_what_is_not() -> None:
    assert is_drawn("policy/aligned/kl") and is_drawn("align/objective/kl")
    assert not is_drawn("policy/expert/kl") and not is_drawn("recover/objective/kl")
    assert is_configured("solver.name") and is_configured("solver.patience")
    assert not is_configured("solver.nome")


def test_the_view_at_wandb_draws_what_runs_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's program, as it stands, with stand-ins that note what it asks for."""
    library = MagicMock()
    panels = library.reports.v2
    monkeypatch.setitem(sys.modules, "wandb_workspaces", library)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports", library.reports)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", panels)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", library.workspaces)
    [program] = fenced("python")
    exec(program, {})
    library.workspaces.Workspace.return_value.save.assert_called_once_with()

    scattered = [(c.kwargs["x"], c.kwargs["y"]) for c in panels.ScatterPlot.mock_calls]
    lines = [(c.kwargs["x"], *c.kwargs["y"]) for c in panels.LinePlot.mock_calls]
    bars = [tuple(c.kwargs["metrics"]) for c in panels.BarPlot.mock_calls]
    assert ("model/parameters", "recovery/starc") in scattered
    assert ("policy/realigned/kl", "policy/realigned/mean_reward") in scattered
    assert ("align/global_step", "align/objective/kl") in lines
    assert [len(metrics) for metrics in bars] == [3]
    named = [name for panel in [*scattered, *lines, *bars] for name in panel]
    assert [name for name in named if not is_drawn(name)] == []
    assert library.expr.Config.mock_calls == [call("solver.name"), call("model.name")]


def test_custom_charts_at_wandb_draw_what_runs_have() -> None:
    """Each is JSON, of fields for which the page names keys that exist."""
    text = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8")
    keys: dict[str, list[str]] = {}
    for fields, query, said in re.findall(r"^\| (.*) \| (summary|config) \| (.*) \|$", text, re.M):
        found = re.findall(r"`([^`]+)`", said)
        exists = {"summary": is_drawn, "config": is_configured}[query]
        assert [key for key in found if not exists(key)] == []
        keys |= dict.fromkeys(re.findall(r"`(\w+)`", fields), found)
    used = set()
    for block in fenced("json"):
        assert json.loads(block)["data"] == {"name": "wandb"}
        used |= set(re.findall(r"\$\{field:(\w+)\}", block))
    assert used == keys.keys()
    prose = re.findall(r"`((?:solver|model|rlhf|tracker)\.\w+)`", text)
    tracker = yaml.safe_load((ROOT / "conf" / "tracker" / "wandb.yaml").read_text())
    known = {f"tracker.{key}" for key in tracker}
    assert [key for key in prose if not (is_configured(key) or key in known)] == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs share is computed once."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rlhf", "solver"),
    [("ppo_smoke", "hinge"), ("tilted", "ensemble"), ("tilted", "failure_aware"), ("raft", "svm")],
)
def test_a_real_run_writes_defined_names_alone(
    tmp_path: Path, store: Path, rlhf: str, solver: str
) -> None:
    places = (f"hydra.run.dir={tmp_path / 'run'}", f"paths.store={store}")
    chosen = (f"rlhf={rlhf}", f"solver={solver}")
    line = [warm.command("irl-exp"), *SMALL, *chosen, *places]
    subprocess.run(line, check=True, capture_output=True, cwd=tmp_path)

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert undefined(summary) == []
    assert undefined_curves([json.loads(line) for line in lines]) == set()
    assert any(name.endswith("kl_cap") for name in summary) == (rlhf == "tilted")
    assert (set(ENSEMBLE) <= summary.keys()) == (solver == "ensemble")
