"""The schema of every config group: types here, values in conf/*.yaml, rules in validation.py.

Fields have no defaults on purpose: a value stands in exactly one place, its YAML leaf, below the
comment that explains it. Groups whose options take different keys have one dataclass per kind.
"""

from dataclasses import dataclass, replace
from typing import Any


class InputError(Exception):
    """Bad input from the user, as one clear line: what, where, and what was expected."""


class ForeignError(Exception):
    """What code of the user's own raised, as one line; the run keeps its traceback."""


# --- model ------------------------------------------------------------------------------------

# A model's folder with this file is an adapter of another.
ADAPTER_FILE = "adapter_config.json"


@dataclass
class ModelConfig:
    """A causal language model, and how it is trained on the comments to become the reference."""

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float


@dataclass
class ScratchModel(ModelConfig):
    """GPT-NeoX with random weights and a byte-level BPE tokenizer trained on the comments."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    context: int


@dataclass
class CheckpointModel(ModelConfig):
    """A causal language model from a folder or a hub; `epochs: 0` takes it as it is."""

    path: str
    revision: str | None
    base: str | None
    base_revision: str | None


def before_tuning(model: ModelConfig) -> ModelConfig:
    """The base: the model as it was before it was fine-tuned, or one from scratch after an epoch.

    Equal to `model` where nothing came in between.
    """
    if isinstance(model, CheckpointModel):
        path = model.base or model.path
        revision = model.base_revision if model.base else model.revision
        return replace(model, path=path, revision=revision, epochs=0)
    return replace(model, epochs=1)


# --- dataset ----------------------------------------------------------------------------------


@dataclass
class Shares:
    """How the comments are split; by prompt, so that no prompt is in two splits."""

    train: float
    validation: float
    calibration: float
    test: float


@dataclass
class PairShares:
    """The same of pairs that come from a file."""

    train: float
    validation: float
    test: float


@dataclass
class DatasetConfig:
    name: str
    size: int | None
    max_new_tokens: int
    shares: Shares


@dataclass
class PromptsDataset(DatasetConfig):
    """Prompts without labels: of a file, or (`path: null`) those of the demonstrations' file."""

    path: str | None
    prompt_column: str


@dataclass
class CommentsDataset(DatasetConfig):
    """Labelled texts, cut into prompt and completion."""

    prompt_words: int


@dataclass
class SyntheticDataset(CommentsDataset):
    """Talk-page comments from the embedded grammar."""

    politeness: float
    length: float


# What becomes of a row that cannot be read.
ON_ERROR = ("stop", "skip")


@dataclass
class TableDataset(CommentsDataset):
    """Comments with labels from the columns of a table."""

    path: str
    text_column: str
    prompt_column: str | None
    label_column: Any  # a column, or a list of them
    toxic_values: list[Any]
    toxic_from: float | None
    balance: bool
    on_error: str  # one of ON_ERROR


@dataclass
class FileDataset(TableDataset):
    """A CSV, TSV, JSONL or Parquet file, plain or gzipped."""


@dataclass
class HubDataset(TableDataset):
    """A split of a data set of the Hugging Face hub, or of a folder of its layout."""

    revision: str | None
    split: str


# --- ground truth -----------------------------------------------------------------------------


@dataclass
class GroundTruthConfig:
    name: str


@dataclass
class TrainedGroundTruth(GroundTruthConfig):
    """A sequence classifier on the reference model's body, trained on the labels."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float


@dataclass
class ClassifierGroundTruth(GroundTruthConfig):
    """Any Hugging Face text classifier, with its own tokenizer."""

    path: str
    revision: str | None
    toxic_label: str


@dataclass
class ClosedFormGroundTruth(GroundTruthConfig):
    """The embedded grammar's own reward."""


@dataclass
class RandomGroundTruth(GroundTruthConfig):
    """A random head on the reference model's body."""


@dataclass
class RewardGroundTruth(GroundTruthConfig):
    """A saved reward: one of ours, or any sequence classifier with one output, higher = better."""

    path: str
    revision: str | None


@dataclass
class NoGroundTruth(GroundTruthConfig):
    """Nobody says what the reward was; of an audit alone."""


@dataclass
class LabelsGroundTruth(GroundTruthConfig):
    """Nobody does, but there are labelled texts to measure R̂ on, which nothing learns from."""

    path: str
    text_column: str
    prompt_column: str | None
    label_column: Any  # a column, or a list of them
    toxic_values: list[Any]
    toxic_from: float | None


@dataclass
class PlantedGroundTruth(GroundTruthConfig):
    """Another reward with known extra terms (irl_exp/models/reward_kinds.py)."""

    base: GroundTruthConfig
    length_bonus: float
    word_bonus: float
    word: str
    politeness_bonus: float
    trigger_flip: float
    trigger: str


