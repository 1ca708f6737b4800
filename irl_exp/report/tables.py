"""The two tables of a run: what its policies do, and how good the recovered reward is."""

from dataclasses import dataclass

from irl_exp.report.run import Run

POLICIES = ("reference", "aligned", "realigned")

# Name in the summary -> heading in a terminal, row of the page.
POLICY_MEASURES = {
    "toxicity_rate": ("toxic by R*", "toxicity rate, by R*"),
    "toxicity_rate_second": ("toxic by 2nd", "toxicity rate, by a second classifier"),
    "mean_reward": ("R* (sd)", "R*, in sd of reference completions"),
    "kl": ("KL (nats)", "KL from the reference, nats per completion"),
    "perplexity": ("perplexity", "perplexity of held-out comments, per token"),
    "length": ("length (tokens)", "length, tokens"),
    "distinct_2": ("distinct bigrams", "distinct-2: distinct bigrams / bigrams"),
    "optimality": ("optimality", "optimality (0: reference, 1: KL-optimal policy)"),
}
# Identified numbers first.
RECOVERY_MEASURES = {
    "pair_accuracy": "within-prompt accuracy",
    "starc": "STARC distance",
    "auc": "AUC",
}
MISSING = "–"
SECOND = "2nd: a second classifier, which RLHF never sees."


@dataclass(frozen=True)
class Table:
    """Rows of text under a header of the same length; the first column names the rows."""

    header: list[str]
    rows: list[list[str]]
    note: str

    @property
    def transposed(self) -> "Table":
        header, *rows = ([*column] for column in zip(self.header, *self.rows, strict=True))
        return Table(header, rows, self.note)


def policies(run: Run, *, intervals: bool) -> Table | None:
    """A row for each policy that was observed; long headings and intervals for the page."""
    seen = [p for p in POLICIES if any(n.startswith(f"policy/{p}/") for n in run.summary)]
    measures = [m for m in POLICY_MEASURES if any(f"policy/{p}/{m}" in run.summary for p in seen)]
    if not measures:
        return None
    cells = [[run.text(f"policy/{p}/{m}") or MISSING for m in measures] for p in seen]
    if not intervals:
        cells = [[cell.split(" [")[0] for cell in row] for row in cells]
    note = run.fill(
        "Optimality: from {policy/aligned/optimality_samples} reference completions per prompt, "
        "effective sample size {policy/aligned/optimality_effective_sample_size}."
    )
    return Table(
        ["policy", *(POLICY_MEASURES[m][int(intervals)] for m in measures)],
        [[p, *row] for p, row in zip(seen, cells, strict=True)],
        " ".join(filter(None, [run.brackets if intervals else SECOND, note])),
    )


def recovery(run: Run) -> Table | None:
    """The recovered reward, then each control by the same measures."""
    rows = {"recovered": "recovery"} | {name: f"control/{name}" for name in run.controls}
    measures = [m for m in RECOVERY_MEASURES if f"recovery/{m}" in run.summary]
    if not measures:
        return None
    return Table(
        ["reward", *(RECOVERY_MEASURES[m] for m in measures)],
        [[name, *(run.text(f"{p}/{m}") or MISSING for m in measures)] for name, p in rows.items()],
        " ".join(filter(None, [_yardsticks(run), run.brackets])),
    )


def _yardsticks(run: Run) -> str:
    """What the numbers of the recovery table can be held against."""
    labels = run.config.get("evaluation", {}).get("labels", "human")
    sentences = [
        run.fill("A second R* (another seed): STARC {recovery/starc_floor}."),
        run.fill("R* itself: AUC {ground_truth/auc} against human labels."),
        "" if labels == "human" else "AUC is against R*'s own labels: toxic where R* <= 0.",
    ]
    return " ".join(filter(None, sentences))
