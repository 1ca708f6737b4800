"""Every choice in conf/ composes into its dataclasses; every rule of validate() has its message."""

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from irl_exp import cli
from irl_exp.config import (
    SCHEMAS,
    CheckpointModel,
    ClosedFormGroundTruth,
    Config,
    EnsembleSolver,
    FailureAwareSolver,
    FileDataset,
    HubDataset,
    InputError,
    MarginSolver,
    PPOConfig,
    ScratchModel,
    Shares,
    SolverConfig,
    SyntheticDataset,
    TiltedConfig,
    TrainedGroundTruth,
)
from irl_exp.validation import validate

LEAVES = sorted(
    str(path.relative_to(cli.CONF).with_suffix(""))
    for path in cli.CONF.glob("*/*.yaml")
    if path.parent.name != "hydra"  # part of every composition
)
OVERLAYS = ("experiment", "sweep", "debug")
# Somebody else's pairs, and what goes with them.
PAIRS = ["demonstrations=file", "demonstrations.path=pairs.csv"]
GIVEN = ["rlhf=checkpoint", "objective=validation/preference_accuracy"]
AUDIT = [*GIVEN, "ground_truth=none"]
# What a user must say beside the choice.
REQUIRED = {
    "model/checkpoint": ["model.path=somewhere"],
    "dataset/file": ["dataset.path=comments.csv"],
    "dataset/hub": ["dataset.path=somewhere"],
    "dataset/prompts": [*AUDIT, *PAIRS],
    "experiment/audit": PAIRS,
    "demonstrations/file": ["demonstrations.path=pairs.csv", *GIVEN],
    "demonstrations/preferences": ["demonstrations.path=pairs.csv", *GIVEN],
    "ground_truth/classifier": ["ground_truth.path=somewhere"],
    "ground_truth/labels": ["ground_truth.path=somewhere", *GIVEN, *PAIRS],
    "ground_truth/none": [*GIVEN, *PAIRS],
    "ground_truth/reward": ["ground_truth.path=somewhere"],
    "rlhf/checkpoint": [*PAIRS, *GIVEN[1:]],
    "solver/released": ["demonstrations=paper"],
    "solver/plugin": ["solver.file=somewhere.py"],
}


