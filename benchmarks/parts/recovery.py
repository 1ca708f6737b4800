"""Recovery by the paper's objective: the published loop, and ours on the same pairs.

R̂ has Pythia's architecture and R* RoBERTa-base's, both with random weights; 100 pairs of some 60
tokens, two a step, three epochs, R̂ read on all 200 texts every epoch. The published loop scores
them by R* in every epoch, ours does once.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.architectures import PYTHIA, values, write
from benchmarks.measure import (
    Arm,
    Options,
    Sample,
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
PAIRS, BATCH, EPOCHS, PROMPT, COMPLETION = 100, 2, 3, 20, (20, 60)
RATE, SEED = 1e-4, 0


def measure(options: Options) -> dict[str, Any]:
    shapes = ["pythia-70m"] if options.device == "cpu" else ["pythia-160m", "pythia-410m"]
    first = once(ceiling(options.device), options.threads)
    kinds = ["published", "fp32", *(["bf16"] if has_bf16([first]) else [])]
    found: dict[str, Any] = {"samples": {}, "operations": {}, "agreement": {}}
    for shape in shapes:
        with tempfile.TemporaryDirectory() as place:
            write_inputs(shape, Path(place))
            arms = [_arm(shape, kind, place, options.device) for kind in kinds]
            found["agreement"][shape] = once(_arm(shape, "agree", place, options.device), 2)
            for kind, arm in zip(kinds, arms, strict=True):
                again = Arm(arm.name, [*arm.command, "--count"])
                found["operations"][f"{shape}, {kind}"] = once(again, options.threads)["flops"]
            rounds = interleaved([*arms, ceiling(options.device)], options)
            found["samples"] |= {f"{shape}, {name}": each for name, each in rounds.items()}
    return found


def _arm(shape: str, kind: str, place: str, device: str) -> Arm:
    return Arm(kind, ["-m", "benchmarks.parts.recovery", kind, place, "--device", device])


def tables(found: dict[str, Any]) -> str:
    shapes = list(found["agreement"])
    rows = [row for shape in shapes for row in _rows(found, shape)]
    columns = ("R̂", "", "seconds", "published / this", "GFLOP", "share of peak", "peak, GiB")
    skipped = (
        ""
        if any("bf16" in name for name in found["operations"])
        else ("\n\nNo row in bf16: its matrix products are slower here than those in fp32.")
    )
    agree = [
        f"{shape}: correlation {a['correlation']:.9f}, largest difference {a['difference']:.1e} of "
        f"scores whose standard deviation is {a['deviation']:.3g}"
        for shape, a in found["agreement"].items()
    ]
    return (
        table(columns, rows)
        + skipped
        + (
            f"\n\nScores of the 200 texts by what both learned in {PAIRS * EPOCHS // BATCH} "
            "steps from the same weights, in the same order and by the same schedule: "
            + "; ".join(agree)
            + "."
        )
    )


def _rows(found: dict[str, Any], shape: str) -> list[list[object]]:
    samples = {
        name.split(", ")[1]: each
        for name, each in found["samples"].items()
        if name.startswith(f"{shape}, ")
    }
    peaks = samples.pop("ceiling")
    rows = []
    for kind, each in samples.items():
        operations = found["operations"][f"{shape}, {kind}"]
        rate = operations / median(each)
        peak = median(peaks, "bf16" if kind == "bf16" else "fp32")
        name = "published loop" if kind == "published" else f"ours, {kind}"
        memory = f"{median(each, 'peak_bytes') / 2**30:.2f}"
        faster = ratio(samples["published"], each)
        share = f"{rate / peak:.0%}"
        size = f"{operations / 1e9:,.0f}"
        rows.append([f"`{shape}`", name, spread(each), faster, size, share, memory])
    return rows


# --- arms -----------------------------------------------------------------------------------------


def write_inputs(shape: str, folder: Path) -> None:
    """The base model, R*, and pairs of texts that both can read."""
    from transformers import PreTrainedTokenizerFast, RobertaConfig
    from transformers import RobertaForSequenceClassification as Classifier

    write(PYTHIA[shape], folder / "base")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "base")
    size = RobertaConfig(vocab_size=50265, max_position_embeddings=514, num_labels=2)
    size.id2label = {0: "neutral", 1: "toxic"}
    Classifier(size).save_pretrained(folder / "truth")
    tokenizer.save_pretrained(folder / "truth")
    rng = np.random.default_rng(SEED)

    def words(count: int) -> str:
        return " ".join(f"{token:x}" for token in rng.integers(2, 50000, count))

    pairs = [
        (words(PROMPT), *(" " + words(int(rng.integers(*COMPLETION))) for _ in range(2)))
        for _ in range(PAIRS)
    ]
    (folder / "pairs.json").write_text(json.dumps(pairs))


def published(place: Path, count: int, epochs: int, device: str) -> None:
    from benchmarks.peers import published_loop

    pairs = _texts(place)[:count]
    batches = [[[i, i + 1] for i in range(0, count, BATCH)]] * epochs
    reward = published_loop.Reward(place / "base", device)
    published_loop.recover(reward, place / "truth", pairs, batches, RATE)


def ours(place: Path, count: int, epochs: int, device: str, precision: str, **solver: Any) -> Any:
    """As `solver=asymmetric` recovers, traced on all texts, and as evaluation reads R*. Scores of
    the texts after the last epoch."""
    import pandas as pd
    import torch

    from irl_exp.models.network_reward import from_classifier
    from irl_exp.modules.trace import EPOCH, TRACE_FILE
    from irl_exp.solvers import margin

    problem = _problem(place, count, epochs, device, precision, **solver)
    prompts, completions = (problem.traced[name].tolist() for name in ("prompt", "completion"))
    truth = from_classifier(place / "truth", "toxic", problem.trainer.score_batch_size)
    truth.network.to(device)  # type: ignore[arg-type]
    truths = truth.score(prompts, completions)
    margin.solve(problem)
    trace = pd.read_parquet(problem.folder / TRACE_FILE)
    found = [torch.tensor(trace[f"{EPOCH}{epoch}"].to_numpy()) for epoch in range(epochs + 1)]
    torch.corrcoef(torch.stack([truths, *found]))
    return found[-1]


def _problem(
    place: Path, count: int, epochs: int, device: str, precision: str, **solver: Any
) -> Any:
    import pandas as pd

    from irl_exp.config import MarginSolver, TrainerConfig
    from irl_exp.data.pairs import Demonstrations
    from irl_exp.solvers.problem import Problem

    rows = json.loads((place / "pairs.json").read_text())[:count]
    prompts, aligned, reference = (list(column) for column in zip(*rows, strict=True))
    # Validation prompts there must be: one more pair, read every epoch.
    demonstrations = Demonstrations(
        [*prompts, "2 3 4"],
        [[text] for text in [*aligned, " 5"]],
        [[text] for text in [*reference, " 6"]],
        ["train"] * count + ["validation"],
    )
    texts = [(p, text) for p, *pair in rows for text in pair]
    hardware = {"precision": precision, "accelerator": "cpu" if device == "cpu" else "gpu"}
    config = {"epochs": epochs, "batch_size": BATCH, "learning_rate": RATE, **solver}
    return Problem(
        config=MarginSolver(**(values("solver/asymmetric") | config)),
        demonstrations=demonstrations,
        reference=place / "base",
        aligned=None,
        truth=None,
        kl_coef=0.1,
        max_new_tokens=COMPLETION[1],
        trainer=TrainerConfig(**(values("trainer/cpu") | hardware)),
        device=device,
        initialization=SEED,
        order=SEED,
        folder=Path(tempfile.mkdtemp(dir=place)),  # a used one holds what is gone on from
        traced=pd.DataFrame(texts, columns=["prompt", "completion"]),
    )


def agree(place: Path, device: str) -> Sample:
    """Both from the same weights, in the same order, at the same rates, and without what the
    published loop has not: decay of weights, limits of gradients, a slow start."""
    import torch

    from benchmarks.peers import published_loop
    from irl_exp.data.batches import LengthBatches
    from irl_exp.solvers import margin

    same = {"weight_decay": 0.0, "warmup": 0.0, "max_grad_norm": 1e9}
    problem = _problem(place, PAIRS, EPOCHS, device, "32-true", **same)
    start = problem.new_reward()
    pools = margin.encoded(start, problem.demonstrations.split("train"))
    lengths = [max(map(len, pool)) for pool in pools]
    drawn = LengthBatches(lengths, BATCH, problem.generator("order"))
    batches = [list(drawn) for _ in range(EPOCHS)]
    reward = published_loop.Reward(place / "base", device)
    with torch.no_grad():
        reward.head.weight[1] = -start.network.score.weight[0]
    steps = PAIRS * EPOCHS // BATCH

    def falling(step: int) -> float:
        return min(1.0, max(0.0, (steps - step) / (steps - 1)))

    pairs = _texts(place)
    published_loop.recover(reward, place / "truth", pairs, batches, RATE, falling)
    with torch.no_grad():
        theirs = torch.tensor([float(reward(text)) for pair in pairs for text in pair])
    mine = ours(place, PAIRS, EPOCHS, device, "32-true", **same)
    return {
        "correlation": float(torch.corrcoef(torch.stack([mine, theirs]).double())[0, 1]),
        "difference": float((mine - theirs).abs().max()),
        "deviation": float(theirs.std()),
    }


def _texts(place: Path) -> list[tuple[str, str]]:
    rows = json.loads((place / "pairs.json").read_text())
    return [(prompt + aligned, prompt + reference) for prompt, aligned, reference in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["published", "fp32", "bf16", "agree"])
    parser.add_argument("place", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", action="store_true", help="operations, and no time")
    typed = parser.parse_args()
    place, device = typed.place, typed.device
    if typed.kind == "agree":
        print(json.dumps(agree(place, device)))
        return

    def work(count: int, epochs: int) -> None:
        if typed.kind == "published":
            published(place, count, epochs, device)
        else:
            precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[typed.kind]
            ours(place, count, epochs, device, precision)

    work(2 * BATCH, 1)
    if typed.count:
        # Each epoch of the published loop is like its first.
        alike = EPOCHS if typed.kind == "published" else 1
        print(json.dumps({"flops": alike * counted(lambda: work(PAIRS, EPOCHS // alike))}))
        return
    start = time.perf_counter()
    work(PAIRS, EPOCHS)
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
