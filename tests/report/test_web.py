"""The page: complete by itself, and what users wrote is shown and not obeyed."""

import base64
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from irl_exp.report import command
from tests.report.conftest import write_run, write_small_run
from tests.report.test_distances import EAST, NORTH

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Reader(HTMLParser):
    """What a page refers to, its texts, and the cells of the table of runs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v for k, v in attrs if k in ("src", "href") and v]
        self.ids += [v for k, v in attrs if k == "id" and v]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "my sweep"
    write_run(folder / "whole")
    (folder / "whole" / "report.md").write_text("# Report\n")
    write_small_run(folder / "small", recovered=EAST, summary={"recovery/auc": 0.7})
    write_small_run(folder / "other", recovered=NORTH, order=1)
    error = "no column <script>alert(1)</script> & more"
    write_small_run(folder / "broke", status="failed", error=error)
    return folder


def page(sweep: Path, out: Path | None = None) -> tuple[Path, str]:
    command.run([sweep], out)
    path = (out or sweep / "report") / "index.html"
    return path, path.read_text(encoding="utf-8")


def test_it_needs_nothing_but_itself(sweep: Path) -> None:
    path, text = page(sweep)
    found = Reader(text)
    assert len(found.ids) == len(set(found.ids))
    for reference in found.references:
        if reference.startswith("#"):
            assert reference[1:] in found.ids
        elif not reference.startswith("data:"):
            assert (path.parent / reference).exists(), reference
    assert "http:" not in text.replace("http://www.w3.org", "") and "https:" not in text


def test_pictures_are_inside(sweep: Path) -> None:
    path, text = page(sweep)
    inside = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    drawn = sorted(content.read_bytes() for content in (path.parent / "figures").glob("*.svg"))
    assert sorted(map(base64.b64decode, inside)) == drawn and len(drawn) > 3


def test_what_a_run_says_is_shown_and_not_obeyed(sweep: Path) -> None:
    _, text = page(sweep)
    assert "<script>alert(1)" not in text and text.count("<script>") == 1
    assert any("no column <script>alert(1)</script> & more" in t for t in Reader(text).texts)


def test_every_run_stands_in_the_table(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "out"
    path, text = page(sweep, out)
    rows = re.findall(r'<tr><td><a href="([^"]+)">([^<]+)</a></td><td class="(\w+)">', text)
    assert {(name, status) for _, name, status in rows} == {
        *(("whole", "done"), ("small", "done"), ("other", "done"), ("broke", "failed"))
    }
    targets = {name: (path.parent / link).resolve() for link, name, _ in rows}
    assert targets["whole"] == (sweep / "whole" / "report.md").resolve()
    assert targets["broke"] == (sweep / "broke").resolve()  # it has no report of its own


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, on the path as chromium")
def test_a_browser_sorts_and_filters(sweep: Path, tmp_path: Path) -> None:
    """Headless, with a script appended that clicks, types, and writes down what it then sees."""
    _, text = page(sweep)
    probe = """<script>
    window.onerror = message => { document.title = `error: ${message}`; };
    const column = [...table.tHead.rows[0].cells].findIndex(head => head.textContent === "AUC");
    const name = row => row.cells[0].textContent;
    const seen = () => [...body.rows].filter(row => !row.hidden).map(name);
    sort(column); const up = seen();
    sort(column); const down = seen();
    filter.value = "FAILED bro"; filter.dispatchEvent(new Event("input"));
    document.title = JSON.stringify([up, down, seen(), shown.textContent]);
    </script>"""
    (tmp_path / "probe.html").write_text(text.replace("</body>", f"{probe}</body>"))
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *(f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "probe.html").as_uri()),
        ],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search("<title>(.+?)</title>", done.stdout)
    assert title, done.stderr
    up, down, one, count = json.loads(title[1])
    assert up[:2] == ["small", "whole"] and down[:2] == ["whole", "small"]
    assert set(up[2:]) == set(down[2:]) == {"other", "broke"}  # without the number: always last
    assert (one, count) == (["broke"], "1 of 4 runs")
