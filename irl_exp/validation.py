"""The rules that values of a configuration keep, each alone and between them."""

import math
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any

from irl_exp.config import (
    ON_ERROR,
    STEPS,
    BayesianSolver,
    BestOfNConfig,
    CheckpointRLHF,
    ClassifierGroundTruth,
    ClosedFormGroundTruth,
    Config,
    DPOConfig,
    EnsembleSolver,
    FailureAwareSolver,
    FileDemonstrations,
    GradientSolver,
    GroundTruthConfig,
    GroupConfig,
    InputError,
    LabelsGroundTruth,
    MarginSolver,
    MaxEntropySolver,
    ModelConfig,
    NoGroundTruth,
    PlanningSolver,
    PlantedGroundTruth,
    PPOConfig,
    PromptsDataset,
    RaftConfig,
    RandomGroundTruth,
    ReleasedSolver,
    RLHFConfig,
    SampledDemonstrations,
    ScratchModel,
    SolverConfig,
    SvmSolver,
    SyntheticDataset,
    TableDataset,
    TiltedConfig,
    TrainedGroundTruth,
    WandbTracker,
    before_tuning,
    innermost,
)
from irl_exp.identity import require_name

# What a sweeper may optimize.
SELECTABLE = ("validation/recovery_auc", "validation/preference_accuracy")
ACCELERATORS = ("cpu", "gpu", "cuda", "mps")
WANDB_MODES = ("online", "offline")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
TRAINABLE = ("all", "last_layers", "lora", "head")
# Of a policy, which has no head of its own to begin with.
POLICY_TRAINABLE = ("all", "last_layers", "lora")
# Of pairs, and of a prompt's completions as a whole.
PAIRWISE_OBJECTIVES = ("asymmetric", "hinge", "squared_hinge", "logistic")
OBJECTIVES = (*PAIRWISE_OBJECTIVES, "max_entropy")
# Of a correction, which is found to rounding: smooth ones.
CORRECTIONS = ("squared_hinge", "logistic")
CONTRASTS = ("aligned", "placebo", "shuffled")
AGAINST = ("reference", "base")
FAMILIES = ("laplace", "mean_field")


def not_applicable(solver: SolverConfig, config: Config) -> str | None:
    """Why a solver has no meaning in a run, or None."""
    rlhf = config.rlhf
    if solver.name == "log_ratio" and isinstance(rlhf, TiltedConfig | BestOfNConfig):
        return (
            "solver=log_ratio needs an expert's log-probabilities; "
            f"rlhf={rlhf.name} has none of its own"
        )
    if solver.name == "log_ratio" and isinstance(rlhf, CheckpointRLHF) and rlhf.path is None:
        return "solver=log_ratio needs an expert's log-probabilities; a file of pairs has none"
    if solver.name == "oracle" and not knows_truth(config):
        return f"solver=oracle needs R*; ground_truth={config.ground_truth.name} says nothing of it"
    return None


def knows_truth(config: Config) -> bool:
    """Whether there is an R*."""
    return not isinstance(config.ground_truth, NoGroundTruth | LabelsGroundTruth)


def validate(config: Config) -> None:
    """The rules that hold between values. Raises InputError naming the first that is broken."""
    for rule in (
        _name,
        _ranges,
        _model,
        _dataset,
        _ground_truth,
        _second_classifier,
        _rlhf,
        _demonstrations,
        _given,
        _solver,
        _choices,
        _processes,
    ):
        rule(config)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def _name(config: Config) -> None:
    if config.name:
        require_name(config.name)


