"""Causal language models: build one from scratch, load any checkpoint, score tokens under it."""

import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from irl_exp import hub, processes
from irl_exp.config import ADAPTER_FILE, InputError, ScratchModel

EOS, PAD = "<|endoftext|>", "<|padding|>"
# Stands for a prompt in a chat template, and in no text.
GAP = "\ue000gap\ue000"
# What a text is set behind to be read as one that goes on.
ANCHOR = "\n"
# Rows of hidden states that pass the output layer at once: bounds the logits held in memory.
HEAD_ROWS = 4096
# Completions that pass the body at once, in the order of their lengths.
STATE_ROWS = 64


@dataclass(frozen=True)
class LanguageModel:
    """A causal model with the tokenizer it was trained with."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """Longest sequence, in tokens, that the network can read."""
        limit = getattr(self.network.config, "max_position_embeddings", None)
        return int(limit or self.tokenizer.model_max_length)

    @property
    def chats(self) -> bool:
        """Whether its tokenizer has a template for what a user says and what it answers."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @cached_property
    def opening(self) -> list[int]:
        """What its tokenizer puts before every text: the beginning-of-sequence token of Llama and
        Gemma, nothing of GPT-NeoX."""
        first: list[int] = self.tokenizer("")["input_ids"][:1]
        return first if first == [self.tokenizer.bos_token_id] else []

    @cached_property
    def anchor(self) -> list[int]:
        """The tokens of ANCHOR where its tokenizer takes and leaves out a space before a text, as
        Llama 2's does; else none, for what goes on from a text is read as it stands. None either
        where it reads ANCHOR as a space."""
        before, row = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (ANCHOR, f"{ANCHOR} a")
        )
        kept = row[: len(before)] == before and self.tokenizer.decode(row) == f"{ANCHOR} a"
        return before if kept and self.tokenizer.decode(row[len(before) :]) != " a" else []

    def save(self, folder: Path) -> None:
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: encodes every text, and prompt + completion as its parts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD)


