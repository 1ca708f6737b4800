"""Align a policy with a reward that irl-export wrote, by TRL alone.

    python examples/train_with_trl.py POLICY REWARD PROMPTS.txt

POLICY is a causal language model and REWARD a sequence classifier with one output, each a folder
or a hub id; PROMPTS.txt has a prompt a line. Prints the mean reward of each step's completions.
"""

import argparse

from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Printed(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "reward" in logs:
            print(f"step {state.global_step:3d}  mean reward {logs['reward']:+.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy")
    parser.add_argument("reward")
    parser.add_argument("prompts")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--output", help="where to save the aligned policy")
    options = parser.parse_args()

    with open(options.prompts, encoding="utf-8") as file:
        prompts = [line.rstrip("\n") for line in file if line.strip()]
    tokenizer = AutoTokenizer.from_pretrained(options.policy, padding_side="left")
    trainer = GRPOTrainer(
        model=options.policy,
        reward_funcs=options.reward,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        args=GRPOConfig(
            output_dir=options.output or "trl",
            max_steps=options.steps,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=24,
            beta=0.02,  # what the KL from POLICY costs
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            seed=0,
        ),
        callbacks=[Printed()],
    )
    trainer.remove_callback(PrinterCallback)  # it prints all that is logged
    trainer.train()
    if options.output:
        trainer.save_model(options.output)


if __name__ == "__main__":
    main()