# What holds for a value of one of these names in whichever group it stands.
RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        (
            *("batch_size", "minibatch_size", "score_batch_size", "sample_batch_size", "threads"),
            "processes",
            *("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "context"),
            *("learning_rate", "value_learning_rate", "max_grad_norm", "iterations", "kl_coef"),
            *("epochs", "last_layers", "lora_rank", "patience"),
            *("clip_range", "value_clip_range", "stop_kl", "size", "prompt_words"),
            *("max_new_tokens", "prompts", "validation_prompts", "test_prompts", "k", "draws"),
            *("optimality_prompts", "optimality_samples", "prior_scale", "rounds", "tolerance"),
            *("margin", "identify_prior_scale", "kl_target", "kl_horizon", "micro_batch_size"),
            "clip_scores",
        ),
        ("a positive number", lambda value: value > 0),
    ),
    **dict.fromkeys(
        (
            *("weight_decay", "value_coef", "stop_distinct_2", "interpret_texts"),
            *("identify_pairs", "greedy_tokens"),
        ),
        ("0 or more", lambda value: value >= 0),
    ),
    **dict.fromkeys(
        ("warmup", "discount", "gae_lambda", "politeness", "length"),
        ("a share between 0 and 1", lambda value: 0 <= value <= 1),
    ),
    "folds": ("3 or more", lambda value: value >= 3),
    **dict.fromkeys(
        ("members", "candidates", "group_size"), ("2 or more", lambda value: value >= 2)
    ),
    "level": ("a share between 0 and 1", lambda value: 0 < value < 1),
    # What the libraries' generators take.
    **dict.fromkeys(
        (
            *("data", "policy", "alignment", "demonstrations", "recovery"),
            *("initialization", "order", "seed"),
        ),
        ("0 to 4294967295", lambda value: 0 <= value < 2**32),
    ),
    "on_error": (f"one of {', '.join(ON_ERROR)}", lambda value: value in ON_ERROR),
}


def _ranges(config: Config) -> None:
    _require(
        bool(config.paths.store), "paths.store is empty (or IRL_EXP_STORE is); expected a folder"
    )
    nodes: dict[str, Any] = {"": config}
    nodes |= {f"{name}.": node for name, node in vars(config).items() if is_dataclass(node)}
    nodes |= {f"{where}.": node for where, node in _solvers(config).items()}
    nodes |= {f"{where}.": node for where, node in _rlhfs(config).items()}
    nodes |= {f"{where}.": node for where, node in _ground_truths(config).items()}
    for where, node in nodes.items():
        for name, value in vars(node).items():
            if (where, name) == ("model.", "epochs"):
                continue  # a checkpoint may be taken as it is: _model says
            if isinstance(value, float):
                _require(math.isfinite(value), f"{where}{name}={value}: expected a finite number")
            if name in RULES and isinstance(value, int | float | str):
                expected, holds = RULES[name]
                _require(holds(value), f"{where}{name}={value}: expected {expected}")


def _model(config: Config) -> None:
    model = config.model
    _require(model.epochs >= 0, f"model.epochs={model.epochs}: expected 0 or more")
    if isinstance(model, ScratchModel):
        _require(model.epochs > 0, "model.epochs=0: a model from scratch must be trained")
        _require(
            model.hidden_size % model.heads == 0,
            f"model.hidden_size={model.hidden_size}: expected a multiple of "
            f"model.heads={model.heads}",
        )
        _require(
            model.vocab_size >= 258,
            f"model.vocab_size={model.vocab_size}: expected at least 258 "
            "(256 bytes and two special tokens)",
        )
        _require(
            config.dataset.max_new_tokens < model.context,
            f"dataset.max_new_tokens={config.dataset.max_new_tokens}: expected less than "
            f"model.context={model.context}, which holds the prompt too",
        )
        _require(
            config.evaluation.greedy_tokens < model.context,
            f"evaluation.greedy_tokens={config.evaluation.greedy_tokens}: expected less than "
            f"model.context={model.context}, which holds the prompt too",
        )