def build(config: ScratchModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> LanguageModel:
    """GPT-NeoX with random weights, tied embeddings and no dropout."""
    architecture = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # The library initializes from the global generator: seed it inside a fork, leave none changed.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = GPTNeoXForCausalLM(architecture)
    use_eager_attention(network)
    return LanguageModel(network, tokenizer)


def load(folder: Path) -> LanguageModel:
    """The checkpoint in a folder, in float32, on the CPU; an adapter merged into what it adapts.

    A tokenizer without a pad token of its own gets one: padding that is also a text token or the
    end of a sequence would be read as text.
    Raises InputError if there is no causal language model or no tokenizer.
    """
    network, tokenizer = read_checkpoint(
        AutoModelForCausalLM, folder, "a causal language model with its tokenizer"
    )
    if tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: its tokenizer has no end-of-sequence token; expected one")
    ensure_pad_token(tokenizer, network)
    use_eager_attention(network)
    model = LanguageModel(network.eval(), tokenizer)
    network.plain_head = _has_plain_head(model, folder)  # type: ignore[assignment]
    return model


def require_plain_head(network: PreTrainedModel) -> None:
    """InputError where an architecture transforms its logits after the output layer: it can be
    asked what it thinks of a text, and is not trained."""
    if not getattr(network, "plain_head", True):
        raise InputError(
            f"{network.config.model_type}: this architecture transforms its logits after the "
            "output layer and cannot be trained here; expected plain logits (GPT-NeoX, Llama, "
            "GPT-2, Qwen and the like), or model.epochs=0, which takes it as it is"
        )


def read_checkpoint(
    auto: Any, folder: Path, expected: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Network (by `auto`, one of transformers' Auto classes), float32, and its tokenizer.

    Pickled weights load as tensors or not at all, and no code of the checkpoint is executed.
    Raises InputError, which says what was `expected`, if one of them is missing, unreadable, or
    leaves weights open, which the library would draw at random.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected {expected}")
    if (folder / ADAPTER_FILE).is_file():
        # The library would load an adapter on top of the weights, and save it without them.
        if auto is not AutoModelForCausalLM:
            merged = "the adapter merged in"
            raise InputError(f"{folder}: holds an adapter; expected {expected}, {merged}")
        return _merged(folder, expected)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: a folder without config.json; expected {expected}")
    _require_writer(auto, folder, expected)
    _require_layers(folder, expected)
    try:
        # Unsaid, the library asks whoever sits at the terminal whether to run foreign code.
        where = {"pretrained_model_name_or_path": str(folder), "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(**where)
        network, loaded = auto.from_pretrained(
            **where, dtype=torch.float32, weights_only=True, output_loading_info=True
        )
    except Exception as error:  # damaged files make the libraries raise almost anything
        raise InputError(f"{folder}: expected {expected}: {_reason(error)}") from error
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        reason = f"it lacks {len(missing)} of its weights, as {missing[0]}"
        raise InputError(f"{folder}: expected {expected}: {reason}")
    # Where its files are missing, the library makes up a tokenizer that reads nothing.
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise InputError(
            f"{folder}: its tokenizer is missing or reads nothing; expected {expected}"
        )
    return network, tokenizer


def _require_writer(auto: Any, folder: Path, expected: str) -> None:
    """Refuse what says that it tells texts apart where one that writes them is expected: with tied
    embeddings the library would take its body for one."""
    if auto is not AutoModelForCausalLM:
        return
    try:
        names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # the library says better what is wrong, if anything is
    if any(re.search("Classification|QuestionAnswering", str(name)) for name in names or []):
        raise InputError(f"{folder}: a {names[0]}; expected {expected}")


def _require_layers(folder: Path, expected: str) -> None:
    """Refuse a config.json of more layers than there are weights, before hours go into them."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layers = max(int(config.get(name) or 0) for name in ("num_hidden_layers", "n_layer"))
        files = [safe_open(file, framework="numpy") for file in folder.glob("*.safetensors")]
        weights = sum(len(file.keys()) for file in files)
    except (OSError, ValueError, OverflowError, TypeError, AttributeError, SafetensorError):
        return  # the library says better what is wrong
    if weights and layers > weights:
        said = f"config.json says {layers} layers, and there are {weights} weights"
        raise InputError(f"{folder}: expected {expected}: {said}")


def _reason(error: Exception) -> str:
    """In one line, why a checkpoint does not load."""
    text = " ".join(str(error).split())
    if isinstance(error, UnpicklingError):
        return "its pickled weights are damaged or hold more than tensors, and are not loaded"
    if isinstance(error, SafetensorError):
        return f"its safetensors are damaged ({text})"
    if "trust_remote_code" in text:
        return "it needs Python code of its own, which is never run"
    if "ignore_mismatched_sizes" in text:
        return "its weights do not have the sizes that config.json says"
    return f"its files are damaged or of another kind ({type(error).__name__}: {text[:200]})"


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase, network: PreTrainedModel) -> None:
    """Give both a pad token that is neither the end of a sequence nor a token of any text."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
    if tokenizer.pad_token_id >= network.get_input_embeddings().num_embeddings:
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network.config.pad_token_id = tokenizer.pad_token_id


def use_eager_attention(network: PreTrainedModel) -> None:
    """Plain matrix products: on short sequences and a CPU they beat the fused kernels, and on a
    CUDA device, where the network will go if there is one, those have gradients that differ from
    run to run."""
    if not torch.cuda.is_available() or torch.are_deterministic_algorithms_enabled():
        network.set_attn_implementation("eager")


def positions(mask: Tensor) -> Tensor:
    """Position of each real token in its own sequence: mask [n, L] -> [n, L]."""
    return (mask.long().cumsum(-1) - 1).clamp_min(0)


def hidden_states(network: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Last hidden states [n, L, d] of the network's body; ids and mask are [n, L]."""
    body = network.base_model
    output = body(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False)
    return output.last_hidden_state


def token_log_probs(
    head: nn.Module, hidden: Tensor, targets: Tensor, rows: int = HEAD_ROWS
) -> Tensor:
    """Log-probability of each target, in nats.

    hidden [n, d] and targets [n] -> float32 [n]. The output layer sees `rows` positions at a time.
    Where there are more it is computed again in the backward pass, so that logits of all positions
    never stand in memory together.
    """

    def block(states: Tensor, wanted: Tensor) -> Tensor:
        return -functional.cross_entropy(head(states).float(), wanted, reduction="none")

    if len(hidden) <= rows:
        return block(hidden, targets)
    pieces = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([checkpoint(block, *piece, use_reentrant=False) for piece in pieces])


def completion_log_probs(
    network: PreTrainedModel, prompt: tuple[Tensor, Tensor], completion: tuple[Tensor, Tensor]
) -> Tensor:
    """log pi(token | what precedes it) for each completion token, in nats, float32.

    prompt = (ids, mask) [n, P], left-padded; completion = (ids, mask) [n, T], right-padded.
    Returns [n, T]; 0 at padding.
    """
    ids, real = completion[0], completion[1].bool()
    if not getattr(network, "plain_head", True):
        return _log_probs_by_logits(network, prompt, completion)
    states = completion_states(network, prompt, completion)
    result = torch.zeros(ids.shape, device=ids.device)
    result[real] = token_log_probs(network.get_output_embeddings(), states, ids[real])
    return result


def _log_probs_by_logits(
    network: PreTrainedModel, prompt: tuple[Tensor, Tensor], completion: tuple[Tensor, Tensor]
) -> Tensor:
    """The same of any architecture, a row at a time: without padding none has to be told of it."""
    result = torch.zeros(completion[0].shape, device=completion[0].device)
    for row in range(len(result)):
        before = prompt[0][row][prompt[1][row].bool()]
        after = completion[0][row][completion[1][row].bool()]
        ids = torch.cat([before, after]).unsqueeze(0)
        logits = network(input_ids=ids).logits[0, len(before) - 1 : -1].float()
        chosen = logits.log_softmax(-1).gather(1, after.unsqueeze(1)).squeeze(1)
        result[row, : len(after)] = chosen
    return result


def completion_states(
    network: PreTrainedModel, prompt: tuple[Tensor, Tensor], completion: tuple[Tensor, Tensor]
) -> Tensor:
    """The hidden state from which each real completion token is predicted, row after row: [m, d].

    Rows of like length pass the network together, so that little of its work is on padding.
    """
    ids, mask = completion
    first = prompt[0].shape[1] - 1  # what predicts the first completion token
    lengths = mask.sum(-1)
    states, places = [], []
    for rows in processes.pieces(lengths.argsort(stable=True), STATE_ROWS):
        longest = int(lengths[rows].max())
        hidden = hidden_states(
            network,
            torch.cat([prompt[0][rows], ids[rows, :longest]], dim=1),
            torch.cat([prompt[1][rows], mask[rows, :longest]], dim=1),
        )
        row, column = mask[rows, :longest].nonzero(as_tuple=True)
        real = row * hidden.shape[1] + first + column
        states.append(hidden.flatten(0, 1).index_select(0, real))
        places.append(rows[row] * mask.shape[1] + column)
    return torch.cat(states).index_select(0, torch.cat(places).argsort())


def encode_prompts(
    model: LanguageModel, prompts: Sequence[str], room: int
) -> tuple[Tensor, Tensor]:
    """`prompt_rows` as left-padded ids and mask, [n, P] each."""
    return pad(prompt_rows(model, prompts, room), model.tokenizer.pad_token_id, side="left")


def prompt_rows(model: LanguageModel, prompts: Sequence[str], room: int) -> list[list[int]]:
    """The tokens of each prompt, with `room` tokens left in the context.

    They begin as the tokenizer begins a text. One with a chat template makes the prompt a user's
    turn, after which it is the model's. Longer prompts lose their beginning. An empty prompt is the
    tokenizer's beginning of a text, or where it has none one end-of-sequence token.
    """
    opening = [] if model.chats else model.opening  # a template says it itself
    limit = model.context - room - len(opening)
    if limit < 1:
        raise InputError(
            f"dataset.max_new_tokens={room} leaves no room for a prompt "
            f"in a context of {model.context}"
        )
    eos = model.tokenizer.eos_token_id
    rows = _chat_rows(model, prompts) if model.chats else token_ids(model, prompts)
    return [[*opening, *row[-limit:]] or [eos] for row in rows]


def _chat_rows(model: LanguageModel, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of each prompt as what a user says, by the tokenizer's chat template. Templates
    are text with gaps; the library fills them where they can touch nothing else (a sandbox)."""
    around = _rendered(model, [{"role": "user", "content": GAP}], answer=True).split(GAP)
    if len(around) != 2:  # it says the prompt twice, or changes it
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return [_special(model, _rendered(model, turn, answer=True)) for turn in turns]
    # A space before a word is part of its first token.
    before, space = around[0].removesuffix(" "), " " * around[0].endswith(" ")
    first, last = _special(model, before), _special(model, around[1], goes_on=True)
    # What a prompt says is text, also where it spells the end of a turn.
    said = token_ids(model, [space + prompt for prompt in prompts], goes_on=bool(before))
    return [[*first, *row, *last] for row in said]


def _rendered(model: LanguageModel, turns: list[dict[str, str]], answer: bool) -> str:
    text: str = model.tokenizer.apply_chat_template(  # type: ignore[assignment]
        turns, tokenize=False, add_generation_prompt=answer
    )
    return text


def _special(model: LanguageModel, text: str, goes_on: bool = False) -> list[int]:
    """The tokens of a template's own text, in which special tokens are meant."""
    return _tokens(model, [text], goes_on, split_special_tokens=False)[0]


def ends(model: LanguageModel) -> list[int]:
    """The tokens that end what a model writes, first the one by which it closes an answer. In a
    chat that may be another than the end of a text: what its generation settings list besides."""
    tokenizer, eos = model.tokenizer, model.tokenizer.eos_token_id
    if not model.chats:
        return [eos]
    known = getattr(model.network.generation_config, "eos_token_id", None)
    listed = known if isinstance(known, list) else [known]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = list(dict.fromkeys([eos, *(token for token in listed if token in special)]))
    turns = [{"role": "user", "content": GAP}, {"role": "assistant", "content": GAP}]
    closing = _special(model, _rendered(model, turns, answer=False).rpartition(GAP)[2])
    return sorted(found, key=lambda token: token not in closing[:1])


def encode_completions(
    model: LanguageModel, completions: Sequence[str], max_new_tokens: int, closed: bool = True
) -> tuple[Tensor, Tensor]:
    """`completion_rows` as right-padded ids and mask, [n, T] each."""
    rows = completion_rows(model, completions, max_new_tokens, closed)
    return pad(rows, model.tokenizer.pad_token_id, side="right")


def completion_rows(
    model: LanguageModel, completions: Sequence[str], max_new_tokens: int, closed: bool = True
) -> list[list[int]]:
    """The tokens of each completion, closed by the end of sequence; `closed=False`: left open.

    A completion that has no room left for its end stops at max_new_tokens, as a sampled one does.
    """
    if model.chats and not _answers_after_a_space(model):
        completions = [text.removeprefix(" ") for text in completions]
    end = [ends(model)[0]] if closed else []
    rows = token_ids(model, completions, goes_on=True)
    return [[*row, *end][:max_new_tokens] for row in rows]


def _answers_after_a_space(model: LanguageModel) -> bool:
    """Whether a template has a space between the beginning of the model's turn and what it says,
    which the beginning does not end with."""
    turns = [{"role": "user", "content": GAP}, {"role": "assistant", "content": GAP}]
    before = _rendered(model, turns, answer=False).rpartition(GAP)[0]
    return before.endswith(" ") and not _rendered(model, turns[:1], answer=True).endswith(" ")


def pad(rows: Sequence[Sequence[int]], value: int, side: str) -> tuple[Tensor, Tensor]:
    """Token rows of several lengths as ids and mask, int64 [n, longest], padded on `side`."""
    lengths = torch.tensor([len(row) for row in rows])
    places = torch.arange(int(lengths.max()))
    if side == "left":
        places = places.flip(0)
    real = places < lengths.unsqueeze(1)
    ids = torch.full(real.shape, value)
    ids[real] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    return ids, real.long()


def token_ids(model: LanguageModel, texts: Sequence[str], goes_on: bool = False) -> list[list[int]]:
    """Tokens of each text alone, or of one that goes on from another, which has its first space
    where it is written; one that spells the name of a special token is still only text."""
    return _tokens(model, texts, goes_on, split_special_tokens=True)


def _tokens(
    model: LanguageModel, texts: Sequence[str], goes_on: bool, split_special_tokens: bool
) -> list[list[int]]:
    def read(texts: list[str]) -> list[list[int]]:
        return model.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=split_special_tokens,
            verbose=False,
        )["input_ids"]

    if not (goes_on and model.anchor):
        return read(list(texts))
    cut = len(model.anchor)
    rows = read([ANCHOR + text for text in texts])
    # One token for two line feeds is no anchor any more.
    return [
        row[cut:] if row[:cut] == model.anchor else read([text])[0]
        for row, text in zip(rows, texts, strict=True)
    ]


@torch.no_grad()
def _has_plain_head(model: LanguageModel, folder: Path) -> bool:
    """Whether logits are what the output layer makes of the body's states, and nothing more."""
    ids = torch.tensor([[model.tokenizer.eos_token_id] * 2])
    network = model.network
    expected = network(input_ids=ids).logits
    if not torch.isfinite(expected).all():
        raise InputError(f"{folder}: its logits are not finite; expected sound weights")
    head = network.get_output_embeddings()
    if head is None or not takes_positions(network):
        return False
    plain = head(hidden_states(network, ids, torch.ones_like(ids)))
    return torch.allclose(expected, plain, atol=1e-3, rtol=1e-3)


def takes_positions(network: PreTrainedModel) -> bool:
    """Whether the network is told where each token stands, so that padding on the left is none."""
    return "position_ids" in inspect.signature(network.forward).parameters


# --- adapters -------------------------------------------------------------------------------------


def _merged(folder: Path, expected: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal language model that an adapter makes of another, with its own tokenizer if it has
    one."""
    from peft import PeftModel  # takes a second that most runs need not wait

    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"{folder}: an adapter without adapter_model.safetensors; expected it")
    path, revision = hub.adapted(folder)
    try:
        base = hub.resolve(path, revision, "model").folder()
    except InputError as error:
        raise InputError(f"{folder}: what it adapts cannot be read: {error}") from error
    network, tokenizer = read_checkpoint(AutoModelForCausalLM, base, expected)
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    embeddings = network.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:  # type: ignore[operator]
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    try:
        merged = PeftModel.from_pretrained(network, str(folder)).merge_and_unload()
    except Exception as error:  # what a damaged or foreign adapter raises has no common base
        raise InputError(f"{folder}: expected an adapter of {path}: {_reason(error)}") from error
    return merged, tokenizer
