"""RLOO, GRPO and DPO by TRL's trainers, behind one door: our policies, our rewards, our curves.

Everything is set so that what is maximized is E R - beta KL(pi || pi_ref) per completion, as by
PPO, with beta in the same unit:

- RLOO (Ahmadian et al., arXiv 2402.14740): R - beta log pi/pi_ref of a whole completion, less the
  mean of the other completions of its prompt; not divided by a standard deviation.
- GRPO (Shao et al., arXiv 2402.03300) without the division by each prompt's standard deviation and
  by each completion's length (Liu et al., arXiv 2503.20783), both of which change what is
  maximized from prompt to prompt; the KL is a term of the loss.
- DPO (Rafailov et al., arXiv 2305.18290): pairs of the reference's completions, of which one is
  preferred with Bradley and Terry's probability sigmoid(R - R'). Its optimum is the tilted expert.
"""

import json
import math
import random
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from irl_exp.config import DPOConfig, GroupConfig, InputError, TrainerConfig
from irl_exp.models import generation, language_model, policies
from irl_exp.models.generation import NetworkPolicy
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.reward_model import Scorer
from irl_exp.modules import finite
from irl_exp.modules.ppo import adapted
from irl_exp.modules.training import CURVES_FILE, WORKING_FOLDER

# Checkpoints of a training.
SAVES = 10


def align(
    config: GroupConfig | DPOConfig,
    reference: Path,
    reward: Scorer,
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    generator: torch.Generator,
    trainer: TrainerConfig,
    folder: Path,
) -> None:
    """Train the policy in the folder `reference` and save it in `folder`.

    Goes on from the last checkpoint that a killed training left there. The libraries draw from
    global generators; they are seeded from `generator`, which is on the device that computes, and
    left as they were.
    """
    policy = generation.load_network(reference, str(generator.device))
    working = folder / WORKING_FOLDER
    last = get_last_checkpoint(working) if working.is_dir() else None
    with _seeded(generator) as seed:
        common = {
            "output_dir": str(working),
            "seed": seed,
            "learning_rate": config.learning_rate,
            "lr_scheduler_type": "linear",
            "max_grad_norm": config.max_grad_norm,
            # Dropout off, as in PPO: what is sampled from is what is trained.
            "disable_dropout": True,
            "gradient_checkpointing": trainer.recompute_activations,
            "use_cpu": generator.device.type == "cpu",
            "bf16": trainer.precision == "bf16-mixed",
            "fp16": trainer.precision == "16-mixed",
            "report_to": "none",
            "disable_tqdm": not sys.stderr.isatty(),
            "dataloader_pin_memory": False,
            "save_total_limit": 1,
        }
        if isinstance(config, DPOConfig):
            base = NetworkPolicy(policy, max_new_tokens, trainer.sample_batch_size)
            rows = labelled_pairs(base, reward, prompts, config.k, generator)
            worker = _preferences(config, policy, rows, max_new_tokens, common)
        else:
            worker = _groups(config, policy, reward, prompts, max_new_tokens, common)
            worker.add_callback(_KLControl(config, worker))
        (folder / finite.BATCH_FILE).unlink(missing_ok=True)  # of an attempt before
        worker.folder = folder
        worker.add_callback(_FiniteGradients(worker))
        worker.remove_callback(PrinterCallback)  # curves are ours to write
        if last:
            # The trainer goes by the names in the file, which for some architectures are not the
            # network's, and passes over those that it does not know.
            policy.network.load_state_dict(language_model.load(Path(last)).network.state_dict())
        worker.train(resume_from_checkpoint=last)
    _write_curves(config, worker.state.log_history, folder)
    language_model.use_eager_attention(policy.network)
    policy.save(folder)
    policies.save_policy(folder, "network")


# --- RLOO and GRPO --------------------------------------------------------------------------------