def _dataset(config: Config) -> None:
    shares = asdict(config.dataset.shares)
    _require(
        min(shares.values()) > 0 and abs(sum(shares.values()) - 1) < 1e-6,
        f"dataset.shares={shares}: expected positive shares that sum to 1",
    )
    dataset = config.dataset
    _require(
        dataset.size is None or dataset.size >= 8,
        f"dataset.size={dataset.size}: expected at least 8, one of each class in each split",
    )
    if isinstance(dataset, SyntheticDataset):
        _require(
            dataset.size is not None, "dataset.size=null: expected how many comments to generate"
        )
    if isinstance(dataset, TableDataset):
        names = dataset.label_column
        names = names if isinstance(names, list) else [names]
        _require(
            bool(names) and all(isinstance(name, str) for name in names),
            f"dataset.label_column={dataset.label_column}: expected a column or a list of columns",
        )
    if isinstance(innermost(config.ground_truth), ClosedFormGroundTruth):
        _require(
            isinstance(dataset, SyntheticDataset),
            "ground_truth=closed_form knows the embedded grammar alone; "
            f"got dataset={dataset.name}",
        )


def _ground_truth(config: Config) -> None:
    for where, each in _ground_truths(config).items():
        if isinstance(each, PlantedGroundTruth):
            strengths = (*("length_bonus", "word_bonus", "politeness_bonus", "trigger_flip"),)
            _require(
                any(getattr(each, name) for name in strengths),
                f"{where}: nothing is planted; expected one of {', '.join(strengths)} not to be 0",
            )
            _require(
                not isinstance(each.base, PlantedGroundTruth),
                f"{where}.base=planted: expected a reward that nothing is planted in",
            )
            _require(
                each.trigger_flip >= 0,
                f"{where}.trigger_flip={each.trigger_flip}: expected 0 or more",
            )
            for name in ("word", "trigger"):
                _require(
                    bool(getattr(each, name).strip()), f"{where}.{name} is empty; expected a word"
                )


def _ground_truths(config: Config) -> dict[str, GroundTruthConfig]:
    """R* by where it stands, with those that it is built on."""
    where, each = "ground_truth", config.ground_truth
    found = {where: each}
    while isinstance(each, PlantedGroundTruth):
        where, each = f"{where}.base", each.base
        found[where] = each
    return found


def _second_classifier(config: Config) -> None:
    second, truth = config.evaluation.second, innermost(config.ground_truth)
    if second and isinstance(truth, ClassifierGroundTruth):
        _require(
            second.path != truth.path,
            f"evaluation.second_classifier={second.path}: that is R*; expected another",
        )


def _rlhf(config: Config) -> None:
    rlhf = config.rlhf
    for where, each in _rlhfs(config).items():
        if isinstance(each, PPOConfig | GroupConfig):
            _require(
                each.batch_size % each.minibatch_size == 0,
                f"{where}.batch_size={each.batch_size}: expected a multiple of "
                f"{where}.minibatch_size={each.minibatch_size}",
            )
        if isinstance(each, PPOConfig):
            _require(
                config.trainer.precision != "16-mixed",
                f"{where}={each.name} with trainer.precision=16-mixed, whose scaled gradients it "
                "would clip; expected 32-true or bf16-mixed",
            )
            micro = each.micro_batch_size
            _require(
                micro is None or each.minibatch_size % micro == 0,
                f"{where}.minibatch_size={each.minibatch_size}: expected a multiple of "
                f"{where}.micro_batch_size={micro}",
            )
            _trainable(config.model, where, each, POLICY_TRAINABLE)
    if isinstance(rlhf, GroupConfig):
        _require(
            rlhf.batch_size % rlhf.group_size == 0,
            f"rlhf.batch_size={rlhf.batch_size}: expected a multiple of "
            f"rlhf.group_size={rlhf.group_size}",
        )
    if isinstance(rlhf, TiltedConfig | RaftConfig):
        _require(
            rlhf.candidates >= 64,
            f"rlhf.candidates={rlhf.candidates}: expected at least 64 (fewer cap the KL too low)",
        )
    if isinstance(rlhf, TiltedConfig | BestOfNConfig):
        _require(
            not getattr(config.demonstrations, "greedy", False),
            f"demonstrations.greedy=true has no meaning for rlhf={rlhf.name}, which chooses among "
            "samples",
        )
    evaluation = config.evaluation
    _require(
        evaluation.optimality_samples >= 256,
        f"evaluation.optimality_samples={evaluation.optimality_samples}: expected at least 256 "
        "(a log-mean-exp over fewer is biased low)",
    )


