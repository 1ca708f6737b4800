"""The tables of a run: what its policies do, how good the recovered reward is, what it goes by."""

from dataclasses import dataclass

from rich import box
from rich.table import Table as TerminalTable

from irl_exp.report.run import Run

POLICIES = ("reference", "aligned", "realigned")

# Name in the summary -> what a reader sees. At most 37 characters, so that three policies fit
# beside it in a terminal of 80 columns even where a number is "not applicable".
POLICY_MEASURES = {
    "toxicity_rate": "toxicity rate, by R*",
    "toxicity_rate_second": "toxicity rate, by a second classifier",
    "mean_reward": "R*, in sd of reference completions",
    "kl": "KL from the reference, nats",
    "optimality": "optimality (1: the KL-optimal policy)",
    "perplexity": "perplexity of held-out comments",
    "length": "length, tokens",
    "distinct_2": "distinct bigrams / bigrams",
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
            terminal.add_row(*row)
        return terminal


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


def shortcuts(run: Run, *, intervals: bool) -> Table | None:
    """A row for each factor that the recovered reward might go by."""
    seen = [factor for factor in FACTORS if f"shortcut/{factor}" in run.summary]
    if not seen:
        return None
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
