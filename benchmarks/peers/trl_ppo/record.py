"""Record what TRL's PPOTrainer computes, for parity.py to compute again.

    python -m benchmarks.peers.trl_ppo.record recording.safetensors

Runs where requirements.txt is installed. A small GPT-NeoX whose words are few enough that its
completions end at different lengths, a reference and a value model of other random weights, two
rollouts of two passes over two minibatches. Kept is the last minibatch, where log-probabilities
have left those of the rollout and losses are clipped.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl.experimental.ppo import PPOTrainer

from benchmarks.peers.trl_ppo import peer

WORDS = ["you", "are", "kind", "and", "wrong", "about", "this", "edit", "thanks"]
PROMPTS = ["you are", "this edit", "thanks", "you are wrong about this edit and"]
EOS, PAD = 0, 1
BATCH, LENGTH = 16, 12
# gamma and lambda; the first is what both sides call plain returns.
CASES = {"plain": (1.0, 1.0), "lambda": (1.0, 0.95), "discounted": (0.9, 0.8)}
# All that the comparison reads of the local variables of PPOTrainer.train().
ROLLOUT = (
    *("query_responses", "logprobs", "ref_logprobs", "values", "scores", "kl", "rewards"),
    *("padding_mask", "padding_mask_p1", "advantages", "returns"),
)
MINIBATCH = ("micro_batch_inds", "new_logprobs", "vpred", "pg_loss", "vf_loss", "loss")


class Recorded(PPOTrainer):
    """PPOTrainer that keeps its tensors.

    Rewards, advantages and losses are computed inline in one long method, and no argument or
    attribute ever holds them. So `backward`, which that method calls when all of them are there,
    reads the local variables of its caller: what is recorded is what TRL trains with, and none of
    its code has to be copied.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.recorded: dict[str, torch.Tensor] = {}
        backward = self.accelerator.backward

        def recording(loss: torch.Tensor, **options: Any) -> None:
            found = sys._getframe(1).f_locals
            trained = (found["new_logprobs"], found["vpred"])
            gradients = torch.autograd.grad(loss, trained, retain_graph=True)
            self.recorded = {
                **{name: torch.as_tensor(found[name]) for name in (*ROLLOUT, *MINIBATCH)},
                "context_length": torch.tensor(found["context_length"]),
                "new_logprobs_gradient": gradients[0],
                "vpred_gradient": gradients[1],
            }
            self.recorded = {name: x.detach().clone() for name, x in self.recorded.items()}
            backward(loss, **options)

        self.accelerator.backward = recording


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<eos>", "<pad>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<pad>")


def writer(seed: int) -> GPTNeoXForCausalLM:
    """Random weights, but for one state that is always large and speaks against padding alone: to
    TRL a pad token that was drawn ends a completion as no token of ours does."""
    model = network(GPTNeoXForCausalLM, seed)
    with torch.no_grad():
        model.base_model.final_layer_norm.bias[0] = 10.0
        head = model.get_output_embeddings().weight
        head[:, 0] = 0.0
        head[PAD, 0] = -2.0
    return model


def network(kind: type, seed: int, **changes: Any) -> Any:
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.2,
        eos_token_id=EOS,
        pad_token_id=PAD,
        bos_token_id=EOS,
        **changes,
    )
    return kind(config).eval()


def score(prompts: Any, completions: Any) -> torch.Tensor:
    """Fewer words are better, and "wrong" is worse."""
    words = [text.split() for text in completions]
    return torch.tensor([1.0 - 0.2 * len(row) - row.count("wrong") for row in words])


def record(gamma: float, lam: float, folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The last minibatch of a short training, the reference's weights, and what was set."""
    settings = {"kl_coef": 0.1, "gamma": gamma, "lam": lam, "cliprange": 0.2}
    settings |= {"cliprange_value": 0.1, "vf_coef": 0.1}
    args = peer.arguments(
        folder,
        BATCH,
        response_length=LENGTH,
        total_episodes=2 * BATCH,
        num_ppo_epochs=2,
        num_mini_batches=2,
        learning_rate=1e-2,
        **settings,
    )
    words = tokenizer()
    reference = writer(1)
    trainer = peer.trainer(
        Recorded,
        args,
        words,
        [words(prompt)["input_ids"] for prompt in PROMPTS * (BATCH // len(PROMPTS))],
        score,
        {
            "model": writer(0),
            "ref_model": reference,
            "value_model": network(GPTNeoXForSequenceClassification, 2, num_labels=1),
        },
    )
    trainer.train()
    weights = {f"reference.{name}": x.clone() for name, x in reference.state_dict().items()}
    facts = {**settings, "reference": reference.config.to_diff_dict(), "pad_token_id": PAD}
    return trainer.recorded | weights, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    tensors, facts = {}, {}
    for case, (gamma, lam) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found, facts[case] = record(gamma, lam, Path(folder))
        tensors |= {f"{case}/{name}": x.contiguous() for name, x in found.items()}
    save_file(
        tensors, parser.parse_args().recording, {case: json.dumps(f) for case, f in facts.items()}
    )


if __name__ == "__main__":
    main()
