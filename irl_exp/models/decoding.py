"""A network that reads on, a token at a time: what sampling asks of it.

Keys and values of what was read are kept. Any architecture is read by transformers; GPT-NeoX, of
which there are many small ones, by passes of our own: transformers makes masks and rotations anew
and copies all keys and values at each token, which costs a small network more than its arithmetic.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import DynamicCache, GPTNeoXForCausalLM, PreTrainedModel

from irl_exp.models import language_model

# Added to the score of a place that is not to be seen.
LEAST = torch.finfo(torch.float32).min


class Reader(Protocol):
    """Of n rows. `read` takes [n, L] tokens, the left-padded prompt first and then one at a time,
    and gives the logits [n, V] of what comes next, and the hidden state [n, d] that they are of
    (None where logits are not the output layer's alone). `keep` goes on with some rows only."""

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor | None]: ...

    def keep(self, rows: Tensor) -> None: ...


def reader(network: PreTrainedModel, mask: Tensor, room: int) -> Reader:
    """For prompts with this mask [n, P], after each of which come up to `room` tokens."""
    kind = NeoXReader if NeoXReader.reads(network) else LibraryReader
    return kind(network, mask, room)


def keeps_caches(network: PreTrainedModel) -> bool:
    """Whether an architecture can be read on: it keeps keys and values, and is told positions."""
    known = inspect.signature(network.forward).parameters
    return {"position_ids", "logits_to_keep", _cache_name(network)} <= known.keys()


