"""irl-store: what the store holds, and the removal of what no run refers to.

A run refers to the artifacts whose fingerprints the manifest.json in its directory names. It counts
as long as both lie where they lay when the run registered (see store.py). Nothing is followed out
of the store through a link, and nothing is removed that the store's layout does not know.
"""

import argparse
import json
import os
import re
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from irl_exp.config import InputError
from irl_exp.store import GUARD, MANIFEST, RUNS, Store, discard, read_manifest, read_registration

Kind = Literal["artifact", "attempt", "replaced", "damaged", "lock", "registration", "unknown"]
WORDS: dict[Kind, str] = {
    "artifact": "artifact",
    "attempt": "interrupted attempt",
    "replaced": "replaced artifact",
    "damaged": "damaged artifact",
    "lock": "lock file",
    "registration": "registration",
}


def main() -> None:
    """Console script: what was asked for, or one line that says what is wrong."""
    options = parse()
    try:
        if not options.store.is_dir():
            raise InputError(
                f"{options.store}: no such folder; expected a store (--store or IRL_EXP_STORE)"
            )
        options.command(Store(options.store), options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads us has seen enough: leave without a word, also when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (InputError, OSError) as error:
        sys.exit(f"irl-store: {error}")
    except KeyboardInterrupt:
        sys.exit("irl-store: interrupted")


def parse() -> argparse.Namespace:
    """What was typed."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store",
        metavar="DIR",
        type=Path,
        default=Path(os.environ.get("IRL_EXP_STORE", "outputs/store")),  # as conf/paths has it
        help="the store (default: the environment variable IRL_EXP_STORE, else outputs/store)",
    )
    parser = argparse.ArgumentParser(
        prog="irl-store", description="The store of artifacts that runs share."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shows = commands.add_parser(
        "list",
        parents=[common],
        help="show what it holds",
        description="Show the artifacts of the store, how many runs refer to each, and totals. "
        "Where standard output is no terminal: tab-separated lines with a header, for programs, "
        "sizes in bytes.",
    )
    shows.set_defaults(command=show)
    collects = commands.add_parser(
        "gc",
        parents=[common],
        help="remove what no run refers to, after asking",
        description="Remove the artifacts that no run refers to, interrupted attempts, what was "
        "found damaged, and what is left of work that is over. Says what, and asks. Not while a "
        "run is under way.",
        epilog="A run whose directory is not where it was counts as gone. So clean a store only "
        "where the directories of all its runs can be seen.",
    )
    collects.add_argument("--yes", action="store_true", help="do not ask")
    collects.set_defaults(command=collect)
    return parser.parse_args()


# --- what lies in a store -----------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A file or folder in the store.

    Attributes:
        size: bytes of its files; a link counts as itself, a folder as nothing.
        manifest: of an artifact.
        run: of a registration, the run directory; None where it was killed before it named one.
    """

    kind: Kind
    path: Path
    size: int = 0
    manifest: Mapping[str, Any] = field(default_factory=dict)
    run: Path | None = None


@dataclass(frozen=True)
class Contents:
    """All that lies in a store.

    Attributes:
        references: fingerprint -> how many runs refer to it.
        runs: the run directories that have a manifest.
        unreadable: those of them whose manifest does not say what the run refers to.
    """

    entries: list[Entry]
    references: Counter[str]
    runs: set[Path]
    unreadable: set[Path]

    def of(self, *kinds: Kind) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind in kinds]

    @property
    def unreferenced(self) -> list[Entry]:
        return [entry for entry in self.of("artifact") if not self.references[entry.path.name]]

    @property
    def outlived(self) -> list[Entry]:
        """Registrations whose runs are gone."""
        return [entry for entry in self.of("registration") if entry.run not in self.runs]

    @property
    def garbage(self) -> list[Entry]:
        kinds: tuple[Kind, ...] = ("attempt", "replaced", "damaged", "lock")
        leavings = (entry for kind in kinds for entry in self.of(kind))
        return [*self.unreferenced, *leavings, *self.outlived]


