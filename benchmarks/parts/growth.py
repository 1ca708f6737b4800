"""How time and memory grow: with comments, demonstrations, completions of each, and weights.

Each arm walks through the sizes of one axis, from the smallest to the largest, in one process, so
that the peak of its memory is that of the size it is at. Exponents are least squares of logarithms
over all sizes and rounds: at small sizes what is spent once for all pulls them down.
"""

import argparse
import csv
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.architectures import save, shape_of, values
from benchmarks.measure import Arm, Options, Sample, exponent, interleaved, table

PROMPTS, K = 100, 2
MODELS = ("neox-50k", "neox-100k", "neox-400k", "neox-1m5")
# Of each axis: its sizes, and what they count.
AXES: dict[str, tuple[Sequence[int], str]] = {
    "curate": ((1_000, 10_000, 100_000, 1_000_000), "comments of a file, 2,000 kept"),
    "score": ((1_000, 10_000, 100_000), "texts, by irl-score"),
    "prompts": ((50, 100, 200, 400, 800), f"prompts of a recovery, k = {K}"),
    "k": ((1, 2, 4, 8), f"completions k of {PROMPTS} prompts"),
    "weights": ([shape_of(name).weights for name in MODELS], f"weights, {PROMPTS} prompts"),
}


def measure(options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        write_inputs(Path(place))
        arms = [Arm(axis, ["-m", "benchmarks.parts.growth", axis, place]) for axis in AXES]
        return {"samples": interleaved(arms, options)}


def tables(found: dict[str, Any]) -> str:
    rows = []
    for axis, samples in found["samples"].items():
        sizes, what = AXES[axis]
        costs = np.array([sample["costs"] for sample in samples])
        peaks = np.median([sample["peaks"] for sample in samples], axis=0)
        slope, half = exponent([*sizes] * len(costs), costs.ravel().tolist())
        each = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
        seconds = " ".join(f"{cost:.3g}" for cost in np.median(costs, axis=0))
        memory = f"{peaks[0] / 2**20:,.0f} to {peaks[-1] / 2**20:,.0f}"
        span = f"{sizes[0]:,} to {sizes[-1]:,}"
        rows.append([what, span, seconds, f"{slope:.2f} ± {half:.2f}", memory, f"{each:,.0f}"])
    columns = ("of", "sizes", "seconds", "exponent", "peak, MiB", "bytes more for one more")
    return table(columns, rows)


# --- arms -----------------------------------------------------------------------------------------


def write_inputs(place: Path) -> None:
    from irl_exp.data import synthetic
    from irl_exp.models.language_model import train_tokenizer
    from irl_exp.models.network_reward import from_body
    from irl_exp.models.reward_model import Facts, Normalizer

    texts = [text for text, _ in synthetic.generate(2000, seed=0)]
    for name in MODELS:
        shape = shape_of(name)
        save(shape, train_tokenizer(texts, shape.vocabulary), place / name)
    import torch

    reward = from_body(place / MODELS[0], torch.Generator().manual_seed(0), 128)
    folder = place / "reward"
    folder.mkdir()
    Facts(reward.kind, Normalizer(0.0, 1.0), {}, extra=reward.save(folder)).save(folder)
    for count in sorted({*AXES["curate"][0], *AXES["score"][0]}):
        _write_comments(place / f"{count}.csv", texts, count)


def _write_comments(path: Path, texts: Sequence[str], count: int) -> None:
    """Comments of two sentences and a number, so that hardly one stands twice."""
    rng = np.random.default_rng(count)
    first, second = rng.integers(0, len(texts), (2, count))
    toxic = rng.integers(0, 2, count)
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["text", "toxic"])
        for i in range(count):
            writer.writerow([f"{texts[first[i]]} {i} {texts[second[i]]}", toxic[i]])


def curate(place: Path, count: int) -> None:
    """A file as `dataset=file` curates it, with dataset.size=2000."""
    from irl_exp.data import comments, sources

    curated, _ = comments.curate(
        sources.file_rows(place / f"{count}.csv", sources.Columns("text", ["toxic"])),
        prompt_words=4,
        shares=values("dataset/file")["shares"],
        max_comments=min(2000, count),
        balance=False,
        rng=np.random.default_rng(0),
    )
    curated.save(Path(tempfile.mkdtemp(dir=place)))


def score(place: Path, count: int) -> None:
    import sys

    from irl_exp import scoring

    out = Path(tempfile.mkdtemp(dir=place)) / "scores.jsonl"
    file = str(place / f"{count}.csv")
    sys.argv = ["irl-score", str(place / "reward"), file, "--text", "text", "-o", str(out)]
    scoring.main()


def prompts(place: Path, count: int) -> None:
    recover(place, MODELS[0], count, K)


def k(place: Path, count: int) -> None:
    recover(place, MODELS[0], PROMPTS, count)


def weights(place: Path, count: int) -> None:
    sizes, _ = AXES["weights"]
    recover(place, MODELS[list(sizes).index(count)], PROMPTS, K)


def recover(place: Path, model: str, count: int, k: int) -> None:
    """One epoch of `solver=asymmetric`."""
    from irl_exp.config import MarginSolver, TrainerConfig
    from irl_exp.data import synthetic
    from irl_exp.data.pairs import Demonstrations
    from irl_exp.solvers import margin
    from irl_exp.solvers.problem import Problem

    texts = [text for text, _ in synthetic.generate(4000, seed=1)]
    rng = np.random.default_rng(0)

    def completions() -> list[list[str]]:
        return [[f" {texts[i]}" for i in rng.integers(0, len(texts), k)] for _ in range(count + 4)]

    pairs = Demonstrations(
        [f"{i} {texts[i]}" for i in range(count + 4)],
        completions(),
        completions(),
        ["train"] * count + ["validation"] * 4,
    )
    margin.solve(
        Problem(
            config=MarginSolver(**values("solver/asymmetric")),
            demonstrations=pairs,
            reference=place / model,
            aligned=None,
            truth=None,
            kl_coef=0.1,
            max_new_tokens=16,
            trainer=TrainerConfig(**values("trainer/cpu")),
            device="cpu",
            initialization=0,
            order=0,
            folder=Path(tempfile.mkdtemp(dir=place)),
        )
    )


CALLS: dict[str, Callable[[Path, int], None]] = {
    "curate": curate,
    "score": score,
    "prompts": prompts,
    "k": k,
    "weights": weights,
}


def walk(axis: str, place: Path) -> Sample:
    sizes, _ = AXES[axis]
    costs, peaks = [], []
    CALLS[axis](place, sizes[0])
    for size in sizes:
        start = time.perf_counter()
        CALLS[axis](place, size)
        costs.append(time.perf_counter() - start)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {"seconds": sum(costs), "costs": costs, "peaks": peaks}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("axis", choices=AXES)
    parser.add_argument("place", type=Path)
    typed = parser.parse_args()
    print(json.dumps(walk(typed.axis, typed.place)))


if __name__ == "__main__":
    main()