def _groups(
    config: GroupConfig,
    policy: LanguageModel,
    reward: Scorer,
    prompts: Sequence[str],
    max_new_tokens: int,
    common: dict[str, Any],
) -> Any:
    # They take seconds to import, and are needed for nothing else.
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    minibatches = config.batch_size // config.minibatch_size
    updates = minibatches * config.epochs  # of one rollout
    steps = config.iterations * updates
    common |= {
        "max_steps": steps,
        "warmup_steps": round(config.warmup * steps),
        "logging_steps": updates,
        "save_steps": max(1, steps // SAVES),
        "per_device_train_batch_size": config.minibatch_size,
        "steps_per_generation": minibatches,
        "num_iterations": config.epochs,
        "num_generations": config.group_size,
        "max_completion_length": max_new_tokens,
        "beta": config.kl_coef,
        "epsilon": config.clip_range,
        # The policy's own distribution, from the first token to the last.
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
    }
    kind, arguments = (
        (RLOOTrainer, RLOOConfig(**common))
        if config.name == "rloo"
        else (GRPOTrainer, GRPOConfig(**common, loss_type="dr_grpo", scale_rewards="none"))
    )

    arguments._n_gpu = 1  # other devices are not ours, and TRL refuses to train where it sees them

    class OurPrompts(_FiniteLoss, kind):  # type: ignore[misc, valid-type]
        """Reads prompts as every other step of ours does."""

        def _tokenize_prompts(self, texts: list[str]) -> tuple[list[list[int]], None, dict]:
            return language_model.prompt_rows(policy, texts, max_new_tokens), None, {}

    # Prompts that do not fill a rollout would be dropped: where there are few, they come again.
    wanted = config.batch_size // config.group_size
    rows = list(prompts) * -(-wanted // len(prompts))
    return OurPrompts(
        model=policy.network,
        reward_funcs=reward_func(policy, reward),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": rows}),
        processing_class=policy.tokenizer,
    )


def reward_func(policy: LanguageModel, reward: Scorer) -> Any:
    """A reward as TRL's trainers call it, of what the tokens say: TRL's texts may lack a space."""

    def score(
        prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **rest: Any
    ) -> list[float]:
        texts = generation.written(policy, prompts, completion_ids)
        return _scores(reward, prompts, texts).tolist()

    return score


class _KLControl(TrainerCallback):
    """Gives the trainer the beta of its next rollout, from the first or the one it goes on with."""

    def __init__(self, config: GroupConfig, worker: Any) -> None:
        self.config, self.worker = config, worker

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.worker.beta = kl_coefs(self.config, state.log_history)[-1]

    on_log = on_train_begin


def kl_coefs(config: GroupConfig, history: Sequence[Mapping[str, float]]) -> list[float]:
    """beta of each rollout that TRL has logged, and of the next: as PPO adapts it, if at all."""
    found = [config.kl_coef]
    for entry in history:
        if not _of_a_rollout(entry):
            continue
        if config.kl_target is None:
            found.append(config.kl_coef)
            continue
        rate = config.batch_size / config.kl_horizon
        found.append(adapted(found[-1], _per_completion("kl", entry), config.kl_target, rate))
    return found


def _of_a_rollout(entry: Mapping[str, float]) -> bool:
    return "loss" in entry and "reward" in entry


def _per_completion(name: str, entry: Mapping[str, float]) -> float:
    """TRL's KL and entropy are per token, ours per completion."""
    return entry[name] * entry["completions/mean_length"]


# --- DPO ------------------------------------------------------------------------------------------


def _preferences(
    config: DPOConfig,
    policy: LanguageModel,
    rows: dict[str, list[str]],
    max_new_tokens: int,
    common: dict[str, Any],
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig as Arguments
    from trl import DPOTrainer

    steps = config.epochs * -(-len(rows["prompt"]) // config.batch_size)
    common |= {
        "num_train_epochs": config.epochs,
        "warmup_steps": round(config.warmup * steps),
        "logging_steps": max(1, steps // 50),
        "save_steps": max(1, steps // SAVES),
        "per_device_train_batch_size": config.batch_size,
        "beta": config.kl_coef,
        "max_length": None,
    }

    class OurTokens(_FiniteLoss, DPOTrainer):
        """Takes token rows as they are: a completion that was cut off does not get an end."""

        def _prepare_dataset(self, dataset: Dataset, *rest: Any) -> Dataset:
            return dataset

    ids = {
        "prompt_ids": language_model.prompt_rows(policy, rows["prompt"], max_new_tokens),
        **{
            f"{side}_ids": language_model.completion_rows(policy, rows[side], max_new_tokens)
            for side in ("chosen", "rejected")
        },
    }
    arguments = Arguments(**common)
    arguments._n_gpu = 1
    return OurTokens(
        model=policy.network,
        args=arguments,
        train_dataset=Dataset.from_dict(rows | ids),
        processing_class=policy.tokenizer,
    )


def labelled_pairs(
    reference: NetworkPolicy,
    reward: Scorer,
    prompts: Sequence[str],
    k: int,
    generator: torch.Generator,
) -> dict[str, list[str]]:
    """k pairs of the reference's completions of each prompt: `prompt`, `chosen`, `rejected`.

    Which one is chosen is drawn: the first of a pair with probability sigmoid(R - R'), Bradley and
    Terry's model with the reward in its unit.
    """
    samples = reference.sample(prompts, 2 * k, generator)
    texts = samples.flat()
    scores = _scores(reward, *texts).view(-1, 2)
    odds = torch.sigmoid(scores[:, 0] - scores[:, 1])
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    first = torch.rand(len(odds), generator=torch.Generator().manual_seed(seed)) < odds
    pairs = [texts[1][i : i + 2] for i in range(0, len(texts[1]), 2)]
    ordered = [pair if wins else pair[::-1] for pair, wins in zip(pairs, first, strict=True)]
    return {
        "prompt": texts[0][::2],
        "chosen": [better for better, _ in ordered],
        "rejected": [worse for _, worse in ordered],
    }


# --- what the libraries share ---------------------------------------------------------------------


def _scores(reward: Scorer, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
    """Float32 [n]; of what is not finite TRL would say nothing.

    Raises:
        InputError: a score is not finite.
    """
    scores = reward.score(prompts, completions)
    for score, text in zip(scores.tolist(), completions, strict=True):
        if not math.isfinite(score):
            raise InputError(f"the reward gave {score:g} to {text!r}; expected a finite score")
    return scores


class _FiniteLoss:
    """Stops one of TRL's trainers at a loss that is not finite, as modules/finite.py does ours."""

    folder: Path
    batch: Any
    state: Any

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        self.batch = inputs
        result = super().compute_loss(model, inputs, *rest, **named)  # type: ignore[misc]
        loss = result[0] if isinstance(result, tuple) else result
        if not loss.isfinite():
            self.refuse(f"the loss is {loss:g}")
        return result

    def refuse(self, what: str) -> NoReturn:
        name = type(self).__mro__[2].__name__  # TRL's
        finite.refuse(name, self.state.global_step, what, self.batch, self.folder)


class _FiniteGradients(TrainerCallback):
    """The same of gradients; with 16-mixed such steps are left out."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        found = [p.grad for p in self.worker.model.parameters() if p.grad is not None]
        if not args.fp16 and not (norm := torch.nn.utils.get_total_norm(found)).isfinite():
            self.worker.refuse(f"the gradient's norm is {norm:g}")


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[int]:
    """Global generators from a seed that `generator` draws, and afterwards as they were."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            # What TRL has yet to rename in transformers is none of a user's business.
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(seed)
            yield seed
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002


# TRL's names of what is worth keeping, and ours.
NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "reward": "objective/scores",
    "completions/mean_length": "completion/length",
    "clip_ratio/region_mean": "policy/clipfrac_avg",
    "rewards/margins": "rewards/margins",
    "rewards/accuracies": "rewards/accuracies",
    "rewards/chosen": "rewards/chosen",
    "rewards/rejected": "rewards/rejected",
}


def _write_curves(
    config: GroupConfig | DPOConfig, history: Sequence[Mapping[str, float]], folder: Path
) -> None:
    """TRL's log as our curves."""
    betas = iter(kl_coefs(config, history) if isinstance(config, GroupConfig) else [])
    with (folder / CURVES_FILE).open("w") as lines:
        for entry in history:
            if "loss" not in entry:
                continue  # the summary at the end
            numbers = {ours: entry[theirs] for theirs, ours in NAMES.items() if theirs in entry}
            if _of_a_rollout(entry):
                numbers["objective/kl"] = _per_completion("kl", entry)
                numbers["objective/entropy"] = _per_completion("entropy", entry)
                numbers["objective/kl_coef"] = next(betas)
            lines.write(json.dumps({"global_step": entry["step"], **numbers}) + "\n")
