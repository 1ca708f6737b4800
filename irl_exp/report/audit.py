"""What an audit says of somebody else's model, in the order in which one would ask."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from irl_exp.report import tables
from irl_exp.report.run import NOT_APPLICABLE, Run, number
from irl_exp.report.tables import MISSING, Table, escape

# Name in the summary -> what a reader sees, in the order of the table.
CHANGES = {
    "length": "words",
    "repetition": "share of repeated words",
    "likelihood": "log-likelihood per token, under `model`",
    "reward": "R*, in sd of the reference",
    "toxicity": "share toxic by R*",
    "recovered": "R̂, in sd of the reference",
}
# Rows of tables that show ends of a list.
WORDS, COMPLETIONS = 8, 5
# Who has no ground truth, no weights, no labelled texts or one completion a prompt goes without.
ABSENT = {
    "audit/kl": "KL from the reference: needs both models' weights (rlhf.path)",
    "audit/reward_change": "R* of either model, and R̂'s order and distance from R*: needs "
    "ground_truth=classifier or reward",
    "audit/toxicity_change": "toxic shares: needs an R* with a threshold, from labelled comments",
    "recovery/auc": "AUC on labelled texts: needs ground_truth=labels, or labelled comments",
    "control/log_ratio/preference_accuracy": "the closed form β·log(π_E/π_ref): needs both models' "
    "weights (rlhf.path)",
    "audit/agreed_fraction": "agreement between seeds: needs solver=ensemble",
    "audit/best_of_n": "best of n: needs the reference's weights, or several completions of a "
    "prompt in the file",
    "placebo/identified_fraction": "a placebo, reference against itself: needs several completions "
    "of a prompt",
}


def is_audit(run: Run) -> bool:
    return "audit/preference_accuracy" in run.summary


def knows_truth(run: Run) -> bool:
    return "audit/reward_aligned" in run.summary


def in_short(run: Run) -> list[str]:
    """The answers, a sentence or two each; none of a run that is no audit."""
    if not is_audit(run):
        return []
    share, low, high = (
        _value(run, f"audit/preference_accuracy{end}") for end in ("", "_low", "_high")
    )
    length = _value(run, "control/length/preference_accuracy")
    told = "R̂ tells held-out completions of the aligned model from the reference's in "
    told += "{audit/preference_accuracy} of pairs (chance: 0.5)."
    if math.isnan(low):
        aligned = f"**Too few prompts are held out to say.** {told}"
    elif high < 0.5:
        aligned = f"**R̂ is turned around on held-out pairs.** {told} What it learned from the "
        aligned += "training pairs is the opposite there: do the same texts stand on both sides?"
    elif not low > 0.5:
        aligned = f"**No difference was found.** {told} What follows describes noise."
    elif not math.isnan(length) and length > share - 0.02:
        aligned = f"**They differ, and length alone tells them apart as well.** {told} A rule of "
        aligned += "length reaches {control/length/preference_accuracy}."
    else:
        aligned = f"**They differ.** {told} A rule of length reaches "
        aligned += "{control/length/preference_accuracy}."
    sure = (
        "**How sure?** Of held-out pairs {recovery/identified_fraction} are decided by the "
        "demonstrations, whatever linear reward one likes; with who wrote what shuffled it would "
        "be {shuffled/identified_fraction}."
    )
    seeds = "Recoveries from other seeds agree on {audit/agreed_fraction} of pairs."
    known = "On labelled texts that nothing learned from R̂ has AUC {recovery/auc}."
    lines = [
        run.fill(aligned) or run.fill(told),
        rewarded(run) if low > 0.5 else "",
        " ".join(filter(None, map(run.fill, (sure, seeds, known)))),
    ]
    return [line for line in lines if line]


def rewarded(run: Run) -> str:
    """What R̂ goes by, in a sentence."""
    table = tables.findings(run)
    if table is None:
        return ""
    said = [f"{what} ({r})" for what, r, _ in table.rows[:4] if r != MISSING]
    goes_by = ", ".join(said) or "goes by nothing that stands out"
    return f"**It seems to be rewarded for this:** R̂ {goes_by} (correlations within prompts)."


# --- 1. is it aligned at all ----------------------------------------------------------------------


def aligned(run: Run) -> str:
    sentences = [
        "From {audit/prompts} held-out prompts with {audit/k} completions of either model.",
        "The aligned model spends {audit/kl} nats of KL per completion.",
        "Of {audit/words} words that differ in enough prompts {audit/words_changed} are used more "
        "or less than before, at one level for all of them at once.",
        "R* prefers the aligned model's completion in {ground_truth/preference_accuracy} of pairs.",
    ]
    return " ".join(filter(None, map(run.fill, sentences)))


def changes(run: Run, *, intervals: bool = True) -> Table | None:
    seen = [name for name in CHANGES if f"audit/{name}_aligned" in run.summary]
    rows = []
    for name in seen:
        p = run.summary.get(f"audit/{name}_change_holm")
        rows.append(
            [
                CHANGES[name],
                *(run.text(f"audit/{name}_{s}", intervals) for s in ("reference", "aligned")),
                run.text(f"audit/{name}_change"),
                MISSING if p is None else (f"{p:.1g}" if float(p) < 0.001 else number(p)),
            ]
        )
    if not rows:
        return None
    distinct = [run.text(f"audit/distinct_2_{side}") for side in ("reference", "aligned")]
    rows.append(["distinct bigrams / bigrams", *distinct, MISSING, MISSING])
    note = (
        "Means over held-out prompts. p: that both models write alike after each prompt (by "
        "flipping the signs of the prompts' differences), with Holm's correction; R̂ was made to "
        f"tell them apart, and has none. {run.brackets}"
    )
    return Table(["of a completion", "reference", "aligned", "change", "p, Holm"], rows, note)


def words(run: Run) -> Table | None:
    table = run.frame("words.parquet")
    if table is None or not len(table):
        return None
    rows = []
    for title, part in (
        ("more", table[table["change"] > 0]),
        ("less", table[table["change"] < 0]),
    ):
        for row in part.head(WORDS).to_dict("records"):
            ends = f"{number(row['change'])} [{number(row['low'])}, {number(row['high'])}]"
            cells = (number(row[side]) for side in ("reference", "aligned"))
            rows.append([title, escape(str(row["word"])), *cells, ends])
    note = "Share of completions with the word, by |change| in standard errors; intervals hold for "
    note += "all words at once."
    return Table(["used", "word", "reference", "aligned", "change"], rows, note)


# --- 2. what it seems to be rewarded for ----------------------------------------------------------


def _one_of_each(rows: list[dict[Any, Any]]) -> Iterator[dict[Any, Any]]:
    """The first of each prompt, and all without one."""
    seen = {""}
    for row in rows:
        if row["prompt"] not in seen or not row["prompt"]:
            yield row
        seen.add(row["prompt"])


def extremes(run: Run) -> Table | None:
    """The completions that R̂ likes most and least, whoever wrote them; one of a prompt."""
    table = run.frame("completions.parquet")
    if table is None:
        return None
    ordered = table.sort_values("recovered", ascending=False, kind="stable")
    rows = []
    for title, part in (("top", ordered), ("bottom", ordered[::-1])):
        for row in islice(_one_of_each(part.to_dict("records")), COMPLETIONS):
            known = [number(row["truth"])] if "truth" in table else []
            texts = (escape(row["prompt"]), escape(row["completion"]))
            rows.append([title, *texts, row["policy"], number(row["recovered"]), *known])
    header = ["R̂'s", "prompt", "completion", "written by", "R̂", *(["R*"] * ("truth" in table))]
    return Table(header, rows, "In standard deviations over the reference's completions.")


# --- 3. how sure can we be ------------------------------------------------------------------------


def rewards(run: Run) -> Table | None:
    """R̂ and the controls: who tells the two models apart, and who knows what labels or R* say."""
    prefixes = {"recovered": ("audit", "recovery")}
    prefixes |= {name: (f"control/{name}", f"control/{name}") for name in run.controls}
    measures = {"auc": "AUC on labels", "pair_accuracy": "R*'s order", "starc": "STARC from R*"}
    known = [m for m in measures if run.summary.get(f"recovery/{m}") not in (None, NOT_APPLICABLE)]
    rows = []
    for name, (first, second) in prefixes.items():
        cells = [run.text(f"{first}/preference_accuracy")]
        cells += [run.text(f"{second}/{measure}") for measure in known]
        if cells[0] not in ("", NOT_APPLICABLE):
            rows.append([name, *(cell or MISSING for cell in cells)])
    note = run.fill("On {audit/labelled} labelled texts, {audit/labelled_toxic} of them toxic.")
    if not rows:
        return None
    header = ["reward", "prefers the aligned", *(measures[measure] for measure in known)]
    return Table(header, rows, " ".join(filter(None, [note, run.brackets])))


def sure(run: Run) -> str:
    sentences = [
        "Consider all rewards that are linear in the frozen features of `model` and that the "
        "demonstrations do not reject: on {recovery/identified_fraction} of "
        "{recovery/held_out_pairs} held-out pairs they prefer the same one.",
        "Held to all pairs at once, they agree on {recovery/jointly_identified_fraction}.",
        "R̂ orders {recovery/contradicted_fraction} of the identified pairs the other way.",
        "Were the reference shown against itself, {placebo/identified_fraction} would be "
        "identified by chance.",
        "With who wrote what shuffled it is {shuffled/identified_fraction}.",
        "Members of the ensemble, each from a seed of its own, order {audit/agreed_fraction} of "
        "aligned and reference completions alike; their STARC distance is {audit/members_starc} on "
        "average (0: the same, 0.707: unrelated).",
        "Read as odds (scaled on validation pairs), R̂'s log loss on held-out pairs is "
        "{audit/log_loss} (knowing nothing: 0.693), its calibration error "
        "{audit/calibration_error}.",
    ]
    return " ".join(filter(None, map(run.fill, sentences)))


# --- 4. what it would do if optimized further -----------------------------------------------------


def optimized(run: Run) -> Table | None:
    """The best of n by R̂, a row for each n."""
    table = run.frame("best_of_n.parquet")
    if table is None:
        return None
    names = ["recovered", *(name for name in CHANGES if name in set(table["measure"]))]
    names = list(dict.fromkeys(names))
    rows = []
    for n in sorted(set(table["n"].tolist())):
        values = table[table["n"] == n].set_index("measure")
        cells = [_with_ends(*values.loc[name, ["value", "low", "high"]]) for name in names]
        rows.append([str(n), number(math.log(n) - (n - 1) / n), *cells])
    note = (
        "What the best of n completions of the reference, by R̂, is like: where R̂ goes on rising "
        "and something else moves that should not, more RLHF of this kind would move it too. KL: "
        f"at most, log n - (n - 1)/n nats. {run.brackets}"
    )
    return Table(["n", "KL", *(CHANGES[name] for name in names)], rows, note)


def _with_ends(value: float, low: float, high: float) -> str:
    return number(value) + ("" if math.isnan(low) else f" [{number(low)}, {number(high)}]")


# --- what is not there ----------------------------------------------------------------------------


def left_out(run: Run) -> str:
    absent = [why for name, why in ABSENT.items() if run.summary.get(name) == NOT_APPLICABLE]
    return "\n".join(f"- {why}" for why in absent)


def _value(run: Run, name: str) -> float:
    value = run.summary.get(name)
    return float(value) if isinstance(value, int | float) else float("nan")