def typed(*overrides: str) -> Config:
    """The dataclasses that a command line gives; nothing may be missing."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    result = OmegaConf.to_object(config)
    assert isinstance(result, Config)
    return result


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_choice_composes_and_is_valid(leaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRL_EXP_REAL_DATA", "/somewhere")
    group, option = leaf.split("/")
    append = "+" if group in OVERLAYS else ""
    config = typed(f"{append}{group}={option}", *REQUIRED.get(leaf, []))
    validate(config)
    if group in SCHEMAS:
        assert isinstance(getattr(config, group), tuple(SCHEMAS[group].values()))


SWEEPS = sorted(path.stem for path in (cli.CONF / "sweep").glob("*.yaml"))


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_named_sweep_is_valid(name: str) -> None:
    """And it is a sweep without -m, and says how it is typed; as are the few of its small form."""
    text = (cli.CONF / "sweep" / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"irl-exp +sweep={name}" in text.replace("\n# ", " ")
    for overlays, most in ([f"+sweep={name}"], 100), ([f"+sweep={name}", "+debug=smoke"], 8):
        with initialize_config_dir(str(cli.CONF), version_base="1.3"):
            config = compose("config", overrides=overlays, return_hydra_config=True)
        assert config.hydra.mode == RunMode.MULTIRUN
        parser = OverridesParser.create()
        axes = [parser.parse_override(f"{k}={v}") for k, v in config.hydra.sweeper.params.items()]
        (runs,) = BasicSweeper.split_arguments(axes, None)
        assert 1 < len(runs) <= most
        seen: set[str] = set()
        for run in runs:
            if not seen.issuperset(run):  # every value once, not every two together
                validate(typed(*overlays, *run))
                seen.update(run)


PAPER = sorted(path.stem for path in (cli.CONF / "experiment").glob("paper_*.yaml"))


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("model", ["neox-50k", "neox-1m5"])
def test_the_papers_studies_need_no_hub_beside_a_model_of_ours(name: str, model: str) -> None:
    """The recipe stays; comments, R* and the second classifier come from what is there."""
    ours, theirs = typed(f"+experiment={name}", f"model={model}"), typed(f"+experiment={name}")
    validate(ours)
    assert type(theirs.model) is CheckpointModel and type(ours.model) is ScratchModel
    assert (theirs.dataset.name, ours.dataset.name) == ("jigsaw", "synthetic")
    assert (theirs.ground_truth.name, ours.ground_truth.name) == ("roberta_toxicity", "trained")
    assert theirs.evaluation.second is not None and ours.evaluation.second is None
    assert (theirs.solver, theirs.demonstrations) == (ours.solver, ours.demonstrations)
    changed = {k for k, v in vars(theirs.rlhf).items() if v != vars(ours.rlhf)[k]}
    assert changed == {"last_layers"}


def test_the_papers_optimizer_steps() -> None:
    """600 and 12,000, as near as whole iterations come."""
    steps = {}
    for name in PAPER:
        rlhf = typed(f"+experiment={name}").rlhf
        assert isinstance(rlhf, PPOConfig)
        each = rlhf.batch_size // rlhf.minibatch_size * rlhf.epochs
        steps[name] = rlhf.iterations * each
    assert steps == {"paper_410m": 12_000, "paper_70m": 608, "paper_70m_as_released": 608}


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.split("/")[0] in SCHEMAS])
def test_the_yaml_has_the_keys_of_its_schema(leaf: str) -> None:
    """A leaf on a schema has a value, or ???, for every field; one on a leaf changes some."""
    group = leaf.split("/")[0]
    node: Any = OmegaConf.load(cli.CONF / f"{leaf}.yaml")
    defaults = OmegaConf.to_container(node.defaults)
    keys = {str(key) for key in node} - {"defaults"}
    # `/solver@controls.length: length` puts its choice below the key `controls`.
    for entry in defaults:
        if isinstance(entry, dict):
            keys |= {name.split("@")[1].split(".")[0] for name in entry}
    base = defaults[0]
    if base.endswith("_schema@_here_"):
        schema = SCHEMAS[group][base.removeprefix("/").removesuffix("_schema@_here_")]
        assert keys == {field.name for field in fields(schema)}
    else:
        assert keys <= {str(key) for key in OmegaConf.load(cli.CONF / group / f"{base}.yaml")}


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.split("/")[0] not in OVERLAYS])
def test_the_name_in_a_leaf_is_the_name_of_its_file(leaf: str) -> None:
    """So that messages and reports name what the user can type."""
    node = OmegaConf.load(cli.CONF / f"{leaf}.yaml")
    assert node.get("name", Path(leaf).name) == Path(leaf).name  # type: ignore[union-attr]


def test_top_level_keys() -> None:
    node = OmegaConf.load(cli.CONF / "config.yaml")
    groups = {key for entry in node.defaults if not isinstance(entry, str) for key in entry}
    assert set(SCHEMAS) == groups - {"hydra"}
    keys = {str(key) for key in node} - {"defaults"} | set(SCHEMAS)
    assert keys == {field.name for field in fields(Config)}


def test_no_two_schemas_have_one_name() -> None:
    """They stand side by side, outside the groups."""
    names = [name for schemas in SCHEMAS.values() for name in schemas]
    assert len(set(names)) == len(names)


def test_types_follow_the_choices() -> None:
    default = typed()
    assert type(default.model) is ScratchModel
    assert type(default.dataset) is SyntheticDataset
    assert type(default.dataset.shares) is Shares
    assert type(default.ground_truth) is TrainedGroundTruth
    assert type(default.rlhf) is PPOConfig
    assert type(default.solver) is MarginSolver
    controls = {name: type(solver) for name, solver in default.evaluation.controls.items()}
    assert controls == {
        "log_ratio": SolverConfig,
        "length": SolverConfig,
        "untrained": SolverConfig,
        "oracle": MarginSolver,
    }
    other = typed(
        "model=checkpoint",
        "model.path=a",
        "dataset=file",
        "dataset.path=b",
        "dataset.toxic_values=[yes,2]",
        "ground_truth=closed_form",
        "rlhf=tilted",
        "solver=length",
    )
    assert type(other.model) is CheckpointModel
    assert type(other.dataset) is FileDataset
    assert other.dataset.toxic_values == ["yes", 2]
    assert type(other.ground_truth) is ClosedFormGroundTruth
    assert type(other.rlhf) is TiltedConfig
    assert type(other.solver) is SolverConfig
    prompts = typed("dataset=real_toxicity_prompts").dataset
    assert type(prompts) is HubDataset
    assert prompts.label_column == ["prompt.toxicity", "continuation.toxicity"]
    assert (prompts.split, prompts.toxic_from) == ("train", 0.5)


def test_a_solver_builds_on_another() -> None:
    """The override that the comment in the leaf names, with the keys of what it chooses."""
    ensemble = typed("solver=ensemble").solver
    assert isinstance(ensemble, EnsembleSolver)
    assert (ensemble.members, ensemble.base.name) == (5, "logistic")
    other = typed("solver=ensemble", "solver@solver.base=asymmetric", "solver.base.epochs=3").solver
    assert isinstance(other, EnsembleSolver) and isinstance(other.base, MarginSolver)
    assert (other.base.objective, other.base.epochs) == ("asymmetric", 3)
    nested = typed("solver=ensemble", "solver@solver.base=failure_aware").solver
    assert isinstance(nested, EnsembleSolver) and isinstance(nested.base, FailureAwareSolver)
    assert nested.base.base.name == "hinge"


def test_seeds_follow_the_root() -> None:
    seeds = typed("seed=3").seeds
    assert set(vars(seeds).values()) == {3}
    seeds = typed("seed=3", "seeds=recovery_only", "seeds.policy=7", "seeds.order=5").seeds
    assert (seeds.data, seeds.policy, seeds.recovery) == (0, 7, 3)
    assert (seeds.alignment, seeds.demonstrations) == (7, 7)
    assert (seeds.initialization, seeds.order) == (3, 5)


POSITIVE = [
    ("dataset", ("prompt_words", "max_new_tokens")),
    ("demonstrations", ("prompts", "validation_prompts", "test_prompts", "k")),
    ("evaluation", ("draws", "prompts", "k", "optimality_prompts", "optimality_samples")),
    ("trainer", ("score_batch_size", "sample_batch_size")),
    ("rlhf", ("kl_coef", "iterations", "batch_size", "epochs", "minibatch_size")),
    ("rlhf", ("learning_rate", "value_learning_rate")),
    ("solver", ("epochs", "batch_size", "learning_rate", "max_grad_norm")),
    ("evaluation.controls.oracle", ("epochs", "learning_rate")),
]


@pytest.fixture(scope="module")
def default() -> Config:
    return typed()


@pytest.mark.parametrize(("group", "names"), POSITIVE)
def test_what_must_be_positive(group: str, names: tuple[str, ...], default: Config) -> None:
    for name in names:
        config = copy.deepcopy(default)
        node: Any = config
        for part in group.split("."):
            node = node[part] if isinstance(node, dict) else getattr(node, part)
        setattr(node, name, 0)
        with pytest.raises(InputError) as refused:
            validate(config)
        assert str(refused.value) == f"{group}.{name}=0: expected a positive number"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("evaluation.level=1", "evaluation.level=1.0: expected a share between 0 and 1"),
        ("evaluation.level=0", "evaluation.level=0.0: expected a share between 0 and 1"),
        ("model.epochs=-1", "model.epochs=-1: expected 0 or more"),
        ("model.epochs=0", "model.epochs=0: a model from scratch must be trained"),
        (
            "model.hidden_size=30 model.heads=4",
            "model.hidden_size=30: expected a multiple of model.heads=4",
        ),
        ("model.vocab_size=257", "model.vocab_size=257: expected at least 258"),
        (
            "dataset.max_new_tokens=128",
            "dataset.max_new_tokens=128: expected less than model.context=128",
        ),
        ("dataset.shares.test=0.2", "expected positive shares that sum to 1"),
        (
            "dataset.shares.train=0.75 dataset.shares.validation=0",
            "expected positive shares that sum to 1",
        ),
        (
            "dataset=file dataset.path=a.csv dataset.label_column=5",
            "dataset.label_column=5: expected a column or a list of columns",
        ),
        (
            "dataset=jigsaw dataset.label_column=[]",
            "dataset.label_column=[]: expected a column or a list of columns",
        ),
        (
            "dataset=jigsaw dataset.label_column=[toxic,1]",
            "dataset.label_column=['toxic', 1]: expected a column or a list of columns",
        ),
        ("dataset.size=null", "dataset.size=null: expected how many comments to generate"),
        (
            "dataset.politeness=1.1",
            "dataset.politeness=1.1: expected a share between 0 and 1",
        ),
        ("dataset.length=-0.1", "dataset.length=-0.1: expected a share between 0 and 1"),
        (
            "ground_truth=closed_form dataset=file dataset.path=a.csv",
            "ground_truth=closed_form knows the embedded grammar alone; got dataset=file",
        ),
        (
            "rlhf.minibatch_size=100",
            "rlhf.batch_size=640: expected a multiple of rlhf.minibatch_size=100",
        ),
        (
            "rlhf.micro_batch_size=7",
            "rlhf.minibatch_size=80: expected a multiple of rlhf.micro_batch_size=7",
        ),
        ("rlhf.trainable=head", "rlhf.trainable=head: expected one of all, last_layers, lora"),
        (
            "rlhf.trainable=last_layers rlhf.last_layers=9",
            "rlhf.last_layers=9: expected at most model.layers=",
        ),
        ("rlhf.kl_target=0", "rlhf.kl_target=0.0: expected a positive number"),
        (
            "rlhf=tilted rlhf.candidates=63",
            "rlhf.candidates=63: expected at least 64 (fewer cap the KL too low)",
        ),
        (
            "rlhf=tilted demonstrations=paper",
            "demonstrations.greedy=true has no meaning for rlhf=tilted",
        ),
        (
            "rlhf=best_of_n demonstrations=paper",
            "demonstrations.greedy=true has no meaning for rlhf=best_of_n",
        ),
        ("rlhf=best_of_n solver=log_ratio", "rlhf=best_of_n has none of its own"),
        ("rlhf=best_of_n rlhf.candidates=1", "rlhf.candidates=1: expected 2 or more"),
        ("rlhf=raft rlhf.candidates=63", "rlhf.candidates=63: expected at least 64"),
        ("rlhf=rloo rlhf.group_size=1", "rlhf.group_size=1: expected 2 or more"),
        (
            "rlhf=grpo rlhf.group_size=7",
            "rlhf.batch_size=640: expected a multiple of rlhf.group_size=7",
        ),
        (
            "rlhf=rloo rlhf.minibatch_size=100",
            "rlhf.batch_size=640: expected a multiple of rlhf.minibatch_size=100",
        ),
        (
            "ground_truth=planted ground_truth.word_bonus=0",
            "ground_truth: nothing is planted; expected one of length_bonus, word_bonus,",
        ),
        (
            "ground_truth=planted ground_truth.word=''",
            "ground_truth.word is empty; expected a word",
        ),
        (
            "ground_truth=planted ground_truth@ground_truth.base=planted",
            "ground_truth.base=planted: expected a reward that nothing is planted in",
        ),
        (
            "ground_truth=planted ground_truth.trigger_flip=-1",
            "ground_truth.trigger_flip=-1.0: expected 0 or more",
        ),
        ("rlhf.trainable=lora rlhf.lora_rank=999", "rlhf.lora_rank=999: expected at most"),
        (
            "ground_truth=planted ground_truth.base.epochs=0",
            "ground_truth.base.epochs=0: expected a positive number",
        ),
        (
            "ground_truth=planted ground_truth@ground_truth.base=closed_form dataset=file "
            "dataset.path=a.csv",
            "ground_truth=closed_form knows the embedded grammar alone; got dataset=file",
        ),
        (
            "evaluation.optimality_samples=255",
            "evaluation.optimality_samples=255: expected at least 256",
        ),
        ("rlhf=tilted solver=log_ratio", "solver=log_ratio needs an expert's log-probabilities"),
        (
            "demonstrations.against=nobody",
            "demonstrations.against=nobody: expected one of reference, base",
        ),
        (
            "demonstrations=placebo demonstrations.against=base",
            "demonstrations.against=base with contrast=placebo, which is the reference against",
        ),
        (
            "demonstrations.against=base model.epochs=1",
            "demonstrations.against=base: the reference is its own base; expected model.base=...",
        ),
        (
            "demonstrations.against=base model=pythia-70m",
            "demonstrations.against=base: the reference is its own base; expected model.base=...",
        ),
        (
            "solver=released",
            "solver.last_characters=true joins the completions of two prompts; expected "
            "solver.batch_size=2, demonstrations.k=1 and an even demonstrations.prompts; "
            "got 2, 4 and 2000",
        ),
        (
            "solver=released demonstrations=paper demonstrations.prompts=501",
            "an even demonstrations.prompts; got 2, 1 and 501",
        ),
        ("solver=released solver.warmup=0.1", "solver.warmup=0.1: expected 0, for its learning"),
        (
            "solver=released demonstrations=paper solver.objective=max_entropy",
            "solver.objective=max_entropy: with last_characters=true there are no pools",
        ),
        (
            "solver=released demonstrations=paper solver.epochs=1",
            "solver.late=true: expected false, but for the run's own solver and two epochs",
        ),
        (
            "solver=ensemble solver@solver.base=released demonstrations=paper",
            "solver.base.late=true: expected false, but for the run's own solver",
        ),
        (
            "solver=released demonstrations=paper trainer=ddp trainer.processes=2",
            "solver=released trains in one process; expected trainer=cpu or gpu",
        ),
        (
            "evaluation.texts=all",
            "evaluation.texts=all: expected held_out or training",
        ),
        (
            "evaluation.texts=training",
            "evaluation.texts=training: nobody has labelled these; expected ",
        ),
        (
            "evaluation.released_shaping=true rlhf=tilted",
            "evaluation.released_shaping=true with rlhf=tilted: expected ppo",
        ),
        ("evaluation.greedy_tokens=-1", "evaluation.greedy_tokens=-1: expected 0 or more"),
        (
            "evaluation.greedy_tokens=128",
            "evaluation.greedy_tokens=128: expected less than model.context=128, which holds ",
        ),
        (
            "demonstrations.contrast=none",
            "demonstrations.contrast=none: expected one of aligned, placebo, shuffled",
        ),
        (
            "demonstrations=paper demonstrations.contrast=placebo",
            "demonstrations.contrast=placebo: with greedy=true both sides would be the same; ",
        ),
        ("solver.objective=mse", "solver.objective=mse: expected one of asymmetric, hinge,"),
        (
            "evaluation.controls.oracle.objective=mse",
            "evaluation.controls.oracle.objective=mse: expected one of asymmetric, hinge,",
        ),
        (
            "evaluation.controls.oracle.objective=max_entropy",
            "evaluation.controls.oracle.objective=max_entropy: expected one of asymmetric, hinge, "
            "squared_hinge, logistic",
        ),
        ("solver.trainable=body", "solver.trainable=body: expected one of all, last_layers, lora,"),
        (
            "solver=oracle solver.trainable=last_layers solver.last_layers=4",
            "solver.last_layers=4: expected at most model.layers=3",
        ),
        ("solver.lora_rank=0", "solver.lora_rank=0: expected a positive number"),
        ("solver=ensemble solver.base.trace=true", "solver.base.trace=true: expected false"),
        ("solver=membership solver.patience=0", "solver.patience=0: expected a positive number"),
        (
            "solver=svm solver.penalties=[]",
            "solver.penalties=[]: expected a list of positive numbers",
        ),
        (
            "solver=max_margin_planning solver.penalties=[1,0]",
            "solver.penalties=[1.0, 0.0]: expected a list of positive numbers",
        ),
        ("solver=ensemble solver.members=1", "solver.members=1: expected 2 or more"),
        (
            "solver=ensemble solver@solver.base=svm",
            "solver.base=svm: expected a solver whose result depends on the seed, such as hinge",
        ),
        (
            "solver=ensemble solver@solver.base=failure_aware_max_entropy",
            "solver.base=failure_aware_max_entropy: expected a solver whose result depends on ",
        ),
        ("solver=ensemble solver.base.epochs=0", "solver.base.epochs=0: expected a positive"),
        (
            "+solver@evaluation.controls.five=ensemble evaluation.controls.five.base.objective=mse",
            "evaluation.controls.five.base.objective=mse: expected one of asymmetric, hinge,",
        ),
        (
            "solver=failure_aware solver@solver.base=length",
            "solver.base=length: expected hinge, squared_hinge, logistic or max_entropy",
        ),
        (
            "solver=failure_aware solver@solver.base=asymmetric",
            "solver.base=asymmetric: its scale is that of the stopping time, and a margin means ",
        ),
        (
            "solver=failure_aware solver.objective=hinge",
            "solver.objective=hinge: expected one of squared_hinge, logistic",
        ),
        ("solver=failure_aware solver.margin=0", "solver.margin=0.0: expected a positive number"),
        (
            "solver=failure_aware solver.penalties=[]",
            "solver.penalties=[]: expected a list of positive numbers",
        ),
        ("solver=svm solver.folds=2", "solver.folds=2: expected 3 or more"),
        ("solver=projection solver.tolerance=0", "solver.tolerance=0.0: expected a positive"),
        ("solver=max_margin_planning solver.rounds=0", "solver.rounds=0: expected a positive"),
        ("model.layers=0", "model.layers=0: expected a positive number"),
        ("model.warmup=5", "model.warmup=5.0: expected a share between 0 and 1"),
        ("ground_truth.epochs=0", "ground_truth.epochs=0: expected a positive number"),
        ("rlhf.clip_range=-1", "rlhf.clip_range=-1.0: expected a positive number"),
        ("trainer.threads=0", "trainer.threads=0: expected a positive number"),
        ("trainer.processes=0", "trainer.processes=0: expected a positive number"),
        ("trainer.precision=foo", "trainer.precision=foo: expected one of 32-true, "),
        ("trainer.accelerator=tpu", "trainer.accelerator=tpu: expected one of cpu, gpu"),
        ("solver=max_entropy solver.prior_scale=0", "prior_scale=0.0: expected a positive number"),
        (
            "solver=bayesian solver.family=full",
            "solver.family=full: expected one of laplace, mean_field",
        ),
        ("solver=bayesian solver.rounds=0", "solver.rounds=0: expected a positive number"),
        ("seed=-1", "seed=-1: expected 0 to 4294967295"),
        ("seeds.recovery=4294967296", "seeds.recovery=4294967296: expected 0 to 4294967295"),
        ("paths.store=", "paths.store is empty"),
        (
            "demonstrations=paper demonstrations.k=2",
            "demonstrations.k=2: with greedy=true all would be the same; expected 1",
        ),
        ("until=pretraining", "until=pretraining: expected one of curate, pretrain, ground_truth,"),
        ("evaluation.threshold=0.5", "evaluation.threshold=0.5: expected calibrated or zero"),
        ("evaluation.frontier=[0]", "evaluation.frontier=[0.0]: expected different positive"),
        ("evaluation.frontier=[2,2]", "evaluation.frontier=[2.0, 2.0]: expected different"),
        ("evaluation.frontier=[2,2.0000001]", "evaluation.frontier=[2.0, 2.0000001]: expected"),
        ("evaluation.frontier=[1]", "once that KL is always among them"),
        ("evaluation.labels=both", "evaluation.labels=both: expected human or ground_truth"),
        (
            "objective=recovery/auc",
            "objective=recovery/auc: expected a metric of the validation split "
            "(validation/recovery_auc, validation/preference_accuracy); nothing is selected on "
            "test data",
        ),
        (
            "trainer.matmul_precision=low",
            "trainer.matmul_precision=low: expected highest, high or medium",
        ),
        (
            "trainer=ddp trainer.accelerator=mps",
            "trainer.accelerator=mps: of trainer.processes=2 only one could have it; "
            "expected cpu or gpu",
        ),
        (
            "trainer.precision=16-mixed",
            "rlhf=ppo with trainer.precision=16-mixed, whose scaled gradients it would clip; "
            "expected 32-true or bf16-mixed",
        ),
        (
            "trainer=fsdp trainer.precision=16-mixed rlhf=tilted",
            "trainer.precision=16-mixed with trainer.sharded=true: expected 32-true or bf16-mixed",
        ),
        (
            "trainer.sharded=true",
            "trainer.sharded=true with trainer.processes=1: there is nobody to divide networks "
            "with; expected trainer=fsdp and 2 processes or more",
        ),
        (
            "trainer=ddp rlhf=dpo",
            "rlhf=dpo trains in one process; expected trainer=cpu or gpu, or rlhf=ppo or raft",
        ),
        (
            "trainer=ddp trainer.processes=3 rlhf.batch_size=64 rlhf.minibatch_size=64",
            "rlhf.minibatch_size=64: expected a multiple of trainer.processes=3",
        ),
        (
            "trainer=ddp rlhf.micro_batch_size=1",
            "rlhf.micro_batch_size=1: expected a multiple of trainer.processes=2",
        ),
    ],
)
def test_rules(overrides: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        validate(typed(*overrides.split()))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        "model=checkpoint model.path=a model.epochs=0",
        "model.vocab_size=258",
        "dataset.max_new_tokens=127",
        "dataset.politeness=0 dataset.length=1",
        "rlhf=tilted rlhf.candidates=64",
        "rlhf=tilted demonstrations.greedy=false evaluation.optimality_samples=256",
        "solver=log_ratio",
        "demonstrations=paper demonstrations.contrast=shuffled",
        "solver=bayesian solver.prior_scale=null solver.rounds=1",
        "solver=svm solver.penalties=[0.01] solver.folds=3",
        "solver=ensemble solver.members=2 solver@solver.base=membership",
        "solver=ensemble solver@solver.base=failure_aware solver.base.base.epochs=2",
        "solver=failure_aware solver@solver.base=max_entropy solver.objective=logistic",
        "until=realign",
        "trainer=ddp trainer.processes=3 rlhf=tilted",
        "trainer=ddp rlhf.micro_batch_size=2",
        "rlhf=dpo trainer.processes=1",
        "dataset=file dataset.path=a.csv dataset.label_column=[a,b] dataset.toxic_from=-1",
        "dataset=jigsaw dataset.size=null dataset.path=/a/folder dataset.revision=v1",
    ],
)
def test_what_the_rules_just_allow(overrides: str) -> None:
    validate(typed(*overrides.split()))
