"""Completions by generation.sample_tokens and by transformers' generate(), from the same weights.

    python -m benchmarks.parts.generation ARM WORKLOAD FOLDER [--greedy] [--device cuda]
    python -m benchmarks.parts.generation check WORKLOAD FOLDER [--device cuda]

WORKLOAD and FOLDER are those of parts/ppo.py, whose `write` fills FOLDER. An arm writes one
completion of each prompt again and again, the first time, which warms up, not counted, for three
seconds and at least three times: on a CPU in 32-bit numbers and on a GPU in bfloat16. `check` has
both decode greedily, and prints how many of the rows are equal token for token.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.architectures import values
from benchmarks.measure import Arm, Options, Sample, interleaved, once, ratio, spread, table
from benchmarks.parts import ppo
from benchmarks.parts.ppo import Workload

DEVICES = ("cpu", "cuda")
# An arm's kind of attention; ours has the one that the product chooses.
ARMS = {"ours": None, "transformers": "sdpa", "transformers-eager": "eager"}
NAMES = {
    "transformers": "`generate()`",
    "transformers-eager": "`generate()`, plain attention",
    "ours": "ours",
}
LEAST_CALLS, LEAST_SECONDS = 3, 3.0
SAMPLING, GREEDY = "sampling", "greedy"


def measure(options: Options) -> dict[str, Any]:
    cuda = options.device == "cuda"
    every = (options.threads,) if cuda else (1, 2)
    result: dict[str, Any] = {"samples": {}, "equal": {}}
    for name in ppo.ON_CUDA if cuda else ppo.WORKLOADS:
        with tempfile.TemporaryDirectory() as place:
            once(ppo.arm("write", name, place), options.threads)
            result["equal"][name] = once(arm("check", name, place, options), options.threads)
            for threads in every:
                for way in (SAMPLING, GREEDY):
                    more = ["--greedy"] if way == GREEDY else []
                    arms = [arm(kind, name, place, options, *more) for kind in NAMES]
                    rounds = interleaved(arms, replace(options, threads=threads))
                    key = f"{name}, {way}, {threads}"
                    result["samples"] |= {f"{key}, {kind}": each for kind, each in rounds.items()}
    return result


def arm(kind: str, workload: str, place: str, options: Options, *more: str) -> Arm:
    command = ["-m", "benchmarks.parts.generation", kind, workload, place]
    return Arm(kind, [*command, "--device", options.device, *more])


def tables(result: dict[str, Any]) -> str:
    samples = result["samples"]
    groups = dict.fromkeys(key.rpartition(", ")[0] for key in samples)
    rows = [row for group in groups for row in _rows(group, samples)]
    columns = ("model", "", "threads", "", "1000 tokens/s", "`generate()` / this")
    texts = [f"`{name}`: {ppo.ALL[name].described}." for name in result["equal"]]
    texts += [
        f"Greedy completions of `{name}` that are equal token for token: "
        f"{found['equal']} of {found['rows']}."
        for name, found in result["equal"].items()
    ]
    return "\n\n".join([table(columns, rows), " ".join(texts)])


def _rows(group: str, samples: dict[str, list[Sample]]) -> list[list[object]]:
    name, way, threads = group.split(", ")
    rows: list[list[object]] = []
    for kind, title in NAMES.items():
        each = samples[f"{group}, {kind}"]
        rates = [{"rate": one["tokens_per_second"] / 1000} for one in each]
        beside = ratio(samples[f"{group}, transformers"], each)
        rows.append([f"`{name}`", way, threads, title, spread(rates, "rate"), beside])
    return rows


# --- arms -----------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="Completions, as arms of a comparison.")
    parser.add_argument("arm", choices=[*ARMS, "check"])
    parser.add_argument("workload", choices=ppo.ALL)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    print(json.dumps(check(given) if given.arm == "check" else timed(given)))


def timed(given: argparse.Namespace) -> Sample:
    """`seconds` of a batch, the median of calls."""
    import torch

    workload = ppo.ALL[given.workload]
    write = writer(given.arm, given.folder, workload, given.device, given.greedy)

    def call() -> tuple[float, float]:
        start = time.perf_counter(), time.process_time()
        write().cpu()  # waits for a GPU
        return time.perf_counter() - start[0], time.process_time() - start[1]

    call()
    calls: list[tuple[float, float]] = []
    while len(calls) < LEAST_CALLS or sum(wall for wall, _ in calls) < LEAST_SECONDS:
        calls.append(call())
    seconds, processor = map(statistics.median, zip(*calls, strict=True))
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "tokens_per_second": workload.batch * workload.new / seconds,
        "calls": len(calls),
        "threads": torch.get_num_threads(),
    }


def check(given: argparse.Namespace) -> Sample:
    workload = ppo.ALL[given.workload]
    ours, theirs = (
        writer(arm, given.folder, workload, given.device, greedy=True)().cpu()
        for arm in ("ours", "transformers-eager")
    )
    whole = ours.shape == theirs.shape == (workload.batch, workload.new)
    equal = int((ours == theirs).all(-1).sum()) if whole else 0
    return {"rows": workload.batch, "equal": equal}


def writer(arm: str, folder: Path, workload: Workload, device: str, greedy: bool) -> Callable:
    """What writes a completion of each prompt: ids [batch, new], on the device."""
    import torch

    from irl_exp.config import TrainerConfig
    from irl_exp.models import generation, language_model

    if arm == "ours":
        ppo.as_irl_exp(
            TrainerConfig(**values("trainer/gpu" if device == "cuda" else "trainer/cpu"))
        )
    model = generation.load_network(folder / "reference", device)
    if device == "cuda":
        model.network.to(torch.bfloat16)
    ids, mask = language_model.encode_prompts(model, workload.prompts, workload.new)
    prompt = ids.to(device), mask.to(device)
    if arm == "ours":
        draws = torch.Generator(device).manual_seed(0)
        return lambda: generation.sample_tokens(model, prompt, workload.new, draws, greedy)[0]
    model.network.set_attn_implementation(ARMS[arm])
    return by_library(model, prompt, workload.new, greedy)


def by_library(model: Any, prompt: tuple[Any, Any], new: int, greedy: bool) -> Callable:
    """The same by transformers: its dynamic cache, T = 1, nothing cut from the distribution."""
    import torch
    from transformers import GenerationConfig

    from irl_exp.models import language_model

    drawing = {} if greedy else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    settings = GenerationConfig(
        do_sample=not greedy,
        max_new_tokens=new,
        eos_token_id=language_model.ends(model),
        pad_token_id=model.tokenizer.pad_token_id,
        **drawing,
    )
    ids, mask = prompt
    torch.manual_seed(0)

    def write() -> torch.Tensor:
        written = model.network.generate(ids, attention_mask=mask, generation_config=settings)
        return written[:, ids.shape[1] :]

    return write


if __name__ == "__main__":
    main()
