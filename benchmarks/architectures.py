"""The architectures of conf/model with random weights, for what no checkpoint is needed: how much
memory they take, and how fast they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """Of a GPT-NeoX; ours share input and output embeddings, Pythia's do not (Biderman et al. 2023,
    arXiv 2304.01373, table 1 and the configurations published with the checkpoints)."""

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    tied: bool = False

    @property
    def blocks(self) -> int:
        """Weights of all blocks: four matrices with biases in each, and two norms."""
        h, i = self.width, self.inner
        return self.layers * (4 * h * h + 2 * h * i + 4 * h + h + i + 4 * h)

    @property
    def weights(self) -> int:
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.blocks + embeddings + 2 * self.width


PYTHIA = {
    "pythia-14m": Shape(128, 6, 4, 512, 50304),
    "pythia-31m": Shape(256, 6, 8, 1024, 50304),
    "pythia-70m": Shape(512, 6, 8, 2048, 50304),
    "pythia-160m": Shape(768, 12, 12, 3072, 50304),
    "pythia-410m": Shape(1024, 24, 16, 4096, 50304),
    "pythia-1b": Shape(2048, 16, 8, 8192, 50304),
    "pythia-1.4b": Shape(2048, 24, 16, 8192, 50304),
    "pythia-2.8b": Shape(2560, 32, 32, 10240, 50304),
    "pythia-6.9b": Shape(4096, 32, 32, 16384, 50432),
    "pythia-12b": Shape(5120, 36, 40, 20480, 50688),
}
OURS = ("neox-50k", "neox-100k", "neox-400k", "neox-1m5", "neox-6m")


def shape_of(model: str) -> Shape:
    if model in PYTHIA:
        return PYTHIA[model]
    found = values(f"model/{model}")
    sizes = (found[key] for key in ("hidden_size", "layers", "heads", "intermediate_size"))
    return Shape(*sizes, found["vocab_size"], tied=True)


def size(weights: int) -> str:
    return f"{weights / 1e6:.3g} M" if weights < 1e9 else f"{weights / 1e9:.3g} B"


def write(shape: Shape, folder: Path) -> None:
    """A checkpoint of this shape: random weights, and a tokenizer to which each hexadecimal number
    is a token, so that what is sampled can be read again by a reward."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    ends = {"<end>": 0, "<padding>": 1}
    words = Tokenizer(
        WordLevel(ends | {f"{i:x}": i for i in range(2, shape.vocabulary)}, unk_token="<end>")
    )
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<padding>"
    )
    save(shape, tokenizer, folder)


def save(shape: Shape, tokenizer: Any, folder: Path) -> None:
    """GPT-NeoX of this shape with random weights, and a tokenizer."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from irl_exp.models.language_model import LanguageModel

    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=shape.tied,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    network = GPTNeoXForCausalLM(config)
    assert network.num_parameters() == shape.weights
    LanguageModel(network, tokenizer).save(folder)


def values(choice: str) -> dict[str, Any]:
    """The keys of a file in conf/, without its defaults list."""
    from omegaconf import OmegaConf

    path = Path(__file__).parent.parent / "conf" / f"{choice}.yaml"
    found = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items() if key != "defaults"}