def look(store: Store) -> Contents:
    """Read a store, which may change meanwhile, and the manifests of its runs."""
    entries = list(_entries(store.root))
    references: Counter[str] = Counter()
    runs, unreadable = set(), set()
    for run in {entry.run for entry in entries if entry.run}:
        try:
            text = (run / MANIFEST).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):
            text = ""
        runs.add(run)
        try:
            references.update(set(json.loads(text)["steps"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable.add(run)
    return Contents(entries, references, runs, unreadable)


def _entries(root: Path) -> Iterator[Entry]:
    for path in sorted(root.iterdir()):
        if path.name == RUNS and _is_folder(path):
            yield from map(_registration, sorted(path.iterdir()))
        elif path.name[0] != "." and _is_folder(path):
            inside = [_entry(below) for below in sorted(path.iterdir())]
            foreign = inside and all(entry.kind == "unknown" for entry in inside)
            yield from [Entry("unknown", path)] if foreign else inside
        elif path.name != GUARD:
            yield Entry("unknown", path)


def _registration(path: Path) -> Entry:
    if _is_file(path):
        run = read_registration(path)
        if run or re.fullmatch(r"\.tmp-[0-9a-f]{16}-\d+", path.name):
            return Entry("registration", path, _size(path), run=run)
    return Entry("unknown", path)


def _entry(path: Path) -> Entry:
    """What lies in the folder of a step."""
    name = path.name
    if _is_folder(path):
        if re.fullmatch(r"[0-9a-f]{16}", name) and (manifest := read_manifest(path, name)):
            return Entry("artifact", path, _size(path), manifest)
        if re.fullmatch(r"\.tmp-[0-9a-f]{16}", name):
            return Entry("attempt", path, _size(path))
        if re.fullmatch(r"\.old-\w+", name):
            return Entry("replaced", path, _size(path))
        if re.fullmatch(r"\.damaged-[0-9a-f]{16}-\w+", name):
            return Entry("damaged", path, _size(path))
    elif re.fullmatch(r"\.lock-[0-9a-f]{16}", name) and _is_file(path) and not _size(path):
        return Entry("lock", path)
    return Entry("unknown", path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _size(path: Path) -> int:
    below = (Path(parent, name) for parent, *names in os.walk(path) for name in chain(*names))
    size = 0
    for each in chain([path], below):
        with suppress(FileNotFoundError):  # somebody is at work in there
            info = each.lstat()
            size += 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    return size


# --- list ---------------------------------------------------------------------------------------


def show(store: Store, options: argparse.Namespace) -> None:
    """A table and totals for people, lines for programs."""
    contents = look(store)
    if sys.stdout.isatty():
        _show_table(contents)
    else:
        _show_lines(contents)


def _show_table(contents: Contents) -> None:
    table = Table("step", "fingerprint", box=box.SIMPLE_HEAD)
    for name in ("size", "age", "seconds", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in contents.of("artifact"):
        table.add_row(
            Text(_printable(entry.path.parent.name)),
            entry.path.name,
            decimal(entry.size),
            _age(entry.manifest.get("created")),
            f"{float(entry.manifest['seconds']):.1f}",
            str(contents.references[entry.path.name]),
        )
    Console().print(table)
    print(f"{_total(contents.of('artifact'), 'artifact')};", end=" ")
    print(f"no run refers to {_total(contents.unreferenced, 'artifact')}")
    print(f"{_total(contents.of('attempt'), 'attempt')}, unless a run is under way")
    registered, gone = len(contents.of("registration")), len(contents.outlived)
    print(f"{registered} runs registered, {gone} of them gone")
    for run in sorted(contents.unreadable):
        print(f"unreadable: {_printable(run / MANIFEST)}")


def _show_lines(contents: Contents) -> None:
    print("state", "step", "fingerprint", "bytes", "created", "seconds", "runs", sep="\t")
    for entry in contents.of("artifact", "attempt"):
        key = entry.path.name.removeprefix(".tmp-")
        facts: list[object] = [entry.kind, entry.path.parent.name, key, entry.size, "", "", ""]
        if entry.kind == "artifact":
            seconds = f"{float(entry.manifest['seconds']):.3f}"
            facts[4:] = [entry.manifest.get("created", ""), seconds, contents.references[key]]
        print(*map(_printable, facts), sep="\t")


def _age(created: object) -> str:
    """How long ago that was, in the largest unit that fits."""
    try:
        seconds = int((datetime.now(UTC) - datetime.fromisoformat(str(created))).total_seconds())
    except (ValueError, TypeError):
        return "?"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


# --- gc -----------------------------------------------------------------------------------------


def collect(store: Store, options: argparse.Namespace) -> None:
    """Say what no run refers to, ask, and remove it. A run that starts meanwhile waits."""
    with store.alone():
        contents = look(store)
        if contents.unreadable:
            raise InputError(
                f"{_printable(min(contents.unreadable) / MANIFEST)}: unreadable; expected what "
                "the run refers to. Mend it, or remove the run directory"
            )
        for entry in contents.of("unknown"):
            print(f"left, unknown to the store: {_printable(entry.path)}")
        garbage = contents.garbage
        for entry in garbage:
            if entry.kind != "lock":
                where = f"{entry.run} (gone)" if entry.run else entry.path
                print(f"{WORDS[entry.kind]:<20}{decimal(entry.size):>11}  {_printable(where)}")
        worth = [entry for entry in garbage if entry.kind != "lock"]  # empty, and do no harm
        if not worth and not (garbage and options.yes):
            print("nothing to remove")
            return
        sys.stdout.flush()  # what cannot be said, as nobody reads any more, is not done
        if not options.yes:
            _ask(_total(garbage))
        for entry in garbage:
            _remove(entry)
        print(f"removed {_total(garbage)}")


def _ask(what: str) -> None:
    """Return if the answer is yes."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(f"nothing removed: no terminal to ask on; --yes removes {what}")
    try:
        # Not for input() to write: it would ask on standard error.
        print(f"Remove {what}? [y/N] ", end="", flush=True)
        answer = input()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError("nothing removed")


def _remove(entry: Entry) -> None:
    match entry.kind:
        case "artifact" | "attempt":
            discard(entry.path)
        case "replaced" | "damaged":
            shutil.rmtree(entry.path)
        case _:
            entry.path.unlink()


# --- words --------------------------------------------------------------------------------------


def _total(entries: list[Entry], *kinds: Kind) -> str:
    """How many there are of each of the kinds, or of those there are, and the bytes of them all."""
    counts = Counter(entry.kind for entry in entries)
    named = (
        f"{counts[kind]} {word}{'' if counts[kind] == 1 else 's'}"
        for kind, word in WORDS.items()
        if counts[kind] or kind in kinds
    )
    return f"{', '.join(named)} ({decimal(sum(entry.size for entry in entries))})"


def _printable(value: object) -> str:
    """As it is, unless it holds what steers a terminal or cannot be encoded."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


if __name__ == "__main__":
    main()
