"""Scoring real comments: irl-score and a loaded reward, beside transformers' own pipeline.

The comments are those that IRL_EXP_REAL_DATA holds, whole ones and sentences. The pipeline has the
batch size that was best for it on a part of them; both begin with a file and a folder and end with
a file of scores, and loading is counted.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.architectures import save, shape_of
from benchmarks.measure import (
    Arm,
    Options,
    Skip,
    ceiling,
    counted,
    interleaved,
    median,
    once,
    ratio,
    spread,
    table,
)

FILES = ("wiki_detox_test.csv", "jigsaw_sentences.csv")
TEXTS = {"neox-400k": 20_000, "pythia-70m": 2_000}
# Tokens that each reads, as its option has it.
CONTEXT = {"neox-400k": 128, "pythia-70m": 2048}
BATCHES = (1, 8, 16, 32, 64, 128)
KINDS = ("pipeline", "irl-score", "load_reward")
WARM_UP = 64


def measure(options: Options) -> dict[str, Any]:
    folder = os.environ.get("IRL_EXP_REAL_DATA")
    if not folder:
        raise Skip("IRL_EXP_REAL_DATA is not set: no real comments to score")
    texts = [text for name in FILES for text in _column(Path(folder) / name, "comment")]
    found: dict[str, Any] = {"samples": {}, "searched": {}, "difference": {}, "texts": TEXTS}
    found["operations"] = {}
    for shape, count in TEXTS.items():
        with tempfile.TemporaryDirectory() as place:
            write_inputs(shape, texts, count, Path(place))
            searched = once(_arm("search", place), options.threads)["batches"]
            best = min(searched, key=searched.get)
            arms = [_arm(kind, place, best) for kind in KINDS]
            operations = once(_arm("count", place), options.threads)["flops"]
            rounds = interleaved([*arms, ceiling()], options)
            found["samples"] |= {f"{shape}, {name}": each for name, each in rounds.items()}
            found["searched"][shape] = searched
            found["operations"][shape] = operations
            found["difference"][shape] = difference(Path(place))
    return found


def _arm(kind: str, place: str, batch: str = "1") -> Arm:
    return Arm(kind, ["-m", "benchmarks.parts.scoring", kind, place, "--batch", batch])


def tables(found: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    for shape, count in found["texts"].items():
        of = {name: found["samples"][f"{shape}, {name}"] for name in (*KINDS, "ceiling")}
        searched = found["searched"][shape]
        for kind in KINDS:
            each = of[kind]
            rate = found["operations"][shape] / median(each)
            named = f" of {min(searched, key=searched.get)}" if kind == "pipeline" else ""
            faster, speed = ratio(of["pipeline"], each), f"{count / median(each):,.0f}"
            share = f"{rate / median(of['ceiling'], 'fp32'):.0%}"
            memory = f"{median(each, 'peak_bytes') / 2**30:.2f}"
            cells = (f"`{shape}`", kind + named, f"{count:,}", spread(each))
            rows.append([*cells, speed, faster, share, memory])
    columns = ("reward", "", "texts", "seconds", "texts/s", "pipeline / this", "share of peak")
    worst = "; ".join(f"`{shape}` {value:.1e}" for shape, value in found["difference"].items())
    return table([*columns, "peak, GiB"], rows) + f"\n\nLargest difference of two scores: {worst}."


# --- arms -----------------------------------------------------------------------------------------


def _column(path: Path, name: str) -> list[str]:
    with path.open(newline="", encoding="utf-8") as lines:
        return [row[name] for row in csv.DictReader(lines)]


def write_inputs(shape: str, texts: Sequence[str], count: int, place: Path) -> None:
    """A reward of random weights with a tokenizer of these texts; `count` of them, evenly."""
    import torch

    from irl_exp.models.language_model import train_tokenizer
    from irl_exp.models.network_reward import from_body
    from irl_exp.models.reward_model import Facts, Normalizer

    size = shape_of(shape)
    save(size, train_tokenizer(texts, size.vocabulary), place / "base")
    reward = from_body(place / "base", torch.Generator().manual_seed(0), 128)
    # What both read where a text is too long.
    reward.network.config.max_position_embeddings = CONTEXT[shape]
    reward.tokenizer.model_max_length = CONTEXT[shape]
    folder = place / "reward"
    folder.mkdir()
    Facts(reward.kind, Normalizer(0.0, 1.0), {}, extra=reward.save(folder)).save(folder)
    step = len(texts) / count
    some = [texts[int(i * step)] for i in range(count)]
    for name, every in (("texts", 1), ("tenth", 10), ("few", count // WARM_UP)):
        rows = some[::every]
        with (place / f"{name}.csv").open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([["text"], *([text] for text in rows)])


def pipeline(place: Path, file: str, out: Path, batch: int, limit: int | None = None) -> None:
    from transformers import pipeline as load

    classify = load(
        "text-classification",
        model=str(place / "reward"),
        batch_size=batch,
        truncation=True,
        function_to_apply="none",
        device="cpu",
    )
    classify.tokenizer.truncation_side = "left"  # which a saved tokenizer does not say
    texts = _column(place / file, "text")[:limit]
    with out.open("w") as lines:
        for text, found in zip(texts, classify(texts), strict=True):
            lines.write(json.dumps({"score": found["score"], "text": text}) + "\n")


def irl_score(place: Path, file: str, out: Path, batch: int) -> None:
    from irl_exp import scoring

    out.unlink(missing_ok=True)
    sys.argv = ["irl-score", str(place / "reward"), str(place / file), "-o", str(out)]
    scoring.main()


def load_reward(place: Path, file: str, out: Path, batch: int) -> None:
    import irl_exp

    texts = _column(place / file, "text")
    scores = irl_exp.load_reward(place / "reward").score([""] * len(texts), texts).tolist()
    with out.open("w") as lines:
        for score, text in zip(scores, texts, strict=True):
            lines.write(json.dumps({"score": score, "text": text}) + "\n")


CALLS: dict[str, Callable[[Path, str, Path, int], None]] = {
    "pipeline": pipeline,
    "irl-score": irl_score,
    "load_reward": load_reward,
}


def search(place: Path) -> dict[str, float]:
    """Seconds of the pipeline on every tenth of the texts, by its batch size."""
    found = {}
    pipeline(place, "few.csv", place / "few.jsonl", 8)
    for batch in BATCHES:
        start = time.perf_counter()
        pipeline(place, "tenth.csv", place / "tenth.jsonl", batch)
        found[str(batch)] = time.perf_counter() - start
    return found


def difference(place: Path) -> float:
    """The largest between the scores of two of them for one text."""
    columns = []
    for kind in KINDS:
        with (place / f"{kind}.jsonl").open() as lines:
            columns.append([json.loads(line)["score"] for line in lines])
    return max(max(row) - min(row) for row in zip(*columns, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=[*KINDS, "search", "count"])
    parser.add_argument("place", type=Path)
    parser.add_argument("--batch", type=int)
    typed = parser.parse_args()
    place = typed.place
    if typed.kind == "search":
        print(json.dumps({"batches": search(place)}))
        return
    if typed.kind == "count":  # one text after the other has no padding: what must be computed
        flops = counted(lambda: pipeline(place, "tenth.csv", place / "count.jsonl", 1))
        print(json.dumps({"flops": 10 * flops}))
        return
    call = CALLS[typed.kind]
    call(place, "few.csv", place / "few.jsonl", typed.batch)
    start = time.perf_counter()
    call(place, "texts.csv", place / f"{typed.kind}.jsonl", typed.batch)
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
