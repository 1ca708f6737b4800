"""Activations that are computed again: the same gradients, and less that is kept for them."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from irl_exp.models.recompute import recomputing
from irl_exp.models.trainable import blocks, restrict
from tests.models.test_trainable import FAMILIES

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])


def gradients(network: nn.Module, again: bool) -> tuple[dict[str, Tensor], int]:
    """Of the output's sum; and how many numbers are kept until the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    network.zero_grad()
    with recomputing(network) if again else nullcontext():
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            ids = IDS.repeat(4, 1)
            loss = network(ids, attention_mask=torch.ones_like(ids)).logits.square().sum()
        loss.backward()
    found = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    return found, sum(kept.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same_and_less_is_kept(family: str) -> None:
    torch.manual_seed(0)
    network = FAMILIES[family][0]().eval()
    plain, much = gradients(network, again=False)
    again, little = gradients(network, again=True)
    assert plain.keys() == again.keys() and len(plain) > 10
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert little < 0.8 * much
    assert all("forward" not in vars(block) for block in blocks(network.base_model))


def test_a_reward_trains_as_before() -> None:
    """With eager attention and rows of unlike length, as rewards are, and with its cache on."""
    torch.manual_seed(0)
    network = FAMILIES["neox"][0]().eval()
    network.set_attn_implementation("eager")
    mask = torch.ones(4, 8, dtype=torch.long)
    mask[:2, 5:] = 0
    found = []
    for again in (False, True):
        network.zero_grad()
        with recomputing(network) if again else nullcontext():
            scores = network(IDS.repeat(4, 1), attention_mask=mask, use_cache=True).logits
            scores.square().sum().backward()
        found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))


def test_frozen_bodies_and_lora_train_as_before() -> None:
    torch.manual_seed(0)
    network = FAMILIES["neox"][0]().eval()
    restrict(network, "lora", 1, 2, torch.Generator().manual_seed(0))
    plain, _ = gradients(network, again=False)
    again, _ = gradients(network, again=True)
    assert any("lora" in name for name in plain)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
