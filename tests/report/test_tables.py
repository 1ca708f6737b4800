"""Numbers as text, and the two tables, on numbers that are written down here."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from irl_exp.report import page, tables
from irl_exp.report.run import NOT_APPLICABLE, Run, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00734, "0.007"),
        (0.0367, "0.037"),
        (-0.0002, "0.000"),
        (0.5, "0.500"),
        (0.9994, "0.999"),
        (0.9996, "1.00"),
        (1.0, "1.00"),
        (-1.005, "-1.00"),
        (9.996, "10.0"),
        (61.34, "61.3"),
        (99.94, "99.9"),
        (99.96, "100"),
        (-32168.4, "-32168"),
        (float("nan"), "NaN"),
        (256, "256"),
        (NOT_APPLICABLE, NOT_APPLICABLE),
    ],
)
def test_numbers_have_three_digits_and_three_decimals_at_most(
    value: float | str, text: str
) -> None:
    assert number(value) == text


def test_policies_stand_side_by_side(run_folder: Path) -> None:
    table = tables.policies(Run.read(run_folder), intervals=True)
    assert table is not None
    rows = {label: cells for label, *cells in table.rows}

    assert table.header == ["policy", "reference", "aligned", "realigned"]
    assert rows["toxicity rate, by R*"] == [
        "0.512 [0.491, 0.533]",
        "0.061 [0.050, 0.072]",
        "0.104 [0.090, 0.118]",
    ]
    assert rows["perplexity of held-out comments"] == ["9.84", "17.3", "19.1"]
    optimality = ["–", "0.824 [0.793, 0.855]", "0.653 [0.611, 0.695]"]
    assert rows["optimality (1: the KL-optimal policy)"] == optimality
    assert table.note == (
        "Optimality: from 256 reference completions per prompt, effective sample size 61.3. "
        "Brackets: 95% bootstrap intervals over prompts."
    )


def test_the_worst_of_a_prompt_is_told_by_both_classifiers(run_folder: Path) -> None:
    table = tables.policies(Run.read(run_folder), intervals=False)
    assert table is not None
    rows = {label: cells for label, *cells in table.rows}
    for label in ("expected max. toxicity, by R*", "toxicity probability, by the second"):
        assert rows[label] == ["0.891", "0.173", "0.262"]


def test_differences_between_policies_with_p_of_each_and_of_all(run_folder: Path) -> None:
    table = tables.differences(Run.read(run_folder))
    assert table is not None
    assert table.header == ["differences", "of", "change", "p", "p, Holm"]
    assert [row[0] for row in table.rows] == [
        *["aligned − reference"] * 4,
        *["realigned − reference"] * 4,
        *["realigned − aligned"] * 4,
    ]
    # The ten smallest of twelve are equal: each times 12. Then the last two times 2 and 1.
    first = ["toxicity rate, by R*", "-0.451 [-0.471, -0.431]", "0.0001", "0.001"]
    assert table.rows[0][1:] == first
    second = ["toxicity rate, by a second classifier", "0.026 [0.008, 0.044]", "0.012", "0.025"]
    assert table.rows[9][1:] == second
    assert table.rows[11][1:] == ["length, tokens", "-0.300 [-0.650, 0.050]", "0.250", "0.250"]
    assert "over 300 test prompts" in table.note
    assert "Holm's correction for the 12 rows of this table" in table.note


def test_without_a_second_policy_nothing_differs(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    summary = Run.read(run_folder).summary
    rewrite(run_folder / "summary.json", **{n: None for n in summary if n.startswith("policy/r")})
    table = tables.differences(Run.read(run_folder))
    assert table is not None and len(table.rows) == 4
    rewrite(run_folder / "summary.json", **{n: None for n in summary if n.startswith("policy/a")})
    assert tables.differences(Run.read(run_folder)) is None


def test_intervals_can_be_left_out(run_folder: Path) -> None:
    table = tables.policies(Run.read(run_folder), intervals=False)
    assert table is not None
    assert table.rows[0] == ["toxicity rate, by R*", "0.512", "0.061", "0.104"]
    assert "Brackets" not in table.note


def test_recovery_comes_first_then_controls_then_the_floor(run_folder: Path) -> None:
    table = tables.recovery(Run.read(run_folder))
    assert table is not None
    rows = {label: cells for label, *cells in table.rows}

    assert table.header == ["reward", "within-prompt accuracy", "STARC distance", "AUC"]
    assert list(rows) == ["recovered", "length", "log_ratio", "oracle", "untrained", "second R*"]
    assert rows["recovered"][:2] == ["0.842 [0.833, 0.851]", "0.312 [0.300, 0.324]"]
    assert rows["log_ratio"] == [NOT_APPLICABLE] * 3
    assert rows["second R*"] == ["–", "0.147 [0.139, 0.155]", "–"]


def test_a_reward_without_a_recipe_has_no_floor(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    ends = {"recovery/starc_floor_low": None, "recovery/starc_floor_high": None}
    rewrite(run_folder / "summary.json", **{"recovery/starc_floor": NOT_APPLICABLE}, **ends)
    table = tables.recovery(Run.read(run_folder))
    assert table is not None
    assert table.rows[-1] == ["second R*", "–", NOT_APPLICABLE, "–"]


def test_nan_shows_as_such_and_without_an_interval(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    rewrite(run_folder / "summary.json", **{"recovery/starc": float("nan")})
    table = tables.recovery(Run.read(run_folder))
    assert table is not None
    assert table.rows[0][2] == "NaN"


def test_labels_of_r_star_are_said_to_be_its_own(run_folder: Path) -> None:
    (run_folder / "config.yaml").write_text("evaluation: {labels: ground_truth, level: 0.95}\n")
    table = tables.recovery(Run.read(run_folder))
    assert table is not None
    assert "AUC is against R*'s own labels" in table.note


@pytest.mark.parametrize("kind", ["policy", "recovery"])
def test_no_numbers_no_table(run_folder: Path, rewrite: Callable[..., None], kind: str) -> None:
    summary = Run.read(run_folder).summary
    gone = {name: None for name in summary if name.startswith(f"{kind}/")}
    rewrite(run_folder / "summary.json", **gone)
    run = Run.read(run_folder)

    policies, recovery = tables.policies(run, intervals=True), tables.recovery(run)
    assert (policies is None, recovery is None) == (kind == "policy", kind == "recovery")


def test_shortcuts_have_a_row_for_each_factor(run_folder: Path) -> None:
    table = tables.shortcuts(Run.read(run_folder), intervals=True)
    assert table is not None
    assert table.header == ["factor", "R*", "R̂", "R̂ given R*", "R̂ with R* given it"]
    assert [row[0] for row in table.rows] == [
        *("length", "ended by itself", "repetition", "likelihood"),
    ]
    assert table.rows[0][1:] == [
        *("0.220 [0.170, 0.270]", "0.310 [0.270, 0.350]"),
        *("0.120 [0.070, 0.170]", "0.680 [0.650, 0.710]"),
    ]
    assert table.note == (
        "Correlations within prompts, of completions of both policies. "
        "R̂ with R*: 0.701 [0.670, 0.732], given all of these 0.655 [0.621, 0.689]. "
        "In 1234 pairs of like length R̂ keeps R*'s order in 0.811 [0.792, 0.830] (chance: 0.5). "
        "Brackets: 95% bootstrap intervals over prompts."
    )
    plain = tables.shortcuts(Run.read(run_folder), intervals=False)
    assert plain is not None
    assert plain.rows[0] == ["length", "0.220", "0.310", "0.120", "0.680"]


def test_a_factor_that_never_varies_has_no_meaning(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    measures = ("ended", "ended_in_truth", "ended_given_truth")
    rewrite(
        run_folder / "summary.json", **{f"shortcut/{name}": NOT_APPLICABLE for name in measures}
    )
    table = tables.shortcuts(Run.read(run_folder), intervals=False)
    assert table is not None
    assert table.rows[1] == ["ended by itself", *[NOT_APPLICABLE] * 3, "0.680"]


def test_no_interpretation_no_table(run_folder: Path, rewrite: Callable[..., None]) -> None:
    names = [name for name in Run.read(run_folder).summary if name.startswith("shortcut/")]
    rewrite(run_folder / "summary.json", **dict.fromkeys(names))
    assert tables.shortcuts(Run.read(run_folder), intervals=True) is None


def test_the_clearest_and_the_most_open_pairs(run_folder: Path) -> None:
    """Texts are escaped, and what the demonstrations prefer stands first."""
    table = pd.DataFrame(
        {
            "prompt": ["a | b", "p", "q", "r", "s"],
            "first": ["*worse*", "1", "3", "5", "7"],
            "second": ["better", "2", "4", "6", "8"],
            "truth": [-1.5, 1.0, 0.25, 2.0, -0.5],
            "recovered": [-2.0, 1.0, -0.5, 3.0, 0.25],
            "low": [-5.0, 1.0, -1.0, -0.5, 2.0],
            "high": [-4.0, 2.0, 1.5, 4.0, 3.0],
            "sign": [-1, 1, 0, 0, 1],
        }
    )
    table.to_parquet(run_folder / "identified.parquet")
    found = tables.identified(Run.read(run_folder))
    assert found is not None
    assert found.rows == [
        ["identified", r"a \| b", "better", r"\*worse\*", "[4.00, 5.00]", "1.50", "2.00"],
        ["identified", "p", "1", "2", "[1.00, 2.00]", "1.00", "1.00"],
        ["against R*", "s", "7", "8", "[2.00, 3.00]", "-0.500", "0.250"],
        ["ambiguous", "q", "3", "4", "[-1.00, 1.50]", "0.250", "-0.500"],
        ["ambiguous", "r", "5", "6", "[-0.500, 4.00]", "2.00", "3.00"],
    ]
    (run_folder / "identified.parquet").unlink()
    assert tables.identified(Run.read(run_folder)) is None


def test_findings_are_told_in_words_and_what_may_be_chance_is_not(run_folder: Path) -> None:
    table = tables.findings(Run.read(run_folder))
    assert table is not None
    assert table.rows == [
        ['rewards the word "please"', "0.610", "0.500 to 0.720"],
        ["punishes length", "-0.320", "-0.400 to -0.240"],
    ]
    assert "2 of 44 candidates stand out" in table.note
    page.write(run_folder)
    assert (
        'Beyond what human labels explain, R̂ rewards the word "please" (0.610), punishes length '
        "(-0.320)." in (run_folder / "report.md").read_text()
    )
    found = pd.read_parquet(run_folder / "findings.parquet")
    found.assign(stands_out=False).to_parquet(run_folder / "findings.parquet")
    table = tables.findings(Run.read(run_folder))
    assert table is not None and table.rows == [["nothing stands out", "–", "–"]]
    page.write(run_folder)
    assert "R̂ goes by nothing else." in (run_folder / "report.md").read_text()


def test_the_frontier_is_a_row_for_each_realigned_policy_in_the_order_of_their_kl(
    run_folder: Path, rewrite: Callable[..., None]
) -> None:
    assert tables.frontier(Run.read(run_folder)) is None
    numbers = {"kl": 9.5, "kl_target": 6.82, "mean_recovered": 1.9, "mean_reward": 0.3}
    rewrite(
        run_folder / "summary.json",
        **{f"policy/realigned_2/{name}": value for name, value in numbers.items()},
    )
    table = tables.frontier(Run.read(run_folder))
    assert table is not None
    assert [row[0] for row in table.rows] == ["aligned", "realigned", "realigned_2"]
    assert table.rows[2][1:] == ["9.50", "6.82", "1.90", "0.300", tables.MISSING]
