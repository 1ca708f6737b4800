"""How benchmarks measure: fresh processes, interleaved; medians and spread; shares of a ceiling.

An arm is a command that prints one JSON object as its last line: `seconds` of what is timed, after
a warm-up of its own, and whatever else was found. Arms run one after the other in rounds (A B C A B
C ...), so that what slows the machine down for a while slows all of them down.
"""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"

Sample = dict[str, Any]
Samples = Mapping[str, Sequence[Sample]]


class Skip(Exception):
    """Why a part cannot be measured here."""


@dataclass(frozen=True)
class Options:
    """What was typed: rounds, threads of torch in every arm, and where networks run."""

    runs: int = 5
    threads: int = min(2, os.cpu_count() or 1)
    device: str = "cpu"


@dataclass(frozen=True)
class Arm:
    """A name, and what `python` is given: module or script with its arguments."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def once(arm: Arm, threads: int) -> Sample:
    """What one run of an arm found. `wall_seconds` are those of the process, start included, and
    `peak_bytes`, unless the arm says so itself, its largest resident size."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **arm.environment}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arm.command], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        said = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{arm.name}: {' '.join(arm.command)} ended with status {process.returncode}")
    measured = {"wall_seconds": wall, "peak_bytes": usage.ru_maxrss * 1024}
    return {**measured, **json.loads(said.splitlines()[-1])}


def interleaved(arms: Sequence[Arm], options: Options) -> dict[str, list[Sample]]:
    """Of each arm as many samples as there are rounds."""
    samples: dict[str, list[Sample]] = {arm.name: [] for arm in arms}
    for place in range(options.runs):
        for arm in arms:
            found = once(arm, options.threads)
            samples[arm.name].append(found)
            seconds = f"{found['seconds']:.2f} s" if "seconds" in found else "done"
            print(f"{place + 1}/{options.runs} {arm.name}: {seconds}", file=sys.stderr, flush=True)
    return samples


# --- what samples say -----------------------------------------------------------------------------


def median(samples: Sequence[Sample], name: str = "seconds") -> float:
    return statistics.median(sample[name] for sample in samples)


def spread(samples: Sequence[Sample], name: str = "seconds") -> str:
    """`median (least to most)`."""
    values = [sample[name] for sample in samples]
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def ratio(peer: Sequence[Sample], ours: Sequence[Sample], name: str = "seconds") -> str:
    """The peer's median in units of ours, with the range of that of single rounds."""
    rounds = [a[name] / b[name] for a, b in zip(peer, ours, strict=True)]
    middle = median(peer, name) / median(ours, name)
    return f"{middle:.2f} ({min(rounds):.2f} to {max(rounds):.2f})"


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """b of cost = a * size^b by least squares of logarithms, and half its 95 % interval."""
    from scipy import stats

    fit = stats.linregress([math.log(size) for size in sizes], [math.log(cost) for cost in costs])
    free = len(sizes) - 2
    half = float(stats.t.ppf(0.975, free) * fit.stderr) if free > 0 else math.inf
    return float(fit.slope), half


# --- arithmetic, and its ceiling ------------------------------------------------------------------


def counted(call: Callable[[], Any]) -> int:
    """Floating-point operations in the matrix products (and attention) of a call."""
    import torch
    from torch.utils import flop_counter
    from torch.utils.flop_counter import FlopCounterMode

    # Of torch's fused kernels for attention the counter does not know those of the CPU.
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    known = {
        fused: lambda q, k, v, *rest, **more: flop_counter.sdpa_flop_count(q, k, v),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *rest, **more: flop_counter.sdpa_backward_flop_count(
                grad, q, k, v
            )
        ),
    }
    for kernel, formula in known.items():
        if kernel not in flop_counter.flop_registry:
            flop_counter.register_flop_formula(kernel)(formula)
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def ceiling(device: str = "cpu") -> Arm:
    """An arm that measures the matrix products of this machine, to stand among those that it is
    the ceiling of: operations a second of fp32, fp32_medium and bf16 on its threads, and of one."""
    return Arm("ceiling", ["-m", "benchmarks.measure", device])


