"""Completions are drawn from the very distribution whose log-probabilities are taken."""

import copy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from irl_exp.metrics.behavior import optimality
from irl_exp.models import generation, language_model
from irl_exp.models.generation import NetworkPolicy, sample_tokens
from irl_exp.models.language_model import LanguageModel

PROMPTS = ["You", "On the harbour article,", "", "Looking over Mira's last edit, thanks again,"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def p_value(tokens: Tensor, probs: Tensor) -> float:
    """Chi-square of drawn tokens against probs [V]; rare tokens are counted together."""
    counts = torch.bincount(tokens, minlength=len(probs)).double().numpy()
    expected = probs.double().numpy() * len(tokens) / float(probs.double().sum())
    rare = expected < 10
    assert (~rare).sum() >= 3, "too few tokens for the test to say anything"
    merged = [np.append(x[~rare], x[rare].sum()) for x in (counts, expected)]
    return float(stats.chisquare(*merged).pvalue)


# --- the sampler ------------------------------------------------------------------------------


def test_tokens_are_drawn_from_the_softmax_with_and_without_the_cache(tiny: LanguageModel) -> None:
    """The first token reads the prompt, the second one the cache: 20,000 draws of both."""
    ids, mask = language_model.encode_prompts(tiny, ["Your last bridge edit:", "You"], 2)
    rows = (ids[1:].repeat(20_000, 1), mask[1:].repeat(20_000, 1))  # left-padded
    tokens = sample_tokens(tiny, rows, 2, seeded()).ids
    prompt = ids[1][mask[1].bool()].tolist()

    def softmax(row: list[int]) -> Tensor:
        with torch.no_grad():
            return tiny.network(torch.tensor([row])).logits[0, -1].softmax(-1)

    assert p_value(tokens[:, 0], softmax(prompt)) > 1e-3
    first = int(tokens[:, 0].mode().values)
    after = tokens[tokens[:, 0] == first, 1]
    assert first != tiny.tokenizer.eos_token_id
    assert p_value(after, softmax([*prompt, first])) > 1e-3
    # What the test would say of another temperature.
    assert p_value(tokens[:, 0], softmax(prompt).pow(0.9)) < 1e-6


def test_completions_have_the_probabilities_of_enumeration(world: Any) -> None:
    for model, probs in (
        (world.reference, world.reference_probs),
        (world.aligned, world.aligned_probs),
    ):
        drawn = NetworkPolicy(model, 2, 4096).sample(world.prompts, 4_000, seeded())
        distance = (world.frequencies(drawn.completions) - probs).abs().sum(-1) / 2
        assert distance.max() < 0.03


def test_the_end_of_sequence_ends_a_completion(world: Any) -> None:
    eos, pad = 0, 1
    ids, mask = language_model.encode_prompts(world.reference, world.prompts * 200, 4)
    tokens, real = sample_tokens(world.reference, (ids, mask), 4, seeded())[:2]
    assert tokens.shape == real.shape == (600, 4)
    ends = set()
    for row, written in zip(tokens.tolist(), real.tolist(), strict=True):
        n = sum(written)
        assert written == [1] * n + [0] * (4 - n)
        assert eos not in row[: n - 1]
        assert n == 4 or row[n - 1] == eos
        assert row[n:] == [pad] * (4 - n)
        ends.add(n)
    assert ends == {1, 2, 3, 4}


def test_sampling_stops_when_every_row_has_ended(world: Any) -> None:
    prompt = language_model.encode_prompts(world.reference, ["x"], 4)
    lengths = {
        sample_tokens(world.reference, prompt, 4, seeded(seed))[0].shape[1] for seed in range(40)
    }
    assert lengths == {1, 2, 3, 4}


def test_a_generator_reproduces_completions_and_is_the_only_source(tiny: LanguageModel) -> None:
    policy = NetworkPolicy(tiny, 8, 5)
    before = torch.random.get_rng_state()
    one, same, other = (policy.sample(PROMPTS, 3, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.completions == same.completions != other.completions
    assert torch.equal(one.lengths, same.lengths)


def test_greedy_completions_do_not_depend_on_the_batch(tiny: LanguageModel) -> None:
    """Prompts of several lengths in one batch, one by one, and the arg max without a cache."""
    together = NetworkPolicy(tiny, 8, 64, greedy=True).sample(PROMPTS, 1, seeded())
    alone = NetworkPolicy(tiny, 8, 1, greedy=True).sample(PROMPTS, 1, seeded())
    assert together.completions == alone.completions
    eos = tiny.tokenizer.eos_token_id
    for prompt, (text,) in zip(PROMPTS, together.completions, strict=True):
        ids = tiny.tokenizer(prompt)["input_ids"] or [eos]
        written: list[int] = []
        while len(written) < 8 and eos not in written:
            with torch.no_grad():
                written.append(
                    int(tiny.network(torch.tensor([ids + written])).logits[0, -1].argmax())
                )
        assert text == tiny.tokenizer.decode(written, skip_special_tokens=True)


def test_rows_that_end_leave_the_batch_without_a_trace(
    tiny: LanguageModel, texts: list[str]
) -> None:
    """With a frequent token as the end of sequence, rows end one after the other."""
    prompts = sorted({" ".join(text.split()[:4]) for text in texts})[:60]
    encoded = language_model.encode_prompts(tiny, prompts, 12)
    written = sample_tokens(tiny, encoded, 12, seeded(), greedy=True)[0].tolist()
    common = max(range(400), key=lambda token: sum(token in row for row in written))
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(common)
    model = LanguageModel(tiny.network, tokenizer)
    together = NetworkPolicy(model, 12, 60, greedy=True).sample(prompts, 1, seeded())
    alone = NetworkPolicy(model, 12, 1, greedy=True).sample(prompts, 1, seeded())
    assert together.completions == alone.completions
    assert torch.equal(together.lengths, alone.lengths)
    share_of_ended = (together.lengths < 12).float().mean()
    assert share_of_ended > 1 - generation.COMPACT_BELOW and len(together.lengths.unique()) > 3


def test_samples_keep_prompts_apart(world: Any) -> None:
    """Row i belongs to prompt i whatever the batch size, lengths count the end of sequence."""
    samples = NetworkPolicy(world.reference, 2, 7).sample(world.prompts, 4, seeded())
    assert [len(row) for row in samples.completions] == [4, 4, 4]
    expected = [[min(len(text) + 1, 2) for text in row] for row in samples.completions]
    assert samples.lengths.tolist() == expected
    assert samples.kl is None
    prompts, completions = samples.flat()
    assert prompts == [prompt for prompt in world.prompts for _ in range(4)]
    assert completions == [text for row in samples.completions for text in row]


def test_log_ratios_are_those_of_enumeration(world: Any) -> None:
    drawn = NetworkPolicy(world.aligned, 2, 64).sample(
        world.prompts, 50, seeded(), reference=world.reference
    )
    table = (world.aligned_probs / world.reference_probs).log().float()
    expected = torch.stack(
        [
            table[i, [world.completions.index(text) for text in row]]
            for i, row in enumerate(drawn.completions)
        ]
    )
    torch.testing.assert_close(drawn.kl, expected, rtol=0, atol=1e-3)


def test_the_log_ratio_of_a_policy_to_itself_is_zero(tiny: LanguageModel) -> None:
    drawn = NetworkPolicy(tiny, 8, 64).sample(PROMPTS, 3, seeded(), reference=tiny)
    assert drawn.kl is not None
    assert drawn.kl.abs().max() == 0


# --- other architectures, beside the library's own loop -------------------------------------------

WORDS = ["<eos>", "<pad>", "a", "b"]
ARCHITECTURES = {
    "gpt-neox": (GPTNeoXForCausalLM, GPTNeoXConfig, {"intermediate_size": 32}),
    # Half as many heads of keys and values as of queries.
    "llama": (
        LlamaForCausalLM,
        LlamaConfig,
        {"intermediate_size": 32, "num_key_value_heads": 1},
    ),
    "gpt-2": (GPT2LMHeadModel, GPT2Config, {"n_inner": 32}),
}


def random_model(architecture: str, words: list[str]) -> LanguageModel:
    """Random weights that are large enough for every token and position to matter."""
    kind, config, more = ARCHITECTURES[architecture]
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(config(vocab_size=len(words), **sizes, **ends, **more))
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0.0, 0.5)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)})),
        eos_token="<eos>",
        pad_token="<pad>",
    )
    language_model.use_eager_attention(network)
    return LanguageModel(network.eval(), tokenizer)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lengths", [[5] * 64, range(1, 65)], ids=["no padding", "padding"])