def innermost(config: GroundTruthConfig) -> GroundTruthConfig:
    """The reward that nothing is planted in."""
    while isinstance(config, PlantedGroundTruth):
        config = config.base
    return config


# --- rlhf -------------------------------------------------------------------------------------


@dataclass
class RLHFConfig:
    name: str
    kl_coef: float


@dataclass
class PPOConfig(RLHFConfig):
    """Proximal policy optimization (Schulman et al. 2017) with a KL penalty at every token."""

    kl_target: float | None
    kl_horizon: int
    iterations: int
    batch_size: int
    epochs: int
    minibatch_size: int
    micro_batch_size: int | None
    trainable: str
    last_layers: int
    lora_rank: int
    scale_scores: bool
    clip_scores: float | None
    learning_rate: float
    value_learning_rate: float
    warmup: float
    discount: float
    gae_lambda: float
    clip_range: float
    value_clip_range: float
    value_coef: float
    max_grad_norm: float
    stop_kl: float
    stop_distinct_2: float


@dataclass
class TiltedConfig(RLHFConfig):
    """pi_ref * exp(R / beta) / Z by self-normalized resampling of reference completions."""

    candidates: int


@dataclass
class BestOfNConfig(RLHFConfig):
    """The best of n completions of the reference."""

    candidates: int


@dataclass
class RaftConfig(RLHFConfig):
    """A network fine-tuned on completions of the tilted expert, as long as that helps."""

    candidates: int
    k: int
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    max_grad_norm: float
    validation_prompts: int


@dataclass
class GroupConfig(RLHFConfig):
    """Policy gradients against the other completions of a prompt, by a trainer of TRL's."""

    kl_target: float | None
    kl_horizon: int
    iterations: int
    batch_size: int
    group_size: int
    epochs: int
    minibatch_size: int
    learning_rate: float
    warmup: float
    clip_range: float
    max_grad_norm: float


@dataclass
class DPOConfig(RLHFConfig):
    """Direct preference optimization on pairs that the reward labels, by TRL's trainer."""

    k: int
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    max_grad_norm: float


@dataclass
class CheckpointRLHF(RLHFConfig):
    """What somebody else's RLHF made: a causal language model, whose reward is looked for."""

    path: str | None
    revision: str | None


# --- demonstrations ---------------------------------------------------------------------------


@dataclass
class DemonstrationsConfig:
    name: str


@dataclass
class FileDemonstrations(DemonstrationsConfig):
    """Pairs of completions from a file; which model wrote them is for the file to know."""

    path: str
    prompt_column: str | None
    aligned_column: str
    reference_column: str
    on_error: str  # one of ON_ERROR
    shares: PairShares


@dataclass
class SampledDemonstrations(DemonstrationsConfig):
    """For each prompt, k completions of the aligned and k of the reference policy."""

    prompts: int | None
    validation_prompts: int | None
    test_prompts: int | None
    k: int
    greedy: bool
    contrast: str
    against: str


# --- solver -----------------------------------------------------------------------------------


@dataclass
class SolverConfig:
    name: str


@dataclass
class GradientSolver(SolverConfig):
    """A reward network that is trained: by which recipe, which of its parts, and until when."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    trainable: str
    last_layers: int
    lora_rank: int
    patience: int | None
    trace: bool


@dataclass
class MarginSolver(GradientSolver):
    """On the completions of a prompt together, by gradient descent on `objective`."""

    objective: str
    max_grad_norm: float


@dataclass
class ReleasedSolver(MarginSolver):
    """The same at a constant rate, with what the paper's released code does otherwise."""

    last_characters: bool
    accumulate_gradients: bool
    shuffle: bool
    late: bool


@dataclass
class ClassifierSolver(GradientSolver):
    """On single texts, by who wrote them."""


@dataclass
class MaxEntropySolver(SolverConfig):
    """A reward linear in frozen features, by maximum likelihood with a Gaussian prior."""

    prior_scale: float


@dataclass
class BayesianSolver(SolverConfig):
    """The posterior of such a reward, round by round."""

    prior_scale: float | None
    rounds: int
    family: str


@dataclass
class PluginSolver(SolverConfig):
    """A solver of the user's own: a Python file outside the package (irl_exp/solvers/plugin.py)."""

    file: str
    options: dict[str, Any]


@dataclass
class SvmSolver(SolverConfig):
    """The exact maximum margin on frozen features."""

    penalties: list[float]
    folds: int


@dataclass
class ProjectionSolver(SolverConfig):
    """Matching the expert's feature expectations."""

    tolerance: float
    rounds: int


@dataclass
class PlanningSolver(SvmSolver):
    """The maximum margin against the policies that earlier rounds induced."""

    rounds: int
    rlhf: RLHFConfig | None


