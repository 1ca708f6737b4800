"""What TRL's PPOTrainer computed, computed again by irl_exp/modules/ppo.py.

    python -m benchmarks.peers.trl_ppo.parity tests/modules/trl_ppo.safetensors

Runs in the project's own environment, on what record.py left. Prints two Markdown tables: the
largest difference of each quantity where definitions agree, and how far apart the two are where
they do not. The test tests/modules/test_ppo_parity.py holds the first to 1e-5.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from irl_exp.models import language_model
from irl_exp.modules.ppo import (
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    token_rewards,
    whiten,
)


@dataclass(frozen=True)
class Recording:
    """One rollout of TRL's trainer and one of its minibatches, by the names TRL has for them."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def real(self) -> Tensor:
        """The tokens of each completion, its end of sequence included: what we call the mask."""
        return ~self["padding_mask"]

    @property
    def ended(self) -> Tensor:
        """The same and one place more, where there is one: TRL lets an episode end after its last
        token, with a value of its own there, and gives the score at that place."""
        return ~self["padding_mask_p1"]

    @property
    def raw_advantages(self) -> Tensor:
        """Before whitening, after which TRL keeps no copy: returns are these plus the values."""
        return self["returns"] - self["values"]


def load(path: Path) -> dict[str, Recording]:
    with safe_open(path, "pt") as file:
        settings = {case: json.loads(text) for case, text in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {
        case: Recording(
            {n.removeprefix(f"{case}/"): x for n, x in tensors.items() if n.startswith(f"{case}/")},
            settings[case],
        )
        for case in sorted(settings, reverse=True)  # the plain one first
    }


def agreement(trl: Recording) -> dict[str, float]:
    """The largest absolute difference of each quantity, ours computed from TRL's inputs.

    `ended` stands in for our mask where TRL counts one place more; otherwise as we call them.
    """
    settings, real, ended = trl.settings, trl.real, trl.ended
    log_probs, reference = trl["logprobs"], trl["ref_logprobs"]
    rewards = token_rewards(trl["scores"], log_probs, reference, ended, settings["kl_coef"])
    advantages, returns = generalized_advantages(
        trl["rewards"], trl["values"], ended, settings["gamma"], settings["lam"]
    )
    n = int(real.sum())
    whitened = whiten(trl.raw_advantages, real) * ((n - 1) / n) ** 0.5  # Bessel's correction
    policy_loss, value_loss, gradients = losses(trl, ended)
    loss = policy_loss + settings["vf_coef"] * value_loss
    pairs = {
        "log π_ref of each token": (reference_log_probs(trl)[real], reference[real]),
        "KL of each token": (((log_probs - reference) * real), trl["kl"]),
        "reward of each token": (rewards, trl["rewards"]),
        "advantages": (advantages, trl.raw_advantages),
        "returns": (returns, trl["returns"]),
        "whitened advantages": (whitened, trl["advantages"]),
        "policy loss": (policy_loss, trl["pg_loss"]),
        "value loss": (value_loss, trl["vf_loss"]),
        "loss": (loss, trl["loss"]),
        "its gradient by log-probabilities": (gradients[0], trl["new_logprobs_gradient"]),
        "its gradient by values": (gradients[1], trl["vpred_gradient"]),
    }
    return {name: apart(ours, theirs) for name, (ours, theirs) in pairs.items()}


def own_terms(trl: Recording) -> dict[str, float]:
    """The same where nothing is translated: our episode ends with its last token."""
    settings, real = trl.settings, trl.real
    rewards = token_rewards(
        trl["scores"], trl["logprobs"], trl["ref_logprobs"], real, settings["kl_coef"]
    )
    values = trl["values"] * real
    advantages, returns = generalized_advantages(
        rewards, values, real, settings["gamma"], settings["lam"]
    )
    return {
        "reward of a completion": apart(rewards.sum(-1), trl["rewards"].sum(-1)),
        "advantages": apart(advantages[real], trl.raw_advantages[real]),
        "returns": apart(returns[real], trl["returns"][real]),
        "whitened advantages": apart(whiten(advantages, real), trl["advantages"]),
        "value loss": apart(losses(trl, real)[1], trl["vf_loss"]),
    }


def losses(trl: Recording, valued: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Policy loss, value loss, and gradients of their sum, of the minibatch.

    The value loss is the mean over the places `valued`.
    """
    rows = trl["micro_batch_inds"]
    log_probs = trl["new_logprobs"].clone().requires_grad_()
    values = trl["vpred"].clone().requires_grad_()
    policy_loss, _ = clipped_policy_loss(
        log_probs,
        trl["logprobs"][rows],
        trl["advantages"][rows],
        trl.real[rows],
        trl.settings["cliprange"],
    )
    value_loss, _ = clipped_value_loss(
        values,
        trl["values"][rows],
        trl["returns"][rows],
        valued[rows],
        trl.settings["cliprange_value"],
    )
    total = policy_loss + trl.settings["vf_coef"] * value_loss
    gradients = torch.autograd.grad(total, (log_probs, values))
    return policy_loss.detach(), value_loss.detach(), gradients


def reference_log_probs(trl: Recording) -> Tensor:
    """Of TRL's tokens, by the recorded weights of its reference and our own forward pass."""
    network = GPTNeoXForCausalLM(GPTNeoXConfig(**trl.settings["reference"])).eval()
    prefix = "reference."
    weights = {n.removeprefix(prefix): x for n, x in trl.tensors.items() if n.startswith(prefix)}
    if "embed_out.weight" in network.state_dict():  # as older releases call it
        weights["embed_out.weight"] = weights.pop("lm_head.weight")
    network.load_state_dict(weights)
    prompt, completion = trl["query_responses"].tensor_split([int(trl["context_length"])], dim=1)
    prompt_mask = prompt != trl.settings["pad_token_id"]
    with torch.no_grad():
        return language_model.completion_log_probs(
            network, (prompt, prompt_mask.long()), (completion, trl.real.long())
        )


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())


def table(rows: dict[str, dict[str, float]]) -> str:
    """One column a case."""
    names = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(rows) + " |", "|---" * (1 + len(rows)) + "|"]
    lines += [
        f"| {name} | " + " | ".join(f"{found[name]:.1e}" for found in rows.values()) + " |"
        for name in names
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    cases = load(parser.parse_args().recording)
    print(table({name: agreement(case) for name, case in cases.items()}), end="\n\n")
    print(table({name: own_terms(case) for name, case in cases.items()}))


if __name__ == "__main__":
    main()
