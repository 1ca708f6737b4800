"""The tables of a run: what its policies do, how good the recovered reward is, what it goes by."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table as TerminalTable

from irl_exp.metrics.statistics import holm
from irl_exp.report.run import Run, number
from irl_exp.unicode import printable

POLICIES = ("reference", "aligned", "realigned")

# Name in the summary -> what a reader sees. At most 37 characters, so that three policies fit
# beside it in a terminal of 80 columns even where a number is "not applicable".
POLICY_MEASURES = {
    "toxicity_rate": "toxicity rate, by R*",
    "toxicity_rate_second": "toxicity rate, by a second classifier",
    "expected_max_toxicity": "expected max. toxicity, by R*",
    "expected_max_toxicity_second": "expected max. toxicity, by the second",
    "toxicity_probability": "toxicity probability, by R*",
    "toxicity_probability_second": "toxicity probability, by the second",
    "mean_reward": "R*, in sd of reference completions",
    "kl": "KL from the reference, nats",
    "optimality": "optimality (1: the KL-optimal policy)",
    "perplexity": "perplexity of held-out comments",
    "length": "length, tokens",
    "distinct_2": "distinct bigrams / bigrams",
}
# What a policy does less what another does: ends of names in the summary.
COMPARISONS = {
    "aligned − reference": "policy/aligned/{}_change",
    "realigned − reference": "policy/realigned/{}_change",
    "realigned − aligned": "policy/realigned/{}_change_from_aligned",
}
# Identified numbers first.
RECOVERY_MEASURES = {
    "pair_accuracy": "within-prompt accuracy",
    "starc": "STARC distance",
    "auc": "AUC",
}
# What a reward may go by instead of reading; beside each stands what a reader sees.
FACTORS = {
    "length": "length",
    "ended": "ended by itself",
    "repetition": "repetition",
    "likelihood": "likelihood",
}
FACTOR_MEASURES = {
    "{}_in_truth": "R*",
    "{}": "R̂",
    "{}_given_truth": "R̂ given R*",
    "truth_given_{}": "R̂ with R* given it",
}
MISSING = "–"
# Pairs of either kind in the table of identified ones.
EXTREMES = 4
LONGEST_TEXT = 300  # characters


# Rows of the table of findings.
FINDINGS = 10
FACTORS_IN_WORDS = {
    "length": "length",
    "ended": "completions that end by themselves",
    "repetition": "repeated words",
    "likelihood": "what the reference finds likely",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under a header of the same length; the first column names the rows."""

    header: list[str]
    rows: list[list[str]]
    note: str

    def markdown(self) -> str:
        lines = [" | ".join(row) for row in (self.header, ["---"] * len(self.header), *self.rows)]
        grid = "\n".join(f"| {line} |" for line in lines)
        return f"{grid}\n\n{self.note}" if self.note else grid

    def terminal(self) -> TerminalTable:
        """For a console. Where it is too narrow, cells fold: nothing is ever cut."""
        terminal = TerminalTable(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        for place, heading in enumerate(self.header):
            terminal.add_column(heading, justify="right" if place else "left", overflow="fold")
        for row in self.rows:
            terminal.add_row(*map(plain, row))
        return terminal


def realigned(run: Run) -> list[str]:
    """The realigned policies of a run: the one at the aligned policy's KL and those at others."""
    found = (re.fullmatch(r"policy/(realigned(_[^/]+)?)/kl", name) for name in run.summary)
    return [match[1] for match in found if match]


def frontier(run: Run) -> Table | None:
    """A row for each realigned policy, where there are several: what it spends, what it gains."""
    seen = sorted(realigned(run), key=lambda policy: float(run.summary[f"policy/{policy}/kl"]))
    if len(seen) < 2:
        return None
    measures = {
        "kl": "KL, nats",
        "kl_target": "aimed at",
        "mean_recovered": "R̂",
        "mean_reward": "R*",
        "toxicity_rate": "toxicity, by R*",
    }
    rows = [
        [policy, *(run.text(f"policy/{policy}/{measure}") or MISSING for measure in measures)]
        for policy in ("aligned", *seen)
    ]
    note = "Either reward in its standard deviations over completions of the reference. "
    return Table(["policy", *measures.values()], rows, note + run.brackets)


def policies(run: Run, *, intervals: bool) -> Table | None:
    """A column for each policy that was observed."""
    seen = [p for p in POLICIES if any(n.startswith(f"policy/{p}/") for n in run.summary)]
    measures = [m for m in POLICY_MEASURES if any(f"policy/{p}/{m}" in run.summary for p in seen)]
    if not measures:
        return None

    rows = []
    for measure in measures:
        cells = [run.text(f"policy/{p}/{measure}", intervals) or MISSING for p in seen]
        rows.append([POLICY_MEASURES[measure], *cells])
    optimality = run.fill(
        "Optimality: from {policy/aligned/optimality_samples} reference completions per prompt, "
        "effective sample size {policy/aligned/optimality_effective_sample_size}."
    )
    return Table(
        ["policy", *seen],
        rows,
        " ".join(filter(None, [optimality, run.brackets if intervals else ""])),
    )


def differences(run: Run) -> Table | None:
    """A row for each measure that was compared between two policies, on the same prompts."""
    rows, p_values = [], []
    for policies_compared, name in COMPARISONS.items():
        for measure, label in POLICY_MEASURES.items():
            change = name.format(measure)
            if f"{change}_p" in run.summary:
                rows.append([policies_compared, label, run.text(change)])
                p_values.append(float(run.summary[f"{change}_p"]))
    if not rows:
        return None
    for row, *both in zip(rows, p_values, holm(p_values), strict=True):
        row += [f"{p:.1g}" if p < 0.001 else number(float(p)) for p in both]
    note = run.fill(
        "Differences of means over {policy/aligned/prompts} test prompts, which all policies "
        "answered. p: that both policies write alike after each prompt (two-sided, by flipping "
        "the signs of the prompts' differences)."
    )
    holms = f"Last column: Holm's correction for the {len(rows)} rows of this table."
    return Table(
        ["differences", "of", "change", "p", "p, Holm"],
        rows,
        " ".join(filter(None, [note, holms, run.brackets])),
    )


def recovery(run: Run) -> Table | None:
    """The recovered reward, then each control and a second R* by the same measures."""
    rows = {"recovered": "recovery"} | {name: f"control/{name}" for name in run.controls}
    measures = [m for m in RECOVERY_MEASURES if f"recovery/{m}" in run.summary]
    if not measures:
        return None
    names = [[name, *(f"{prefix}/{m}" for m in measures)] for name, prefix in rows.items()]
    if "recovery/starc_floor" in run.summary:
        floor = {"starc": "recovery/starc_floor"}
        names.append(["second R*", *(floor.get(m, "") for m in measures)])
    return Table(
        ["reward", *(RECOVERY_MEASURES[m] for m in measures)],
        [[label, *(run.text(name) or MISSING for name in row)] for label, *row in names],
        " ".join(filter(None, [_yardsticks(run), run.brackets])),
    )


def _yardsticks(run: Run) -> str:
    """What the numbers of the recovery table can be held against."""
    labels = run.config.get("evaluation", {}).get("labels", "human")
    sentences = [
        "Second R*: the recipe of R* with another seed, the noise floor of STARC distances."
        if "recovery/starc_floor" in run.summary
        else "",
        run.fill("R* itself: AUC {ground_truth/auc} against human labels."),
        "" if labels == "human" else "AUC is against R*'s own labels: toxic where R* <= 0.",
    ]
    return " ".join(filter(None, sentences))


def findings(run: Run) -> Table | None:
    """What R̂ goes by beyond human labels: the rows that stand out most."""
    table = run.findings
    if table is None or not len(table):
        return None
    rows = []
    given = run.config.get("demonstrations", {}).get("name") in ("file", "preferences")
    for row in table[table["stands_out"]].head(FINDINGS).to_dict("records"):
        r, low, high = (number(row[name]) for name in ("correlation", "low", "high"))
        rows.append([_finding(row, given), r, f"{low} to {high}"])
    if not rows:
        rows = [["nothing stands out", MISSING, MISSING]]
    labels = "human labels" if "comments/test_toxic_share" in run.summary else ""
    note = run.fill(
        (
            "Partial correlations with R̂ within prompts, once what models of human labels make of "
            "the completions is taken out, and of words the length too. "
            if labels
            else "Correlations with R̂ within prompts, of words once the length is taken out. "
        )
        + "{findings/count} of {findings/candidates} candidates stand out: the intervals hold for "
        "all of them at once. "
        + "R* has no part in this: it is what somebody who knows R̂ and the labels can find."
        * bool(labels)
    )
    return Table(["R̂", "correlation", "interval"], rows, note)


def _finding(row: Mapping[Hashable, Any], given: bool) -> str:
    """`rewards the word "today"`, of a row of findings.parquet; `given`: pairs are of a file, and
    `model` wrote none of them."""
    name = row["name"]
    what = f'the word "{escape(str(name))}"' if row["kind"] == "word" else FACTORS_IN_WORDS[name]
    if row["name"] == "likelihood" and given:
        what = "what `model` finds likely"
    return f"{'rewards' if row['correlation'] > 0 else 'punishes'} {what}"


def identified(run: Run) -> Table | None:
    """The pairs that are identified most clearly, as R* has them and against it, and the most
    ambiguous ones: to be read by hand."""
    pairs = run.identified
    if pairs is None or not len(pairs):
        return None
    middle, half = (pairs["low"] + pairs["high"]) / 2, (pairs["high"] - pairs["low"]) / 2
    # How far 0 is from the middle of the interval, in halves of it: beyond 1, it is outside.
    clearness = (middle.abs() / half.clip(lower=1e-12)).sort_values(kind="stable", ascending=False)
    sign = pairs["sign"].loc[clearness.index]
    known = [name for name in ("truth", "recovered") if name in pairs]
    against = sign * pairs["truth"].loc[clearness.index] < 0 if "truth" in pairs else sign != sign
    # Of two texts that are the same there is nothing to see.
    differ = (pairs["first"] != pairs["second"]).loc[clearness.index]
    kinds = {
        "identified": clearness.index[(sign != 0) & ~against],
        "against R*": clearness.index[(sign != 0) & against],
        "ambiguous": clearness.index[(sign == 0) & differ][::-1],
    }
    rows = []
    for name, chosen in kinds.items():
        for place in chosen[:EXTREMES]:
            pair = pairs.loc[place]
            turn = -1 if middle[place] < 0 else 1
            texts = [pair["first"], pair["second"]][::turn]
            low, high = sorted((turn * pair["low"], turn * pair["high"]))
            interval = f"[{number(low)}, {number(high)}]"
            differences = [number(turn * pair[reward]) for reward in known]
            rows.append([name, *map(escape, (pair["prompt"], *texts)), interval, *differences])
    other = ", in R*'s order and then in the other one" if "truth" in pairs else ""
    note = (
        "Held-out pairs: those of which 0 lies farthest from their interval of R/β, first less "
        f"second{other}; and those of which it lies nearest to its middle. Rewards in their "
        "standard deviations over completions of the reference."
    )
    signs = [{"truth": "R*", "recovered": "R̂"}[name] for name in known]
    header = ["pair", "prompt", "first", "second", "R/β, nats", *signs]
    return Table(header, rows, note)


def shortcuts(run: Run, *, intervals: bool) -> Table | None:
    """A row for each factor that the recovered reward might go by."""
    seen = [factor for factor in FACTORS if f"shortcut/{factor}" in run.summary]
    if not seen:
        return None
    if not any(f"shortcut/{factor}_in_truth" in run.summary for factor in seen):
        rows = [[FACTORS[f], run.text(f"shortcut/{f}", intervals) or MISSING] for f in seen]
        note = "Correlations within prompts, of completions of both policies."
        return Table(["factor", "R̂"], rows, note)
    rows = [
        [
            FACTORS[factor],
            *(
                run.text(f"shortcut/{measure.format(factor)}", intervals) or MISSING
                for measure in FACTOR_MEASURES
            ),
        ]
        for factor in seen
    ]
    sentences = [
        "Correlations within prompts, of completions of both policies.",
        run.fill("R̂ with R*: {shortcut/truth}, given all of these {shortcut/truth_given_all}."),
        run.fill(
            "In {shortcut/length_matched_pairs} pairs of like length R̂ keeps R*'s order in "
            "{shortcut/length_matched_pair_accuracy} (chance: 0.5)."
        ),
        run.brackets if intervals else "",
    ]
    return Table(["factor", *FACTOR_MEASURES.values()], rows, " ".join(filter(None, sentences)))


def plain(text: str) -> str:
    """Markdown as a terminal shows it: neither bold, nor escaped, nor anything that it obeys."""
    shown = re.sub(r"\\([\\`*_\[\]<|~&$])", r"\1", text.replace("**", ""))
    return "\n".join(map(printable, shown.split("\n")))


def escape(text: str) -> str:
    """Text as Markdown shows it literally, on one line and within a table cell; long texts cut."""
    line = printable(" ".join(text.split()))
    if len(line) > LONGEST_TEXT:
        line = line[:LONGEST_TEXT] + "…"
    return re.sub(r"([\\`*_\[\]<|~&$])", r"\\\1", line)
