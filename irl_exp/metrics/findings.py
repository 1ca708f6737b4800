"""What stands out in a recovered reward beyond what is expected of it.

An auditor who has R̂ and knows what the reward was meant to be, say from a model of human labels,
asks what else R̂ goes by: a word, the length, an ending. Each candidate is a number of each
completion; what counts is its correlation with R̂ within prompts, once the expected rewards are
taken out of both. With many candidates some stand out by chance, so the intervals hold for all of
them at once.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from irl_exp.metrics.reward_distance import centred
from irl_exp.metrics.shortcuts import without

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def presence(
    texts: Sequence[str], shape: tuple[int, int], minimum: int
) -> dict[str, NDArray[np.bool_]]:
    """Which completions hold each word, bool in `shape` [n, m].

    Words in lower case, those alone that differ within at least `minimum` prompts: of others no
    correlation within prompts could be told from chance.
    """
    n, m = shape
    rows: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        for word in {match[0].lower() for match in _WORD.finditer(text)}:
            rows.setdefault(word, []).append(place)
    columns = {}
    for word, places in rows.items():
        if len(places) < minimum:
            continue
        column = np.zeros(n * m, dtype=np.bool_)
        column[places] = True
        column = column.reshape(shape)
        if np.sum((column.sum(1) > 0) & (column.sum(1) < m)) >= minimum:
            columns[word] = column
    return columns


def stand_out(
    recovered: ArrayLike,
    expected: Sequence[ArrayLike],
    candidates: Mapping[str, ArrayLike],
    level: float,
    comparisons: int,
) -> pd.DataFrame:
    """The candidates by their partial correlation with R̂ within prompts, given what is expected.

    The standard error is the linearized one with prompts as clusters: with residuals x and y and
    r = S_xy / sqrt(S_xx S_yy), prompt i adds s_xy / sqrt(S_xx S_yy) - r/2 (s_xx/S_xx + s_yy/S_yy),
    s its own part of the sums. The intervals are r ± z se, z of the level 1 - (1 - level) /
    `comparisons` (Bonferroni).

    Args:
        recovered: R̂ [n, m], m completions of each of n prompts.
        expected: columns [n, m] that R̂ may follow; none: all that R̂ goes by.
        candidates: name -> column [n, m].
        level: the probability that no interval leaves out its correlation.
        comparisons: how many intervals there are in all, those of other calls included.

    Returns:
        `name`, `correlation`, `low`, `high`, the largest |correlation| first. Candidates of which
        nothing is left are not in it. Raises ValueError for misshapen or non-finite arrays.
    """
    given = [centred(column) for column in expected]
    y = without(centred(recovered).ravel(), given).reshape(np.shape(recovered))
    z = float(norm.ppf(1 - (1 - level) / (2 * comparisons)))
    rows = []
    for name, column in candidates.items():
        x = without(centred(column).ravel(), given).reshape(y.shape)
        xx, yy, xy = (np.sum(product, axis=1) for product in (x * x, y * y, x * y))
        size = float(np.sqrt(xx.sum() * yy.sum()))
        if size == 0:
            continue
        r = float(xy.sum() / size)
        parts = xy / size - r / 2 * (xx / xx.sum() + yy / yy.sum())
        half = z * float(np.sqrt(np.square(parts).sum()))
        rows.append((name, r, max(r - half, -1.0), min(r + half, 1.0)))
    return in_order(pd.DataFrame(rows, columns=["name", "correlation", "low", "high"]))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows by |correlation|, the largest first."""
    order = table["correlation"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)
