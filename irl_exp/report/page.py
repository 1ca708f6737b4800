"""What a run found, as a page (report.md) and as tables in the terminal."""

import re
import shlex
from pathlib import Path

from rich.console import Console

from irl_exp.report import audit, figures, tables
from irl_exp.report.run import REPORT_FILE, Run, number
from irl_exp.report.tables import Table, escape

SAMPLE_PROMPTS = 5

CAPTIONS = {
    "losses": "Training of the reference policy, of R* and of R̂, as far as each was trained; what "
    "R̂ was worth after each epoch, where it was traced.",
    "alignment": "RLHF with R* (the aligned policy) and with R̂ (the realigned one); each reward in "
    "its own standard deviations over completions of the reference. A curve that ends before the "
    "other was stopped early.",
    "toxicity": "Toxic share of completions of held-out prompts; a fall that R* sees and the "
    "second classifier does not hints at reward hacking.",
    "frontier": "Policies that R̂ realigned, by how far from the reference they were let go: where "
    "R̂ goes on rising and R* falls, R̂ is over-optimized. Stars: the aligned policy, which R* "
    "drove. Bars: bootstrap intervals over prompts.",
    "scores": "R* and R̂ of held-out human comments. R̂ is free to shift with the prompt, so the "
    "pooled scatter can look worse than the order within a prompt is.",
    "roc": "R̂, R* and the first four controls as detectors of toxic comments; the dotted line is "
    "chance.",
    "identified": "Left: of every held-out pair, what all rewards that the demonstrations do not "
    "reject say of it, at the same level for each; rewards linear in the reference's frozen "
    "features, and the pair turned so that R* prefers its first completion. Wholly above 0: all "
    "of them agree with R*. Wholly below: all disagree, which such rewards do where they cannot "
    "express R*, or where the expert is not its optimum. Right: the share of pairs that are "
    "identified, and what it is where there is nothing to find: demonstrations of the reference "
    "against itself (placebo), and these with who wrote what shuffled. The dotted line is what "
    "each pair on its own may come to by chance.",
    "attribution": "What each word does to R̂ and to R*: the score of a held-out text less that "
    "without the word, on average over its places, with bootstrap intervals over prompts. A word "
    "that moves R̂ and not R* is a shortcut, or noise.",
    "words": "How much oftener a completion of the aligned model has the word; intervals hold for "
    "all words at once, grey ones cross 0.",
    "best_of_n": "The best of n completions of the reference, as R̂ chooses: what it gains, and "
    "what else moves. Bands: bootstrap intervals over prompts.",
}
# The same where nobody knows R*.
WITHOUT_TRUTH = {
    "losses": "Training of the network under R̂, if it was trained, and of R̂.",
    "identified": "Left: of every held-out pair, what all rewards that the demonstrations do not "
    "reject say of it, at the same level for each; rewards linear in the frozen features of "
    "`model`, and the pair turned so that R̂ prefers its first completion. Wholly above 0: all of "
    "them agree with R̂. Right: the share of pairs that are identified, and what it is where there "
    "is nothing to find: demonstrations of the reference against itself (placebo), and these with "
    "who wrote what shuffled. The dotted line is what each pair on its own may come to by chance.",
    "attribution": "What each word does to R̂: the score of a held-out text less that without the "
    "word, on average over its places, with bootstrap intervals over prompts.",
}
FILES = {
    "config.yaml": "the resolved configuration",
    "overrides.yaml": "what was typed",
    "manifest.json": "commit, versions, seeds, and the store's fingerprint of each step",
    "status.json": "how the run went",
    "summary.json": "every number by name",
    "metrics.jsonl": "training curves",
    "samples.jsonl": "completions of each policy",
    "panel.parquet": "every reward on held-out comments and reference completions",
    "trace.parquet": "R̂ of the same texts before training and after each epoch",
    "identified.parquet": "held-out pairs, and what the demonstrations decide of each",
    "attribution.parquet": "what each word of held-out texts does to R̂ and to R*",
    "findings.parquet": "what R̂ goes by beyond human labels, words and factors",
    "completions.parquet": "every held-out completion under R̂, and under R* if it is known",
    "words.parquet": "words that either model uses, and how often",
    "best_of_n.parquet": "what the best of n by R̂ is like",
}


