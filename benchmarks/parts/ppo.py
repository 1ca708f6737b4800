"""PPO: ours beside TRL's PPOTrainer, as a user gets it and as tuned as we could make it.

From the same weights, with the same prompts, lengths, passes and loss coefficients, and an R* of
the policy's architecture. TRL has it in its own way, a classifier of token rows; ours reads texts.

    python -m benchmarks.parts.ppo write WORKLOAD FOLDER
    python -m benchmarks.parts.ppo ARM WORKLOAD FOLDER [--device cuda] [--count] [--trl PYTHON]

`write` makes what all arms of a workload start from: random weights that never end a completion
early. An arm trains until there are three iterations that took ten seconds together, the first,
which warms up, not counted; with --count it counts the operations of one iteration. PYTHON has
benchmarks/peers/trl_ppo/requirements.txt: .venv-trl/bin/python, or what IRL_EXP_TRL names.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.architectures import GIB, PYTHIA, Shape, values, write
from benchmarks.measure import (
    ROOT,
    Arm,
    Options,
    Skip,
    ceiling,
    counted,
    has_bf16,
    interleaved,
    median,
    once,
    ratio,
    spread,
    table,
)

DEVICES = ("cpu", "cuda")
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
PEERS = {"trl": {}, "trl-tuned": HEAP, "trl-shared": HEAP}


@dataclass(frozen=True)
class Workload:
    """Episodes of a rollout and of a minibatch, tokens of the shortest and the longest prompt, and
    new tokens."""

    shape: Shape
    batch: int
    minibatch: int
    prompt: tuple[int, int]
    new: int

    @property
    def described(self) -> str:
        shortest, longest = self.prompt
        prompt = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
        episodes = f"{self.batch} prompts of {prompt} tokens, {self.new} new ones"
        return f"{episodes}, minibatches of {self.minibatch}"

    @property
    def prompts(self) -> list[str]:
        """One token a word."""
        shortest, longest = self.prompt
        lengths = range(shortest, longest + 1)
        return [" ".join("a" * lengths[i % len(lengths)]) for i in range(self.batch)]


WORKLOADS = {
    "small": Workload(Shape(96, 3, 4, 384, 80, tied=True), 128, 128, (2, 5), 12),
    "pythia-70m": Workload(PYTHIA["pythia-70m"], 16, 16, (16, 16), 32),
}
ON_CUDA = {
    f"{model} x {batch}": Workload(PYTHIA[model], batch, 64, (32, 32), 32)
    for model in ("pythia-160m", "pythia-410m")
    for batch in (64, 512)
}
ALL = WORKLOADS | ON_CUDA
NAMES = {
    "trl": "TRL",
    "trl-tuned": "TRL, tuned",
    "trl-shared": "TRL, tuned, one body",
    "ours": "ours",
    "ours-bf16": "ours, bf16-mixed",
}


def trl_python() -> Path:
    return Path(os.environ.get("IRL_EXP_TRL") or ROOT / ".venv-trl" / "bin" / "python")


def measure(options: Options) -> dict[str, Any]:
    if not trl_python().is_file():
        raise Skip(f"{trl_python()} is not there; expected a Python that has TRL 1.12")
    cuda = options.device == "cuda"
    bf16 = has_bf16([once(ceiling(options.device), options.threads)])
    # Where the trainer of the device is in bf16 by default, that is what `ours` is.
    kinds = [kind for kind in NAMES if kind != "ours-bf16" or (bf16 and not cuda)]
    result: dict[str, Any] = {"samples": {}, "operations": {}}
    for name in ON_CUDA if cuda else WORKLOADS:
        with tempfile.TemporaryDirectory() as place:
            once(arm("write", name, place), options.threads)
            arms = [arm(kind, name, place, "--device", options.device) for kind in kinds]
            for one in arms:
                counted_once = once(Arm(one.name, [*one.command, "--count"]), options.threads)
                result["operations"][f"{name}, {one.name}"] = counted_once["flops"]
            rounds = interleaved([*arms, ceiling(options.device)], options)
            result["samples"] |= {f"{name}, {kind}": each for kind, each in rounds.items()}
    return result


def arm(kind: str, workload: str, place: str, *more: str) -> Arm:
    return Arm(kind, ["-m", "benchmarks.parts.ppo", kind, workload, place, *more])


def tables(result: dict[str, Any]) -> str:
    names = dict.fromkeys(key.split(", ")[0] for key in result["samples"])
    rows = [row for name in names for row in _rows(name, result)]
    columns = ("model", "", "episodes/s", "TRL / this", "tuned / this", "GFLOP", "of peak", "GiB")
    texts = [f"`{name}`: {ALL[name].described}." for name in names]
    if not any("bf16" in key for key in result["operations"]) and "small" in names:
        texts.append("Nothing in bf16: its matrix products are slower here than those in fp32.")
    return "\n\n".join([table(columns, rows), " ".join(texts)])


def _rows(name: str, result: dict[str, Any]) -> list[list[object]]:
    samples = {kind: result["samples"].get(f"{name}, {kind}") for kind in (*NAMES, "ceiling")}
    rows = []
    for kind, title in NAMES.items():
        if not (each := samples[kind]):
            continue
        operations = result["operations"][f"{name}, {kind}"]
        peak = median(samples["ceiling"], _format(kind, each))
        rows.append(
            [f"`{name}`", title, spread(each, "episodes_per_second")]
            + [ratio(samples[other], each) for other in ("trl", "trl-tuned")]
            + [f"{operations / 1e9:,.3g}", f"{operations / median(each) / peak:.0%}"]
            + [f"{median(each, 'peak_bytes') / GIB:.3g}"]
        )
    return rows


def _format(kind: str, samples: list[dict[str, Any]]) -> str:
    """In which numbers an arm multiplies, by the ceiling's names."""
    settings = samples[0]["settings"]
    if settings["precision"].startswith("bf16"):
        return "bf16"
    return "fp32" if settings["matmul_precision"] == "highest" else "fp32_medium"