def _demonstrations(config: Config) -> None:
    demonstrations = config.demonstrations
    if not isinstance(demonstrations, SampledDemonstrations):
        return
    k, contrast = demonstrations.k, demonstrations.contrast
    _require(
        not demonstrations.greedy or k == 1,
        f"demonstrations.k={k}: with greedy=true all would be the same; expected 1",
    )
    _require(
        contrast in CONTRASTS,
        f"demonstrations.contrast={contrast}: expected one of {', '.join(CONTRASTS)}",
    )
    _require(
        not demonstrations.greedy or contrast != "placebo",
        "demonstrations.contrast=placebo: with greedy=true both sides would be the same; "
        "expected greedy=false",
    )
    against = demonstrations.against
    _require(
        against in AGAINST,
        f"demonstrations.against={against}: expected one of {', '.join(AGAINST)}",
    )
    if against == "base":
        _require(
            contrast != "placebo",
            "demonstrations.against=base with contrast=placebo, which is the reference against "
            "itself; expected against=reference",
        )
        _require(
            before_tuning(config.model) != config.model,
            "demonstrations.against=base: the reference is its own base; expected model.base=..., "
            "or more of model.epochs",
        )


def _given(config: Config) -> None:
    """What comes from the user in the place of what a study makes itself."""
    if isinstance(config.rlhf, CheckpointRLHF):
        _given_policies(config, config.rlhf)
    else:
        for given in (config.demonstrations, config.dataset, config.ground_truth):
            kinds = FileDemonstrations | PromptsDataset | NoGroundTruth | LabelsGroundTruth
            group = {FileDemonstrations: "demonstrations", PromptsDataset: "dataset"}
            _require(
                not isinstance(given, kinds),
                f"{group.get(type(given), 'ground_truth')}={given.name} with rlhf="
                f"{config.rlhf.name}, which is to train the aligned policy; expected "
                "rlhf=checkpoint, as of +experiment=audit",
            )
    if isinstance(config.dataset, PromptsDataset):
        _given_prompts(config, config.dataset)
    if isinstance(config.demonstrations, FileDemonstrations):
        shares = asdict(config.demonstrations.shares)
        _require(
            min(shares.values()) > 0 and abs(sum(shares.values()) - 1) < 1e-6,
            f"demonstrations.shares={shares}: expected positive shares that sum to 1",
        )


def _given_policies(config: Config, rlhf: CheckpointRLHF) -> None:
    """The aligned policy by itself, or by what it wrote."""
    _require(
        getattr(config.demonstrations, "against", "reference") == "reference",
        "demonstrations.against=base: in an audit model.path is what it was aligned from; expected "
        "against=reference",
    )
    _require(
        config.evaluation.second_classifier is None,
        f"evaluation.second_classifier={config.evaluation.second_classifier}: an audit asks no "
        "second one; expected null, or ground_truth=classifier",
    )
    from_file = isinstance(config.demonstrations, FileDemonstrations)
    _require(
        bool(rlhf.path) or from_file,
        "rlhf.path=null: expected the aligned checkpoint, or demonstrations=file of what it wrote",
    )
    _require(
        not (rlhf.path and from_file),
        f"rlhf.path={rlhf.path} with demonstrations={config.demonstrations.name}: who wrote these "
        "pairs is not asked; expected rlhf.path=null, or demonstrations=sampled_all",
    )
    _require(
        not (rlhf.path and isinstance(config.model, ScratchModel)),
        f"model={config.model.name} with rlhf.path={rlhf.path}: expected the model that it was "
        "aligned from, as model=checkpoint model.path=PATH",
    )