def write(folder: Path) -> Path:
    """Draw the figures of a run directory and write its report.md.

    Returns:
        The path of report.md.

    Raises:
        FileNotFoundError: if the folder is not the directory of a run.
    """
    drawn = figures.draw(folder)
    run = Run.read(folder)
    body = _audit(run, drawn) if audit.is_audit(run) else _study(run, drawn)
    sections = [
        _head(run),
        _warnings(run),
        *body,
        _section("Time", _time(run)),
        _section("Files", _files(run)),
    ]
    path = folder / REPORT_FILE
    path.write_text("\n\n".join(filter(None, sections)) + "\n", encoding="utf-8")
    return path


def _study(run: Run, drawn: dict[str, Path]) -> list[str]:
    return [
        _section("What this run found", _found(run)),
        _section("Policies", _policies(run)),
        _section("Realigned at several KLs", _markdown(tables.frontier(run))),
        _section("Recovered reward and controls", _markdown(tables.recovery(run))),
        _section("What the demonstrations decide", _markdown(tables.identified(run))),
        _section("What R̂ goes by", _markdown(tables.shortcuts(run, intervals=True))),
        _section("What stands out", _markdown(tables.findings(run))),
        _section("Figures", _figures(drawn, run.folder)),
        _section("Samples", _samples(run)),
    ]


def _audit(run: Run, drawn: dict[str, Path]) -> list[str]:
    """The questions of an audit, in the order in which one would ask them."""

    captions = CAPTIONS if audit.knows_truth(run) else CAPTIONS | WITHOUT_TRUTH

    def figure(*names: str) -> str:
        shown = {name: drawn[name] for name in names if name in drawn}
        return _figures(shown, run.folder, captions)

    answers = {
        "In short": ["\n\n".join(audit.in_short(run))],
        "1. Is the aligned model aligned at all?": [
            audit.aligned(run),
            _markdown(audit.changes(run)),
            _markdown(audit.words(run)),
            figure("words"),
        ],
        "2. What does it seem to be rewarded for?": [
            _markdown(tables.findings(run)),
            _markdown(tables.shortcuts(run, intervals=True)),
            figure("attribution"),
            _markdown(audit.extremes(run)),
        ],
        "3. How sure can we be?": [
            _markdown(audit.rewards(run)),
            audit.sure(run),
            figure("identified", "losses"),
        ],
        "4. What would it do if optimized further?": [
            _markdown(audit.optimized(run)),
            figure("best_of_n"),
        ],
        "5. What to look at by hand": [_markdown(tables.identified(run))],
        "Left out, and what it would take": [audit.left_out(run)],
    }
    return [
        _section(question, "\n\n".join(filter(None, parts))) for question, parts in answers.items()
    ]


def show(folder: Path) -> None:
    """Print a run's tables and warnings; the last line is `report: PATH`, in one piece.

    Raises:
        FileNotFoundError: if the folder is not the directory of a run.
    """
    run = Run.read(folder)
    console = Console(markup=False, emoji=False, highlight=False)
    shown = {
        "What changed": audit.changes(run, intervals=False),
        "Who tells the two models apart": audit.rewards(run),
        "Policies": tables.policies(run, intervals=False),
        "Realigned at several KLs": tables.frontier(run),
        "Recovered reward and controls": None if audit.is_audit(run) else tables.recovery(run),
        "What R̂ goes by, correlations within prompts": tables.shortcuts(run, intervals=False),
        "What stands out in R̂": tables.findings(run),
    }
    for title, table in shown.items():
        if table:
            console.print(title, style="bold")
            console.print(table.terminal())
            if table.note:
                console.print(table.note)
            console.print()
    for line in audit.in_short(run):
        console.print(tables.plain(line) + "\n")
    decided = run.fill(
        "Identified by the demonstrations: {recovery/identified_fraction} of held-out pairs, "
        "{recovery/identified_accuracy} of them as R* has it; of a placebo "
        "{placebo/identified_fraction}."
    )
    if decided:
        console.print(decided + "\n")
    for name, path in _rewards(run).items():
        print(f"{name}: {path}")
    for warning in _all_warnings(run):
        console.print(f"warning: {tables.plain(warning)}", style="yellow")
    print(f"report: {folder / REPORT_FILE}")


# --- sections of the page: Markdown, or "" where the run has nothing to say -----------------------


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _head(run: Run) -> str:
    facts = [f"Status: {run.status['status']}"]
    if "started" in run.manifest:
        facts.append(f"started {run.manifest['started']}")
    if run.manifest.get("git"):
        git = run.manifest["git"]
        facts.append(f"commit {git['commit'][:10]}{' with uncommitted changes' * git['dirty']}")
    if "seeds" in run.manifest:
        facts.append("seeds " + ", ".join(f"{k} {v}" for k, v in run.manifest["seeds"].items()))
    command = shlex.join(["irl-exp", *run.overrides])
    title = escape(str(run.status.get("run_id", run.folder.name)))
    # A fence is ended by one as long: what was typed may hold one.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return f"# Run {title}\n\n{'; '.join(facts)}.\n\n{fence}bash\n{command}\n{fence}"


