"""Which parts of a network train: all, the last layers, low-rank updates, or the head alone.

The body is the network's `base_model`, the head what is not of it. A weight that both share (tied
embeddings) is the body's. The head always trains.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import dropwhile
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from irl_exp.config import InputError


def restrict(
    network: PreTrainedModel,
    trainable: str,
    last_layers: int,
    lora_rank: int,
    generator: torch.Generator,
) -> None:
    """Leave `requires_grad` to what is to train; `trainable` is one of validation.TRAINABLE.

    Of the other two numbers each is read where it has a meaning, and the generator where LoRA
    draws. Raises InputError if the body has fewer layers than are to train.
    """
    if trainable == "all":
        return
    network.base_model.requires_grad_(False)
    if trainable == "last_layers":
        for module in _last(network.base_model, last_layers):
            module.requires_grad_(True)
    elif trainable == "lora":
        _add_lora(network.base_model, lora_rank, generator)


def merge(network: PreTrainedModel) -> None:
    """Fold low-rank updates into the weights that they update: a plain network again.

    For every choice of `trainable`; without such updates there is nothing to do.
    """
    body = network.base_model
    if not hasattr(body, "peft_config"):
        return
    from peft.tuners.lora import LoraLayer

    layers = [(name, layer) for name, layer in body.named_modules() if isinstance(layer, LoraLayer)]
    for name, layer in layers:
        layer.merge()  # type: ignore[operator]
        body.set_submodule(name, layer.get_base_layer())
    del body.peft_config


@contextmanager
def without_updates(network: PreTrainedModel) -> Iterator[None]:
    """The network as it was before low-rank updates, where it has such."""
    layers: list[Any] = []
    if hasattr(network.base_model, "peft_config"):
        from peft.tuners.lora import LoraLayer

        layers = [
            module for module in network.base_model.modules() if isinstance(module, LoraLayer)
        ]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


@contextmanager
def used_embeddings(network: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Iterator[None]:
    """Train the input embeddings of the tokens in `rows` alone, where these are few.

    What AdamW does to the others, whose gradient is zero, is known without doing it: with 50,304
    words and 70 million weights, the larger part of its work.
    """
    whole = cast(nn.Embedding, network.get_input_embeddings())
    used = torch.tensor(sorted({token for row in rows for token in row}))
    if not (
        isinstance(whole, nn.Embedding)
        and _alone(network, whole)
        and 2 * len(used) <= whole.num_embeddings
    ):
        yield
        return
    part = _UsedRows(whole, used.to(whole.weight.device))
    network.set_input_embeddings(part)
    yield
    network.set_input_embeddings(whole)
    with torch.no_grad():
        trained = part.weight.to(whole.weight.device)
        whole.weight.mul_(trained[-1])
        whole.weight[used] = trained[:-1]


def _alone(network: PreTrainedModel, embedding: nn.Embedding) -> bool:
    """Whether it is a plain one that trains, and whose weights are nothing else besides."""
    if type(embedding) is not nn.Embedding or not embedding.weight.requires_grad:
        return False
    named = network.named_parameters(remove_duplicate=False)
    return sum(weight is embedding.weight for _, weight in named) == 1


class _UsedRows(nn.Module):
    """The rows of `used` tokens, to be trained, and a row of ones: decay makes of it the factor by
    which all other rows have shrunk."""

    places: Tensor

    def __init__(self, whole: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        rows = whole.weight.detach()
        self.weight = nn.Parameter(torch.cat([rows[used], torch.ones_like(rows[:1])]))
        places = torch.full((len(rows),), -1, device=rows.device)
        places[used] = torch.arange(len(used), device=rows.device)
        self.register_buffer("places", places, persistent=False)
        # No buffer, which several processes would send each other at every step.
        self.others = nn.Parameter(rows, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.places[ids]
        trained = functional.embedding(places.clamp_min(0), self.weight)
        others = functional.embedding(ids, self.others) * self.weight[-1].detach()
        return torch.where((places < 0).unsqueeze(-1), others, trained)


def blocks(body: nn.Module) -> nn.ModuleList:
    """The layers of a body: its longest list of modules, of those that are in no other (as the
    experts of a layer are)."""
    lists = {name: m for name, m in body.named_modules() if isinstance(m, nn.ModuleList)}
    outer = [m for name, m in lists.items() if not any(name.startswith(f"{n}.") for n in lists)]
    return max(outer, key=len, default=nn.ModuleList())


def _last(body: nn.Module, count: int) -> Iterator[nn.Module]:
    """The last blocks, and what of the body comes after them: the final norm, BERT's pooler.

    Architectures declare their parts in the order in which they compute.
    """
    layers = blocks(body)
    if count > len(layers):
        raise InputError(
            f"last_layers={count}: the body has {len(layers)} layers; expected at most that"
        )
    yield from layers[len(layers) - count :]
    inside = set(layers.modules())
    after = dropwhile(lambda module: module is not layers, body.modules())
    yield from (module for module in after if module not in inside)


def _add_lora(body: nn.Module, rank: int, generator: torch.Generator) -> None:
    """W becomes W + BA in every linear layer, B zero at first (Hu et al. 2021, arXiv 2106.09685).

    In place, without dropout; all but A and B is frozen.
    """
    # Takes seconds to import, and is needed for nothing else.
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # the update is BA itself
        lora_dropout=0.0,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in body.modules()),  # GPT-2's
    )
    # The library draws A from the global generator: seed it inside a fork, leave none changed.
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        inject_adapter_in_model(config, body)