def _cache_name(network: PreTrainedModel) -> str:
    """What a forward pass calls the keys and values it is given; transformers 5.24 renames it."""
    known = inspect.signature(network.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


class LibraryReader:
    """By transformers, whatever the architecture that keeps caches."""

    def __init__(self, network: PreTrainedModel, mask: Tensor, room: int) -> None:
        self.network = network
        self.mask, self.places = mask, language_model.positions(mask)
        self.cache, self.cache_name = DynamicCache(config=network.config), _cache_name(network)
        plain = getattr(network, "plain_head", True)
        self.head = network.get_output_embeddings() if plain else None

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        known = self.cache.get_seq_length()
        if known:
            self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
            self.places = self.places[:, -1:] + 1
        settings = {
            "input_ids": ids,
            "attention_mask": self.mask,
            "position_ids": self.places,
            self.cache_name: self.cache,
            "use_cache": True,
        }
        if self.head is None:
            return self.network(**settings, logits_to_keep=1).logits[:, -1], None
        state = self.network.base_model(**settings).last_hidden_state[:, -1]
        return self.head(state), state

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.places = self.mask[rows], self.places[rows]


# Products of fewer multiplications torch does on the CPU by plain loops, five times as slowly.
FEWEST_PRODUCTS = 400


class NeoXReader:
    """GPT-NeoX's pass (Black et al. 2022, arXiv 2204.06745) over one or more new tokens.

    Keys and values [layers, 2, n, heads, places, d] are written where they stay; rotations and
    what padding hides are known for all places before the first token. On a GPU, where it takes
    longer to start the many small kernels of a token than to run them, they start as one.
    """

    @staticmethod
    def reads(network: PreTrainedModel) -> bool:
        """Blocks that are divided among processes are gathered only by their own forward pass."""
        if not isinstance(network, GPTNeoXForCausalLM) or network.training:
            return False
        turns: Any = network.config.rope_parameters
        plain = turns.get("rope_type", "default") == "default"
        return plain and not any(isinstance(weight, DTensor) for weight in network.parameters())

    def __init__(self, network: PreTrainedModel, mask: Tensor, room: int) -> None:
        config = network.config
        self.body = cast(Any, network.base_model)
        self.head = network.get_output_embeddings()
        self.heads, self.parallel = config.num_attention_heads, config.use_parallel_residual
        # A token attends to so many places at least, of which those ahead are hidden.
        self.fewest = -(-FEWEST_PRODUCTS * self.heads // config.hidden_size)
        self.known = 0
        self.cache: Tensor | None = None
        self.replay: _Replay | None = None
        ahead = max(room, self.fewest - mask.shape[1])
        mask = torch.cat([mask, mask.new_ones(len(mask), ahead)], dim=1)
        self.hidden = torch.zeros(mask.shape, device=mask.device).masked_fill(mask == 0, LEAST)
        self.turns = self.body.rotary_emb(self.hidden, language_model.positions(mask))

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        start, self.known = self.known, self.known + ids.shape[1]
        if start and ids.is_cuda:
            self.replay = self.replay or _Replay(self._pass, ids, self.hidden.shape[1])
            return self.replay(ids, start)
        at = torch.arange(start, self.known, device=ids.device)
        return self._pass(ids, at, slice(start, self.known), max(self.known, self.fewest))

    def _pass(
        self, ids: Tensor, at: Tensor, new: Tensor | slice, seen: int
    ) -> tuple[Tensor, Tensor]:
        """Over tokens [n, L] at the places `at` [L], which are `new` as an index, too; of all
        places the first `seen` are looked at."""
        turns = [turn[:, new, None, None] for turn in self.turns]
        ahead = torch.arange(seen, device=ids.device) > at.unsqueeze(1)
        hidden = self.hidden[:, None, None, :seen].masked_fill(ahead, LEAST)
        x = self.body.embed_in(ids)
        for i, block in enumerate(self.body.layers):
            mixed = block.attention.query_key_value(block.input_layernorm(x))
            attended = block.attention.dense(self._attend(i, mixed, new, turns, hidden))
            if self.parallel:
                x = block.mlp(block.post_attention_layernorm(x)) + attended + x
            else:
                x = attended + x
                x = block.mlp(block.post_attention_layernorm(x)) + x
        state = self.body.final_layer_norm(x[:, -1])
        return self.head(state), state

    def _attend(
        self,
        layer: int,
        mixed: Tensor,
        new: Tensor | slice,
        turns: list[Tensor],
        hidden: Tensor,
    ) -> Tensor:
        """What the new places [n, L, width] attend to, of their queries, keys and values, which
        stand side by side for each head: mixed [n, L, heads * 3 * d]."""
        n, length, _ = mixed.shape
        mixed = mixed.view(n, length, self.heads, 3, -1)
        cos, sin = turns
        turned, half = mixed[..., :2, : cos.shape[-1]], cos.shape[-1] // 2
        swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
        turned.copy_(turned * cos + swapped * sin)
        if self.cache is None:
            shape = (len(self.body.layers), 2, n, self.heads, self.hidden.shape[1], mixed.shape[-1])
            self.cache = mixed.new_zeros(shape)
        self.cache[layer, :, :, :, new] = mixed[..., 1:, :].permute(3, 0, 2, 1, 4)
        keys, values = self.cache[layer, :, :, :, : hidden.shape[-1]].flatten(1, 2)
        queries = mixed[..., 0, :].transpose(1, 2).reshape(n * self.heads, length, -1)
        scores = torch.bmm(queries * queries.shape[-1] ** -0.5, keys.transpose(1, 2)).float()
        scores = scores.view(n, self.heads, length, -1).add_(hidden)
        weights = scores.softmax(-1).flatten(0, 1).to(values.dtype)
        found = torch.bmm(weights, values).view(n, self.heads, length, -1)
        return found.transpose(1, 2).reshape(n, length, -1)

    def keep(self, rows: Tensor) -> None:
        assert self.cache is not None  # there is nothing to leave behind before the first token
        layers, two, _, *rest = self.cache.shape
        kept = self.cache.new_zeros(layers, two, len(rows), *rest)
        kept[..., : self.known, :] = self.cache[..., : self.known, :].index_select(2, rows)
        self.cache, self.hidden = kept, self.hidden[rows]
        self.turns = tuple(turn[rows] for turn in self.turns)
        self.replay = None


class _Replay:
    """The pass over one token as a CUDA graph: recorded once, then started as a whole."""

    def __init__(self, one: Callable[..., Any], ids: Tensor, places: int) -> None:
        self.ids, self.at = ids.clone(), torch.zeros(1, dtype=torch.long, device=ids.device)
        self.one = partial(one, self.ids, self.at, self.at, places)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, ids: Tensor, at: int) -> tuple[Tensor, Tensor]:
        """What is given is overwritten by the next call."""
        self.ids.copy_(ids)
        self.at.fill_(at)
        if self.graph is None:
            with _as_it_comes():
                self.one()  # kernels are loaded where nothing is recorded
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):
                    self.found = self.one()
        self.graph.replay()
        return self.found


@contextmanager
def _as_it_comes() -> Iterator[None]:
    """Each place is written once: that needs no sorting of places to be deterministic."""
    asked = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warns)
