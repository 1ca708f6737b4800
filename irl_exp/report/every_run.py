"""Every run of a report: what the page calls them, and a row for each."""

from irl_exp.report.collect import Runs, axes, numbers
from irl_exp.report.document import Item, Listing
from irl_exp.report.run import REPORT_FILE

# Numbers of the summary in the table of all runs -> what a reader sees.
NUMBERS = {
    "audit/preference_accuracy": "prefers the aligned",
    "recovery/identified_fraction": "identified",
    "recovery/pair_accuracy": "pair accuracy",
    "recovery/starc": "STARC",
    "recovery/auc": "AUC",
    "policy/aligned/optimality": "optimality",
    "time/total_seconds": "seconds",
}
LONGEST_TITLE = 80  # characters
SAID = (
    "What differs, and the numbers that matter most. A heading sorts; a run's name leads to its "
    "own report."
)


def title(runs: Runs) -> str:
    """The names of the folders that hold the runs."""
    folders = dict.fromkeys(run.folder.absolute().parent.name for run in runs.all)
    title = ", ".join(folders) or "no runs"
    return title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1] + "…"


def counts(runs: Runs) -> str:
    said = f"{len(runs.done)} of {len(runs.all) + len(runs.unreadable)} runs are done"
    if runs.unreadable:
        said += f", {len(runs.unreadable)} cannot be read"
    return said + "."


def listing(runs: Runs) -> Listing:
    """A row a run: where it is, how it went, what makes it differ, and some numbers."""
    named = axes(runs.all)
    titles = {n: text for n, text in NUMBERS.items() if numbers(runs.all, n)}
    items = []
    for run in runs.all:
        report = run.folder / REPORT_FILE
        target = report if report.is_file() else run.folder
        values = [*(axis.of(run) for axis in named), *(run.summary.get(name) for name in titles)]
        items.append(Item(run.folder.name, target, run.status["status"], values))
    header = ["run", "status", *(axis.name for axis in named), *titles.values()]
    return Listing("Every run", SAID, "runs", header, items)
