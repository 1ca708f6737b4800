"""Tables as files."""

import numpy as np
import pandas as pd

from irl_exp.report.document import _csv
from irl_exp.report.tables import escape, plain


def test_csv_is_that_of_pandas() -> None:
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.integers(-20, 20, 5000)
    odd = [0.0, -0.0, 50.0, 1e-4, 9.9e-5, 1e9, 1e16, np.nan, np.inf, -np.inf]
    numbers = np.array([*rng.normal(size=5000) * sizes, *rng.random(990), *odd]).reshape(-1, 4)
    table = pd.DataFrame(numbers, columns=["x", "y", "y", "z"])  # two runs can have one label
    table.insert(0, "text", ['a, "b"', None, "0.5"] * 500)
    table["count"], table["whether"] = range(len(table)), True
    for rows in (table, table[:0], table[["text"]]):
        assert _csv(rows) == rows.to_csv(index=False).encode()


def test_what_a_terminal_shows_is_not_escaped() -> None:
    assert plain(f"**{escape('a_file [1]')}**: R* < 1") == "a_file [1]: R* < 1"
