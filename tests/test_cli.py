"""What a user types: names of runs, errors as one line, sweeps that go on and start again."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from irl_exp import cli, identity
from irl_exp.config import InputError
from irl_exp.data import synthetic
from irl_exp.tracking import Tracker
from tests import warm

# What takes its time to import, and what a sweep can be handed to.
HEAVY = (
    *("torch", "transformers", "pytorch_lightning", "numpy", "pandas", "matplotlib", "wandb"),
    *("joblib", "submitit", "ray", "optuna"),
)


def irl_exp(
    commands: Sequence[Sequence[str]], folder: Path, store: bool = True
) -> list[tuple[int, str, str]]:
    """Status, standard output and standard error of each command, run in `folder`, whose store they
    use unless they name one."""
    place = [f"paths.store={folder}/store"] if store else []
    answers = []
    for words in commands:
        line = [warm.command("irl-exp"), *words, *place]
        done = subprocess.run(line, capture_output=True, text=True, cwd=folder)
        answers.append((done.returncode, done.stdout, done.stderr))
    return answers


def composed(*overrides: str, hydra: bool = True) -> DictConfig:
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=hydra)


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("irl_exp.cli", HEAVY),
        ("irl_exp.scoring", (*HEAVY, "hydra")),
        ("irl_exp.export", (*HEAVY, "hydra")),
        ("irl_exp.store_cli", (*HEAVY, "hydra")),
        ("irl_exp.report.command", (*HEAVY, "hydra")),
    ],
)
def test_help_loads_nothing_that_it_does_not_need(module: str, heavy: tuple[str, ...]) -> None:
    """No tensors, no tables, no launcher or sweeper that is installed and not chosen."""
    script = (
        f"import sys; from {module} import main\n"
        "sys.argv = ['command', '--help']\n"
        "try: main()\n"
        f"finally: print('loaded:', *sorted(sys.modules.keys() & {{*{heavy!r}}}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "loaded:"


# --- composition --------------------------------------------------------------------------------


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    """What is composed again and again is parsed once, for as long as its files are the same."""
    (tmp_path / "config.yaml").write_text("defaults: [_self_, group: a]\nkey: 1\n")
    (tmp_path / "group").mkdir()
    for number in (1, 10):
        (tmp_path / "group" / "a.yaml").write_text(f"number: {number}\n")
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            config = compose("config")
            assert config == {"key": 1, "group": {"number": number}}
            config.group.number = 100  # is nobody else's
            assert compose("config").group.number == number
    (tmp_path / "config.yaml").write_text("defaults: [_self_, group: a]\nkey: 20\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("config") == {"key": 20, "group": {"number": 10}}


def test_a_run_is_launched_as_it_was_composed_before() -> None:
    """A sweeper composes all runs, to see that it can, before the launcher composes the first."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        sweep = loader.load_configuration("config", ["seed=1,2"], RunMode.MULTIRUN)
        checked = loader.load_sweep_config(sweep, ["seed=2", "model=neox-50k"])
        launched = loader.load_sweep_config(sweep, ["seed=2", "model=neox-50k"])
        other = loader.load_sweep_config(sweep, ["seed=1", "model=neox-50k"])
    assert launched == checked and launched is not checked
    assert (launched.seed, other.seed) == (2, 1)
    assert list(launched.hydra.overrides.task) == ["seed=2", "model=neox-50k"]
    with pytest.raises(ConfigKeyError):
        launched["sead"] = 1
    cli.Sweep.composed.clear()


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "sead=1",
            "sead: no such key; did you mean seed? There are model, dataset, ground_truth, rlhf, ",
        ),
        ("modle=neox-50k", "modle: no such key; did you mean model? There are model, dataset, "),
        ("model.hiden=1", "model.hiden: no such key; did you mean hidden_size? There are name, "),
        ("model=neox", "model=neox: expected one of checkpoint, neox-100k, neox-1m5, neox-400k, "),
        ("+debug=fire", "debug=fire: expected one of smoke"),
        ("seed=x", "seed: Value 'x' of type 'str' could not be converted to Integer"),
        ("dataset.shares.test=x", "dataset.shares.test: Value 'x' of type 'str' could not be "),
        ("dataset.shares=1", "dataset.shares: Invalid type assigned: int is not a subclass of "),
        ("solver.name=null", "solver.name: field 'solver.name' is not Optional"),
        ("dataset=file", "dataset.path: a value is required"),
        (
            "model.name=${oc.env:NO_SUCH_NAME}",
            "model.name: the environment variable NO_SUCH_NAME is not set",
        ),
        ("seed", "seed: not an override; expected KEY=VALUE, quoted for your shell"),
        ("+seed=1", "Could not append to config. An item is already at 'seed'."),
    ],
)
def test_hydra_is_condensed(overrides: str, line: str) -> None:
    """What Hydra and OmegaConf raise on bad input, in one line that names the key."""
    with pytest.raises((HydraException, OmegaConfBaseException)) as raised:
        config = composed(*overrides.split(), hydra=False)
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    said = cli.condense(raised.value)
    assert said.startswith(line)
    assert "\n" not in said