# --- arms -----------------------------------------------------------------------------------------


class Enough(Exception):
    """There is as much as was asked for."""


@dataclass
class Clock:
    """Told when an iteration has ended: seconds of each after the first, until they are enough.

    All that comes between two ends is in them.
    """

    cuda: bool
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    last: tuple[float, float] | None = None

    def tick(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        if self.last:
            self.seconds.append(now[0] - self.last[0])
            self.processor_seconds.append(now[1] - self.last[1])
        self.last = now
        if len(self.seconds) >= LEAST_ITERATIONS and sum(self.seconds) >= LEAST_SECONDS:
            raise Enough

    def found(self, workload: Workload, **settings: Any) -> dict[str, Any]:
        """What an arm prints; `seconds` are the median of iterations, in which a pause of a shared
        machine does not count, and `processor_seconds` say the same on one thread of a busy one."""
        import torch

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        seconds = statistics.median(self.seconds)
        said = {
            "threads": torch.get_num_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
        }
        return {
            "seconds": seconds,
            "iterations": self.seconds,
            "processor_seconds": statistics.median(self.processor_seconds),
            "episodes_per_second": workload.batch / seconds,
            "peak_bytes": torch.cuda.max_memory_allocated() if self.cuda else peak,
            "settings": {**said, **settings},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="One PPO training, as an arm of a comparison.")
    parser.add_argument("arm", choices=["write", *NAMES])
    parser.add_argument("workload", choices=ALL)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--count", action="store_true", help="operations instead of seconds")
    parser.add_argument("--trl", type=Path, default=trl_python(), metavar="PYTHON")
    given = parser.parse_args()
    if given.arm in PEERS:
        become_trl(given)
    if given.arm == "write":
        checkpoints(ALL[given.workload].shape, given.folder)
    print(json.dumps({} if given.arm == "write" else ours(given)))


def become_trl(given: argparse.Namespace) -> NoReturn:
    """Go on as a process of the other environment, in which the tuned arms keep their heap."""
    words = [str(given.trl), "-m", "benchmarks.peers.trl_ppo.speed", given.arm, given.workload]
    words += [str(given.folder.absolute()), "--device", given.device]
    words += ["--count"] if given.count else []
    os.chdir(ROOT)
    os.execve(words[0], words, {**os.environ, **PEERS[given.arm]})


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
        head[[network.config.eos_token_id, network.config.pad_token_id], 0] = -4.0
    network.save_pretrained(reference)
    classifier = AutoModelForSequenceClassification.from_pretrained(reference, num_labels=1)
    classifier.save_pretrained(reward)
    AutoTokenizer.from_pretrained(reference).save_pretrained(reward)


# --- ours -----------------------------------------------------------------------------------------


def ours(given: argparse.Namespace) -> dict[str, Any]:
    """As the step `align` trains: R* reads texts, checkpoints are written now and then."""
    from irl_exp.config import TrainerConfig
    from irl_exp.modules import ppo

    workload, clock = ALL[given.workload], Clock(given.device == "cuda")
    trainer = TrainerConfig(**values("trainer/gpu" if clock.cuda else "trainer/cpu"))
    if given.arm == "ours-bf16":
        trainer.precision = "bf16-mixed"
    as_irl_exp(trainer)
    counts: list[int] = []
    ppo.PPO.training_step = watched(  # type: ignore[method-assign]
        ppo.PPO.training_step, clock, counts if given.count else None
    )
    with tempfile.TemporaryDirectory() as place:
        with suppress(Enough):
            align(workload, trainer, given.folder, given.device, Path(place))
        if given.count:
            return {"flops": counts[0]}
        curves = [json.loads(line) for line in (Path(place) / "metrics.jsonl").open()]
    length = sum(line["completion/length"] for line in curves) / len(curves)
    return clock.found(workload, precision=trainer.precision, new_tokens=length)


def align(workload: Workload, trainer: Any, start: Path, device: str, folder: Path) -> None:
    import torch

    from irl_exp.config import PPOConfig
    from irl_exp.models import network_reward
    from irl_exp.models.reward_model import NormalizedReward, Normalizer
    from irl_exp.modules import ppo

    reward = network_reward.load_network_reward(start / "reward", trainer.score_batch_size)
    reward.network.to(device)  # type: ignore[arg-type]
    ppo.align(
        PPOConfig(**{**values("rlhf/ppo"), **settings(workload)}),
        start / "reference",
        NormalizedReward(reward, Normalizer(0.0, 1.0)),
        workload.prompts,
        workload.new,
        order=torch.Generator().manual_seed(0),
        generator=torch.Generator(device).manual_seed(0),
        trainer=trainer,
        folder=folder,
    )


def as_irl_exp(trainer: Any) -> None:
    """What the command sets in its process before it computes."""
    import torch

    from irl_exp import memory

    memory.keep_freed()
    torch.set_float32_matmul_precision(trainer.matmul_precision)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def settings(workload: Workload) -> dict[str, Any]:
    """Of rlhf=ppo, where they are not its defaults."""
    return {
        "iterations": ENDLESS,
        "batch_size": workload.batch,
        "minibatch_size": workload.minibatch,
        "epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "kl_coef": KL_COEF,
        "gae_lambda": GAE_LAMBDA,
        "stop_distinct_2": 0.0,
    }


def watched(step: Callable, clock: Clock, counts: list[int] | None) -> Callable:
    """A training step that ticks; or one whose operations are counted, and no more."""

    def counting(*args: Any) -> None:
        assert counts is not None
        counts.append(counted(lambda: step(*args)))
        raise Enough

    def ticking(*args: Any) -> None:
        step(*args)
        clock.tick()

    return ticking if counts is None else counting


if __name__ == "__main__":
    main()
