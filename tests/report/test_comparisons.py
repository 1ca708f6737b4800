"""Differences between runs that share their seeds, by hand."""

from pathlib import Path

import pytest
from scipy.stats import ttest_1samp

from irl_exp.report import document, sweep_page
from irl_exp.report.collect import collect
from irl_exp.report.comparisons import comparisons, corrected
from irl_exp.report.tables import Table
from tests.report.conftest import write_small_run

STARC = "recovery/starc"


def write(folder: Path, solver: str, k: int, seed: int, starc: float) -> None:
    config = {"solver": {"name": solver}, "demonstrations": {"k": k}}
    name = f"{solver}-{k}-{seed}"
    write_small_run(folder / name, config=config, summary={STARC: starc}, order=seed)


def test_pairs_share_all_but_one_thing(tmp_path: Path) -> None:
    """A seed counts once, however many other choices it was tried with; a run without a partner
    does not count."""
    for seed, level in enumerate((0.0, 0.2, 0.4)):
        write(tmp_path, "hinge", 2, seed, level + 0.30)
        write(tmp_path, "hinge", 4, seed, level + 0.20)
        write(tmp_path, "svm", 2, seed, level + 0.36 + 0.01 * seed)
    write(tmp_path, "svm", 4, 0, 0.22)
    write(tmp_path, "svm", 4, 7, 0.9)
    solver, k = comparisons(collect([tmp_path]).done, [STARC])
    assert (solver.name, solver.pairs) == ("solver: svm less hinge", 4)
    # Seed 0: 0.06 with two completions and 0.02 with four.
    assert solver.differences[STARC] == pytest.approx([0.04, 0.07, 0.08])
    assert (k.name, k.pairs) == ("demonstrations.k: 4 less 2", 4)
    assert k.differences[STARC] == pytest.approx([(-0.10 - 0.14) / 2, -0.10, -0.10])


def test_p_values_are_corrected_together() -> None:
    columns = [[0.1, 0.2, 0.15], [0.3], [0.1, -0.1, 0.02]]
    first, none, last = corrected(columns)
    alone = [float(ttest_1samp(columns[place], 0).pvalue) for place in (0, 2)]
    assert none is None and first == pytest.approx(2 * alone[0])
    assert last == pytest.approx(max(2 * alone[0], alone[1]))


def test_the_table(tmp_path: Path) -> None:
    for seed, level in enumerate((0.0, 0.2)):
        write(tmp_path, "hinge", 2, seed, level + 0.3)
        write(tmp_path, "svm", 2, seed, level + 0.4 + 0.02 * seed)
    found = sweep_page.report(collect([tmp_path]))
    [section] = [s for s in found.sections if s.title == "Differences, all else equal"]
    [table] = section.body
    assert isinstance(table, Table)
    assert table.header[:5] == ["difference", "pairs", "n", "STARC", "p"]
    # 0.11 ± 12.706 · 0.01, and t = 11 with one degree of freedom.
    assert table.rows == [
        ["solver: svm less hinge", "2", "2", "0.110±0.127", "0.058", "–", "–", "–", "–"]
    ]
    assert (
        "of this table" in table.note
        and "Differences" in document.files(found)["report.md"].decode()
    )
