"""TRL's PPOTrainer as an arm of benchmarks/parts/ppo.py, which runs this where TRL is installed.

Three ways to use it. `trl`: all that its configuration does not have to be told. `trl-tuned`: all
that was found to make it faster and leaves what it computes as it is. `trl-shared`: the same, and
its value model reads the policy's own body. All have R* in TRL's own way, a classifier of tokens.
"""

import argparse
import gc
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

from benchmarks.measure import counted
from benchmarks.parts import ppo
from benchmarks.parts.ppo import Clock, Enough, Workload


class Ticking(TrainerCallback):
    """Tells the clock of every iteration."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self.clock.tick()


def configuration(given: argparse.Namespace, workload: Workload, folder: Path) -> PPOConfig:
    """The workload, and nothing written; a tuned one rolls out its whole batch at once."""
    cuda = given.device == "cuda"
    tuned = {} if given.arm == "trl" else {"local_rollout_forward_batch_size": workload.batch}
    return PPOConfig(
        output_dir=str(folder),
        use_cpu=not cuda,
        bf16=cuda,
        per_device_train_batch_size=workload.batch,
        gradient_accumulation_steps=1,
        num_mini_batches=workload.batch // workload.minibatch,
        num_ppo_epochs=ppo.EPOCHS,
        total_episodes=workload.batch * (1 if given.count else ppo.ENDLESS),
        response_length=workload.new,
        temperature=1.0,
        stop_token="eos",
        learning_rate=ppo.LEARNING_RATE,
        kl_coef=ppo.KL_COEF,
        lam=ppo.GAE_LAMBDA,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **tuned,
    )


def networks(given: argparse.Namespace) -> dict[str, Any]:
    """Policy, reference, value model and R*."""
    reference, reward = given.folder / "reference", given.folder / "reward"
    tuned, cuda = given.arm != "trl", given.device == "cuda"
    plain = {"attn_implementation": "eager"} if tuned and not cuda else {}
    # What is not trained needs no 32-bit weights where products are made in 16.
    frozen = {**plain, "dtype": torch.bfloat16} if tuned and cuda else plain
    models = {
        "model": AutoModelForCausalLM.from_pretrained(reference, **plain),
        "ref_model": AutoModelForCausalLM.from_pretrained(reference, **frozen),
        "value_model": AutoModelForSequenceClassification.from_pretrained(
            reference, num_labels=1, **plain
        ),
        "reward_model": AutoModelForSequenceClassification.from_pretrained(reward, **frozen),
    }
    if given.arm == "trl-shared":
        models["value_model"].gpt_neox = models["model"].gpt_neox
    if tuned and cuda:
        policy = models["model"]
        policy.forward = torch.autocast("cuda", torch.bfloat16)(policy.forward)  # generation, too
    if tuned:
        for model in models.values():
            model.config.use_cache = False  # of passes over whole texts; generation has its own
    return models


def trainer(given: argparse.Namespace, clock: Clock, folder: Path) -> PPOTrainer:
    workload = ppo.ALL[given.workload]
    tokenizer = AutoTokenizer.from_pretrained(given.folder / "reference", padding_side="left")
    rows = [tokenizer(prompt)["input_ids"] for prompt in workload.prompts]
    return PPOTrainer(
        args=configuration(given, workload, folder),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[Ticking(clock)],
        **networks(given),
    )


def tune() -> None:
    """What PPOTrainer asks of the garbage collector twice an iteration is made cheap, and matrix
    products may be made in the coarser format that a processor has."""
    torch.set_float32_matmul_precision("medium")
    gc.collect()
    gc.freeze()
    gc.disable()


def main() -> None:
    parser = argparse.ArgumentParser(description="An arm of benchmarks/parts/ppo.py.")
    parser.add_argument("arm", choices=ppo.PEERS)
    parser.add_argument("workload", choices=ppo.ALL)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--count", action="store_true")
    given = parser.parse_args()
    clock = Clock(given.device == "cuda")
    if clock.cuda and given.arm != "trl":
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"  # PPOTrainer's accelerator knows no bf16=
    with tempfile.TemporaryDirectory() as place:
        training = trainer(given, clock, Path(place))
        if given.arm != "trl":
            tune()
        if given.count:
            print(json.dumps({"flops": counted(training.train)}))
            return
        with suppress(Enough):
            training.train()
    print(json.dumps(clock.found(ppo.ALL[given.workload], **described(training))))


def described(training: PPOTrainer) -> dict[str, Any]:
    """What it was trained with, and how often a completion ended by itself."""
    optimizer = getattr(training.optimizer, "optimizer", training.optimizer)
    fused = ", fused" if optimizer.param_groups[0].get("fused") else ""
    return {
        "trl": trl.__version__,
        "precision": f"{training.accelerator.mixed_precision}-mixed"
        if training.accelerator.mixed_precision != "no"
        else "32-true",
        "attention": training.policy_model.config._attn_implementation,
        "optimizer": f"{type(optimizer).__name__}{fused}",
        "ended_early": sum(line["val/num_eos_tokens"] for line in training.state.log_history),
    }


if __name__ == "__main__":
    main()
