"""A report as a document: sections of texts, tables and pictures, and how these go into Markdown,
the terminal and files. `web.py` makes a page of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from irl_exp.report import sweep_figures
from irl_exp.report.run import REPORT_FILE
from irl_exp.report.tables import Table, plain
from irl_exp.unicode import printable

PAGE_FILE = "index.html"
# How a cell begins that spreadsheets take for a formula (OWASP, "CSV injection").
FORMULA = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True)
class Picture:
    """A figure as it is written; `map`: its colours mean numbers, and are to stay as they are."""

    name: str
    png: bytes
    svg: bytes
    caption: str
    map: bool

    @classmethod
    def of(cls, name: str, figure: Figure, caption: str) -> "Picture":
        png = sweep_figures.png(figure)
        figure.set_layout_engine("none")  # it has its layout: that is half of the work
        is_map = any(axes.images for axes in figure.axes)
        return cls(name, png, sweep_figures.svg(figure), caption, is_map)


Part = str | Table | Picture


@dataclass(frozen=True)
class Section:
    """A title, and below it texts (Markdown), tables and pictures in their order; `answer`: its
    first text is what a reader came for."""

    title: str
    body: list[Part]
    answer: bool = False


@dataclass(frozen=True)
class Item:
    """A row of a listing: its name, the file or folder that this leads to, how it went, what else
    stands in the row."""

    name: str
    target: Path
    status: str
    values: list[Any]


@dataclass(frozen=True)
class Listing:
    """Everything that a report is on, for a page on which it is sorted and filtered. `noun`: what
    the rows are, in the plural; `header`: of name, status and values."""

    title: str
    said: str
    noun: str
    header: list[str]
    items: list[Item]


@dataclass(frozen=True)
class Report:
    """All that is said of some runs or files; `tables` are files: name -> rows. `results`, if there
    is one, is also written for programs."""

    title: str
    counts: str
    sections: list[Section]
    tables: dict[str, pd.DataFrame]
    listing: Listing

    @property
    def pictures(self) -> list[Picture]:
        return [part for s in self.sections for part in s.body if isinstance(part, Picture)]


def files(found: Report) -> dict[str, bytes]:
    """Name -> content of everything that is to be written, but for the page."""
    written = {f"{name}.csv": _csv(rows) for name, rows in found.tables.items()}
    if "results" in found.tables:
        buffer = BytesIO()
        found.tables["results"].to_parquet(buffer, index=False)
        written["results.parquet"] = buffer.getvalue()
    for picture in found.pictures:
        written[f"figures/{picture.name}.png"] = picture.png
        written[f"figures/{picture.name}.svg"] = picture.svg
    written[REPORT_FILE] = _markdown(found, [PAGE_FILE, *sorted(written)]).encode()
    return written


def _csv(rows: pd.DataFrame) -> bytes:
    """What pandas would write of it, which turns one float after another into text; and no cell of
    it is a formula."""
    cells = rows.to_numpy(dtype=object, copy=True)
    floats = [place for place, kind in enumerate(rows.dtypes) if kind == np.float64]
    cells[:, floats] = _texts(rows.iloc[:, floats].to_numpy())
    for place in set(range(cells.shape[1])) - set(floats):
        cells[:, place] = [_cell(cell) for cell in cells[:, place]]
    header = [_cell(name) for name in rows.columns]
    return pd.DataFrame(cells, columns=header).to_csv(index=False).encode()


def _cell(cell: object) -> object:
    """A text that a spreadsheet would evaluate gets a quote in front, which it takes as "text"."""
    if not isinstance(cell, str):
        return cell
    line = cell.replace("\r", " ")  # which ends rows for some readers
    return f"'{line}" if line.startswith(FORMULA) else line


def _texts(numbers: NDArray[np.float64]) -> NDArray[np.object_]:
    """Each as `repr` has it, by Arrow in a tenth of the time; where the two differ, itself."""
    size = np.abs(numbers)
    alike = (size >= 1e-4) & (size < 1e9) & (size != np.trunc(size))
    texts = pyarrow.array(numbers.ravel()).cast(pyarrow.string()).to_numpy(zero_copy_only=False)
    return np.where(alike, texts.reshape(numbers.shape), numbers.astype(object))


def _markdown(found: Report, beside: Sequence[str]) -> str:
    parts = ["# Report"]
    for section in found.sections:
        parts.append(f"## {section.title}")
        for part in section.body:
            match part:
                case Picture(name=name, caption=caption):
                    parts.append(f"![{name}](figures/{name}.png)\n\n{caption}")
                case Table():
                    rows = [list(map(_literal, row)) for row in part.rows]
                    parts.append(replace(part, rows=rows).markdown())
                case text:
                    parts.append(text)
    listed = "\n".join(f"- [{name}]({name})" for name in beside if not name.endswith(".png"))
    return "\n\n".join([*parts, f"## Files\n\n{listed}"]) + "\n"


def _literal(cell: str) -> str:
    """What stands in a cell, without what would be a tag, code, a link, or the next cell."""
    return re.sub(r"([\\`<|&\[\]])", r"\\\1", printable(cell))


def show(found: Report, folder: Path) -> None:
    """Print texts and tables; the last line is `report: PATH`, in one piece."""
    console = Console(markup=False, emoji=False, highlight=False)
    for section in found.sections:
        parts = [part for part in section.body if not isinstance(part, Picture)]
        if parts:
            console.print(section.title, style="bold")
        for part in parts:
            if isinstance(part, Table):
                console.print(part.terminal())
                console.print(part.note)
            else:
                console.print(plain(part))
            console.print()
    print(f"report: {folder / PAGE_FILE}")