def test_other_errors_are_condensed() -> None:
    assert cli.condense(InputError("a.csv, line 3: no label")) == "a.csv, line 3: no label"
    said = cli.condense(ZeroDivisionError("division\nby zero"))
    assert said == "ZeroDivisionError: division by zero (HYDRA_FULL_ERROR=1 shows where)"
    try:
        raise InputError("mine") from ValueError("theirs")
    except InputError as error:
        assert cli.condense(error) == "mine"


def test_bad_input_is_one_line_and_nothing_runs(tmp_path: Path) -> None:
    """Refused by Hydra, by the types, by validate(): always the same way."""
    cases = {
        "sead=1": "sead: no such key; ",
        "solver=neox": "solver=neox: expected one of asymmetric, ",
        "seed=x": "seed: Value 'x' of type 'str'",
        "dataset=file": "dataset.path: a value is required",
        "+foo=1": "foo: no such key; expected one of model, ",
        "+model.foo=1": "model.foo: no such key; expected one of name, ",
        "objective=recovery/auc": "objective=recovery/auc: expected a metric of the validation ",
        "demonstrations.k=0": "demonstrations.k=0: expected a positive number",
    }
    answers = irl_exp([words.split() for words in cases], tmp_path)
    for (words, line), (status, out, err) in zip(cases.items(), answers, strict=True):
        assert (status, out) == (1, ""), words
        assert err.startswith(f"irl-exp: {line}"), err
        assert err.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_a_rejected_combination_as_a_user_sees_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "irl_exp", "rlhf=tilted", "solver=log_ratio", "hydra.run.dir=run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    line = "solver=log_ratio needs an expert's log-probabilities; rlhf=tilted has none of its own"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"irl-exp: {line}\n")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["status"] == "failed"
    assert line in status["error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "sent", "line"),
    [
        ("pretrain", signal.SIGTERM, "irl-exp: terminated; the same command goes on from here\n"),
        ("pretrain", signal.SIGINT, "irl-exp: interrupted; the same command goes on from here\n"),
        ("curate", signal.SIGTERM, "irl-exp: terminated; the same command goes on from here\n"),
        ("curate", signal.SIGINT, "irl-exp: interrupted; the same command goes on from here\n"),
    ],
)
def test_a_signal_is_no_success(tmp_path: Path, step: str, sent: signal.Signals, line: str) -> None:
    """Lightning, left alone, answers SIGTERM during training with exit status 0."""
    long = {"pretrain": "model.epochs=1000", "curate": "dataset.size=3000000"}[step]
    words = f"+debug=smoke until=pretrain {long} hydra.run.dir=run paths.store=store"
    process = subprocess.Popen(
        [sys.executable, "-m", "irl_exp", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # Who runs the tests in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    while f"{step} " not in process.stdout.readline():
        assert process.poll() is None
    if step == "pretrain":
        # Lightning's handler is there once training has begun.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, line)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["status"] == "interrupted"


# --- what would run -----------------------------------------------------------------------------


def test_what_would_run_is_shown(tmp_path: Path) -> None:
    command = ["--cfg", "job", "--resolve", "seed=3", "solver=hinge", "rlhf.kl_coef=0.25"]
    [(status, out, err)] = irl_exp([command], tmp_path)
    assert (status, err) == (0, "")
    config = yaml.safe_load(out)
    assert set(config["seeds"].values()) == {3}
    assert (config["solver"]["objective"], config["rlhf"]["kl_coef"]) == ("hinge", 0.25)
    assert config["paths"]["store"] == f"{tmp_path}/store"
    assert list(tmp_path.iterdir()) == []


# --- <Tab> --------------------------------------------------------------------------------------


def answers(line: str) -> tuple[list[str], str]:
    """What Hydra offers a shell in which `line` stands; standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "irl_exp", "-sc", "query=bash"],
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))},
        capture_output=True,
        text=True,
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("typed", "one"),
    [
        ("solver=", "hinge"),
        ("+sweep=", "size_vs_interpretability"),
        ("+experiment=", "real_comments"),
    ],
)
def test_options_are_completed(typed: str, one: str) -> None:
    """The files of the group's folder, and no schema among them."""
    folder = cli.CONF / typed.strip("+=")
    options = sorted(f"{typed}{path.stem}" for path in folder.glob("*.yaml"))
    assert f"{typed}{one}" in options
    assert answers(f"irl-exp {typed}") == (options, "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("irl-exp rlhf.kl", ["rlhf.kl_coef=", "rlhf.kl_horizon=", "rlhf.kl_target="]),
        ("irl-exp rlhf=tilted rlhf.", ["rlhf.candidates=", "rlhf.kl_coef=", "rlhf.name="]),
        ("irl-exp +debug=s", ["+debug=smoke"]),
        ("irl-exp -m 'seed=range(0,5)' solver=as", ["solver=asymmetric"]),
    ],
)
def test_keys_are_completed(line: str, offered: list[str]) -> None:
    assert answers(line) == (offered, "")


def test_nothing_is_said_into_a_line_that_is_being_typed() -> None:
    assert answers("irl-exp 'seed=(' sol") == ([], "")


def test_completion_in_bash() -> None:
    """As docs/hydra.md sets it up, through the console script."""
    script = """
        eval "$(irl-exp -sc install=bash)"
        complete -p irl-exp
        COMP_LINE="irl-exp rlhf.kl_c" COMP_POINT=17 COMP_CWORD=1
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    registered, offered = done.stdout.splitlines()
    assert registered.endswith("-F hydra_bash_completion irl-exp")
    assert (offered, done.stderr) == ("rlhf.kl_coef=", "")


# --- names --------------------------------------------------------------------------------------


def test_equal_studies_have_equal_ids() -> None:
    """Wherever they run and whatever they are called; a value typed is the value by default."""

    def run_id(*overrides: str) -> str:
        return identity.run_id(_root_=composed(*overrides))

    default = run_id()
    assert len(default) == 8 and int(default, 16) >= 0
    for same in (
        "paths.store=/elsewhere",
        "tracker.name=other",
        "tags=[a]",
        "extra_tags=[b]",
        "name=mine",
        "rerun=true",
        "hydra.run.dir=/elsewhere",
        "seed=0",
        "seeds.data=0",
    ):
        assert run_id(same) == default, same
    others = ["seed=1", "seeds.recovery=1", "rlhf.kl_coef=0.4", "solver=hinge", "until=align"]
    assert len({default, *(run_id(other) for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("overrides", "name", "label"),
    [
        ([], "adhoc", "default"),
        (["seed=3", "solver=logistic"], "adhoc", "seed-3_solver-logistic"),
        (["rlhf.kl_coef=0.25", "+debug=smoke"], "adhoc", "kl_coef-0.25_debug-smoke"),
        (["+sweep=planted", "seed=1"], "planted", "seed-1"),
        (["+sweep=planted", "+debug=smoke"], "planted-smoke", "debug-smoke"),
        (["name=mine", "paths.store=/a/b", "tags=[x]", "seed=1"], "mine", "seed-1"),
        (["dataset=file", "dataset.path=/a b/c.csv"], "adhoc", "dataset-file_path-a-b-c.csv"),
    ],
)
def test_names_of_run_directories(overrides: list[str], name: str, label: str) -> None:
    """What was varied, and nothing that leaves the study as it is."""
    config = composed(*overrides)
    assert identity.sweep_name(_root_=config) == name
    assert identity.run_label(_root_=config) == label


def test_what_a_sweep_varies_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["dataset.size=400", "+debug=smoke", "solver=hinge,logistic", "seed=range(0,3)"]
    assert identity.swept([*typed, "tags=[a,b]", "model.name='a,b'"]) == "solver,seed"
    monkeypatch.setenv(identity.SWEPT, "solver,seed")
    config = composed("dataset.size=400", "+debug=smoke", "solver=logistic", "seed=2")
    assert identity.run_label(_root_=config) == "solver-logistic_seed-2_size-400_debug-smoke"
    long = composed("dataset.name=" + "x" * 50, "seed=2", "model.layers=1")
    assert identity.run_label(_root_=long) == "seed-2_layers-1"


def test_labels_are_folder_names() -> None:
    label = identity.run_label(_root_=composed("model.name=" + "x" * 300))
    assert len(label) == 60


# --- sweeps -------------------------------------------------------------------------------------


def statuses(sweep: Path) -> dict[str, str]:
    """Of each size, how it went."""
    found = {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/status.json")}
    return {name.split("_")[0].split("-")[1]: facts["status"] for name, facts in found.items()}


@pytest.mark.parametrize("name", ["name=six", ""])
def test_a_sweep_goes_on_and_starts_again(tmp_path: Path, name: str) -> None:
    """Six runs: one is rejected, one breaks, four complete. Launched again, named or not, those two
    are run again; mended, they are run and nothing else is."""
    sweep = ["-m", "+debug=smoke", "until=curate", *name.split()]
    broken, mended, one = (
        "dataset.size=400,500,0,600,8,700",
        "dataset.size=400,500,550,600,650,700",
        "dataset.size=400",
    )
    first, again, other, fixed, rerun = irl_exp(
        [
            [*sweep, broken],
            [*sweep, broken, "tags=[again]"],
            # The same studies, typed differently.
            [one, "-m", "seed=0", *sweep[1:]],
            [*sweep, mended],
            [*sweep, one, "rerun=true"],
        ],
        tmp_path,
    )
    folder = tmp_path / "sweeps" / ("six" if name else "adhoc")
    rejected = "dataset.size=0: expected a positive number"
    short = "the validation split gets 0 comments, 0 of them toxic; expected some of both classes"

    for status, out, err in (first, again):
        assert status == 1
        head, *lines = err.splitlines()
        assert head == "irl-exp: 2 runs failed; launched again, the sweep runs what is missing"
        for line, reason in zip(lines, (rejected, short), strict=True):
            assert line.split(": ", 1)[1].startswith(reason)
        for line in lines:
            run = tmp_path / line.split(": ")[0].strip()
            assert json.loads((run / "status.json").read_text())["status"] == "failed"
        assert out.count(rejected) == out.count(short) == 1  # and where it happened
    assert first[1].count(": skipped") == 0
    assert again[1].count("is done already: skipped") == 4
    assert (other[0], other[1].count(": skipped")) == (0, 1)
    assert (fixed[0], fixed[1].count(": skipped"), fixed[1].count("curate   ")) == (0, 4, 2)
    assert (rerun[0], rerun[1].count(": skipped"), rerun[1].count("computing")) == (0, 0, 1)
    done = {size: "done" for size in ("400", "500", "550", "600", "650", "700")}
    assert statuses(folder) == {**done, "0": "failed", "8": "failed"}


@pytest.mark.slow
def test_two_terminals_share_a_sweep(tmp_path: Path) -> None:
    """The second passes over what the first is at, and does the others; each is done once."""
    words = "-m +debug=smoke until=pretrain dataset.size=400,500,600 trainer.threads=1"
    command = [sys.executable, "-m", "irl_exp", *words.split(), "paths.store=store"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said).count("another process is at it: skipped") >= 1
    assert "".join(said).count("pretrain         done") == 3
    runs = list((tmp_path / "sweeps" / "adhoc").glob("*/metrics.jsonl"))
    assert len(runs) == 3
    for run in runs:
        lines = run.read_text().splitlines()
        assert len(lines) == len(set(lines)) > 0


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    """Another study's finished run, and what is no run's; an unfinished one may be taken up."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("of the user")
    small = ["until=curate", "dataset.size=400"]
    done, other, mine, broken, mended = irl_exp(
        [
            [*small, "hydra.run.dir=run"],
            [*small, "hydra.run.dir=run", "seed=1"],
            [*small, "hydra.run.dir=mine"],
            [*small, "hydra.run.dir=again", "dataset.size=8"],
            [*small, "hydra.run.dir=again"],
        ],
        tmp_path,
    )
    holds = "irl-exp: {}: holds {}; expected a new or an empty folder\n".format
    identity = json.loads((tmp_path / "run" / "status.json").read_text())["run_id"]
    assert [answer[0] for answer in (done, other, mine, broken, mended)] == [0, 1, 1, 1, 0]
    assert other[2] == holds(tmp_path / "run", f"the finished run {identity}")
    assert mine[2] == holds(tmp_path / "mine", "config.yaml, which is no run's")
    assert (tmp_path / "mine" / "config.yaml").read_text() == "of the user"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["config.yaml"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_standard_output_without_room_is_named(tmp_path: Path) -> None:
    line = [
        warm.command("irl-exp"),
        "until=curate",
        "dataset.size=400",
        f"paths.store={tmp_path}/s",
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    said = "standard output: No space left on device; with more room, the same command works"
    assert (done.returncode, done.stderr) == (1, f"irl-exp: {said}\n")


def test_a_folder_that_is_gone_is_none_to_work_in(tmp_path: Path) -> None:
    line = f"cd {tmp_path} && rmdir {tmp_path} && {sys.executable} -m irl_exp until=curate"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    said = "the current folder has been removed; expected one to work in"
    assert (done.returncode, done.stderr) == (1, f"irl-exp: {said}\n")


def test_a_run_directory_has_one_run(tmp_path: Path) -> None:
    with Tracker(tmp_path / "run", "12345678"):
        command = ["until=curate", "dataset.size=400", "hydra.run.dir=run"]
        [(status, _, err)] = irl_exp([command], tmp_path)
    said = f"{tmp_path}/run: another process runs in it; expected a directory of its own"
    assert (status, err) == (1, f"irl-exp: {said}\n")


def test_a_run_of_a_changed_file_is_not_done(tmp_path: Path) -> None:
    """The id knows a file by its name; what is skipped depends on what stands in it."""
    rows = [(comment.text, comment.toxic) for comment in synthetic.generate(500, seed=0)]

    def write(rows: list[tuple[str, int]]) -> None:
        with (tmp_path / "comments.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "toxic"), *rows])

    file = ["dataset=file", "dataset.path=comments.csv", "model.name=a,b"]
    command = ["-m", "+debug=smoke", "until=curate", *file]
    write(rows)
    first, again = irl_exp([command, command], tmp_path)
    write(rows[:400])
    [changed] = irl_exp([command], tmp_path)
    assert (first[0], first[1].count(": skipped")) == (0, 0)
    assert (again[0], again[1].count(": skipped")) == (0, 2)
    assert (changed[0], changed[1].count(": skipped")) == (0, 0)
    assert changed[1].count("was done with other files: run again") == 2
    for run in (tmp_path / "sweeps" / "adhoc").glob("*/summary.json"):
        assert json.loads(run.read_text())["comments/read"] == 400


def test_a_run_that_breaks_leaves_its_traceback(tmp_path: Path) -> None:
    """One line on the terminal; where it was stands beside the run, until it is run again."""
    command = ["+debug=smoke", "dataset.size=400", "until=pretrain", "hydra.run.dir=run"]
    [whole] = irl_exp([[*command, "until=curate", "hydra.run.dir=first"]], tmp_path)
    [comments] = (tmp_path / "store" / "curate").glob("*/comments.parquet")
    # An artifact from before there were checksums, which something else has damaged.
    stated = json.loads((comments.parent / "manifest.json").read_text())
    del stated["files"], stated["checksum"]
    (comments.parent / "manifest.json").write_text(json.dumps(stated))
    comments.write_bytes(b"no table")
    [(status, _, err)] = irl_exp([command], tmp_path)
    assert (whole[0], status, err.count("\n")) == (0, 1, 1)
    trace = tmp_path / "run" / "traceback.txt"
    assert trace.read_text().startswith("Traceback")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["error"] in err
    [again] = irl_exp([[*command, "rerun=true"]], tmp_path)
    assert (again[0], trace.exists()) == (0, False)


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("3", 3), ("", None), ("many", None)])
def test_threads_are_those_of_openmp(
    monkeypatch: pytest.MonkeyPatch, asked: str, threads: int | None
) -> None:
    """A launcher of many runs says so by OMP_NUM_THREADS; trainer.threads wins."""
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    before = torch.get_num_threads()
    try:
        cli.reset_process_state(OmegaConf.to_object(composed(hydra=False)))
        assert torch.get_num_threads() == (threads or len(os.sched_getaffinity(0)))
        cli.reset_process_state(OmegaConf.to_object(composed("trainer.threads=2", hydra=False)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_jobs_of_one_process_do_not_see_each_other(tmp_path: Path) -> None:
    """What one job sets for the process (threads, dtype, determinism, seeds) is set anew."""
    program = """
import os, sys, torch
from irl_exp import cli, experiment, identity
seen = []
def study(bench):
    seen.append([torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
                 torch.get_float32_matmul_precision(), str(torch.get_default_dtype()),
                 torch.rand(()).item()])
    torch.set_default_dtype(torch.float64)
    bench.tracker.summarize({"validation/recovery_auc": 0.5})
experiment.run = study
sys.argv = ["irl-exp", "-m", "deterministic=true,false", "trainer.threads=1,2",
            "trainer.matmul_precision=highest,high"]
cli.main()
assert identity.SWEPT not in os.environ, "the next sweep of this process would read it"
print(seen)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    seen = json.loads(
        done.stdout.splitlines()[-1].replace("'", '"').replace("T", "t").replace("F", "f")
    )
    assert [row[:3] for row in seen] == [
        [threads, deterministic, precision]
        for deterministic in (True, False)
        for threads in (1, 2)
        for precision in ("highest", "high")
    ]
    assert {row[3] for row in seen} == {"torch.float32"}
    assert len({row[4] for row in seen}) == 1
