"""Networks whose blocks are divided among the processes that train (FSDP: fully sharded).

Each process keeps a part of every block's weights, gradients and moments, and gathers a block only
while it computes with it (Zhao et al. 2023, arXiv 2304.11277; ZeRO's third stage, Rajbhandari et
al. 2020, arXiv 1910.02054). What is outside of blocks (embeddings, norms, heads) is whole in each
process, its gradients averaged as DDP averages them. All processes compute the same number of
forward passes (processes.pieces). A block's whole gradient is kept until the backward pass ends.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from irl_exp import processes
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.trainable import blocks


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, of which this process may have a part. All processes ask at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as `parameter` is kept: this process's part of it, or all. What has not its
    shape, such as an optimizer's count of steps, is nobody's part."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device, parameter.dtype)
    # Every process has the whole of it: nothing is sent.
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def clip_gradients(parameters: Iterable[nn.Parameter], longest: float) -> Tensor:
    """Scale all gradients down together where their norm exceeds `longest`; the norm before."""
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    if not any(isinstance(parameter, DTensor) for parameter in parameters):
        return nn.utils.clip_grad_norm_(parameters, longest)
    # torch does not add up norms of divided and of whole gradients.
    gradients = [parameter.grad for parameter in parameters]
    parts = [g.to_local() for g in gradients if isinstance(g, DTensor)]
    wholes = [g for g in gradients if g is not None and not isinstance(g, DTensor)]
    squares = torch.stack([part.square().sum() for part in parts]).sum()
    dist.all_reduce(squares)
    norm = (squares + sum(gradient.square().sum() for gradient in wholes)).sqrt()
    scale = (longest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in (*parts, *wholes):
        gradient.mul_(scale)
    return norm


class ShardedStrategy(DDPStrategy):
    """Divides a module's networks while it trains; it is a plain module before and after.

    Checkpoints hold whole tensors, so that they are those of a training by DDP, or of one process.
    """

    def setup(self, trainer: pl.Trainer) -> None:
        self._divide()
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """The model stays as it is: what is divided averages its own gradients."""

    def on_train_end(self) -> None:
        self._restore()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return self._collected(self.lightning_module.state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        ours = self.lightning_module.state_dict()
        saved = {name: divided_like(v, ours[name]) for name, v in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(saved, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = super().optimizer_state(optimizer)
        return {**state, "state": {i: self._collected(v) for i, v in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = []
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            kept = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            moments = {
                i: {name: divided_like(value, kept[i]) for name, value in values.items()}
                for i, values in saved["state"].items()
            }
            states.append({**saved, "state": moments})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})

    def _collected(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors, one after the other, on the CPU of the first process, who saves them."""
        found = {}
        for name, value in state.items():
            full = whole(value)
            if self.is_global_zero:
                found[name] = full.cpu()
        return found

    def _divide(self) -> None:
        assert self.lightning_module is not None
        processes.keep_in_step(True)
        mesh = init_device_mesh(self.root_device.type, (processes.size(),))
        # Whole blocks wait in the first process, the only one that is asked for what was learned.
        self.kept: list[tuple[nn.ModuleList, int, nn.Module | None, torch.device]] = []
        for layers in _layers(self.lightning_module):
            for i, block in enumerate(layers):
                layers[i] = part = copy.deepcopy(block)
                # A block is gathered for itself alone, and left again before the next one is.
                fully_shard(part, mesh=mesh, reshard_after_forward=True)
                device = next(block.parameters()).device
                self.kept.append((layers, i, block.cpu() if self.is_global_zero else None, device))
        self.hooks = [
            parameter.register_post_accumulate_grad_hook(_average)
            for parameter in self.lightning_module.parameters()
            if parameter.requires_grad and not isinstance(parameter, DTensor)
        ]

    @torch.no_grad()
    def _restore(self) -> None:
        for layers, i, block, device in self.kept:
            learned = [whole(parameter) for parameter in layers[i].parameters()]
            if block is None:
                continue
            for ours, value in zip(block.parameters(), learned, strict=True):
                ours.copy_(value)
            layers[i] = block.to(device)
        for hook in self.hooks:
            hook.remove()
        processes.keep_in_step(False)


def _layers(module: pl.LightningModule) -> list[nn.ModuleList]:
    """The blocks of the networks that a module trains, and of its reference."""
    networks = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    networks += [held.network for held in vars(module).values() if isinstance(held, LanguageModel)]
    # A network and its body are both among them: each list of blocks once.
    return list(dict.fromkeys(blocks(network.base_model) for network in networks))


def _average(parameter: Tensor) -> None:
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= processes.size()
