"""A reward that is a network: a sequence classifier with one output, and how to come by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from irl_exp import processes
from irl_exp.config import InputError
from irl_exp.models import language_model

# Texts of a training batch that pass the network at once, in the order of their lengths.
TRAINING_ROWS = 64
# Tokens that pass it at once on a CPU, padding counted: what a layer makes of more does not fit its
# caches. A GPU is faster the more there are.
CPU_TOKENS = 2048


@dataclass(frozen=True)
class NetworkReward:
    """A sequence classifier with one output, read at the last token that is not padding.

    Texts longer than the context lose their beginning: what was completed is at the end.
    """

    kind: ClassVar[str] = "network"
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 256

    def save(self, folder: Path) -> dict[str, float]:
        """A plain Hugging Face folder: AutoModelForSequenceClassification loads it."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return {}

    @torch.no_grad()
    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        rows = encode(self.tokenizer, self.network, prompts, completions)
        scores = self._in_passes(rows, self.batch_size).cpu()
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).sum())
            raise InputError(
                f"the reward {self.network.name_or_path} gave {bad} of {len(rows)} texts "
                "a score that is not finite"
            )
        return scores

    @torch.no_grad()
    def features(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """What the output layer reads, float32 [n, d]: the body's state at the last real token.

        For decoders, whose scores are `features @ weight`; on the CPU.
        """

        def last_state(ids: Tensor, mask: Tensor) -> Tensor:
            states = self.network.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            return states[torch.arange(len(ids), device=ids.device), mask.sum(-1) - 1]

        rows = encode(self.tokenizer, self.network, prompts, completions)
        return self._in_passes(rows, self.batch_size, last_state).cpu()

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Scores of token rows, float32 [n], with gradient."""
        return self._in_passes(rows, TRAINING_ROWS)

    def _scores(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.network(input_ids=ids, attention_mask=mask).logits[:, 0]

    def _in_passes(
        self,
        rows: Sequence[Sequence[int]],
        size: int,
        read: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """What `read` (by default the scores) makes of (ids, mask). Rows of like length pass the
        network together, so that little of its work is on padding; none depends on its neighbours.
        """
        read = read or self._scores
        device = next(self.network.parameters()).device
        lengths, order = torch.tensor([len(row) for row in rows]).sort(stable=True)
        most = CPU_TOKENS if device.type == "cpu" else size * int(lengths[-1])
        found = []
        for chosen in processes.pieces(order, passes(lengths.tolist(), size, most)):
            some = [rows[i] for i in chosen.tolist()]
            ids, mask = language_model.pad(some, self.tokenizer.pad_token_id, side="right")
            found.append(read(ids.to(device), mask.to(device)).float())
        return torch.cat(found).index_select(0, order.argsort().to(device))


def passes(lengths: Sequence[int], size: int, tokens: int) -> list[int]:
    """How many rows pass together, of rows in the order of their lengths: `size` or fewer, and with
    their padding no more than `tokens`, unless one alone has more."""
    counts, start = [], 0
    for place, length in enumerate(lengths):
        rows = place - start
        if rows and (rows == size or (rows + 1) * length > tokens):
            counts.append(rows)
            start = place
    return [*counts, len(lengths) - start]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    network: PreTrainedModel,
    prompts: Sequence[str],
    completions: Sequence[str],
) -> list[list[int]]:
    """Token rows of prompt + completion and what the tokenizer adds; never empty or too long."""
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    tokenizer.truncation_side = "left"
    # A text that spells the name of a special token is still only text.
    rows = tokenizer(
        texts, truncation=True, max_length=context(tokenizer, network), split_special_tokens=True
    )
    return [row or [tokenizer.eos_token_id] for row in rows["input_ids"]]


def context(tokenizer: PreTrainedTokenizerBase, network: PreTrainedModel) -> int:
    """Longest sequence, in tokens, that the network can read."""
    limit = getattr(network.config, "max_position_embeddings", None) or tokenizer.model_max_length
    # RoBERTa counts its positions from pad_token_id + 1, so two of them hold no token.
    if getattr(network.config, "model_type", "") in {"roberta", "xlm-roberta", "camembert"}:
        limit -= tokenizer.pad_token_id + 1
    return min(int(limit), 2**31 - 1)  # a tokenizer that knows no limit says 1e30


# --- where they come from ------------------------------------------------------------------------


def from_body(folder: Path, generator: torch.Generator, batch_size: int) -> NetworkReward:
    """The body of the language model in `folder` with a new linear head on the last real token."""
    model = language_model.load(folder)
    if type(model.network.config) not in AutoModelForSequenceClassification._model_mapping:
        raise InputError(
            f"{model.network.config.model_type}: transformers has no sequence classifier of it to "
            "build rewards on; expected another model, and for an audit what this one wrote in a "
            "file (demonstrations=file)"
        )
    network = _quietly(
        AutoModelForSequenceClassification.from_pretrained,
        folder,
        num_labels=1,
        dtype=torch.float32,
    )
    language_model.ensure_pad_token(model.tokenizer, network)
    head = output_layer(network, folder)
    # Unit-variance features (the body ends in a layer norm) give scores of unit order.
    with torch.no_grad():
        head.weight.normal_(0.0, head.in_features**-0.5, generator=generator)
    language_model.use_eager_attention(network)
    model.tokenizer.padding_side = "right"
    return NetworkReward(network, model.tokenizer, batch_size)


def from_classifier(folder: Path, toxic_label: str, batch_size: int) -> NetworkReward:
    """The text classifier in a folder as a reward with one output.

    A head of mutually exclusive labels (softmax): mean of the other logits minus the toxic logit,
    for two labels the log-odds of "not toxic". A head of one or of independent labels (sigmoid):
    minus the toxic logit, as in Joselowitz et al. 2025. Both are linear in the logits, so they
    fold into the output layer exactly. Raises InputError if `toxic_label` is not in the model's
    id2label.
    """
    network, tokenizer = language_model.read_checkpoint(
        AutoModelForSequenceClassification, folder, "a text classifier with its tokenizer"
    )
    names = network.config.id2label or {}
    labels = {str(name).lower(): int(index) for index, name in names.items()}
    if toxic_label.lower() not in labels:
        known = ", ".join(map(str, names.values()))
        raise InputError(
            f"toxic_label={toxic_label} (of ground_truth, or evaluation.second_toxic_label): "
            f"{folder} has the labels {known}; expected one of them"
        )
    toxic = labels[toxic_label.lower()]
    weights = torch.zeros(len(labels))
    if len(labels) > 1 and network.config.problem_type != "multi_label_classification":
        weights += 1.0 / (len(labels) - 1)
    weights[toxic] = -1.0
    language_model.ensure_pad_token(tokenizer, network)
    _fold(network, output_layer(network, folder), weights)
    return NetworkReward(network.eval(), tokenizer, batch_size)


def _fold(network: PreTrainedModel, layer: nn.Linear, weights: Tensor) -> None:
    """Replace the output layer by the one combination `weights` of its outputs."""
    layer.weight = nn.Parameter(weights.unsqueeze(0) @ layer.weight.data)
    if layer.bias is not None:
        layer.bias = nn.Parameter((weights @ layer.bias.data).unsqueeze(0))
    layer.out_features = 1
    network.config.num_labels = 1
    network.num_labels = 1  # type: ignore[assignment]
    network.config.problem_type = "regression"


def output_layer(network: PreTrainedModel, folder: Path) -> nn.Linear:
    """The last linear layer of a classification head, by the names that transformers gives it."""
    for name in ("score", "classifier.out_proj", "classifier", "classification_head.out_proj"):
        try:
            layer = network.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(layer, nn.Linear):
            return layer
    raise InputError(f"{folder}: expected a classification head that ends in one linear layer")


def load_network_reward(folder: Path, batch_size: int = 256) -> NetworkReward:
    """A folder with one output: saved by us, or by anyone who keeps the sign."""
    network, tokenizer = language_model.read_checkpoint(
        AutoModelForSequenceClassification, folder, "a saved reward"
    )
    if network.config.num_labels != 1:
        raise InputError(f"{folder}: expected one output, found {network.config.num_labels}")
    language_model.ensure_pad_token(tokenizer, network)
    language_model.use_eager_attention(network)
    return NetworkReward(network.eval(), tokenizer, batch_size)


def _quietly(load: Any, *args: Any, **kwargs: Any) -> Any:
    """from_pretrained warns that the head is new: here it is meant to be."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng():
            return load(*args, **kwargs)
    finally:
        logging.set_verbosity(before)
