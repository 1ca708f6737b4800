"""`make docs`: config.yaml and configuration.md, from conf/ and the types in irl_exp/config.py.

In conf/ a file's first comment says what the option is, the comment above a key what the key is.
A comment also covers what is nested below its key, and the keys that follow line by line, as far as
it speaks of them by a word of their names.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from irl_exp.cli import CONF
from irl_exp.config import SCHEMAS, Config

HEADER = "# The default run, as irl-exp --cfg job --resolve prints it; written by `make docs`.\n"
INTRO = """# Configuration

Every option that can be chosen, `irl-exp rlhf=tilted`, and every value that can be overridden,
`irl-exp rlhf.kl_coef=0.25`; [hydra.md](hydra.md) says how. [config.yaml](config.yaml) is the
default run in one file. The first option of a group is its default. Where the options of a group
differ in a value, it stands behind their names. `${…}` is filled in when a run starts. The key
`name` of a group repeats the chosen option, for messages and reports; leave it as it is.

Written by `make docs` from `conf/` and `irl_exp/config.py`: change those.
"""
OVERLAYS = "Each sets several groups and values, and is appended: `irl-exp +debug=smoke`."
COMMENT = re.compile(r"\s*#").match
WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", NoneType: "null"}


# --- what the files say -----------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A key, dotted where it is nested; its value as it stands; its meaning. "" for none."""

    key: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Leaf:
    """A file of conf/, on a schema or another leaf (`base`), with what it chooses in groups."""

    name: str
    meaning: str
    base: str
    choices: list[Entry]
    values: list[Entry]


def read(name: str, text: str) -> Leaf:
    head = [line for line in takewhile(COMMENT, text.splitlines()) if "@package" not in line]
    pairs = yaml.compose(text).value
    items = next((node.value for key, node in pairs if key.value == "defaults"), [])
    bases = [item.value for item in items if item.id == "scalar" and item.value != "_self_"]
    # `/solver@controls.oracle: oracle` and its like are one key, `controls`; `/solver@base: hinge`
    # is the key `base`.
    placed: dict[str, list[Entry]] = {}
    for entry in entries([item.value[0] for item in items if item.id == "mapping"], text):
        place = entry.key.partition("@")[2]
        placed.setdefault(place.rpartition(".")[0] or place, []).append(entry)
    choices = placed.pop("", [])
    values = [*entries([pair for pair in pairs if pair[0].value != "defaults"], text)]
    for key, found in placed.items():
        values.append(Entry(key, ", ".join(entry.value for entry in found), found[0].meaning))
    return Leaf(name, prose(head), bases[0] if bases else "", choices, values)


def entries(pairs: Iterable[Any], text: str, above: str = "", prefix: str = "") -> Iterator[Entry]:
    """Of the YAML nodes (key, value) of a mapping; `above` is the comment of what holds it."""
    lines = text.splitlines()
    run, last = "", -1
    for key, node in pairs:
        line = key.start_mark.line
        own = prose(reversed([*takewhile(COMMENT, reversed(lines[:line]))]))
        run, last = own or (run if line == last + 1 else ""), line
        meaning = own or (run if speaks_of(run, key.value) else above)
        if node.id == "mapping" and not node.flow_style:
            if own:
                yield Entry(prefix + key.value, "", own)
            yield from entries(node.value, text, meaning, f"{prefix}{key.value}.")
        else:
            source = text[node.start_mark.index : node.end_mark.index]
            yield Entry(prefix + key.value, " ".join(source.split()), meaning)


def prose(comment: Iterable[str]) -> str:
    return " ".join(line.strip().removeprefix("#").strip() for line in comment)


def speaks_of(comment: str, key: str) -> bool:
    words = re.findall(r"[^\W_]+", key)
    return any(re.search(rf"\b{word}s?\b", comment, re.IGNORECASE) for word in words)


def leaf(group: str, name: str) -> Leaf:
    return read(name, (CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))


def complete(group: str, file: Leaf) -> tuple[str, dict[str, Entry]]:
    """The schema of an option, and all its keys, those of the leaf below it included."""
    own = {entry.key: entry for entry in file.values}
    if file.base.startswith("/"):
        return file.base.removeprefix("/").removesuffix("_schema@_here_"), own
    schema, below = complete(group, leaf(group, file.base))
    return schema, below | {k: replace(e, meaning=below[k].meaning) for k, e in own.items()}


# --- how it is written ------------------------------------------------------------------------


