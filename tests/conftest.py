"""Tiny models that many tests share. No test changes them: what is trained is loaded anew."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from irl_exp.config import ScratchModel, TrainerConfig
from irl_exp.data import synthetic
from irl_exp.models.language_model import LanguageModel, build, train_tokenizer
from tests import warm

SMALL_STUDY = (
    "+debug=smoke",
    "dataset.size=800",
    "dataset.max_new_tokens=8",
    "demonstrations.prompts=16",
    "demonstrations.test_prompts=16",
    "evaluation.draws=10",
    "trainer.threads=1",
)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [comment.text for comment in synthetic.generate(2000, seed=0)]


@pytest.fixture(scope="session")
def tiny(texts: list[str]) -> LanguageModel:
    """GPT-NeoX with random weights, large enough that every token and position matters."""
    config = ScratchModel(
        name="tiny",
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        layers=2,
        heads=2,
        context=64,
        epochs=1,
        batch_size=8,
        learning_rate=1e-3,
        warmup=0.1,
        weight_decay=0.0,
    )
    model = build(config, train_tokenizer(texts, config.vocab_size), seed=0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
        model.network.get_parameter("gpt_neox.final_layer_norm.weight").mul_(3)
    model.network.eval()
    return model


@pytest.fixture(scope="session")
def tiny_folder(tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.save(folder)
    return folder


@pytest.fixture(scope="session")
def trainer() -> TrainerConfig:
    return TrainerConfig(
        name="test",
        accelerator="cpu",
        precision="32-true",
        matmul_precision="highest",
        threads=1,
        processes=1,
        sharded=False,
        recompute_activations=False,
        score_batch_size=256,
        sample_batch_size=4096,
    )


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small run up to its evaluation, with a store of its own beside it."""
    folder = tmp_path_factory.mktemp("study")
    words = [warm.command("irl-exp"), *SMALL_STUDY, "until=evaluate"]
    places = [f"hydra.run.dir={folder / 'run'}", f"paths.store={folder / 'store'}"]
    subprocess.run([*words, *places], check=True, capture_output=True, cwd=folder)
    return folder / "run"


# --- a world small enough to be enumerated ----------------------------------------------------

SYMBOLS = ["<eos>", "<pad>", "a", "b", "c", "x", "y", "z"]
IMPOSSIBLE = -20.0


@dataclass(frozen=True)
class World:
    """All completions of up to two tokens, after three prompts that x, y and z end.

    A completion is "", one of the letters a, b, c with the end of sequence, or two of them.
    `reference` and `aligned` are language models, `aligned` is pi_ref exp(R/beta)/Z. The
    probabilities and rewards, [3, 13] float64, are computed by enumeration, without the models.
    The reward of a completion is the sum of its two steps' rewards.
    """

    reference: LanguageModel
    aligned: LanguageModel
    beta: float
    prompts: list[str]
    completions: list[str]
    rewards: Tensor
    reference_probs: Tensor
    aligned_probs: Tensor

    @property
    def kl(self) -> Tensor:
        """KL(pi_E, pi_ref) of each prompt, nats: float64 [3]."""
        return (self.aligned_probs * (self.aligned_probs / self.reference_probs).log()).sum(-1)

    def all_pairs(self) -> tuple[list[str], list[str]]:
        """Every prompt with every completion, in the order of `rewards`."""
        pairs = list(product(self.prompts, self.completions))
        return [prompt for prompt, _ in pairs], [completion for _, completion in pairs]

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        rows = [self.prompts.index(prompt) for prompt in prompts]
        columns = [self.completions.index(completion) for completion in completions]
        return self.rewards[rows, columns].float()

    def frequencies(self, completions: list[list[str]]) -> Tensor:
        """Shares of each completion among those drawn for each prompt: float64 [3, 13]."""
        counts = [[row.count(text) for text in self.completions] for row in completions]
        return torch.tensor(counts, dtype=torch.float64) / len(completions[0])


@pytest.fixture(scope="session")
def world() -> World:
    beta = 0.5
    generator = torch.Generator().manual_seed(0)
    eos, letters, ends = 0, [2, 3, 4], [5, 6, 7]
    size = len(SYMBOLS)
    # What a token costs to write after another: every token but a, b, c and the end is impossible.
    logits = torch.full((size, size), IMPOSSIBLE, dtype=torch.float64)
    written = [eos, *letters]
    logits[:, written] = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    reference = logits.log_softmax(-1)
    rewards = torch.randn(size, size, generator=generator, dtype=torch.float64)

    # The optimal policy by backward induction: a first letter is worth what can follow it.
    aligned = reference + rewards / beta
    aligned[:, 1], aligned[:, ends] = IMPOSSIBLE, IMPOSSIBLE
    future = aligned[letters][:, written].logsumexp(-1)
    aligned[5:, letters] += future

    completions, probs, values = [""], [reference[ends, eos]], [rewards[ends, eos]]
    for first in letters:
        for second in written:
            completions.append(SYMBOLS[first] + (SYMBOLS[second] if second != eos else ""))
            probs.append(reference[ends, first] + reference[first, second])
            values.append(rewards[ends, first] + rewards[first, second])
    reference_probs, reward = torch.stack(probs, 1).exp(), torch.stack(values, 1)
    tilted = reference_probs * (reward / beta).exp()
    return World(
        reference=_bigram(reference),
        aligned=_bigram(aligned),
        beta=beta,
        prompts=["x", "xy", "yxz"],
        completions=completions,
        rewards=reward,
        reference_probs=reference_probs,
        aligned_probs=tilted / tilted.sum(-1, keepdim=True),
    )


def _bigram(logits: Tensor) -> LanguageModel:
    """A GPT-NeoX whose next-token logits are logits[last token]: its blocks add nothing."""
    size = len(SYMBOLS)
    config = GPTNeoXConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = GPTNeoXForCausalLM(config).eval()
        for name, parameter in network.named_parameters():
            if "attention.dense" in name or "dense_4h_to_h" in name:
                parameter.zero_()
        network.get_input_embeddings().weight.normal_()
        states = network.base_model(torch.arange(size).unsqueeze(1)).last_hidden_state[:, 0]
        head = torch.linalg.pinv(states.double()) @ logits
        network.get_output_embeddings().weight.copy_(head.T)
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(SYMBOLS)}, []))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SYMBOLS[0], pad_token=SYMBOLS[1]
    )
    return LanguageModel(network, fast)


# --- how a policy's samples compare -----------------------------------------------------------


@pytest.fixture(scope="session")
def by_hand() -> Callable[[LanguageModel, list[int], list[int]], Tensor]:
    """log pi of each completion token, from the full logits of one row without padding."""

    def log_probs(model: LanguageModel, prompt: list[int], completion: list[int]) -> Tensor:
        ids = torch.tensor([prompt + completion])
        with torch.no_grad():
            table = model.network(input_ids=ids).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, ids.shape[1] - 1)
        return torch.stack([table[i, ids[0, i + 1]] for i in places])

    return log_probs


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For many small computations: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