def peaks(device: str) -> Sample:
    """The largest rates of square products that were seen here."""
    import torch

    start, all_threads = time.perf_counter(), torch.get_num_threads()
    found: Sample = {}
    for threads in dict.fromkeys((all_threads, 1)):
        torch.set_num_threads(threads)
        end = "" if threads == all_threads else "_one_thread"
        for name, dtype, precision in (
            ("fp32", torch.float32, "highest"),
            ("fp32_medium", torch.float32, "medium"),
            ("bf16", torch.bfloat16, "highest"),
        ):
            torch.set_float32_matmul_precision(precision)
            found[name + end] = _peak(dtype, device, found.get("fp32", 0.0) / 8)
    return {**found, "threads": all_threads, "seconds": time.perf_counter() - start}


def _peak(dtype: Any, device: str, least: float) -> float:
    """Operations a second. What a processor only emulates, slower than `least`, is not asked for
    products that would take it minutes."""
    import torch

    best = 0.0
    for n in (128, 512, 1024, 2048) if device == "cpu" else (1024, 4096, 8192):
        left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        left @ right
        begun, best_here = time.perf_counter(), 0.0
        while time.perf_counter() - begun < 0.3:
            best_here = max(best_here, 2 * n**3 / _seconds(lambda: left @ right, device))  # noqa: B023
        best = max(best, best_here)
        if n >= 512 and best < least:
            break
    return best


def _seconds(call: Callable[[], Any], device: str) -> float:
    import torch

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    start = now()
    call()
    return now() - start


def has_bf16(ceilings: Sequence[Sample]) -> bool:
    """Whether products in bf16 are as fast here as those in fp32, or faster: elsewhere they are
    emulated, and arms that need them are left out."""
    return median(ceilings, "bf16") >= median(ceilings, "fp32")


# --- results --------------------------------------------------------------------------------------


def machine(device: str = "cpu") -> dict[str, Any]:
    """Where, when and of what was measured."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    names = ("torch", "transformers", "trl", "pytorch-lightning")
    return {
        "commit": head.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": _gpu() if device == "cuda" else "cpu",
        "python": platform.python_version(),
        **{name: _version(name) for name in names},
    }


def conditions(found: Mapping[str, Any]) -> str:
    """A line on where, when, of what and how often a part was measured."""
    where, runs = found["machine"], found["runs"]
    place = f"{where['processor']}, {where['cores']} cores, {found['threads']} threads"
    if where["device"] != "cpu":
        place = f"{where['device']}; {place}"
    return (
        f"{place}; torch {where['torch']}, transformers {where['transformers']}; commit "
        f"{where['commit']}, {where['date']}; {runs} run{'' if runs == 1 else 's'} of each arm."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = facts.get("flags", "").split()
    # Of two processors of a name, what tells how fast their products are.
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{facts.get('model name', platform.machine())} ({', '.join(known)})"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def label(part: str, device: str) -> str:
    """What the results of a part are called."""
    return part if device == "cpu" else f"{part}-{device}"


def save(name: str, found: Mapping[str, Any], folder: Path = RESULTS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def load(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """As Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def replace(name: str, text: str, page: Path = PAGE) -> None:
    """Put `text` between the markers <!-- name --> and <!-- /name --> of a page."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before = page.read_text()
    if first not in before or last not in before:
        sys.exit(f"{page}: expected {first} and {last}, between which the tables of {name} go")
    head, rest = before.split(first, 1)
    tail = rest.split(last, 1)[1]
    page.write_text(f"{head}{first}\n{text.strip()}\n{last}{tail}")


if __name__ == "__main__":
    print(json.dumps(peaks(sys.argv[1])))
