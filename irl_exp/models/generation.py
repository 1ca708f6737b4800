"""What can be sampled from, and sampling itself, with one frozen set of settings.

T = 1, no top-k, no top-p, no minimum length: the distribution that completions are drawn from is
the one whose log-probabilities are taken, so that KL(pi, pi_ref) is what its name says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig

from irl_exp import processes
from irl_exp.data.given import joined
from irl_exp.models import decoding, language_model
from irl_exp.models.language_model import LanguageModel

# The share of rows still writing below which those that have ended leave the batch.
COMPACT_BELOW = 0.75
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Samples:
    """n prompts with k completions each.

    completions: n lists of k texts. lengths: int64 [n, k], tokens with the end of sequence.
    kl: float32 [n, k], the estimate of log pi/pi_ref in nats that belongs to each completion (k1
    for a network; for a tilted policy its prompt's KL), None where no reference was given.
    overlap: float32 [n, k], in the same way of the sum over y of min(pi(y), pi_ref(y)), which is
    the mean over y ~ pi of min(1, pi_ref/pi).
    effective_size: float64 [n], of a tilted policy's candidates, else None.
    """

    prompts: list[str]
    completions: list[list[str]]
    lengths: Tensor
    kl: Tensor | None = None
    overlap: Tensor | None = None
    effective_size: Tensor | None = None

    def flat(self) -> tuple[list[str], list[str]]:
        """Prompts repeated and completions, n * k each."""
        prompts = [prompt for prompt in self.prompts for _ in self.completions[0]]
        return prompts, [text for row in self.completions for text in row]


class Policy(Protocol):
    """Anything that writes completions."""

    def sample(
        self,
        prompts: Sequence[str],
        k: int,
        generator: torch.Generator,
        reference: LanguageModel | None = None,
    ) -> Samples: ...


@dataclass(frozen=True)
class NetworkPolicy:
    """A language model that writes up to max_new_tokens tokens."""

    model: LanguageModel
    max_new_tokens: int
    batch_size: int
    greedy: bool = False

    def sample(
        self,
        prompts: Sequence[str],
        k: int,
        generator: torch.Generator,
        reference: LanguageModel | None = None,
    ) -> Samples:
        """k completions of each prompt; `reference` asks for log pi/pi_ref of each."""
        texts: list[str] = []
        lengths, kl = [], []
        repeated = [prompt for prompt in prompts for _ in range(k)]
        for start in range(0, len(repeated), self.batch_size):
            rows = repeated[start : start + self.batch_size]
            prompt = _to(
                language_model.encode_prompts(self.model, rows, self.max_new_tokens), self.device
            )
            caches = decoding.keeps_caches(self.model.network)
            draw = sample_tokens if caches else sample_by_library
            completion = draw(
                self.model, prompt, self.max_new_tokens, generator, greedy=self.greedy
            )[:2]
            texts += written(self.model, rows, completion[0])
            lengths.append(completion[1].sum(-1).cpu())
            if reference is not None:
                kl.append(log_ratio(self.model, reference, prompt, completion).cpu())
        ratios = torch.cat(kl).view(-1, k) if kl else None
        return Samples(
            prompts=list(prompts),
            completions=[texts[i : i + k] for i in range(0, len(texts), k)],
            lengths=torch.cat(lengths).view(-1, k),
            kl=ratios,
            overlap=None if ratios is None else (-ratios).exp().clamp(max=1),
        )

    @property
    def device(self) -> torch.device:
        return next(self.model.network.parameters()).device


class Drawn(NamedTuple):
    """n completions of at most T tokens, right-padded; an end of sequence is part of its own.

    ids and mask: int64 [n, T]. log_probs: float32 [n, T], of each token as it was drawn, in nats.
    states: float32 [n, T, d], the hidden state from which each was drawn, if they were asked for.
    Both are 0 at padding.
    """

    ids: Tensor
    mask: Tensor
    log_probs: Tensor
    states: Tensor | None


@torch.no_grad()
def sample_tokens(
    model: LanguageModel,
    prompt: tuple[Tensor, Tensor],
    max_new_tokens: int,
    generator: torch.Generator,
    greedy: bool = False,
    shared: bool = False,
    with_states: bool = False,
) -> Drawn:
    """One completion of each left-padded prompt row, of max_new_tokens tokens at most.

    Draws by inverse CDF, which needs one uniform per token. `shared`: the rows are this process's
    of a batch that all write together (processes.mine).
    """
    step, mask = prompt
    ended = torch.tensor(language_model.ends(model), device=step.device)
    reader = decoding.reader(model.network, mask, max_new_tokens)
    pad, shape = model.tokenizer.pad_token_id, (len(step), max_new_tokens)
    ids = torch.full(shape, pad, device=step.device)
    written = torch.zeros(shape, dtype=torch.long, device=step.device)
    log_probs, states = torch.zeros(shape, device=step.device), None
    rows = torch.arange(len(step), device=step.device)  # which completion each row writes
    alive = torch.ones_like(rows, dtype=torch.bool)
    draws = _Draws(len(step), generator, shared)
    for t in range(max_new_tokens):
        logits, state = reader.read(step)
        probs = logits.float().softmax(-1)
        token = probs.argmax(-1) if greedy else _draw(probs, draws.uniforms(rows))
        # Rounding can draw the last token where its probability is 0 in 32 bits: no infinities.
        drawn = probs.gather(1, token.unsqueeze(1)).squeeze(1).clamp_min(TINY).log()
        token = torch.where(alive, token, pad)
        ids[rows, t] = token
        written[rows, t] = alive.long()
        log_probs[rows, t] = torch.where(alive, drawn, 0.0)
        if with_states and state is not None:
            states = log_probs.new_zeros(*shape, state.shape[1]) if states is None else states
            states[rows, t] = state.float() * alive.unsqueeze(1)
        alive = alive & ~torch.isin(token, ended)
        going_on = draws.going_on(rows[alive])
        if not going_on.any():
            break
        # Rows that have ended cost a CPU as much as others: leave them behind when they are many.
        if step.device.type == "cpu" and going_on.float().mean() < COMPACT_BELOW:
            draws.wanted = draws.wanted[going_on]
            if alive.any():  # else only other processes are still writing
                reader.keep(alive.nonzero().squeeze(1))
                token, rows, alive = token[alive], rows[alive], alive[alive]
        step = token.unsqueeze(1)
    end = t + 1
    states = None if states is None else states[:, :end]
    return Drawn(ids[:, :end], written[:, :end], log_probs[:, :end], states)


@torch.no_grad()
def sample_by_library(
    model: LanguageModel,
    prompt: tuple[Tensor, Tensor],
    max_new_tokens: int,
    generator: torch.Generator,
    greedy: bool = False,
) -> tuple[Tensor, Tensor]:
    """`sample_tokens` of any other architecture, by transformers' own loop, a row at a time:
    padding on the left would be text to it."""
    tokenizer, rows = model.tokenizer, []
    device = prompt[0].device
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    settings = GenerationConfig(
        do_sample=not greedy,
        **({} if greedy else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}),
        max_new_tokens=max_new_tokens,
        eos_token_id=language_model.ends(model),
        pad_token_id=tokenizer.pad_token_id,
    )
    own, model.network.generation_config = model.network.generation_config, GenerationConfig()
    # The library draws from the global generator: seed it inside a fork, leave none changed.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for ids, mask in zip(*prompt, strict=True):
            before = ids[mask.bool()].unsqueeze(0)
            written = model.network.generate(  # type: ignore[operator]
                before, attention_mask=torch.ones_like(before), generation_config=settings
            )
            rows.append(written[0, before.shape[1] :].tolist())
    model.network.generation_config = own
    completions = language_model.pad(rows, tokenizer.pad_token_id, side="right")
    return completions[0].to(device), completions[1].to(device)


class _Draws:
    """A uniform for each row that is still written, at each token.

    Where processes share a batch, each draws for the rows of all and takes what falls to its own:
    the completions are those that one process would write.
    """

    def __init__(self, n: int, generator: torch.Generator, shared: bool) -> None:
        self.generator = generator
        self.shared = shared
        # Rows of the whole batch: those that are drawn for, and those of this process.
        everyone = n * processes.size() if shared else n
        self.wanted = torch.arange(everyone, device=generator.device)
        self.own = processes.mine(self.wanted) if shared else self.wanted
        self.values = torch.zeros(everyone, 1, device=generator.device)

    def uniforms(self, rows: Tensor) -> Tensor:
        """Those of some of this process's rows: [len(rows), 1]."""
        shape = (len(self.wanted), 1)
        device = self.generator.device
        self.values[self.wanted] = torch.rand(shape, generator=self.generator, device=device)
        return self.values[self.own[rows]]

    def going_on(self, rows: Tensor) -> Tensor:
        """Which of all rows that are drawn for go on, told which of this process's do."""
        alive = torch.zeros(len(self.own), device=rows.device)
        alive[rows] = 1
        if self.shared:
            alive = processes.gathered(alive, len(self.values))
        return alive[self.wanted] > 0


def _draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """One token of each row [n, V] by inverse CDF: torch.multinomial is slow over a vocabulary."""
    cdf = probs.cumsum(-1)
    # Scale by the total (1 up to rounding) so that no draw can fall behind the last token.
    return (
        torch.searchsorted(cdf, uniform * cdf[:, -1:], right=True)
        .squeeze(1)
        .clamp_max(cdf.shape[1] - 1)
    )


def decode(model: LanguageModel, ids: Tensor | Sequence[Sequence[int]]) -> list[str]:
    """Texts of completions, without special tokens, and with the space that they begin with."""
    rows = ids.tolist() if isinstance(ids, Tensor) else ids
    texts = model.tokenizer.batch_decode(
        [[*model.anchor, *row] for row in rows],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    return [text[len(language_model.ANCHOR) :] for text in texts] if model.anchor else texts


def written(
    model: LanguageModel, prompts: Sequence[str], ids: Tensor | Sequence[Sequence[int]]
) -> list[str]:
    """`decode`, so that prompt + completion is one text: a chat's answer gets the space that it
    begins without."""
    texts = decode(model, ids)
    return [joined(*pair) for pair in zip(prompts, texts, strict=True)] if model.chats else texts


@torch.no_grad()
def log_ratio(
    policy: LanguageModel,
    reference: LanguageModel,
    prompt: tuple[Tensor, Tensor],
    completion: tuple[Tensor, Tensor],
) -> Tensor:
    """log pi(y|x) - log pi_ref(y|x), summed over a completion, in nats: [n]."""
    ours = language_model.completion_log_probs(policy.network, prompt, completion)
    theirs = language_model.completion_log_probs(reference.network, prompt, completion)
    return (ours - theirs).sum(-1)


def load_network(folder: Path, device: str = "cpu") -> LanguageModel:
    model = language_model.load(folder)
    model.network.to(device)  # type: ignore[arg-type]
    return model


def _to(pair: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    return pair[0].to(device), pair[1].to(device)
