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
from pathlib import Path
from typing import Any

from benchmarks.architectures import GIB, OURS, PYTHIA, Shape, shape_of, size, values, write

PROMPTS, PROMPT_TOKENS, NEW_TOKENS, MICRO_BATCH = 32, 64, 64, 16
LORA_RANK = 8
# How PPO trains -> overrides of its configuration.
WAYS: dict[str, dict[str, Any]] = {
    "all": {},
    "all, recomputed": {"recompute": True},
    "last 4 layers": {"trainable": "last_layers", "last_layers": 4},  # or all there are
    "LoRA": {"trainable": "lora", "lora_rank": LORA_RANK},
    "LoRA, recomputed": {"trainable": "lora", "lora_rank": LORA_RANK, "recompute": True},
}


def updates(shape: Shape) -> int:
    """Weights of LoRA's updates to the four matrices of each block."""
    h, i, r = shape.width, shape.inner, LORA_RANK
    return shape.layers * r * ((h + 3 * h) + (h + h) + (h + i) + (i + h))


def states(shape: Shape, way: str) -> int:
    """Bytes of weights, gradients, moments and the reference; of LoRA no second copy is held."""
    if way.startswith("LoRA"):
        return 4 * shape.weights + 16 * updates(shape)
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
    for model in arguments.models or (*OURS, *PYTHIA):
        with tempfile.TemporaryDirectory() as folder:
            cells = [cell(model, way, Path(folder), arguments) for way in WAYS]
        print(f"| `{model}` | {size(shape_of(model).weights)} | {' | '.join(cells)} |", flush=True)


def cell(model: str, way: str, folder: Path, arguments: argparse.Namespace) -> str:
    """`measured (states)`, or the states alone, marked as computed; GiB."""
    computed = states(shape_of(model), way) / GIB
    if 1.5 * computed > arguments.limit:
        return f"*{computed:.3g}*"
    if not any(folder.iterdir()):
        write(shape_of(model), folder)
    command = [sys.executable, "-m", "benchmarks.memory", "--one", str(folder), way]
    command += ["--device", arguments.device, "--precision", arguments.precision]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{model}, {way}: {found}", file=sys.stderr, flush=True)
    return f"{found['bytes'] / GIB:.3g} ({computed:.3g})"


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


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