def _given_prompts(config: Config, dataset: PromptsDataset) -> None:
    pairs, truth = config.demonstrations, innermost(config.ground_truth)
    _require(
        bool(dataset.path) or isinstance(pairs, FileDemonstrations),
        "dataset.path=null: expected a file of prompts, or demonstrations=file, which has some",
    )
    _require(
        not (dataset.path and isinstance(pairs, FileDemonstrations) and config.model.epochs),
        f"model.epochs={config.model.epochs}: prompts are nothing to learn to write from; expected "
        "0, or dataset.path=null for the texts of the file of pairs",
    )
    _require(
        not dataset.path or not isinstance(config.model, ScratchModel),
        f"model={config.model.name}: prompts are nothing to learn to write from; expected "
        "model=checkpoint, or dataset.path=null for the texts of a file of pairs",
    )
    if not dataset.path and isinstance(pairs, FileDemonstrations):
        ours, theirs = dataset.shares, pairs.shares
        _require(
            abs(ours.train - theirs.train) + abs(ours.test - theirs.test) < 1e-6,
            f"dataset.shares.train={ours.train}, test={ours.test}, demonstrations.shares.train="
            f"{theirs.train}, test={theirs.test}: expected the same in both groups, which split "
            "one file; of each group all shares sum to 1",
        )
    _require(
        not isinstance(truth, TrainedGroundTruth | ClosedFormGroundTruth | RandomGroundTruth),
        f"ground_truth={truth.name} with dataset=prompts, which has no labels; expected none, "
        "labels, classifier or reward",
    )


def _solver(config: Config) -> None:
    reason = not_applicable(config.solver, config)
    _require(reason is None, reason or "")
    for where, solver in _solvers(config).items():
        if isinstance(solver, GradientSolver):
            _trainable(config.model, where, solver, TRAINABLE)
        if isinstance(solver, MarginSolver):
            # The oracle is told the odds of pairs, which no likelihood of whole pools is made of.
            known = PAIRWISE_OBJECTIVES if solver.name == "oracle" else OBJECTIVES
            _require(
                solver.objective in known,
                f"{where}.objective={solver.objective}: expected one of {', '.join(known)}",
            )
        if isinstance(solver, ReleasedSolver):
            _released(config, where, solver)
        if isinstance(solver, BayesianSolver):
            _require(
                solver.family in FAMILIES,
                f"{where}.family={solver.family}: expected one of {', '.join(FAMILIES)}",
            )
        if isinstance(solver, SvmSolver | FailureAwareSolver):
            _require(
                bool(solver.penalties) and all(c > 0 for c in solver.penalties),
                f"{where}.penalties={solver.penalties}: expected a list of positive numbers",
            )
        if isinstance(solver, GradientSolver) and isinstance(config.rlhf, CheckpointRLHF):
            _require(
                not solver.trace,
                f"{where}.trace=true with rlhf={config.rlhf.name}: expected false; an audit has no "
                "panel of texts to trace",
            )
        if where != "solver" and isinstance(solver, GradientSolver):
            _require(
                not solver.trace,
                f"{where}.trace=true: expected false; what the run's own solver learns is traced, "
                "and neither members, bases nor controls",
            )
        if isinstance(solver, PlanningSolver) and solver.rlhf:
            _require(
                isinstance(solver.rlhf, PPOConfig),
                f"{where}.rlhf={solver.rlhf.name}: expected ppo, or null for weights",
            )
        if isinstance(solver, EnsembleSolver):
            _require(
                _follows_its_seed(solver.base),
                f"{where}.base={solver.base.name}: expected a solver whose result depends on the "
                "seed, such as hinge; all members would be the same",
            )
        if isinstance(solver, FailureAwareSolver):
            base = solver.base
            _require(
                isinstance(base, MarginSolver | MaxEntropySolver),
                f"{where}.base={base.name}: expected hinge, squared_hinge, logistic or max_entropy",
            )
            _require(
                not (isinstance(base, MarginSolver) and base.objective == "asymmetric"),
                f"{where}.base={base.name}: its scale is that of the stopping time, and a margin "
                "means nothing to it; expected hinge, squared_hinge, logistic or max_entropy",
            )
            _require(
                solver.objective in CORRECTIONS,
                f"{where}.objective={solver.objective}: expected one of {', '.join(CORRECTIONS)}",
            )