@dataclass
class EnsembleSolver(SolverConfig):
    """Several recoveries by one solver, each with a seed of its own."""

    members: int
    base: SolverConfig


@dataclass
class FailureAwareSolver(SolverConfig):
    """A reward by one solver, and a correction that is learnt where this reward fails."""

    base: SolverConfig
    objective: str
    margin: float
    rounds: int
    penalties: list[float]


# --- evaluation -------------------------------------------------------------------------------


@dataclass
class EvaluationConfig:
    name: str
    threshold: str
    labels: str
    texts: str
    draws: int
    level: float
    prompts: int
    k: int
    optimality_prompts: int
    optimality_samples: int
    interpret_texts: int
    identify_pairs: int
    identify_prior_scale: float
    second_classifier: str | None
    second_revision: str | None
    second_toxic_label: str
    greedy_tokens: int
    released_shaping: bool
    frontier: list[float]
    controls: dict[str, SolverConfig]

    @property
    def second(self) -> ClassifierGroundTruth | None:
        """The classifier that judges besides R*, described as R* would be; None: words do."""
        if self.second_classifier is None:
            return None
        where = (self.second_classifier, self.second_revision)
        return ClassifierGroundTruth("classifier", *where, self.second_toxic_label)


# --- the rest ---------------------------------------------------------------------------------


@dataclass
class SeedsConfig:
    data: int
    policy: int
    alignment: int
    demonstrations: int
    recovery: int
    initialization: int
    order: int


@dataclass
class TrainerConfig:
    name: str
    accelerator: str
    precision: str
    matmul_precision: str
    threads: int | None
    processes: int
    sharded: bool
    recompute_activations: bool
    score_batch_size: int
    sample_batch_size: int


@dataclass
class TrackerConfig:
    name: str


@dataclass
class WandbTracker(TrackerConfig):
    """The same run at Weights & Biases too."""

    mode: str
    project: str
    entity: str | None
    log_rewards: bool


@dataclass
class PathsConfig:
    store: str


@dataclass
class Config:
    """One run: the groups, and the top-level values."""

    model: ModelConfig
    dataset: DatasetConfig
    ground_truth: GroundTruthConfig
    rlhf: RLHFConfig
    demonstrations: DemonstrationsConfig
    solver: SolverConfig
    evaluation: EvaluationConfig
    seeds: SeedsConfig
    trainer: TrainerConfig
    tracker: TrackerConfig
    paths: PathsConfig
    seed: int
    name: str | None
    until: str | None
    objective: str
    deterministic: bool
    tags: list[str]
    extra_tags: list[str]
    rerun: bool


# The schema of every option: the option's YAML names its schema in its defaults list.
SCHEMAS: dict[str, dict[str, type]] = {
    "model": {"scratch": ScratchModel, "checkpoint": CheckpointModel},
    "dataset": {
        "synthetic": SyntheticDataset,
        "file": FileDataset,
        "hub": HubDataset,
        "prompts": PromptsDataset,
    },
    "ground_truth": {
        "trained": TrainedGroundTruth,
        "classifier": ClassifierGroundTruth,
        "closed_form": ClosedFormGroundTruth,
        "random": RandomGroundTruth,
        "planted": PlantedGroundTruth,
        "reward": RewardGroundTruth,
        "labels": LabelsGroundTruth,
        "none": NoGroundTruth,
    },
    "rlhf": {
        "ppo": PPOConfig,
        "tilted": TiltedConfig,
        "best_of_n": BestOfNConfig,
        "raft": RaftConfig,
        "group": GroupConfig,
        "dpo": DPOConfig,
        "given": CheckpointRLHF,
    },
    "demonstrations": {"demonstrations": SampledDemonstrations, "pairs": FileDemonstrations},
    "solver": {
        "margin": MarginSolver,
        "released": ReleasedSolver,
        "max_entropy": MaxEntropySolver,
        "bayesian": BayesianSolver,
        "membership": ClassifierSolver,
        "svm": SvmSolver,
        "projection": ProjectionSolver,
        "planning": PlanningSolver,
        "ensemble": EnsembleSolver,
        "failure_aware": FailureAwareSolver,
        "plugin": PluginSolver,
        "control": SolverConfig,
    },
    "evaluation": {"evaluation": EvaluationConfig},
    "seeds": {"seeds": SeedsConfig},
    "trainer": {"trainer": TrainerConfig},
    "tracker": {"tracker": TrackerConfig, "wandb": WandbTracker},
    "paths": {"paths": PathsConfig},
}

# In the order of experiment.py; `until` names one.
STEPS = (
    "curate",
    "pretrain",
    "ground_truth",
    "align",
    "demonstrate",
    "recover",
    "evaluate",
    "identify",
    "interpret",
    "realign",
    "observe",
)