def test_greedy_completions_are_those_of_generate(architecture: str, lengths: Any) -> None:
    """Token for token, rows that end early and leave the batch included."""
    model = random_model(architecture, [*WORDS[:2], *map(str, range(30))])
    draws = seeded()
    rows = [torch.randint(2, 32, (n,), generator=draws).tolist() for n in lengths]
    ids, mask = language_model.pad(rows, 1, side="left")

    def by_library(end: int | None) -> Tensor:
        greedy = GenerationConfig(
            max_new_tokens=24, do_sample=False, eos_token_id=end, pad_token_id=1
        )
        model.network.generation_config = GenerationConfig()
        written = model.network.generate(ids, attention_mask=mask, generation_config=greedy)
        return written[:, ids.shape[1] :]

    # Of all tokens the one that ends the most like half of them.
    endless = by_library(None)
    end = min(range(2, 32), key=lambda token: abs((endless == token).any(-1).sum() - 32))
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(end)
    ours, real = sample_tokens(model, (ids, mask), 24, seeded(), greedy=True)[:2]
    assert torch.equal(ours, by_library(end))
    ended = (ours == end).any(-1).float().mean()
    assert 1 - generation.COMPACT_BELOW < ended < 1 and real.sum(-1).unique().numel() > 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whole_completions_have_the_probabilities_of_enumeration(architecture: str) -> None:
    """40,000 completions of up to three tokens after each of two prompts, one of them padded,
    against all that can be written, without cache or padding."""
    model, prompts = random_model(architecture, WORDS), [[2, 3, 3, 2], [3]]
    everything = [
        row
        for n in (1, 2, 3)
        for row in product(range(4), repeat=n)
        if 0 not in row[:-1] and (n == 3 or row[-1] == 0)
    ]
    ids, mask = language_model.pad(prompts * 40_000, 1, side="left")
    tokens, real = sample_tokens(model, (ids, mask), 3, seeded())[:2]
    for i, prompt in enumerate(prompts):
        written = [
            everything.index(tuple(row[:n]))
            for row, n in zip(tokens[i::2].tolist(), real[i::2].sum(-1).tolist(), strict=True)
        ]
        probs = torch.tensor([probability(model, prompt, row) for row in everything])
        assert probs.sum() == pytest.approx(1, abs=1e-5)
        assert p_value(torch.tensor(written), probs) > 1e-3
        assert p_value(torch.tensor(written), probs.pow(0.95)) < 1e-6