def _released(config: Config, where: str, solver: ReleasedSolver) -> None:
    _require(
        solver.warmup == 0,
        f"{where}.warmup={solver.warmup}: expected 0, for its learning rate is constant",
    )
    _require(
        config.trainer.processes == 1,
        f"{where}={solver.name} trains in one process; expected trainer=cpu or gpu",
    )
    _require(
        solver.objective in PAIRWISE_OBJECTIVES or not solver.last_characters,
        f"{where}.objective={solver.objective}: with last_characters=true there are no pools; "
        f"expected one of {', '.join(PAIRWISE_OBJECTIVES)}",
    )
    pairs = config.demonstrations
    if not isinstance(pairs, SampledDemonstrations) or pairs.prompts is None:
        asked = f"{where}.last_characters=true: expected demonstrations=paper"
        return _require(not solver.last_characters, asked)
    prompts, k = pairs.prompts, pairs.k
    _require(
        not solver.last_characters or (solver.batch_size, k, prompts % 2) == (2, 1, 0),
        f"{where}.last_characters=true joins the completions of two prompts; expected "
        f"{where}.batch_size=2, demonstrations.k=1 and an even demonstrations.prompts; "
        f"got {solver.batch_size}, {k} and {prompts}",
    )
    _require(
        not solver.late or (where == "solver" and solver.epochs > 1),
        f"{where}.late=true: expected false, but for the run's own solver and two epochs or more",
    )


def _solvers(config: Config) -> dict[str, SolverConfig]:
    """Every solver of the run by where it stands, those that others build on included."""
    found = {"solver": config.solver}
    found |= {f"evaluation.controls.{n}": c for n, c in config.evaluation.controls.items()}
    for where, solver in list(found.items()):
        while isinstance(solver, EnsembleSolver | FailureAwareSolver):
            where, solver = f"{where}.base", solver.base
            found[where] = solver
    return found


def _rlhfs(config: Config) -> dict[str, RLHFConfig]:
    """Every RLHF of the run by where it stands, those in the rounds of a solver included."""
    found = {"rlhf": config.rlhf}
    for where, solver in _solvers(config).items():
        if isinstance(solver, PlanningSolver) and solver.rlhf:
            found[f"{where}.rlhf"] = solver.rlhf
    return found


def _follows_its_seed(solver: SolverConfig) -> bool:
    if isinstance(solver, FailureAwareSolver):
        return _follows_its_seed(solver.base)
    return isinstance(solver, GradientSolver)


def _trainable(
    model: ModelConfig, where: str, trained: GradientSolver | PPOConfig, known: tuple[str, ...]
) -> None:
    _require(
        trained.trainable in known,
        f"{where}.trainable={trained.trainable}: expected one of {', '.join(known)}",
    )
    if not isinstance(model, ScratchModel):
        return  # how large it is is not known yet
    if trained.trainable == "last_layers":
        _require(
            trained.last_layers <= model.layers,
            f"{where}.last_layers={trained.last_layers}: expected at most "
            f"model.layers={model.layers}",
        )
    if trained.trainable == "lora":
        _require(
            trained.lora_rank <= model.hidden_size,
            f"{where}.lora_rank={trained.lora_rank}: expected at most "
            f"model.hidden_size={model.hidden_size}",
        )


