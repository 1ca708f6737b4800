"""How fast PPO is: episodes per second, peak memory, and where the time goes.

    python -m benchmarks.speed MODEL ... [--device cuda] [--precision bf16-mixed]
                               [--rollouts N] [--batch N]

For each model a process of its own: a policy and an R* of the option's shape with random weights,
rollouts of 64 prompts of 32 tokens with 32 new ones (a policy that knows nothing hardly ever ends
by itself), learned from in four steps, all weights trained. The first rollout, which warms up, is
not counted. Prints a Markdown table: episodes per second over the others, the range of single
rollouts, peak memory (of the device; on a CPU of the process, libraries and all), and the shares of
the time in sampling, in scoring and in the optimizer's steps; what is left are log-probabilities.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.architectures import GIB, shape_of, size, values, write

PROMPT_TOKENS, NEW_TOKENS, STEPS = 32, 32, 4
COLUMNS = ("model", "weights", "episodes/s", "range", "peak, GiB", "sampling", "scoring", "steps")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast PPO is, and where the time goes.")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="of conf/model")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", help="of steps; as conf/trainer has it for the device")
    parser.add_argument("--rollouts", type=int, default=4, help="that are counted")
    parser.add_argument("--batch", type=int, default=64, help="episodes of a rollout")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        (model,) = arguments.models
        print(json.dumps(measure(model, arguments)))
        return
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for model in arguments.models:
        command = [sys.executable, "-m", "benchmarks.speed", model, "--one"]
        command += ["--device", arguments.device, "--rollouts", str(arguments.rollouts)]
        command += ["--batch", str(arguments.batch)]
        command += ["--precision", arguments.precision] if arguments.precision else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        print(row(model, found, arguments.batch), flush=True)
    print("\n" + ", ".join(str(found[name]) for name in ("device", "torch", "precision")))


def row(model: str, found: dict[str, Any], batch: int) -> str:
    rollouts = found["rollouts"]
    whole = sum(rollout["all"] for rollout in rollouts)
    rates = [batch / rollout["all"] for rollout in rollouts]
    shares = [sum(r[part] for r in rollouts) / whole for part in ("sampling", "scoring", "steps")]
    cells = [
        f"`{model}`",
        size(shape_of(model).weights),
        f"{batch * len(rollouts) / whole:.3g}",
        f"{min(rates):.3g} to {max(rates):.3g}",
        f"{found['bytes'] / GIB:.3g}",
        *(f"{share:.0%}" for share in shares),
    ]
    return f"| {' | '.join(cells)} |"


def measure(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each counted rollout and of its parts, and bytes at the peak."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from irl_exp.config import PPOConfig, TrainerConfig
    from irl_exp.models import generation
    from irl_exp.models.language_model import use_eager_attention
    from irl_exp.models.network_reward import NetworkReward
    from irl_exp.models.reward_model import NormalizedReward, Normalizer
    from irl_exp.modules import ppo

    device, cuda = arguments.device, arguments.device == "cuda"
    seconds: list[dict[str, float]] = []

    def timed(part: str, call: Callable) -> Callable:
        def timing(*args: Any, **kwargs: Any) -> Any:
            if part == "all":
                seconds.append(defaultdict(float))
            start = now()
            result = call(*args, **kwargs)
            seconds[-1][part] += now() - start
            return result

        return timing

    def now() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    small = {"iterations": 1 + arguments.rollouts, "stop_distinct_2": 0}
    small |= {"batch_size": arguments.batch, "minibatch_size": arguments.batch // STEPS}
    rlhf = PPOConfig(**{**values("rlhf/ppo"), **small})
    trainer = TrainerConfig(**values("trainer/gpu" if cuda else "trainer/cpu"))
    trainer.precision = arguments.precision or trainer.precision
    torch.set_float32_matmul_precision(trainer.matmul_precision)
    generation.sample_tokens = timed("sampling", generation.sample_tokens)
    ppo.PPO.update = timed("steps", ppo.PPO.update)  # type: ignore[method-assign]
    ppo.PPO.training_step = timed("all", ppo.PPO.training_step)  # type: ignore[method-assign]
    NetworkReward.score = timed("scoring", NetworkReward.score)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as place:
        reference, folder = Path(place) / "reference", Path(place) / "aligned"
        write(shape_of(model), reference)
        folder.mkdir()
        tokenizer = generation.load_network(reference).tokenizer
        network = AutoModelForSequenceClassification.from_pretrained(reference, num_labels=1)
        use_eager_attention(network)
        reward = NetworkReward(network.to(device).eval(), tokenizer)
        ppo.align(
            rlhf,
            reference,
            NormalizedReward(reward, Normalizer(0.0, 1.0)),
            ["a " * (PROMPT_TOKENS - 1) + "a"] * arguments.batch,
            NEW_TOKENS,
            order=torch.Generator().manual_seed(0),
            generator=torch.Generator(device).manual_seed(0),
            trainer=trainer,
            folder=folder,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rollouts": seconds[1:],
        "bytes": torch.cuda.max_memory_allocated() if cuda else peak,
        "device": torch.cuda.get_device_name()
        if cuda
        else f"{torch.get_num_threads()} CPU threads",
        "torch": f"torch {torch.__version__}",
        "precision": trainer.precision,
    }


if __name__ == "__main__":
    main()