def in_words(kind: Any) -> str:
    """A type as a reader would say it."""
    inner = get_args(kind)
    if get_origin(kind) is list:
        return f"list of {in_words(inner[0])}s"
    if kind == dict[str, Any]:
        return "keys of your own"
    groups = {schema: group for group, schema in get_type_hints(Config).items() if group in SCHEMAS}
    if get_origin(kind) is dict:  # of the options of another group, by name
        return f"options of `{groups[inner[1]]}`, each with its keys"
    if kind in groups:
        return f"option of `{groups[kind]}`, with its keys"
    if kind is Any:
        return "value"
    return WORDS.get(kind) or " or ".join(map(in_words, inner)) or "the keys below"


def type_of(schema: Any, key: str) -> str:
    for part in key.split("."):
        schema = get_type_hints(schema)[part]
    return in_words(schema)


def default(values: dict[str, str]) -> str:
    """Option -> value: `0.1` where all agree, else a, b `0.1` · c `0.2`; numbers in order."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    if len(names) == 1:
        return code(value)
    if all(re.fullmatch(r"[\d.e+-]+", value) for value in names):
        names = {value: names[value] for value in sorted(names, key=float)}
    return " · ".join(f"{', '.join(those)} {code(value)}" for value, those in names.items())


def code(value: str) -> str:
    return "required" if value == "???" else f"`{value}`" if value else ""


def markdown(text: str) -> str:
    """Signs that Markdown would take, outside of code, escaped."""
    parts = re.split(r"(`[^`]*`)", text.replace("|", r"\|"))
    parts[::2] = [re.sub(r"[*<]", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def table(header: str, rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {header} |", "|---" * (header.count("|") + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(markdown, row))} |" for row in rows)]) + "\n"


def group_section(group: str, first: str, meaning: str) -> Iterator[str]:
    yield f"## {group}\n\n{markdown(meaning)}\n"
    names = {path.stem for path in (CONF / group).glob("*.yaml")}
    options = [leaf(group, name) for name in sorted(names, key=lambda n: (n != first, n))]
    yield table("option | meaning", ((f"`{group}={o.name}`", story(o)) for o in options))
    for kind, schema in SCHEMAS[group].items():
        found = {o.name: complete(group, o) for o in options}
        among = {name: keys for name, (of, keys) in found.items() if of == kind}
        rows = [
            (
                f"`{group}.{key}`",
                type_of(schema, key),
                default({name: keys[key].value for name, keys in among.items()}),
                entry.meaning,
            )
            for key, entry in next(iter(among.values()), {}).items()
            if key != "name"
        ]
        if rows and len(SCHEMAS[group]) > 1:
            yield f"### Keys of {', '.join(among)}\n"
        if rows:
            yield table("key | type | default | meaning", rows)


def story(option: Leaf) -> str:
    if option.base.startswith("/"):
        return option.meaning
    values = (f"{e.key} {code(e.value)}" for e in option.values if e.value and e.key != "name")
    return f"{option.meaning} It is `{option.base}` with {', '.join(values)}."


def changes(file: Leaf, prefix: str = "") -> str:
    """What a file sets in other groups, and which values."""
    rows = [
        (f"`{group}`", code(e.value), e.meaning or leaf(group, e.value).meaning)
        for e in file.choices
        if (group := e.key.rpartition("/")[2]) in SCHEMAS
    ]
    rows += [(f"`{prefix}{e.key}`", code(e.value), e.meaning) for e in file.values if e.value]
    return f"{markdown(file.meaning)}\n\n{table('sets | to | meaning', rows)}"


def configuration() -> str:
    root = read("config", (CONF / "config.yaml").read_text(encoding="utf-8"))
    groups = {e.key: e for e in root.choices if e.key in SCHEMAS}
    overlays = sorted(p for p in CONF.glob("*/*.yaml") if p.parent.name not in {*groups, "hydra"})
    links = " · ".join(f"[{group}](#{group})" for group in (*groups, "overlays", "hydra"))
    rows = [(f"`{e.key}`", type_of(Config, e.key), code(e.value), e.meaning) for e in root.values]
    parts = [INTRO, f"{links}\n", "## Top-level values\n"]
    parts.append(table("key | type | default | meaning", rows))
    for group, chosen in groups.items():
        parts += group_section(group, chosen.value, chosen.meaning)
    parts.append(f"## Overlays\n\n{OVERLAYS}\n")
    for path in overlays:
        choice = f"{path.parent.name}={path.stem}"
        parts += [f"### +{choice}\n", changes(leaf(path.parent.name, path.stem))]
    parts += ["## hydra\n", changes(leaf("hydra", "default"), "hydra.")]
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """File -> text, as it is in docs/ where nobody has set IRL_EXP_STORE."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = OmegaConf.to_yaml(compose("config"), resolve=True)
    return {"config.yaml": HEADER + run, "configuration.md": configuration()}


if __name__ == "__main__":
    os.environ.pop("IRL_EXP_STORE", None)
    for name, text in pages().items():
        (Path(__file__).parent / name).write_text(text, encoding="utf-8")
