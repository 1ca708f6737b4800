"""One PPO training, as an arm of a comparison: ours, or that of TRL's PPOTrainer.

    python -m benchmarks.ppo write WORKLOAD FOLDER
    python -m benchmarks.ppo ARM WORKLOAD FOLDER [--device cuda] [--threads N] [--count]
                             [--trl PYTHON]

`write` makes the policy and the R* that all arms of a workload start from: one architecture with
random weights that never end a completion early. An arm trains until there are three iterations
that took ten seconds together, the first, which warms up, not counted, and prints one JSON object:
`iterations` (seconds of each, all that comes between two of them included), `episodes_per_second`,
`peak_bytes`, `settings`; with --count instead the floating-point operations of one iteration.

PYTHON has benchmarks/peers/trl_ppo/requirements.txt; .venv-trl/bin/python, IRL_EXP_TRL elsewhere.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.architectures import PYTHIA, Shape, values, write

ROOT = Path(__file__).parent.parent
EPOCHS = 4
# What both sides are told alike; steps so small that policies stay what they are.
LEARNING_RATE, KL_COEF, GAE_LAMBDA = 1e-6, 0.05, 0.95
ENDLESS = 1000
LEAST_ITERATIONS, LEAST_SECONDS = 3, 10.0
# Large blocks come from the heap and stay there: glibc would map each anew and clear its pages.
HEAP = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
OURS = {"ours": None, "ours-bf16": "bf16-mixed"}
PEERS = {"trl": {}, "trl-tuned": HEAP, "trl-shared": HEAP}


@dataclass(frozen=True)
class Workload:
    """Episodes of a rollout, tokens of the shortest and the longest prompt, and new tokens."""

    shape: Shape
    batch: int
    prompt: tuple[int, int]
    new: int

    @property
    def prompts(self) -> list[str]:
        """One token a word."""
        shortest, longest = self.prompt
        lengths = range(shortest, longest + 1)
        return [" ".join("a" * lengths[i % len(lengths)]) for i in range(self.batch)]


WORKLOADS = {
    "small": Workload(Shape(96, 3, 4, 384, 80, tied=True), 128, (2, 5), 12),
    "pythia-70m": Workload(PYTHIA["pythia-70m"], 16, (16, 16), 32),
}
ON_CUDA = {
    f"{model} x {batch}": Workload(PYTHIA[model], batch, (32, 32), 32)
    for model in ("pythia-160m", "pythia-410m")
    for batch in (64, 512)
}
ALL = WORKLOADS | ON_CUDA


class Enough(Exception):
    """There is as much as was asked for."""


@dataclass
class Clock:
    """Told when an iteration has ended: seconds of each after the first, until they are enough."""

    cuda: bool
    seconds: list[float] = field(default_factory=list)
    last: float = 0.0

    def tick(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.last:
            self.seconds.append(now - self.last)
        self.last = now
        if len(self.seconds) >= LEAST_ITERATIONS and sum(self.seconds) >= LEAST_SECONDS:
            raise Enough


def trl_python() -> Path:
    """Of the environment that has TRL's PPOTrainer, whether it is there or not."""
    return Path(os.environ.get("IRL_EXP_TRL") or ROOT / ".venv-trl" / "bin" / "python")


def main() -> None:
    parser = argparse.ArgumentParser(description="One PPO training, as an arm of a comparison.")
    parser.add_argument("arm", choices=["write", *OURS, *PEERS])
    parser.add_argument("workload", choices=ALL)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="of torch; all cores")
    parser.add_argument("--count", action="store_true", help="operations instead of seconds")
    parser.add_argument("--trl", type=Path, default=trl_python(), metavar="PYTHON")
    given = parser.parse_args()
    threads = {"OMP_NUM_THREADS": str(given.threads)} if given.threads else {}
    if given.arm == "write":
        checkpoints(ALL[given.workload].shape, given.folder)
        print("{}")
    elif given.arm in PEERS:
        if not given.trl.is_file():
            sys.exit(f"{given.trl}: no such file; expected a Python that has TRL 1.12")
        words = [str(given.trl), "-m", "benchmarks.peers.trl_ppo.speed", *sys.argv[1:]]
        os.chdir(ROOT)
        os.execve(words[0], words, {**os.environ, **PEERS[given.arm], **threads})
    else:
        os.environ.update(threads)
        print(json.dumps(ours(given)))


