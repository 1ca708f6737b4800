"""Align the reference of a run with its R*, by TRL's PPOTrainer and the run's own settings.

    python -m benchmarks.peers.trl_ppo.train RUN FOLDER [--shared]

Runs where requirements.txt is installed. RUN is a run directory, at least as far as until=align.
Writes to FOLDER the policy and metrics.jsonl, by the names that curves of align have.

TRL wants a value model beside the policy. It is a copy of the reference with a head that starts
from zero; with --shared that head reads the policy's own body, as ours does.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from transformers import GPTNeoXForSequenceClassification
from trl.experimental.ppo import PPOTrainer

from benchmarks.peers.trl_ppo import peer
from irl_exp.data.comments import Comments
from irl_exp.models import language_model
from irl_exp.models.saved_rewards import load_normalized


def train(run: Path, folder: Path, shared: bool) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    rlhf, length = config["rlhf"], config["dataset"]["max_new_tokens"]
    store = Path(manifest["store"])
    place = {step: store / step / manifest["steps"][step] for step in ("curate", "pretrain")}
    truth = load_normalized(store / "ground_truth" / manifest["steps"]["ground_truth"])

    policy, reference = (language_model.load(place["pretrain"]) for _ in range(2))
    value = GPTNeoXForSequenceClassification.from_pretrained(
        place["pretrain"], num_labels=1, attn_implementation="eager"
    )
    nn.init.zeros_(value.score.weight)
    if shared:
        value.gpt_neox = policy.network.gpt_neox

    args = peer.arguments(
        folder,
        rlhf["batch_size"],
        seed=manifest["seeds"]["alignment"],
        response_length=length,
        total_episodes=rlhf["iterations"] * rlhf["batch_size"],
        num_ppo_epochs=rlhf["epochs"],
        num_mini_batches=rlhf["batch_size"] // rlhf["minibatch_size"],
        kl_coef=rlhf["kl_coef"],
        gamma=rlhf["discount"],
        lam=rlhf["gae_lambda"],
        cliprange=rlhf["clip_range"],
        cliprange_value=rlhf["value_clip_range"],
        vf_coef=rlhf["value_coef"],
    )
    prompts = Comments.load(place["curate"]).split("train").prompts
    trainer = peer.trainer(
        PPOTrainer,
        args,
        policy.tokenizer,
        language_model.prompt_rows(policy, prompts, length),
        truth.score,
        {"model": policy.network, "ref_model": reference.network, "value_model": value},
        optimizer(policy.network, value, rlhf),
    )
    trainer.train()
    policy.save(folder)
    lines = (json.dumps({**record, "step": "align"}) for record in trainer.state.log_history)
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def optimizer(
    policy: nn.Module, value: nn.Module, rlhf: dict[str, Any]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW and the schedule of irl_exp/modules/training.py, which rises and falls by iterations:
    TRL's own would fall sooner. No weight decay, and a rate of its own for the head."""
    head = list(value.score.parameters())
    body = {*policy.parameters(), *value.parameters()} - {*head}
    groups = [{"params": list(body)}, {"params": head, "lr": rlhf["value_learning_rate"]}]
    result = torch.optim.AdamW(groups, lr=rlhf["learning_rate"], weight_decay=0.0)
    steps = rlhf["iterations"]
    rise = max(1, round(rlhf["warmup"] * steps))

    def scale(step: int) -> float:
        return min((step + 1) / rise, (steps - step) / (steps - rise))

    return result, torch.optim.lr_scheduler.LambdaLR(result, scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shared", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    train(given.run, given.folder, given.shared)


if __name__ == "__main__":
    main()