def probability(model: LanguageModel, prompt: list[int], completion: tuple[int, ...]) -> float:
    with torch.no_grad():
        logits = model.network(torch.tensor([[*prompt, *completion]])).logits[0].double()
    chosen = logits[len(prompt) - 1 : -1].softmax(-1)
    return float(chosen[range(len(completion)), list(completion)].prod())


# --- the optimum of KL-regularized RLHF -------------------------------------------------------


def test_the_expert_that_rlhf_aims_at_has_optimality_one(world: Any) -> None:
    """Its R - beta log pi/pi_ref is the constant beta log Z of each prompt, without any noise."""
    k = 6_000
    aligned = NetworkPolicy(world.aligned, 2, 4096).sample(
        world.prompts, 500, seeded(0), world.reference
    )
    reference = NetworkPolicy(world.reference, 2, 4096).sample(world.prompts, k, seeded(1))
    rewards = world.score(*aligned.flat()).view(3, -1)
    assert aligned.kl is not None
    constant = rewards - world.beta * aligned.kl
    log_z = (world.reference_probs * (world.rewards / world.beta).exp()).sum(-1).log()
    expected = (world.beta * log_z).float().unsqueeze(1).expand_as(constant)
    torch.testing.assert_close(constant, expected, rtol=0, atol=1e-3)

    free = world.score(*reference.flat()).view(3, -1)
    found = optimality(rewards, aligned.kl, free, world.beta)
    assert found == pytest.approx(1, abs=0.02)
    assert optimality(free, torch.zeros(3), free, world.beta) == pytest.approx(0, abs=1e-9)


def test_what_is_drawn_comes_with_its_likelihood_and_its_state(tiny: LanguageModel) -> None:
    prompt = language_model.encode_prompts(tiny, PROMPTS * 8, 12)
    drawn = sample_tokens(tiny, prompt, 12, seeded(), with_states=True)
    written = (drawn.ids, drawn.mask)
    assert drawn.states is not None and drawn.mask.sum(-1).unique().numel() > 1
    with torch.no_grad():
        expected = language_model.completion_log_probs(tiny.network, prompt, written)
        states = language_model.completion_states(tiny.network, prompt, written)
    assert torch.allclose(drawn.log_probs, expected, atol=1e-5)
    assert torch.allclose(drawn.states[drawn.mask.bool()], states, atol=1e-5)
    assert (drawn.states[~drawn.mask.bool()] == 0).all()