def found(given: argparse.Namespace, clock: Clock, **settings: Any) -> dict[str, Any]:
    """What an arm prints."""
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = sum(clock.seconds) / len(clock.seconds)
    return {
        "seconds": seconds,
        "iterations": clock.seconds,
        "episodes_per_second": ALL[given.workload].batch / seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if clock.cuda else peak,
        "settings": {
            "threads": torch.get_num_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            **settings,
        },
    }


# --- what all arms start from ---------------------------------------------------------------------


def checkpoints(shape: Shape, folder: Path) -> None:
    """FOLDER/reference and FOLDER/reward."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    reference, reward = folder / "reference", folder / "reward"
    write(shape, reference)
    network = AutoModelForCausalLM.from_pretrained(reference)
    with torch.no_grad():
        # One state that is always large and speaks against the two tokens that end a text.
        network.base_model.final_layer_norm.bias[0] = 10.0
        head = network.get_output_embeddings().weight
        head[:, 0] = 0.0
        head[[network.config.eos_token_id, network.config.pad_token_id], 0] = -2.0
    network.save_pretrained(reference)
    classifier = AutoModelForSequenceClassification.from_pretrained(reference, num_labels=1)
    classifier.save_pretrained(reward)
    AutoTokenizer.from_pretrained(reference).save_pretrained(reward)


# --- ours -----------------------------------------------------------------------------------------


def ours(given: argparse.Namespace) -> dict[str, Any]:
    """As the step `align` trains: R* reads texts, checkpoints are written now and then."""
    import torch

    from irl_exp.config import PPOConfig, TrainerConfig
    from irl_exp.models import network_reward
    from irl_exp.models.reward_model import NormalizedReward, Normalizer
    from irl_exp.modules import ppo

    workload, clock = ALL[given.workload], Clock(given.device == "cuda")
    trainer = TrainerConfig(**values("trainer/gpu" if clock.cuda else "trainer/cpu"))
    trainer.precision = OURS[given.arm] or trainer.precision
    as_irl_exp(trainer)
    rlhf = PPOConfig(**{**values("rlhf/ppo"), **settings(workload)})
    counts: list[int] = []
    ppo.PPO.training_step = watched(  # type: ignore[method-assign]
        ppo.PPO.training_step, clock, counts if given.count else None
    )
    reward = network_reward.load_network_reward(given.folder / "reward", trainer.score_batch_size)
    reward.network.to(given.device)
    with tempfile.TemporaryDirectory() as place:
        try:
            ppo.align(
                rlhf,
                given.folder / "reference",
                NormalizedReward(reward, Normalizer(0.0, 1.0)),
                workload.prompts,
                workload.new,
                order=torch.Generator().manual_seed(0),
                generator=torch.Generator(given.device).manual_seed(0),
                trainer=trainer,
                folder=Path(place),
            )
        except Enough:
            pass
        if given.count:
            return {"operations": counts[0]}
        curves = [json.loads(line) for line in (Path(place) / "metrics.jsonl").open()]
    length = sum(line["completion/length"] for line in curves) / len(curves)
    return found(given, clock, precision=trainer.precision, new_tokens=length)


def as_irl_exp(trainer: Any) -> None:
    """What the command sets in its process before it computes."""
    import torch

    torch.set_float32_matmul_precision(trainer.matmul_precision)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def settings(workload: Workload) -> dict[str, Any]:
    """Of rlhf=ppo, where they are not its defaults."""
    return {
        "iterations": ENDLESS,
        "batch_size": workload.batch,
        "minibatch_size": workload.batch,
        "epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "kl_coef": KL_COEF,
        "gae_lambda": GAE_LAMBDA,
        "stop_distinct_2": 0.0,
    }


def watched(step: Callable, clock: Clock, counts: list[int] | None) -> Callable:
    """A training step that ticks; or one whose operations are counted, and no more."""

    def counting(*args: Any) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            step(*args)
        assert counts is not None
        counts.append(int(counter.get_total_flops()))
        raise Enough

    def ticking(*args: Any) -> None:
        step(*args)
        clock.tick()

    return ticking if counts is None else counting


if __name__ == "__main__":
    main()
