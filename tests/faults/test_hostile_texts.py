"""Texts that attack whoever reads them: a browser runs and fetches nothing, a spreadsheet neither.

Comments come from anywhere, and completions can be what somebody wants them to be.
"""

import csv
import html
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from irl_exp.report import command, page
from tests.report.conftest import write_run, write_small_run
from tests.report.test_distances import EAST, NORTH

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")
RUN = "document.title='ran'"
NAME = f'<img src=x onerror="{RUN}">'  # as a folder can be called


class Canary:
    """A server of this machine that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.server.shutdown()


def attacks(place: str) -> list[str]:
    return [
        f"<script>{RUN};fetch('{place}/script')</script>",
        f'"><img src="{place}/image" onerror="{RUN}">',
        f"'><svg onload={RUN}>",
        f"</td></tr></table><iframe src='{place}/frame'></iframe>",
        f"</style></title></script><style>@import '{place}/style';</style>",
        f"![picture]({place}/markdown) ![pic[tu]re]({place}/nested)",
        f"<link rel=stylesheet href={place}/link>",
        f"x\n```\n<script>{RUN}</script>\n```\n",
        f"` <b onmouseover={RUN}>`` {{{{7*7}}}} {{% raw %}} ${{7*7}}",
        f"&lt;script&gt;{RUN}&lt;/script&gt; &#60;script&#62;{RUN}&#60;/script&#62;",
        f"\u202e\u2066{RUN}\u0000\x1b]0;title\x07 😀 | a | b |",
    ]


def browse(text: str, folder: Path) -> str:
    """What Chromium has made of the page after three seconds of its time."""
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8", errors="replace")
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--virtual-time-budget=3000", f"--user-data-dir={folder / 'profile'}"),
            path.as_uri(),
        ],
        env={**os.environ, "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(markdown: str) -> str:
    """A page of it, by a program that lets HTML through."""
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    return f"<title>mine</title>{shown}"


def title(dom: str) -> str:
    found = re.search("<title>(.*?)</title>", dom, re.DOTALL)
    return html.unescape(found[1]) if found else ""


def hostile_run(folder: Path, texts: list[str]) -> None:
    """A run with every file, whose texts, words and warnings are those."""
    write_run(folder)
    samples = [
        {"policy": policy, "prompt": text, "completion": text, "truth": 0.0, "kl": 1.0}
        for policy in ("reference", "aligned", "realigned")
        for text in texts
    ]
    lines = [json.dumps(sample) + "\n" for sample in samples]
    (folder / "samples.jsonl").write_text("".join(lines))
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"warnings": texts}))
    (folder / "overrides.yaml").write_text("".join(f"- {json.dumps(t)}\n" for t in texts[:-1]))
    for name, columns in (
        ("attribution", ["word"]),
        ("findings", ["name"]),
        ("identified", ["prompt", "first", "second"]),
        ("panel", ["prompt", "completion"]),
    ):
        table = pd.read_parquet(folder / f"{name}.parquet")
        clean = [text.encode(errors="replace").decode() for text in texts]
        mine = table["kind"] == "word" if name == "findings" else [True] * len(table)
        for column in columns:
            table.loc[mine, column] = [clean[i % len(clean)] for i in range(sum(mine))]
        table.to_parquet(folder / f"{name}.parquet")


@needs_chromium
def test_the_browser_of_this_test_runs_and_fetches(tmp_path: Path, canary: Canary) -> None:
    """What the others show not to happen does happen where nobody prevents it."""
    dom = browse("".join(attacks(canary.place)[:5]), tmp_path)
    assert title(dom) == "ran"
    assert {"/script", "/image"} <= set(canary.asked)


@needs_chromium
def test_the_report_of_a_run_runs_and_fetches_nothing(tmp_path: Path, canary: Canary) -> None:
    hostile_run(tmp_path / "run", attacks(canary.place))
    markdown = page.write(tmp_path / "run").read_text(encoding="utf-8")
    assert "onmouseover" in markdown and "markdown" in markdown  # they are shown
    assert (title(browse(rendered(markdown), tmp_path)), canary.asked) == ("mine", [])


@needs_chromium
def test_the_page_of_a_sweep_runs_and_fetches_nothing(tmp_path: Path, canary: Canary) -> None:
    texts = attacks(canary.place)
    sweep = tmp_path / NAME
    hostile_run(sweep / "whole", texts)
    for place, recovered in enumerate((EAST, NORTH)):
        config = {"solver": {"name": texts[place]}, "name": texts[place + 3]}
        write_small_run(sweep / f"{NAME}{place}", config=config, recovered=recovered)
    for place, text in enumerate(texts):
        write_small_run(sweep / f"broke{place}", status="failed", error=text)
    command.run([sweep], tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    dom = browse(text, tmp_path)
    assert title(text) == title(dom) != "ran"
    assert canary.asked == []
    assert "@import" in text  # they are shown

    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "@import" in markdown
    assert (title(browse(rendered(markdown), tmp_path)), canary.asked) == ("mine", [])


def test_a_terminal_obeys_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither its control sequences, nor marks that turn the direction of what follows."""
    texts = attacks("http://127.0.0.1:1")
    for place, text in enumerate(texts):
        write_small_run(tmp_path / "sweep" / f"broke{place}", status="failed", error=text)
    command.run([tmp_path / "sweep"], tmp_path / "report")
    hostile_run(tmp_path / "run", texts)
    page.show(tmp_path / "run")
    out = capsys.readouterr().out
    assert "]0;title" in out
    assert {letter for letter in out if not letter.isprintable()} == {"\n"}


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t"])
def test_a_spreadsheet_finds_no_formula(tmp_path: Path, first: str) -> None:
    formula = f"{first}HYPERLINK(1)\r=1"
    config = {"solver": {"name": formula}}
    write_small_run(tmp_path / "sweep" / "one", config=config, summary={"recovery/auc": -0.5})
    write_small_run(tmp_path / "sweep" / "two", summary={"recovery/auc": 1e-9})
    command.run([tmp_path / "sweep"], tmp_path / "report")
    cells = []
    for table in (tmp_path / "report").glob("*.csv"):
        with table.open(newline="") as file:
            cells += [cell for row in csv.reader(file) for cell in row]
    assert f"'{first}HYPERLINK(1) =1" in cells
    assert {"-0.5", "1e-09"} <= set(cells)  # a number is one
    assert not [cell for cell in cells if cell[:1] == first and cell != "-0.5"]