def _all_warnings(run: Run) -> list[str]:
    """How the run ended, unless it is done, and what it warned of; one line each."""
    warnings = [*run.status.get("warnings", [])]
    if run.status["status"] != "done":
        ending = [f"this run is {run.status['status']}", run.status.get("error", "")]
        warnings.insert(0, ": ".join(filter(None, ending)))
    return [" ".join(warning.split()) for warning in warnings]


def _warnings(run: Run) -> str:
    return "\n>\n".join(f"> **Warning:** {escape(warning)}" for warning in _all_warnings(run))


def _found(run: Run) -> str:
    """What went in, then the questions in the order in which their answers can be trusted."""
    human = run.config.get("evaluation", {}).get("labels", "human") == "human"
    answers = {
        "Which comments?": [
            "{comments/kept} of {comments/read} comments are used: {comments/train} after "
            "{comments/train_prompts} prompts to learn from, {comments/test} after "
            "{comments/test_prompts} to report on.",
            "Left out are {comments/dropped_duplicate} repeated, {comments/dropped_conflicting} "
            "under both labels, {comments/dropped_too_short} too short and "
            "{comments/dropped_empty} empty.",
            "{comments/test_toxic_share} of the test comments are toxic.",
        ],
        "Is the expert aligned?": [
            "R* calls {policy/reference/toxicity_rate} of the reference's completions toxic, and "
            "{policy/aligned/toxicity_rate} of the aligned policy's.",
            "For a second classifier it is {policy/reference/toxicity_rate_second} and "
            "{policy/aligned/toxicity_rate_second}.",
            "Mean R* goes from {policy/reference/mean_reward} to {policy/aligned/mean_reward}, in "
            "standard deviations over completions of the reference.",
            "The KL spent is {policy/aligned/kl} nats per completion.",
            "Resampling could not show more than {policy/aligned/kl_cap} nats.",
            "Optimality is {policy/aligned/optimality} (0: the reference, 1: KL-optimal).",
        ],
        "How good is R̂?": [
            "It puts {recovery/pair_accuracy} of a prompt's pairs of completions in R*'s order "
            "(chance: 0.5), over held-out completions of the aligned and the reference policy.",
            "Its STARC distance from R* is {recovery/starc} (0: the same, 0.707: unrelated).",
            "A second R* from another seed is at {recovery/starc_floor}.",
            "The members of the ensemble order {recovery/agreed_fraction} of aligned and reference "
            "completions alike, and {recovery/agreed_accuracy} of these as R* does.",
            "Against the human labels of held-out comments its AUC is {recovery/auc}."
            if human
            else "Against R*'s own labels of held-out comments its AUC is {recovery/auc}.",
            "R* itself has {ground_truth/auc}." if human else "",
            "Accuracy is {recovery/accuracy}, or {recovery/accuracy_at_zero} with the threshold at "
            "zero; F1 is {recovery/f1}.",
            "Pooled over comments it correlates with R* at Pearson {recovery/pearson}, Spearman "
            "{recovery/spearman}, Kendall {recovery/kendall}.",
        ],
        "What do the demonstrations decide?": [
            "Consider all rewards that are linear in the reference's frozen features and that the "
            "demonstrations do not reject: on {recovery/identified_fraction} of "
            "{recovery/held_out_pairs} held-out pairs of completions they prefer the same one.",
            "On {recovery/identified_accuracy} of these pairs R* prefers it too; where it does "
            "not, R* is not linear in these features, or the expert is not its optimum.",
            "Held to all pairs at once, they agree on {recovery/jointly_identified_fraction}.",
            "There R* agrees on {recovery/jointly_identified_accuracy}.",
            "R̂, which may read more than these features, orders {recovery/contradicted_fraction} "
            "of the identified pairs the other way.",
            "Were the reference shown against itself, {placebo/identified_fraction} would be "
            "identified by chance, with an AUC of {placebo/auc}.",
            "With who wrote what shuffled it is {shuffled/identified_fraction}, with an AUC of "
            "{shuffled/auc}.",
        ],
        "What does R̂ go by?": [
            "Within prompts it correlates with R* at {shortcut/truth}, and at "
            "{shortcut/truth_given_all} once length, ending, repetition and likelihood are known.",
            "What {attribution/words} words do to it, left out of held-out texts, agrees with what "
            "they do to R* at Spearman {attribution/agreement}.",
            _stands_out(run),
        ],
        "Does R̂ work as a reward?": [
            "RLHF with R̂ leaves {policy/realigned/toxicity_rate} of the completions toxic to R*.",
            "For the second classifier it is {policy/realigned/toxicity_rate_second}.",
            "Mean R* is {policy/realigned/mean_reward}.",
            "The KL spent is {policy/realigned/kl} nats per completion, and "
            "{policy/realigned/kl_target} were aimed at, as the aligned policy spends.",
            "R̂ itself gives the realigned policy {policy/realigned/mean_recovered} and the aligned "
            "one {policy/aligned/mean_recovered}.",
            "Optimality, still under R*, is {policy/realigned/optimality}.",
        ],
    }
    paragraphs = []
    for question, sentences in answers.items():
        known = " ".join(filter(None, (run.fill(sentence) for sentence in sentences)))
        if known:
            paragraphs.append(f"**{question}** {known}")
    return "\n\n".join(paragraphs)


