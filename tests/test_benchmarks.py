"""The benchmarks' frame: rounds, ratios, exponents, operations, and where tables go."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import Arm, Options


def arm(name: str, log: Path, seconds: float) -> Arm:
    """Notes that it ran, says something, and last what it found."""
    script = (
        f"open({str(log)!r}, 'a').write({name!r})\n"
        "import json, os\n"
        "print('not JSON')\n"
        f"print(json.dumps({{'seconds': {seconds}, 'threads': os.environ['OMP_NUM_THREADS']}}))"
    )
    return Arm(name, ["-c", script])


def test_arms_run_in_rounds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arms = [arm("a", log, 3.0), arm("b", log, 2.0)]
    samples = measure.interleaved(arms, Options(runs=3, threads=1))
    assert log.read_text() == "ababab"
    assert [sample["seconds"] for sample in samples["a"]] == [3.0] * 3
    assert samples["a"][0]["threads"] == "1"
    assert samples["a"][0]["peak_bytes"] > 1e6 and samples["a"][0]["wall_seconds"] > 0


def test_an_arm_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="ended with status 3"):
        measure.once(Arm("broken", ["-c", "import sys; sys.exit(3)"]), threads=1)


def test_medians_and_ranges() -> None:
    peer = [{"seconds": value} for value in (4.0, 9.0, 6.0)]
    ours = [{"seconds": value} for value in (2.0, 3.0, 1.0)]
    assert measure.spread(peer) == "6 (4 to 9)"
    assert measure.ratio(peer, ours) == "3.00 (2.00 to 6.00)"


def test_the_exponent_of_exact_data() -> None:
    sizes = [10.0, 100.0, 1000.0, 10000.0]
    slope, half = measure.exponent(sizes, [5 * size**1.5 for size in sizes])
    assert slope == pytest.approx(1.5) and half == pytest.approx(0, abs=1e-6)


def test_operations_of_a_product_are_counted() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert measure.counted(lambda: left @ right) == 2 * 3 * 5 * 7


def test_tables_go_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- part -->\nold\n<!-- /part -->\nafter\n")
    text = measure.table(["a", "b"], [[1, "x"]])
    measure.replace("part", text, page)
    assert page.read_text() == (
        "before\n<!-- part -->\n| a | b |\n| --- | --- |\n| 1 | x |\n<!-- /part -->\nafter\n"
    )
    with pytest.raises(SystemExit, match="expected <!-- other -->"):
        measure.replace("other", text, page)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = {"machine": measure.machine(), "samples": {"a": [{"seconds": 1.5}]}}
    measure.save("part", found, tmp_path)
    assert measure.load("part", tmp_path) == found
    assert found["machine"]["python"] == sys.version.split()[0]


def test_tables_say_where_and_when_they_were_measured() -> None:
    found = {"machine": measure.machine(), "runs": 1, "threads": 2}
    said = measure.conditions(found)
    for name in ("processor", "torch", "transformers", "commit", "date"):
        assert str(found["machine"][name]) in said  # type: ignore[index]
    assert "2 threads" in said and said.endswith("1 run of each arm.")
    assert "5 runs" in measure.conditions(found | {"runs": 5})
