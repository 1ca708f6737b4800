"""What PPO and generation are benchmarked on, and what is made of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.architectures import Shape
from benchmarks.parts import generation, ppo
from benchmarks.parts.ppo import Clock, Enough, Workload
from irl_exp.models.network_reward import load_network_reward


def test_all_arms_start_from_a_policy_that_never_ends_a_completion(tmp_path: Path) -> None:
    workload = Workload(Shape(32, 2, 2, 64, 80, tied=True), 8, 8, (2, 5), 3)
    ppo.checkpoints(workload.shape, tmp_path)
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "reference")
    with torch.no_grad():
        probs = network(torch.arange(80).view(8, 10)).logits.softmax(-1)
    assert probs[..., :2].max() < 1e-6  # the end of a text, and padding
    assert probs[..., 2:].max() < 0.1
    reward = load_network_reward(tmp_path / "reward")
    assert [len(row) for row in reward.tokenizer(workload.prompts)["input_ids"]] == [2, 3, 4, 5] * 2


def test_the_clock_leaves_out_what_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times, spent = iter([100.0, 104.0, 106.0, 111.0]), iter([7.0, 10.0, 12.0, 16.0])
    monkeypatch.setattr(ppo.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(ppo.time, "process_time", lambda: next(spent))
    clock = Clock(cuda=False)
    for _ in range(3):
        clock.tick()
    with pytest.raises(Enough):
        clock.tick()
    assert clock.seconds == [4.0, 2.0, 5.0] and clock.processor_seconds == [3.0, 2.0, 4.0]
    monkeypatch.undo()
    found = clock.found(ppo.ALL["small"])
    assert (found["seconds"], found["episodes_per_second"]) == (4.0, 32.0)
    assert found["processor_seconds"] == 3.0 and found["peak_bytes"] > 2**20


def sample(seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "episodes_per_second": 128 / seconds,
        "tokens_per_second": 1536 / seconds,
        "peak_bytes": 2**29,
        "settings": {"precision": "32-true", "matmul_precision": "highest"},
    }


def test_ppo_stands_beside_both_ways_to_use_trl() -> None:
    times = {"trl": 2.0, "trl-tuned": 1.0, "ours": 0.5}
    samples: dict[str, list[Any]] = {f"small, {k}": [sample(t)] * 3 for k, t in times.items()}
    samples["small, ceiling"] = [{"fp32": 1e11}] * 3
    counts = {f"small, {kind}": 20_000_000_000 for kind in times}
    text = ppo.tables({"samples": samples, "operations": counts})
    ours = "| `small` | ours | 256 (256 to 256) | 4.00 (4.00 to 4.00) | 2.00 (2.00 to 2.00) | 20 |"
    assert f"{ours} 40% | 0.5 |" in text
    assert "`small`: 128 prompts of 2 to 5 tokens, 12 new ones, minibatches of 128." in text


def test_generation_stands_beside_generate() -> None:
    times = {"transformers": 2.0, "transformers-eager": 1.0, "ours": 0.5}
    samples = {f"small, greedy, 1, {kind}": [sample(t)] * 3 for kind, t in times.items()}
    found = {"samples": samples, "equal": {"small": {"rows": 128, "equal": 127}}}
    text = generation.tables(found)
    assert "| ours | 3.07 (3.07 to 3.07) | 4.00 (4.00 to 4.00) |" in text
    assert "Greedy completions of `small` that are equal token for token: 127 of 128." in text
