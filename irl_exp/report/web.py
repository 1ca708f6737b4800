"""A report as one page that needs nothing else: no network, light and dark, narrow and wide. What
it looks like, and how its listing is sorted and filtered, is in index.html.jinja."""

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

from irl_exp.report.collect import is_number, shown
from irl_exp.report.document import Listing, Part, Picture, Report, Section
from irl_exp.report.run import number
from irl_exp.report.tables import MISSING, Table

TEMPLATE = "index.html.jinja"
# Figures with a mark for each of very many points are shown as pixels, not as lines.
LARGEST_SVG = 400_000  # bytes

_MARKDOWN = MarkdownIt("zero").enable(["emphasis", "escape", "backticks"])


def page(found: Report, folder: Path, beside: Sequence[str]) -> bytes:
    """The page as it stands in `folder`, with links to what is listed and to `beside`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template(TEMPLATE).render(
        title=found.title,
        counts=found.counts,
        sections=[_section(section) for section in found.sections],
        listing=_listing(found.listing, folder),
        files=beside,
        version=version("irl-exp"),
    )
    return text.encode()


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


def _listing(listing: Listing, folder: Path) -> dict[str, Any]:
    """A row an item: where it is, how it went, and what else is said of it."""
    rows = [
        {
            "name": item.name,
            "link": Path(os.path.relpath(item.target, folder)).as_posix(),
            "status": item.status,
            "cells": [_cell(value) for value in item.values],
        }
        for item in listing.items
    ]
    said = {"title": listing.title, "said": listing.said, "noun": listing.noun}
    return {**said, "header": listing.header, "rows": rows}


def _cell(value: Any) -> dict[str, Any]:
    """What is shown, and what it is sorted by; of what is missing, nothing."""
    if value is None or value != value:
        return {"text": MISSING, "sort": ""}
    return {"text": number(value) if is_number(value) else shown(value), "sort": value}
