"""docs/config.yaml and docs/configuration.md follow conf/, and every key of conf/ has a meaning."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from docs import generate
from docs.generate import Entry, Leaf, default, in_words, leaf, markdown, read, type_of
from irl_exp.cli import CONF
from irl_exp.config import SCHEMAS, Config, FileDataset, Shares, SolverConfig

DOCS = Path(generate.__file__).parent
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
OPTIONS = [path for path in FILES if path.parent.name in SCHEMAS]


def parsed(path: Path) -> Leaf:
    return read(path.stem, (CONF / path).read_text(encoding="utf-8"))


# --- the pages are those of today ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.yaml", "configuration.md"])
def test_the_page_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IRL_EXP_STORE", raising=False)
    kept = (DOCS / name).read_text(encoding="utf-8")
    assert kept == generate.pages()[name], f"docs/{name} is not what conf/ says: run `make docs`"


def test_the_default_run_is_what_the_command_prints(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "irl_exp", "--cfg", "job", "--resolve"],
        env={name: value for name, value in os.environ.items() if name != "IRL_EXP_STORE"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    header, _, rest = (DOCS / "config.yaml").read_text(encoding="utf-8").partition("\n")
    assert header.startswith("# ")
    assert done.stdout.strip() == rest.strip()


def keys(schema: type, prefix: str) -> Iterator[str]:
    """What can be typed, by the types alone; an option of a group has rows of its own."""
    for name, kind in get_type_hints(schema).items():
        yield f"{prefix}{name}"
        if is_dataclass(kind) and kind not in get_type_hints(Config).values():
            yield from keys(kind, f"{prefix}{name}.")


def test_every_option_and_key_has_a_row() -> None:
    rows = (DOCS / "configuration.md").read_text(encoding="utf-8").splitlines()
    wanted = {f"{path.parent}={path.stem}" for path in OPTIONS}
    wanted |= {name for name in get_type_hints(Config) if name not in SCHEMAS}
    for group, schemas in SCHEMAS.items():
        for schema in schemas.values():
            wanted |= {key for key in keys(schema, f"{group}.") if key != f"{group}.name"}
    assert [w for w in sorted(wanted) if not any(r.startswith(f"| `{w}` |") for r in rows)] == []
    overlays = [path for path in FILES if path.parent.name not in (*SCHEMAS, "hydra", "")]
    assert [p for p in overlays if f"### +{p.parent}={p.stem}" not in rows] == []


# --- the comments are there ---------------------------------------------------------------------


def unexplained(file: Leaf) -> list[str]:
    """Keys without a meaning; `name` of an option is explained once, at the top of the page."""
    return [e.key for e in file.values if not e.meaning and e.key != "name"]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_says_what_it_is_and_what_its_keys_are(path: Path) -> None:
    file = parsed(path)
    assert file.meaning, f"conf/{path}: expected a comment at the top, which says what it is"
    assert unexplained(file) == [], f"conf/{path}: expected a comment above each key"
    lines = (CONF / path).read_text(encoding="utf-8").splitlines()
    assert [i for i, line in enumerate(lines, 1) if re.fullmatch(r"\s*#\s*", line)] == []


def test_every_group_has_a_meaning() -> None:
    groups = {entry.key: entry.meaning for entry in parsed(Path("config.yaml")).choices}
    assert {*SCHEMAS, "hydra"} == set(groups)
    assert all(groups.values()), groups


@pytest.mark.parametrize("group", SCHEMAS)
def test_a_key_means_the_same_in_all_options(group: str) -> None:
    """The page has one row for them; a leaf on another leaf may say why it differs."""
    said: dict[tuple[str, str], dict[str, str]] = {}
    for path in (path for path in OPTIONS if path.parent.name == group):
        file = parsed(path)
        for entry in file.values if file.base.startswith("/") else ():
            said.setdefault((file.base, entry.key), {})[entry.meaning] = path.stem
    differing = {key: meanings for (_, key), meanings in said.items() if len(meanings) > 1}
    assert differing == {}


# --- how a file is read -------------------------------------------------------------------------

TEXT = """\
# @package _global_
# What it is,
# in two lines.
defaults:
  - /example_schema@_here_
  - _self_
  - override /model: small
  # Two of them.
  - /solver@others.a: hinge
  - /solver@others.b: length
  # The one below.
  - /solver@base: logistic

name: example
# Columns of the text and of the label.
text_column: text
label_column: toxic
other: 1.0e-3
# Two parts:
# of one.
parts:
  first: [1, 2]
  # The second, a | b.
  second: ???
empty: {}

late: null
"""


def test_a_file_is_read() -> None:
    """A comment covers what it speaks of and what is nested below, and no key that just follows."""
    file = read("example", TEXT)
    assert (file.meaning, file.base) == ("What it is, in two lines.", "/example_schema@_here_")
    assert file.choices == [Entry("override /model", "small", "")]
    columns = "Columns of the text and of the label."
    assert file.values == [
        Entry("name", "example", ""),
        Entry("text_column", "text", columns),
        Entry("label_column", "toxic", columns),
        Entry("other", "1.0e-3", ""),
        Entry("parts", "", "Two parts: of one."),
        Entry("parts.first", "[1, 2]", "Two parts: of one."),
        Entry("parts.second", "???", "The second, a | b."),
        Entry("empty", "{}", ""),
        Entry("late", "null", ""),
        Entry("others", "hinge, length", "Two of them."),
        Entry("base", "logistic", "The one below."),
    ]
    assert unexplained(file) == ["other", "empty", "late"]


def test_a_blank_line_ends_what_a_comment_covers() -> None:
    file = read("example", "# Columns.\na_column: 1\nb_column: 2\n\nc_column: 3\n")
    assert unexplained(file) == ["c_column"]


def test_a_leaf_on_a_leaf_is_complete() -> None:
    schema, found = generate.complete("rlhf", leaf("rlhf", "ppo_long"))
    below = generate.complete("rlhf", leaf("rlhf", "ppo"))[1]
    assert (schema, list(found)) == ("ppo", list(below))
    changed = {key: entry.value for key, entry in found.items() if entry != below[key]}
    assert set(changed) == {"kl_coef", "iterations", "learning_rate"}
    assert changed["iterations"] == "200"


# --- how it is written --------------------------------------------------------------------------


def test_defaults_of_several_options() -> None:
    assert default({"a": "0.1", "b": "0.1"}) == "`0.1`"
    assert default({"a": "1.0e-2", "b": "4.0e-4", "c": "1.0e-2"}) == "b `4.0e-4` · a, c `1.0e-2`"
    assert default({"b": "hinge", "a": "auto"}) == "b `hinge` · a `auto`"
    assert default({"a": "???"}) == "required"


def test_types_in_words() -> None:
    assert in_words(float) == "number"
    assert in_words(int | None) == "whole number or null"
    assert in_words(list[str]) == "list of texts"
    assert in_words(dict[str, SolverConfig]) == "options of `solver`, each with its keys"
    assert in_words(SolverConfig) == "option of `solver`, with its keys"
    assert in_words(Shares) == "the keys below"
    assert type_of(FileDataset, "shares.train") == "number"
    assert type_of(FileDataset, "toxic_values") == "list of values"


def test_signs_of_markdown_are_escaped_outside_of_code() -> None:
    assert markdown("R* | `a * <b>` < *") == r"R\* \| `a * <b>` \< \*"
