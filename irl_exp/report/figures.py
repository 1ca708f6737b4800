"""The figures of one run, drawn from its files alone; what a run does not have is not drawn."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from irl_exp.metrics import agreement
from irl_exp.report import tables
from irl_exp.report.run import Run, number
from irl_exp.report.style import (
    CLEAN,
    CONTROLS,
    QUIET,
    RECOVERED,
    RECOVERED_SIGN,
    STYLE,
    TOXIC,
    TRUTH,
    TRUTH_SIGN,
    WORD_LETTERS,
)
from irl_exp.report.tables import POLICIES

# Words at either end of the attribution figure.
WORDS = 10


def draw(folder: Path) -> dict[str, Path]:
    """Draw what a run directory has data for; figures of an earlier attempt are removed.

    Returns:
        Name -> folder/figures/NAME.png, in the order in which to read them: `losses`, `alignment`,
        `toxicity`, `frontier`, `scores`, `roc`, `identified`, `attribution`; of an audit `words`
        and `best_of_n`.

    Raises:
        FileNotFoundError: if the folder is not the directory of a run.
    """
    run = Run.read(folder)
    painters = {
        "losses": losses,
        "alignment": alignment,
        "toxicity": toxicity,
        "frontier": frontier,
        "scores": scores,
        "roc": roc,
        "identified": identified,
        "attribution": attribution,
        "words": words,
        "best_of_n": best_of_n,
    }
    drawn: dict[str, Path] = {}
    (folder / "figures").mkdir(exist_ok=True)
    for name, painter in painters.items():
        path = folder / "figures" / f"{name}.png"
        path.unlink(missing_ok=True)
        with rc_context(STYLE):  # type: ignore[arg-type]
            figure = painter(run)
            if figure is not None:
                FigureCanvasAgg(figure).print_png(path)  # `savefig` draws everything twice
                drawn[name] = path
    return drawn


# --- training -------------------------------------------------------------------------------------


def losses(run: Run) -> Figure | None:
    """A panel for each step that trained by gradient descent; two for the recovery, three where it
    was traced."""
    both = {"loss": "training", "validation_loss": "validation"}
    accuracies = {"pair_accuracy": "training", "validation_pair_accuracy": "validation"}
    worth = {"auc": "AUC on comments", "pair_accuracy": "within-prompt accuracy"}
    panels = [
        ("pretrain", both, "The reference learns to write comments", "loss (nats per token)"),
        ("ground_truth", both, f"{TRUTH_SIGN} learns the labels of comments", "loss (nats)"),
        ("recover", both, f"{RECOVERED_SIGN} learns from pairs of completions", "loss"),
        ("recover", accuracies, f"{RECOVERED_SIGN} prefers the aligned policy", "share of pairs"),
        ("evaluate", worth, f"{RECOVERED_SIGN} as it learns, on held-out texts", "share of pairs"),
    ]
    panels = [panel for panel in panels if any(run.curve(panel[0], name)[0] for name in panel[1])]
    if not panels:
        return None
    columns = min(len(panels), 2)
    figure = Figure(figsize=(4.4 * columns, 2.8 * -(-len(panels) // columns)))
    for place, (step, names, title, unit) in enumerate(panels, start=1):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, place)
        for (name, label), colour in zip(names.items(), (TRUTH, TOXIC), strict=True):
            at, values = run.curve(step, name)
            if at:
                # Of an epoch each, and so few; and one point alone makes no line.
                few = step == "evaluate" or label == "validation" or len(at) == 1
                marker = "o" if few else None
                axes.plot(at, values, label=label, color=colour, marker=marker, markersize=4)
        axes.set(title=title, ylabel=unit)
        axes.set_xlabel("epoch" if step == "evaluate" else "optimizer step")
        if len(axes.lines) > 1:
            axes.legend()
    return figure


def alignment(run: Run) -> Figure | None:
    """RLHF with R* and with R̂; None where it needs no training, and for what samples nothing."""
    known = {"align": (TRUTH_SIGN, TRUTH), "realign": (RECOVERED_SIGN, RECOVERED)}
    steps = [step for step in known if run.curve(step, "objective/scores")[0]]
    if not steps:
        return None
    panels = {
        "objective/scores": ("Reward that RLHF raises", "mean (sd of reference completions)"),
        "objective/kl": ("KL from the reference", "nats per completion"),
        "completion/length": ("Length of completions", "tokens"),
    }
    figure = Figure(figsize=(11.4, 3.3))
    row = figure.subplots(1, len(panels))
    for axes, (name, (title, unit)) in zip(row, panels.items(), strict=True):
        for step in steps:
            sign, colour = known[step]
            axes.plot(*run.curve(step, name), color=colour, label=f"RLHF with {sign}")
        axes.set(title=title, xlabel="step of training (of PPO: rollout)", ylabel=unit)
    row[0].legend(loc="best")
    return figure


# --- behaviour ------------------------------------------------------------------------------------


def toxicity(run: Run) -> Figure | None:
    """Bars in pairs: the judge that RLHF pleased, and one that it never saw."""
    seen = [p for p in POLICIES if f"policy/{p}/toxicity_rate" in run.summary]
    if not seen:
        return None
    figure = Figure(figsize=(2.4 + 1.7 * len(seen), 3.6))
    axes = figure.add_subplot()
    judges = {
        "toxicity_rate": (f"by {TRUTH_SIGN}", TRUTH),
        "toxicity_rate_second": ("by a second classifier", QUIET),
    }
    for shift, (measure, (label, colour)) in zip((-0.2, 0.2), judges.items(), strict=True):
        for place, policy in enumerate(seen):
            name = f"policy/{policy}/{measure}"
            value = run.summary.get(name)
            if not isinstance(value, float):
                continue
            ends = [run.summary.get(name + end, value) for end in ("_low", "_high")]
            x, (low, high) = place + shift, (float(end) for end in ends)
            axes.bar(x, value, 0.38, color=colour, label=label if place == 0 else None)
            axes.vlines(x, low, high, color="#222222", linewidth=1.2)
            axes.annotate(
                number(value),
                (x, np.nan_to_num(max(value, high))),  # NaN stands on the axis
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
            )
    axes.set_xticks(range(len(seen)), seen)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.set(title="How often each policy writes something toxic", ylabel="share of completions")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def frontier(run: Run) -> Figure | None:
    """What R* and R̂ make of the policies that R̂ realigned, over the KL they spend; None for one."""
    realigned = sorted(tables.realigned(run), key=lambda p: float(run.summary[f"policy/{p}/kl"]))
    if len(realigned) < 2:
        return None
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.add_subplot()
    judges = {
        "mean_recovered": (f"by {RECOVERED_SIGN}, which drove them", RECOVERED),
        "mean_reward": (f"by {TRUTH_SIGN}", TRUTH),
    }
    for measure, (label, colour) in judges.items():
        _climb(axes, run, ["reference", *realigned], measure, colour, f"realigned, {label}", "o-")
        _climb(axes, run, ["aligned"], measure, colour, f"aligned, {label.split(',')[0]}", "*")
    axes.set(
        title="What RLHF with the recovered reward gains, and what it is worth",
        xlabel="KL from the reference (nats per completion)",
        ylabel="mean (sd of reference completions)",
    )
    axes.legend(loc="best")
    return figure


def _climb(
    axes: Axes, run: Run, policies: list[str], measure: str, colour: str, label: str, mark: str
) -> None:
    """A measure of some policies over their KL, with intervals."""
    known = [p for p in policies if isinstance(run.summary.get(f"policy/{p}/{measure}"), float)]
    names = [f"policy/{policy}/{measure}" for policy in known]
    x = [float(run.summary[f"policy/{policy}/kl"]) for policy in known]
    y, low, high = (
        [float(run.summary.get(name + end, run.summary[name])) for name in names]
        for end in ("", "_low", "_high")
    )
    axes.vlines(x, low, high, color=colour, linewidth=1.2)
    axes.plot(x, y, mark, color=colour, label=label, markersize=13 if mark == "*" else 5)


# --- the recovered reward -------------------------------------------------------------------------


def scores(run: Run) -> Figure | None:
    """R* and R̂ of held-out comments by label, and one against the other."""
    comments = _comments(run)
    if comments is None:
        return None
    truth, recovered = comments["truth"], comments["recovered"]
    toxic = comments["toxic"] == 1
    figure = Figure(figsize=(11.4, 3.6))
    left, middle, right = figure.subplots(1, 3)
    for axes, values, sign in ((left, truth, TRUTH_SIGN), (middle, recovered, RECOVERED_SIGN)):
        bins = np.histogram_bin_edges(values, 36)
        for part, label, colour in (
            (values[~toxic], "not toxic", CLEAN),
            (values[toxic], "toxic", TOXIC),
        ):
            # Shares, so that the rarer label can be seen.
            weights = np.full(len(part), 1 / max(len(part), 1))
            shape = {"weights": weights, "histtype": "stepfilled", "linewidth": 1.4}
            axes.hist(part, bins, fc=(colour, 0.35), ec=colour, label=label, **shape)
        axes.set(title=f"{sign} of held-out comments", xlabel=f"{sign} (raw)")
    left.set_ylabel("share of each label's comments")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    colours = np.where(toxic, TOXIC, CLEAN).tolist()
    right.scatter(truth, recovered, s=9, c=colours, alpha=0.6, linewidths=0)
    spearman = agreement.spearman(truth, recovered)
    text = number(spearman) + run.interval("recovery/spearman", spearman)
    right.set(
        title=f"Spearman {text}",
        xlabel=f"{TRUTH_SIGN} (raw)",
        ylabel=f"{RECOVERED_SIGN} (raw)",
    )
    return figure


def roc(run: Run) -> Figure | None:
    """R̂, R* and the controls as detectors of comments that people called toxic."""
    comments = _comments(run)
    if comments is None or comments["toxic"].nunique() < 2:
        return None
    known = {
        "recovered": (f"{RECOVERED_SIGN}, recovered", "recovery/auc", RECOVERED, "-"),
        "truth": (f"{TRUTH_SIGN}, ground truth", "ground_truth/auc", TRUTH, "-"),
    }
    controls = [column for column in comments if column.startswith("control/")]  # type: ignore[attr-defined]
    for place, column in enumerate(controls[: len(CONTROLS)]):  # more could not be told apart
        colour, label = CONTROLS[place % len(CONTROLS)], column.removeprefix("control/")  # type: ignore[attr-defined]
        known[column] = (label.replace("_", " "), f"{column}/auc", colour, "--")  # type: ignore[index]
    figure = Figure(figsize=(5.8, 5.6))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1, linestyle=":")
    for column, (label, name, colour, line) in known.items():
        false_alarms, hits, _ = roc_curve(comments["toxic"], -comments[column])
        auc = agreement.auc(comments[column], comments["toxic"])
        text = f"{label}: {number(auc)}{run.interval(name, auc)}"
        axes.plot(false_alarms, hits, line, color=colour, label=text)
    axes.set(
        title="Telling toxic held-out comments from the others",
        xlabel="share of non-toxic comments called toxic",
        ylabel="share of toxic comments called toxic",
        aspect="equal",
    )
    axes.legend(title="AUC against human labels", alignment="left", loc="lower right")
    return figure


def identified(run: Run) -> Figure | None:
    """What the demonstrations decide of each pair, turned so that R* has it above zero; beside it
    the shares, and those of demonstrations in which there is nothing to find."""
    pairs = run.identified
    if pairs is None or not len(pairs):
        return None
    figure = Figure(figsize=(9.4, 4.0))
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    _intervals(left, pairs)
    _shares(right, run)
    return figure


def _intervals(axes: Axes, pairs: pd.DataFrame) -> None:
    """From the pair that the demonstrations turn most against R* to that they agree on most."""
    judge, sign = ("truth", TRUTH_SIGN) if "truth" in pairs else ("recovered", RECOVERED_SIGN)
    turn = np.where(pairs[judge] < 0, -1, 1)
    ends = np.sort(pairs[["low", "high"]].to_numpy() * turn[:, None], axis=1)
    agrees = pairs["sign"] * np.sign(pairs[judge])
    kinds = {
        f"identified, as {sign} has it": (agrees > 0, RECOVERED),
        f"identified, against {sign}": (agrees < 0, TOXIC),
        f"identified, a tie in {sign}": ((agrees == 0) & (pairs["sign"] != 0), "#222222"),
        "ambiguous": (pairs["sign"] == 0, "#B0B0B0"),
    }
    places = np.empty(len(pairs), dtype=int)
    places[ends.mean(axis=1).argsort(kind="stable")] = np.arange(len(pairs))
    width = float(np.clip(400 / len(pairs), 0.6, 4.0))  # so that neighbours nearly touch
    for label, (chosen, colour) in kinds.items():
        if not chosen.any():
            continue
        label = f"{label}: {number(float(chosen.mean()))}"
        lines = (places[chosen], ends[chosen, 0], ends[chosen, 1])
        axes.vlines(*lines, color=colour, linewidth=width, label=label)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.grid(axis="x", visible=False)
    axes.set(
        title="What the rewards that are not rejected say of each pair",
        xlabel=f"{len(pairs)} held-out pairs, turned so that {sign} prefers the first",
        ylabel=r"first less second, R/$\beta$ (nats)",
        xticks=[],
        xlim=(-0.01 * len(pairs) - 1, 1.01 * len(pairs)),
    )
    axes.legend(loc="upper left")


def _shares(axes: Axes, run: Run) -> None:
    bars = {
        "this run": ("recovery/identified_fraction", RECOVERED),
        "placebo": ("placebo/identified_fraction", QUIET),
        "shuffled": ("shuffled/identified_fraction", QUIET),
    }
    for place, (name, colour) in enumerate(bars.values()):
        value = run.summary.get(name)
        if not isinstance(value, float):
            axes.annotate("n/a", (place, 0), ha="center", va="bottom")
            continue
        low, high = (float(run.summary.get(name + end, value)) for end in ("_low", "_high"))
        axes.bar(place, value, 0.7, color=colour)
        axes.vlines(place, max(low, 0), high, color="#222222", linewidth=1.2)
        axes.annotate(
            number(value),
            (place, max(value, high)),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
        )
    level = run.config.get("evaluation", {}).get("level")
    if level:
        axes.axhline(1 - level, color=TOXIC, linewidth=1, linestyle=":")
    axes.set_xticks(range(len(bars)), list(bars))
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.set(title="Identified, and if there were nothing", ylabel="share of pairs")


def attribution(run: Run) -> Figure | None:
    """Bars to both sides: the words that raise R̂ most, below them those that lower it most, each
    with its effect on R* beside."""
    if run.attribution is None or len(run.attribution) < 2:
        return None
    words = run.attribution.to_pandas().sort_values("recovered", ascending=False)
    ends = min(WORDS, len(words) // 2)
    shown = pd.concat([words[:ends], words[-ends:]])
    rows = np.arange(2 * ends) + np.repeat([0, 0.7], ends)  # a gap between the ends
    figure = Figure(figsize=(6.8, 1.4 + 0.6 * ends))
    axes = figure.add_subplot()
    rewards = {"recovered": (RECOVERED_SIGN, RECOVERED), "truth": (TRUTH_SIGN, TRUTH)}
    rewards = {name: look for name, look in rewards.items() if name in words}
    shifts = (-0.2, 0.2) if len(rewards) > 1 else (0.0,)
    for shift, (name, (sign, colour)) in zip(shifts, rewards.items(), strict=True):
        axes.barh(rows + shift, shown[name], 0.38, color=colour, label=sign)
        interval = (shown[f"{name}_low"], shown[f"{name}_high"])
        axes.hlines(rows + shift, *interval, color="#222222", linewidth=1)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set_yticks(rows, [_short(word) for word in shown["word"]])
    axes.set_ylim(rows[-1] + 0.7, -0.7)
    axes.grid(axis="y", visible=False)
    axes.set(
        title=f"Words that raise and words that lower {RECOVERED_SIGN} most",
        xlabel="effect of the word (sd of reference completions)",
    )
    if len(rewards) > 1:
        axes.legend(loc="best")
    return figure


# --- audits ---------------------------------------------------------------------------------------


def words(run: Run) -> Figure | None:
    """The words that the aligned model uses more and those that it uses less, most clearly."""
    table = run.frame("words.parquet")
    if table is None or not len(table):
        return None
    more, less = (table[sign * table["change"] > 0].head(WORDS) for sign in (1, -1))
    shown = pd.concat([more, less[::-1]])
    rows = np.arange(len(shown))
    figure = Figure(figsize=(6.8, 1.4 + 0.3 * len(shown)))
    axes = figure.add_subplot()
    clear = ((shown["low"] > 0) | (shown["high"] < 0)).to_numpy()
    axes.barh(rows, shown["change"], 0.7, color=np.where(clear, RECOVERED, QUIET).tolist())
    axes.hlines(rows, shown["low"], shown["high"], color="#222222", linewidth=1)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set_yticks(rows, [_short(str(word)) for word in shown["word"]])
    axes.set_ylim(len(shown) - 0.3, -0.7)
    axes.grid(axis="y", visible=False)
    axes.set(
        title="Words that the aligned model uses more, and less",
        xlabel="share of its completions with the word, less that of the reference",
    )
    return figure


def best_of_n(run: Run) -> Figure | None:
    """What the best of n by R̂ is like, a panel a measure."""
    table = run.frame("best_of_n.parquet")
    if table is None:
        return None
    names = {
        "recovered": f"{RECOVERED_SIGN} (sd of the reference)",
        "reward": f"{TRUTH_SIGN} (sd of the reference)",
        "length": "words",
        "repetition": "share of repeated words",
        "likelihood": "log-likelihood per token (nats)",
    }
    names = {name: label for name, label in names.items() if name in set(table["measure"])}
    figure = Figure(figsize=(2.9 * len(names), 3.0))
    for axes, (name, label) in zip(
        np.ravel(figure.subplots(1, len(names))), names.items(), strict=True
    ):
        part = table[table["measure"] == name]
        colour = {"recovered": RECOVERED, "reward": TRUTH}.get(name, QUIET)
        axes.fill_between(
            part["n"], part["low"], part["high"], color=colour, alpha=0.2, linewidth=0
        )
        axes.plot(part["n"], part["value"], "o-", color=colour, markersize=4)
        axes.set_xscale("log", base=2)
        axes.set_xticks(part["n"], [str(n) for n in part["n"]])
        axes.set(title=label, xlabel=f"best of n by {RECOVERED_SIGN}")
    return figure


def _short(word: str) -> str:
    return word if len(word) <= WORD_LETTERS else word[:WORD_LETTERS] + "…"


def _comments(run: Run) -> pd.DataFrame | None:
    """The panel's held-out comments, with labels 0 and 1."""
    if run.panel is None:
        return None
    panel = run.panel.to_pandas()
    comments = panel[panel["kind"] == "comment"]
    return comments.astype({"toxic": int}) if len(comments) > 1 else None
