"""The counts behind the paper's table of toxicity, and what their differences are worth."""

from dataclasses import dataclass
from itertools import combinations

from scipy import stats

from irl_exp.report.run import number
from irl_exp.report.tables import Table


@dataclass(frozen=True)
class Policy:
    """A policy in the paper's table of toxicity: continuations called toxic, and all that count."""

    model: str
    stage: str
    toxic: int
    texts: int

    @property
    def ratio(self) -> float:
        return self.toxic / self.texts


# Table 1 of arXiv 2410.12491v1 has the ratios; the counts are from results saved in its authors'
# repository, ai4ai-lab/irl_for_llms. Denominators differ because continuations of at most two
# characters were dropped. Of the last policy the ratio 0.0625 alone is known: 25 of 400, or less.
TOXICITY = (
    Policy("70M", "SFT", 20, 358),
    Policy("70M", "RLHF", 14, 391),
    Policy("70M", "IRL-RLHF", 10, 379),
    Policy("410M", "SFT", 26, 384),
    Policy("410M", "RLHF", 23, 394),
    Policy("410M", "IRL-RLHF", 25, 400),
)


def tests() -> list[dict[str, str | int | float]]:
    """Every two policies of a model, with p of Fisher's exact test, two-sided."""
    rows: list[dict[str, str | int | float]] = []
    for a, b in combinations(TOXICITY, 2):
        if a.model == b.model:
            counts = [[a.toxic, a.texts - a.toxic], [b.toxic, b.texts - b.toxic]]
            rows.append(
                {
                    **{"model": a.model, "first": a.stage, "second": b.stage},
                    **{"first_toxic": a.toxic, "first_texts": a.texts},
                    **{"second_toxic": b.toxic, "second_texts": b.texts},
                    "p": float(stats.fisher_exact(counts).pvalue),
                }
            )
    return rows


def toxicity() -> list[Table]:
    """What was published, and what its differences are worth."""
    rows = [
        [f"{each.model} {each.stage}", f"{each.toxic} of {each.texts}", f"{each.ratio:.4f}"]
        for each in TOXICITY
    ]
    source = (
        "Greedy continuations of 400 prompts that a classifier calls toxic (arXiv 2410.12491v1, "
        "Table 1; counts from its authors' saved results). Of 410M IRL-RLHF the ratio alone is "
        "known: 25 of 400, or of less."
    )
    p = [[f"{t['model']}: {t['first']}, {t['second']}", number(t["p"])] for t in tests()]
    note = "Fisher's exact test of the counts, two-sided, each for itself: no correction for six."
    return [
        Table(["policy", "toxic", "ratio"], rows, source),
        Table(["difference", "p"], p, note),
    ]
