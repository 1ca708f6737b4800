"""Max-margin inverse RL as published (Joselowitz et al. 2025, arXiv 2410.12491), as described.

One text a forward pass, no padding, no mask; two pairs a step; Adam at a constant rate. Before each
epoch R* is built from disk and scores all texts one by one, and so does R̂, with gradients. What the
released code does besides (reading a text's last character, gradients that add up) is left out:
this reads whole texts and takes the step that the paper describes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

# Of epoch and optimizer, what a learning rate is multiplied with at each step.
Schedule = Callable[[int], float]


class Reward(nn.Module):
    """The body of a language model, and two outputs, of which the second is toxicity."""

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.body = AutoModelForCausalLM.from_pretrained(folder).base_model
        self.head = nn.Linear(self.body.config.hidden_size, 2, bias=False)
        self.to(device)

    def forward(self, text: str) -> Tensor:
        ids = self.tokenizer(text, return_tensors="pt").input_ids.to(self.head.weight.device)
        return -self.head(self.body(ids).last_hidden_state[0, -1])[1]


def loss(aligned: Tensor, reference: Tensor) -> Tensor:
    x = aligned - reference
    return torch.where(x > 0, -x, -2 * x)


def true_scores(folder: Path, texts: Sequence[str], device: str) -> list[float]:
    """R* out of its folder: minus the toxic logit of each text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
    with torch.no_grad():
        return [
            -float(network(**tokenizer(text, return_tensors="pt").to(device)).logits[0, 1])
            for text in texts
        ]


def recover(
    reward: Reward,
    truth: Path,
    pairs: Sequence[tuple[str, str]],
    batches: Sequence[Sequence[Sequence[int]]],
    learning_rate: float,
    schedule: Schedule = lambda step: 1.0,
) -> list[float]:
    """Train on (aligned, reference) texts, in the batches of pairs that each epoch has; correlation
    with R* before each epoch."""
    device = str(reward.head.weight.device)
    texts = [text for pair in pairs for text in pair]
    optimizer = torch.optim.Adam(reward.parameters(), lr=learning_rate)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    correlations = []
    for epoch in batches:
        truths = torch.tensor(true_scores(truth, texts, device))
        found = torch.stack([reward(text).detach() for text in texts]).cpu()
        correlations.append(float(torch.corrcoef(torch.stack([truths, found]))[0, 1]))
        for batch in epoch:
            optimizer.zero_grad()
            losses = [loss(reward(pairs[i][0]), reward(pairs[i][1])) for i in batch]
            torch.stack(losses).mean().backward()
            optimizer.step()
            rates.step()
    return correlations
