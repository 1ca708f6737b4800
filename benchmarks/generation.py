"""Completions by generation.sample_tokens or by transformers' generate(), as arms of a comparison.

    python -m benchmarks.generation ARM WORKLOAD FOLDER [--greedy] [--device cuda]
    python -m benchmarks.generation check WORKLOAD FOLDER [--device cuda]

WORKLOAD and FOLDER are those of benchmarks/ppo.py, whose `write` fills FOLDER: random weights that
never end a completion early. An arm writes one completion of each prompt again and again, after a
first time that warms up, for three seconds and at least three times, on a CPU in 32-bit numbers and
on a GPU in bfloat16, and prints one JSON object: `seconds` of a batch, `tokens_per_second`. `check`
has both decode greedily, and prints how many of the rows are equal token for token.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ppo import ALL, Workload

ARMS = {"ours": None, "transformers": "sdpa", "transformers-eager": "eager"}
LEAST_CALLS, LEAST_SECONDS = 3, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Completions, as arms of a comparison.")
    parser.add_argument("arm", choices=[*ARMS, "check"])
    parser.add_argument("workload", choices=ALL)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    print(json.dumps(check(given) if given.arm == "check" else measure(given)))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    import torch

    workload = ALL[given.workload]
    write = writer(given.arm, given.folder, workload, given.device, given.greedy)

    def once() -> float:
        start = time.perf_counter()
        write().cpu()  # waits for a GPU
        return time.perf_counter() - start

    once()
    calls: list[float] = []
    while len(calls) < LEAST_CALLS or sum(calls) < LEAST_SECONDS:
        calls.append(once())
    seconds = sum(calls) / len(calls)
    return {
        "seconds": seconds,
        "tokens_per_second": workload.batch * workload.new / seconds,
        "calls": len(calls),
        "threads": torch.get_num_threads(),
    }


def check(given: argparse.Namespace) -> dict[str, Any]:
    workload = ALL[given.workload]
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

    from benchmarks.ppo import as_irl_exp
    from irl_exp.config import TrainerConfig
    from irl_exp.models import generation, language_model

    from benchmarks.architectures import values

    if arm == "ours":
        as_irl_exp(TrainerConfig(**values("trainer/gpu" if device == "cuda" else "trainer/cpu")))
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
