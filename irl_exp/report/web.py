"""A report on many runs as one page that needs nothing else: no network, light and dark, narrow and
wide. What it looks like, and how its table of runs is sorted and filtered, is in
index.html.jinja."""

import base64
import os
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from irl_exp.report.collect import Runs, axes, is_number, shown
from irl_exp.report.document import Part, Picture, Report, Section
from irl_exp.report.run import REPORT_FILE, Run, number
from irl_exp.report.tables import MISSING, Table

TEMPLATE = "index.html.jinja"
# Numbers of the summary in the table of all runs -> what a reader sees.
NUMBERS = {
    "recovery/pair_accuracy": "pair accuracy",
    "recovery/starc": "STARC",
    "recovery/auc": "AUC",
    "policy/aligned/optimality": "optimality",
    "time/total_seconds": "seconds",
}
# Figures with a mark for each of very many points are shown as pixels, not as lines.
LARGEST_SVG = 400_000  # bytes
LONGEST_TITLE = 80  # characters

_MARKDOWN = MarkdownIt("zero").enable(["emphasis", "escape", "backticks"])


def page(found: Report, folder: Path, beside: Sequence[str]) -> bytes:
    """The page as it stands in `folder`, with links to the runs and to the files `beside` it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template(TEMPLATE).render(
        title=_title(found.runs),
        counts=_counts(found.runs),
        sections=[_section(section) for section in found.sections],
        overview=_overview(found.runs.all, folder),
        files=beside,
        version=version("irl-exp"),
    )
    return text.encode()


def _title(runs: Runs) -> str:
    """The names of the folders that hold the runs."""
    folders = dict.fromkeys(run.folder.absolute().parent.name for run in runs.all)
    title = ", ".join(folders) or "no runs"
    return title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1] + "…"


def _counts(runs: Runs) -> str:
    said = f"{len(runs.done)} of {len(runs.all) + len(runs.unreadable)} runs are done"
    if runs.unreadable:
        said += f", {len(runs.unreadable)} cannot be read"
    return said + "."


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "anchor": re.sub(r"\W+", "-", section.title.lower()).strip("-"),
        "answer": section.answer,
        "body": [_part(part) for part in section.body],
    }


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Picture(name=name, caption=caption, map=is_map):
            said = {"name": name, "caption": caption, "map": is_map}
            return {"kind": "picture", "source": _source(part), **said}
        case Table(header=header, rows=rows, note=note):
            return {"kind": "table", "header": header, "rows": rows, "note": note}
        case text:
            return {"kind": "text", "html": Markup(_MARKDOWN.render(text))}


def _source(picture: Picture) -> str:
    small = len(picture.svg) <= LARGEST_SVG
    kind, content = ("svg+xml", picture.svg) if small else ("png", picture.png)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _overview(runs: Sequence[Run], folder: Path) -> dict[str, Any]:
    """A row a run: where it is, how it went, what makes it differ, and some numbers."""
    named = axes(runs)
    titles = {n: title for n, title in NUMBERS.items() if any(n in run.summary for run in runs)}
    rows = []
    for run in runs:
        report = run.folder / REPORT_FILE
        target = report if report.is_file() else run.folder
        values = [*(axis.of(run) for axis in named), *(run.summary.get(name) for name in titles)]
        rows.append(
            {
                "name": run.folder.name,
                "link": Path(os.path.relpath(target, folder)).as_posix(),
                "status": run.status["status"],
                "cells": [_cell(value) for value in values],
            }
        )
    header = ["run", "status", *(axis.name for axis in named), *titles.values()]
    return {"header": header, "rows": rows}


def _cell(value: Any) -> dict[str, Any]:
    """What is shown, and what it is sorted by; of what is missing, nothing."""
    if value is None or value != value:
        return {"text": MISSING, "sort": ""}
    return {"text": number(value) if is_number(value) else shown(value), "sort": value}