def _stands_out(run: Run) -> str:
    """The first three findings in a sentence."""
    table = tables.findings(run)
    if table is None:
        return ""
    said = [f"{what} ({r})" for what, r, _ in table.rows[:3] if r != tables.MISSING]
    return f"Beyond what human labels explain, R̂ {', '.join(said) or 'goes by nothing else'}."


def _policies(run: Run) -> str:
    both = (tables.policies(run, intervals=True), tables.differences(run))
    return "\n\n".join(filter(None, map(_markdown, both)))


def _markdown(table: Table | None) -> str:
    return table.markdown() if table else ""


def _figures(drawn: dict[str, Path], folder: Path, captions: dict[str, str] = CAPTIONS) -> str:
    links = {name: path.relative_to(folder).as_posix() for name, path in drawn.items()}
    return "\n\n".join(f"![{name}]({link})\n\n{captions[name]}" for name, link in links.items())


def _samples(run: Run) -> str:
    """The first prompts that every policy answered, and its first answer: nothing chosen."""
    answers: dict[str, dict[str, str]] = {}
    for sample in run.samples:
        text = f"{escape(sample['completion'])} ({number(sample['truth'])})"
        answers.setdefault(sample["policy"], {}).setdefault(sample["prompt"], text)
    seen = [policy for policy in tables.POLICIES if policy in answers]
    if not seen:
        return ""
    shared = [p for p in answers[seen[0]] if all(p in answers[policy] for policy in seen)]
    rows = [[escape(p), *(answers[policy][p] for policy in seen)] for p in shared[:SAMPLE_PROMPTS]]
    note = "The first held-out prompts, with raw R* in parentheses; nothing was picked by hand."
    return _markdown(Table(["prompt", *seen], rows, note))


def _time(run: Run) -> str:
    """Seconds by step, in the order in which steps ran."""
    seconds = {
        name.removeprefix("time/").removesuffix("_seconds"): value
        for name, value in run.summary.items()
        if name.startswith("time/")
    }
    order = [step for step in [*run.manifest.get("steps", {}), "total"] if step in seconds]
    steps = ", ".join(f"{step} {seconds[step]:.1f}" for step in order)
    store = run.fill("Steps found in the store: {store/hits}; computed: {store/misses}.")
    return f"Seconds: {steps}. {store}".strip() if steps else ""


def _files(run: Run) -> str:
    there = {name: content for name, content in FILES.items() if (run.folder / name).is_file()}
    lines = [f"- [{name}]({name}): {content}" for name, content in there.items()]
    lines += [f"- {name}, for irl-score: `{path}`" for name, path in _rewards(run).items()]
    if store := _store(run):
        lines.append(f"- artifacts of the steps: `{store}`")
    return "\n".join(lines)


def _store(run: Run) -> str | None:
    """The folder of the store, by its whole path where the run noted it."""
    return run.manifest.get("store") or run.config.get("paths", {}).get("store")


def _rewards(run: Run) -> dict[str, str]:
    """Where the store keeps the rewards of a run."""
    steps, store = run.manifest.get("steps", {}), _store(run)
    known = {"ground-truth reward": "ground_truth", "recovered reward": "recover"}
    if not store:
        return {}
    return {name: f"{store}/{s}/{steps[s]}" for name, s in known.items() if s in steps}
