"""A file that grows for hours: it appears under its name when it is whole, and work that was
killed goes on where it stopped.

Beside OUT lie meanwhile two files::

    OUT.part        the lines that are finished; locked by the process that writes them
    OUT.part.json   what they belong to: whoever goes on must be about the same

The lock is the kernel's (see store.py): it goes with the process that has it, however that ends.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from irl_exp import full_disk
from irl_exp.config import InputError


class Partial:
    """The lines of OUT.part; see `open_partial`.

    Attributes:
        kept: how many lines an earlier attempt left.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        file.seek(0)
        self.kept = sum(line.endswith(b"\n") for line in file)
        file.seek(0)

    def left(self, count: int) -> list[bytes]:
        """The next `count` of the lines that are kept: those read so far are what stays."""
        return [self.file.readline() for _ in range(count)]

    def write(self, lines: Sequence[str]) -> None:
        """Append whole lines after those that stay; what stood there is gone."""
        self.file.truncate(self.file.tell())
        self.file.write("".join(lines).encode())
        self.file.flush()
        os.fsync(self.file.fileno())


def check_output(out: Path, overwrite: bool) -> None:
    """Raises InputError where `out` could not appear; whoever computes for hours asks before."""
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder, to write {out.name} in")
    if out.is_symlink() or (out.exists() and not out.is_file()):
        raise InputError(f"{out}: not a regular file; expected one, or a new name")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists already; --overwrite replaces it")


@contextmanager
def open_partial(
    out: Path, about: Mapping[str, Any], *, overwrite: bool, restart: bool
) -> Iterator[Partial]:
    """OUT.part, to be read and gone on with; at the end of the `with` it becomes `out`.

    Where the block raises, what is written stays for the next attempt, unless it is nothing.

    Args:
        about: plain JSON that decides the lines. What was left must have been about the same.
        overwrite: whether `out` may exist and be replaced.
        restart: begin anew, whatever was left.

    Raises:
        InputError: another process writes it; what was left is about something else or not ours;
            or `out` has appeared meanwhile; or its disk is full.
    """
    part, note = (out.with_name(out.name + end) for end in (".part", ".part.json"))
    # In this order: closing the file writes what an earlier write found no room for.
    with full_disk.named(out.parent), _locked(part) as file:
        try:
            check_output(out, overwrite)  # who had the lock before may have finished it
            if _size(part):
                _require_same(part, note, about, restart)
            if restart or not _size(part):
                file.truncate(0)
                _replace(note, json.dumps(about, indent=2) + "\n")
            partial = Partial(file)
            yield partial
            partial.write([])  # nothing is left behind the lines that stay
            check_output(out, overwrite)
            os.replace(part, out)
            note.unlink()
        except BaseException:
            if part.exists() and not _size(part):
                part.unlink()
                note.unlink(missing_ok=True)
            raise


def _locked(part: Path) -> BinaryIO:
    """OUT.part, open and locked."""
    # Not in mode "a": lines are written where those that stay end.
    file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had the lock before may have given the file its last name in between.
        if not part.exists() or not os.path.samestat(part.stat(), os.fstat(file.fileno())):
            raise BlockingIOError
    except (BlockingIOError, PermissionError) as error:  # what "locked" is called varies
        file.close()
        raise InputError(f"{part}: another process is writing it") from error
    return file


def _size(part: Path) -> int:
    """Bytes, without opening it: closing it again would drop the lock."""
    return part.stat().st_size


def _require_same(part: Path, note: Path, about: Mapping[str, Any], restart: bool) -> None:
    try:
        before = dict(json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        said = f"{note.name}, which says of what it is a part, can't be read"
        raise InputError(f"{part}: {said}; expected both files, or none") from error
    changed = [name for name in about if before.get(name) != about[name]]
    if changed and not restart:
        said = f"was begun with another {', '.join(changed)}; remove it, or pass --restart"
        raise InputError(f"{part}: {said}")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
