"""Peak memory of PPO for each `model` option: measured where it fits, computed where it does not.

    python -m benchmarks.memory [--limit GIB] [--device cuda] [--precision bf16-mixed] [MODEL ...]

Each measurement is a process of its own: a network of the option's shape with random weights, one
rollout of 32 prompts of 64 tokens with 64 new ones, one optimizer step in micro-batches of 16. On a
CPU it is by how much the process grew at its peak, after the libraries were loaded; on a CUDA
device what torch had allocated there at most. Beside it the states alone, by count: 4 bytes each
for weights, gradients and AdamW's two moments, of what trains, and for the reference. Prints a
Markdown table. Measured is what is computed to need less than the limit, half of it for slack.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
PROMPTS, PROMPT_TOKENS, NEW_TOKENS, MICRO_BATCH = 32, 64, 64, 16
LORA_RANK = 8


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

    @property
    def updates(self) -> int:
        """Weights of LoRA's updates to the four matrices of each block."""
        h, i, r = self.width, self.inner, LORA_RANK
        return self.layers * r * ((h + 3 * h) + (h + h) + (h + i) + (i + h))


SHAPES = {
    "neox-50k": Shape(32, 2, 2, 128, 512, True),
    "neox-400k": Shape(96, 3, 4, 384, 512, True),
    "neox-1m5": Shape(128, 6, 4, 512, 2048, True),
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
# How PPO trains -> overrides of its configuration.
WAYS: dict[str, dict[str, Any]] = {
    "all": {},
    "all, recomputed": {"recompute": True},
    "last 4 layers": {"trainable": "last_layers", "last_layers": 4},  # or all there are
    "LoRA": {"trainable": "lora", "lora_rank": LORA_RANK},
    "LoRA, recomputed": {"trainable": "lora", "lora_rank": LORA_RANK, "recompute": True},
}


def states(shape: Shape, way: str) -> int:
    """Bytes of weights, gradients, moments and the reference; of LoRA no second copy is held."""
    if way.startswith("LoRA"):
        return 4 * shape.weights + 16 * shape.updates
    trained = shape.weights
    if way.startswith("last"):
        trained = shape.blocks * min(4, shape.layers) // shape.layers + 2 * shape.width
    return 8 * shape.weights + 12 * trained


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of PPO for each model option.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="of conf/model; all if none")
    parser.add_argument("--limit", type=float, default=16.0, help="GiB that may be used")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        folder, way = arguments.one
        print(json.dumps(measure(Path(folder), way, arguments.device, arguments.precision)))
        return
    print(f"| model | weights | {' | '.join(WAYS)} |")
    print("|---" * (len(WAYS) + 2) + "|")
    for model in arguments.models or SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            cells = [cell(model, way, Path(folder), arguments) for way in WAYS]
        print(f"| `{model}` | {size(SHAPES[model].weights)} | {' | '.join(cells)} |", flush=True)


def cell(model: str, way: str, folder: Path, arguments: argparse.Namespace) -> str:
    """`measured (states)`, or the states alone, marked as computed; GiB."""
    computed = states(SHAPES[model], way) / GIB
    if 1.5 * computed > arguments.limit:
        return f"*{computed:.3g}*"
    if not any(folder.iterdir()):
        write(SHAPES[model], folder)
    command = [sys.executable, "-m", "benchmarks.memory", "--one", str(folder), way]
    command += ["--device", arguments.device, "--precision", arguments.precision]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{model}, {way}: {found}", file=sys.stderr, flush=True)
    return f"{found['bytes'] / GIB:.3g} ({computed:.3g})"


def size(weights: int) -> str:
    return f"{weights / 1e6:.3g} M" if weights < 1e9 else f"{weights / 1e9:.3g} B"


def write(shape: Shape, folder: Path) -> None:
    """A checkpoint of this shape, with random weights and a tokenizer of bytes."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from irl_exp.models.language_model import LanguageModel, train_tokenizer

    tokenizer = train_tokenizer([" a"], 300)
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
    LanguageModel(GPTNeoXForCausalLM(config), tokenizer).save(folder)


def measure(reference: Path, way: str, device: str, precision: str) -> dict[str, float]:
    """One rollout and one step in this process: bytes at the peak, completions per second."""
    import torch

    from irl_exp.config import PPOConfig, TrainerConfig
    from irl_exp.models.reward_kinds import LengthReward
    from irl_exp.models.reward_model import NormalizedReward, Normalizer
    from irl_exp.modules import ppo

    overrides = dict(WAYS[way])
    again = overrides.pop("recompute", False)
    layers = json.loads((reference / "config.json").read_text())["num_hidden_layers"]
    if "last_layers" in overrides:
        overrides["last_layers"] = min(overrides["last_layers"], layers)
    small = {"iterations": 1, "batch_size": PROMPTS, "minibatch_size": PROMPTS}
    small |= {"micro_batch_size": MICRO_BATCH, "stop_distinct_2": 0}
    rlhf = PPOConfig(**{**values("rlhf/ppo"), **small, **overrides})
    hardware = {"accelerator": device, "precision": precision, "recompute_activations": again}
    trainer = TrainerConfig(**{**values("trainer/cpu"), **hardware})
    before, start = _peak(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ppo.align(
            rlhf,
            reference,
            NormalizedReward(LengthReward(-1.0), Normalizer(float(NEW_TOKENS), 1.0)),
            [" a" * PROMPT_TOKENS] * PROMPTS,
            NEW_TOKENS,
            order=torch.Generator().manual_seed(0),
            generator=torch.Generator(device).manual_seed(0),
            trainer=trainer,
            folder=Path(folder),
        )
    seconds = time.perf_counter() - start
    grown = torch.cuda.max_memory_allocated() if device == "cuda" else _peak() - before
    return {"bytes": grown, "completions_per_second": PROMPTS / seconds}


def values(choice: str) -> dict[str, Any]:
    """The keys of a file in conf/, without its defaults list."""
    from omegaconf import OmegaConf

    path = Path(__file__).parent.parent / "conf" / f"{choice}.yaml"
    found = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items() if key != "defaults"}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