def _choices(config: Config) -> None:
    _require(
        config.until is None or config.until in STEPS,
        f"until={config.until}: expected one of {', '.join(STEPS)}",
    )
    _require(
        config.evaluation.threshold in ("calibrated", "zero"),
        f"evaluation.threshold={config.evaluation.threshold}: expected calibrated or zero",
    )
    _require(
        config.evaluation.labels in ("human", "ground_truth"),
        f"evaluation.labels={config.evaluation.labels}: expected human or ground_truth",
    )
    _require(
        config.evaluation.texts in ("held_out", "training"),
        f"evaluation.texts={config.evaluation.texts}: expected held_out or training",
    )
    _require(
        config.evaluation.texts == "held_out" or config.evaluation.labels == "ground_truth",
        "evaluation.texts=training: nobody has labelled these; expected "
        "evaluation.labels=ground_truth",
    )
    _require(
        not config.evaluation.released_shaping or isinstance(config.rlhf, PPOConfig),
        f"evaluation.released_shaping=true with rlhf={config.rlhf.name}: expected ppo",
    )
    frontier = config.evaluation.frontier
    names = {f"{times:g}" for times in frontier}  # as in the numbers and the artifacts of each
    _require(
        all(0 < times < math.inf for times in frontier) and len(names - {"1"}) == len(frontier),
        f"evaluation.frontier={frontier}: expected different positive multiples of the aligned "
        "policy's KL; once that KL is always among them",
    )
    audits = isinstance(config.rlhf, CheckpointRLHF)
    own = "validation/preference_accuracy" if audits else "validation/recovery_auc"
    _require(
        config.objective not in SELECTABLE or config.objective == own,
        f"objective={config.objective}: expected {own}, which a run with rlhf={config.rlhf.name} "
        f"has{' (+experiment=audit sets it)' if audits else ''}",
    )
    _require(
        config.objective in SELECTABLE,
        f"objective={config.objective}: expected a metric of the validation split "
        f"({', '.join(SELECTABLE)}); nothing is selected on test data",
    )
    tracker = config.tracker
    if isinstance(tracker, WandbTracker):
        _require(
            tracker.mode in WANDB_MODES,
            f"tracker.mode={tracker.mode}: expected one of {', '.join(WANDB_MODES)}",
        )
        _require(bool(tracker.project), "tracker.project is empty; expected the name of a project")
    trainer = config.trainer
    _require(
        trainer.accelerator in ACCELERATORS,
        f"trainer.accelerator={trainer.accelerator}: expected one of {', '.join(ACCELERATORS)}",
    )
    _require(
        trainer.precision in PRECISIONS,
        f"trainer.precision={trainer.precision}: expected one of {', '.join(PRECISIONS)}",
    )
    _require(
        config.trainer.matmul_precision in ("highest", "high", "medium"),
        f"trainer.matmul_precision={config.trainer.matmul_precision}: "
        "expected highest, high or medium",
    )


def _processes(config: Config) -> None:
    """What several processes can share."""
    trainer = config.trainer
    if trainer.processes == 1:
        _require(
            not trainer.sharded,
            "trainer.sharded=true with trainer.processes=1: there is nobody to divide networks "
            "with; expected trainer=fsdp and 2 processes or more",
        )
        return
    _require(
        not (trainer.sharded and trainer.precision == "16-mixed"),
        "trainer.precision=16-mixed with trainer.sharded=true: expected 32-true or bf16-mixed",
    )
    _require(
        trainer.accelerator != "mps",
        f"trainer.accelerator=mps: of trainer.processes={trainer.processes} only one could have "
        "it; expected cpu or gpu",
    )
    for where, each in _rlhfs(config).items():
        _require(
            not isinstance(each, GroupConfig | DPOConfig),
            f"{where}={each.name} trains in one process; expected trainer=cpu or gpu, or "
            f"{where}=ppo or raft",
        )
        if isinstance(each, PPOConfig):
            for name in ("minibatch_size", "micro_batch_size"):
                rows = getattr(each, name)
                _require(
                    rows is None or rows % trainer.processes == 0,
                    f"{where}.{name}={rows}: expected a multiple of "
                    f"trainer.processes={trainer.processes}",
                )
