"""Activations computed again in the backward pass, instead of kept: less memory, a third more time.

Chen et al. 2016 (arXiv 1604.06174), block by block; the numbers are the same. In our own words and
not by the switch that networks have, which works in training mode alone: PPO's policy is never in
it, for its dropout is off.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel

from irl_exp.models.trainable import blocks


@contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Inside, every network in `module` keeps of a block no more than what goes into it."""
    networks = (part for part in module.modules() if isinstance(part, PreTrainedModel))
    # A network and its body are both in `module`: each block once.
    found = dict.fromkeys(block for network in networks for block in blocks(network.base_model))
    for block in found:
        block.forward = partial(_again, block.forward)  # type: ignore[assignment]
    try:
        yield
    finally:
        for block in found:
            del block.forward  # what is left is the class's own


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # The keys and values of earlier tokens, which networks keep unasked: computed again, a block
    # would add its own a second time; training reads none.
    args = tuple(None if isinstance(value, Cache) else value for value in args)
    kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
