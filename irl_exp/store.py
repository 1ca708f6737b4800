"""Content-addressed artifacts: equal work is done once, and half an artifact never looks finished.

The store is a folder::

    <step>/<fingerprint>/         an artifact: what the step wrote, and manifest.json
    <step>/.tmp-<fingerprint>/    an attempt that runs, failed or was killed
    <step>/.lock-<fingerprint>    an empty file, locked by the process that computes
    <step>/.old-*/                what was replaced or given up, about to be removed
    <step>/.damaged-<fingerprint>-*/  what was found not to be as it was written
    .runs/<16 hex of its path>    a registration: a file with the path of a run directory
    .runs/.tmp-*                  a registration that is being written, or was killed
    .lock                         an empty file, the guard: shared by runs, held alone by gc

A step writes into the private ``.tmp-`` folder, its manifest comes last, and one atomic rename
publishes it. A process killed at any moment therefore leaves an artifact or none, never half of
one. For the same reason, what is to go becomes ``.old-`` before the first of its files is removed.

The manifest has the SHA-256 of every file, and of itself. Each process compares them when it first
uses an artifact, and again when size or time of a file have changed; what differs is set aside,
which is said, and computed anew.

Whoever computes shares the guard, and a run does so from its first step to its last: so gc (see
store_cli.py) never takes anything from a run under way. It keeps what the manifests of registered
runs name. By hand, names that start with a dot can be removed whenever no run is under way; but
without ``.runs``, gc finds nothing that any run refers to.

Locks are POSIX record locks: the kernel drops them the moment their process dies, however it dies,
and child processes (the workers of a data loader, say) do not inherit them. They work on local
disks and, across machines, on shared file systems with POSIX locks: NFS (version 4, or 3 with its
lock daemon), Lustre, GPFS. When a whole machine dies, the file server drops its locks after its own
lease. Windows has no such locks and is not supported.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from irl_exp import full_disk
from irl_exp.config import InputError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
GUARD = ".lock"
RUNS = ".runs"


@dataclass(frozen=True)
class Artifact:
    """One finished result of a step.

    Attributes:
        step: the step that wrote it.
        fingerprint: 16 hex digits; equal for equal work.
        path: the folder with what the step wrote, and ``manifest.json``.
        hit: whether it was found, rather than computed by this call.
        seconds: wall-clock seconds that computing it took, whoever did it. After a resume: those
            of the last attempt.
    """

    step: str
    fingerprint: str
    path: Path
    hit: bool
    seconds: float


def fingerprint(identity: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of ``identity`` as canonical JSON.

    Canonical: keys sorted, no white space, ASCII. The order of keys does not matter and a tuple
    equals a list, but the integer 1 and the float 1.0 differ.

    Raises:
        InputError: a number is infinite or not a number.
        TypeError: a value is not plain JSON. A path, for one: its content decides a result, its
            name does not (see `content_digest`).
    """
    text = json.dumps(_plain(identity, "identity"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_digest(path: Path) -> str:
    """The SHA-256, in hex, of a file's bytes or of a folder's tree.

    A folder counts by the names of its files (relative to it) and their bytes, through symbolic
    links; where it lies, times, permissions and empty folders do not count. Files are streamed.

    Raises:
        InputError: the path, or something below it, is missing or cannot be read.
    """
    try:
        if not path.is_dir():
            return _file_digest(path).hex()
        tree = hashlib.sha256()
        for name, file in sorted(_files(path)):
            tree.update(name + b"\0" + _file_digest(file))  # no name holds a zero byte: unambiguous
        return tree.hexdigest()
    except OSError as error:
        raise InputError(
            f"{error.filename or path}: {error.strerror}; expected a readable file or folder"
        ) from error


class Store:
    """Artifacts under one root folder, shared by any number of processes.

    Attributes:
        root: the folder, absolute; created when a run first uses it or computes something.
        hits: how many calls of `fetch` on this object found their artifact.
        misses: how many had to compute it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.hits = 0
        self.misses = 0

    def fetch(
        self,
        step: str,
        identity: Mapping[str, Any],
        compute: Callable[[Path], None],
        rerun: bool = False,
        label: str | None = None,
    ) -> Artifact:
        """The artifact of ``step`` for ``identity``: found if it exists, else computed.

        Processes that ask for the same artifact at the same time wait for the one that computes.

        Args:
            step: the name of the step.
            identity: everything that decides the result, as plain JSON (see `fingerprint`).
            compute: writes the result into the folder it is given. That folder holds whatever an
                earlier attempt at the same identity left when it failed or was killed: resume from
                it or clear it, but do not publish leavings unread. If ``compute`` raises, nothing
                is published, what it wrote stays for the next attempt, and the exception goes on.
            rerun: compute from nothing even if the artifact exists, and replace it. The old one
                stays in its place until the new one is complete.
            label: what the log calls the step, if not by its name.

        Raises:
            InputError: the store cannot be written to or locked, or its disk is full; or see
                `fingerprint`.
            TypeError: see `fingerprint`.
        """
        key = fingerprint(identity)
        folder = self.root / step / key
        seconds = None if rerun else _seconds_if_sound(folder, key)
        if seconds is None:
            if not rerun and (fault := _damage(folder)):
                # Said before anything can go wrong with setting it aside: it may be the cause.
                log.warning("%s %s is damaged (%s), and not used", step, key, fault)
            with self.in_use(), _lock(folder.parent / f".lock-{key}"):
                # Another process may have published it while this one waited.
                seconds = None if rerun else _seconds_if_sound(folder, key)
                if seconds is None:
                    if os.path.lexists(folder) and not rerun:
                        _set_aside(folder)
                    self.misses += 1
                    with full_disk.named(f"store {self.root}"):
                        seconds = _compute(folder, step, identity, compute, rerun, label or step)
                    return Artifact(step, key, folder, hit=False, seconds=seconds)
        self.hits += 1
        return Artifact(step, key, folder, hit=True, seconds=seconds)

    def register(self, run_folder: Path) -> None:
        """Note the directory of a run, so that the store keeps what that run refers to.

        It does so for as long as the directory lies where it is, with the run's manifest in it.
        Registering again changes nothing. Where the store cannot be written to, a warning says so.

        Raises:
            InputError: there is no store, and none can be made.
        """
        run = os.fsencode(run_folder.resolve())
        note = self.root / RUNS / _registration_name(run)
        temporary = note.with_name(f".tmp-{note.name}-{os.getpid()}")
        try:
            if read_registration(note) is not None:
                return
            note.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(run + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, note)
        except OSError as error:
            self._go_on_if_read_only(error, "it does not know of this run")

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `irl-store gc` out while this process works with artifacts; wait while it is in.

        Can be nested and shared by threads. Child processes are not covered. Where the store cannot
        be written to and has no guard yet, a warning says so, and the work goes on unguarded.

        Raises:
            InputError: there is no store, and none can be made; or it cannot be locked.
        """
        path = self.root.resolve() / GUARD
        with _guarding:
            file, users = _guards.get(path) or (self._share(path), 0)
            _guards[path] = file, users + 1
        try:
            yield
        finally:
            with _guarding:
                file, users = _guards.pop(path)
                if users > 1:
                    _guards[path] = file, users - 1
                elif file:
                    file.close()

    def _share(self, path: Path) -> IO[bytes] | None:
        """The guard, open and locked together with other runs; None where none can be made."""
        with contextlib.ExitStack() as stack:
            try:
                if not self.root.exists():
                    self.root.mkdir(parents=True, exist_ok=True)
                # To read is enough for a shared lock: the store may belong to somebody else.
                descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
            except OSError as error:
                self._go_on_if_read_only(error, "irl-store gc will not wait for this run")
                return None
            file = stack.enter_context(os.fdopen(descriptor, "rb"))
            try:
                if not _locked(file, fcntl.LOCK_SH):
                    log.info("store %s: waiting for irl-store gc", self.root)
                    fcntl.lockf(file, fcntl.LOCK_SH)
            except OSError as error:
                raise _unusable(self.root, error) from error
            stack.pop_all()
            return file

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store against every run. Do not call `fetch` or `in_use` meanwhile.

        Raises:
            InputError: a run is under way; or no run has ever used the folder as a store; or it
                cannot be written to or locked.
        """
        path = self.root.resolve() / GUARD
        with _guarding, contextlib.ExitStack() as stack:
            # Looked up first: opening and closing the file would drop this process's own lock.
            free = path not in _guards
            try:
                if free:
                    free = _locked(stack.enter_context(path.open("r+b")), fcntl.LOCK_EX)
            except FileNotFoundError as error:
                raise InputError(
                    f"{self.root}: no {GUARD} in it; expected a store that a run has used"
                ) from error
            except OSError as error:
                raise _unusable(self.root, error) from error
            if not free:
                raise InputError(f"store {self.root}: a run is under way; try again when none is")
            yield

    def _go_on_if_read_only(self, error: OSError, so: str) -> None:
        """Artifacts can be used without the right to write: then a warning is enough."""
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not self.root.is_dir():
            raise _unusable(self.root, error) from error
        log.warning("store %s cannot be written to: %s", self.root, so)


def discard(folder: Path) -> None:
    """Remove an artifact or an attempt; killed at any moment, no half of it looks finished."""
    shutil.rmtree(_step_aside(folder))


def read_manifest(folder: Path, key: str) -> dict[str, Any] | None:
    """The manifest of the finished artifact ``key`` in ``folder``; None if none can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        float(manifest["seconds"])
        return manifest if manifest["fingerprint"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def require_sound(folder: Path) -> None:
    """For whoever reads an artifact, or a copy of one, without `Store.fetch`.

    Folders without an artifact's manifest are not looked at. A copy may leave files out: whoever
    needs them will say so.

    Raises:
        InputError: a file is not as it was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        ours = isinstance(manifest["files"], dict) and "fingerprint" in manifest
    except ValueError:
        fault: str | None = f"{MANIFEST} is not as it was written"
    except (OSError, KeyError, TypeError):
        return
    else:
        fault = _fault(folder, manifest, whole=False) if ours else None
    if fault:
        said = f"expected none changed since, or no {MANIFEST} if that is meant"
        raise InputError(f"{folder}: {fault}; {said}")


def read_registration(note: Path) -> Path | None:
    """The run directory that a registration names; None if ``note`` is not a registration."""
    try:
        run = note.read_bytes().removesuffix(b"\n")
    except (FileNotFoundError, IsADirectoryError):
        return None
    return Path(os.fsdecode(run)) if note.name == _registration_name(run) else None


def _compute(
    folder: Path,
    step: str,
    identity: Mapping[str, Any],
    compute: Callable[[Path], None],
    rerun: bool,
    label: str,
) -> float:
    """Compute in a temporary folder, then publish it as ``folder``. The caller holds the lock."""
    key = folder.name
    attempt = folder.with_name(f".tmp-{key}")
    if os.path.lexists(attempt) and (rerun or not attempt.is_dir()):
        discard(attempt)
    attempt.mkdir(exist_ok=True)

    # A process killed between its manifest and its rename left a complete attempt: publish that.
    seconds = _seconds_if_sound(attempt, key)
    if seconds is None:
        log.info("%s %s: computing", label, key)
        start = time.perf_counter()
        compute(attempt)
        seconds = time.perf_counter() - start
        manifest = {
            "step": step,
            "fingerprint": key,
            "identity": _plain(identity, "identity"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "transformers")},
            "files": {
                os.fsdecode(name): _file_digest(file).hex()
                for name, file in sorted(_files(attempt))
                if name != os.fsencode(MANIFEST)  # of an attempt before
            },
        }
        manifest["checksum"] = _checksum(manifest)
        (attempt / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        # On disk before it is published: else a power cut could leave the name and lose the bytes.
        for _, file in _files(attempt):
            with file.open("rb") as written:
                os.fsync(written.fileno())

    if os.path.lexists(folder):
        # No rename replaces a folder that holds something, so the old one steps aside. Readers keep
        # the files they have open; whoever looks between the two renames waits for the lock.
        old = _step_aside(folder)
        os.rename(attempt, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(attempt, folder)
    return seconds


def _seconds_if_sound(folder: Path, key: str) -> float | None:
    """What computing the artifact in ``folder`` took; None if none is there as it was written."""
    manifest = read_manifest(folder, key)
    return float(manifest["seconds"]) if manifest and _fault(folder, manifest) is None else None


def _damage(folder: Path) -> str | None:
    """Why what lies in ``folder`` is no artifact, or none any more; None if it is one."""
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        return "no folder"
    manifest = read_manifest(folder, folder.name)
    return _fault(folder, manifest) if manifest else f"{MANIFEST} is missing or unreadable"


def _fault(folder: Path, manifest: Mapping[str, Any], whole: bool = True) -> str | None:
    """What of an artifact is not as it was written: changed or, if it is to be whole, missing.
    Older ones do not say how it was."""
    if not {"files", "checksum"} & manifest.keys():
        return None
    try:
        said = _checksum(manifest)
    except InputError:  # of a number that no manifest holds
        said = ""
    if manifest.get("checksum") != said:
        return f"{MANIFEST} is not as it was written"
    for name, digest in manifest["files"].items():
        file = folder / name
        try:
            known = _stamp(file)
            if _compared.get(known) == digest:
                continue
            if _file_digest(file).hex() != digest:
                return f"{name} is not as it was written"
        except FileNotFoundError as error:
            if not whole:
                continue
            return f"{name}: {error.strerror}"
        except OSError as error:
            return f"{name}: {error.strerror}"
        _compared[known] = digest
    return None


def _checksum(manifest: Mapping[str, Any]) -> str:
    """Of all that it says besides."""
    return fingerprint({name: value for name, value in manifest.items() if name != "checksum"})


def _stamp(file: Path) -> tuple[int, ...]:
    """What a file, wherever it lies, keeps for as long as nobody writes to it."""
    info = file.stat()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


# The files that this process has compared: stamp -> digest.
_compared: dict[tuple[int, ...], str] = {}


def _set_aside(folder: Path) -> None:
    """Keep what is no artifact, or none any more, and say where."""
    aside = _renamed(folder, f".damaged-{folder.name}-")
    step = f"{folder.parent.name} {folder.name}"
    log.warning("%s: what is damaged is set aside as %s; computed anew", step, aside)


def _step_aside(folder: Path) -> Path:
    """Rename ``folder`` to what nobody takes for an artifact or an attempt; its new name."""
    return _renamed(folder, ".old-")


def _renamed(path: Path, prefix: str) -> Path:
    """A folder of that prefix, which is now ``path`` or, where that is no folder but a file or a
    link, holds it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    os.rename(path, folder if path.is_dir() and not path.is_symlink() else folder / path.name)
    return folder


def _registration_name(run: bytes) -> str:
    """How the registration of a run directory is called."""
    return hashlib.sha256(run).hexdigest()[:16]


# Record locks belong to the process, so its threads need a lock of their own.
_one_thread = threading.RLock()

# For the same reason, closing any descriptor of a file drops every lock that the process has on it:
# a guard is opened once, for all who use its store, and closed by the last. Path -> (file, users).
_guards: dict[Path, tuple[IO[bytes] | None, int]] = {}
_guarding = threading.Lock()


def _locked(file: IO[Any], kind: int) -> bool:
    """Lock ``file``; False where another process is in the way."""
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # what "locked" is called varies
        return False
    return True


def _unusable(root: Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(
        f"store {root}: {reason}; expected a folder that can be written to and locked"
    )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` alone; wait, and say so, while another process has it."""
    with _one_thread, contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a"))
            if not _locked(file, fcntl.LOCK_EX):
                work = f"{path.parent.name} {path.name.removeprefix('.lock-')}"
                log.info("%s: waiting for another process that computes it", work)
                fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:
            raise _unusable(path.parent.parent, error) from error
        yield


def _plain(value: Any, where: str) -> Any:
    """``value`` rebuilt from JSON's own types; refuses what JSON would change without a word."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise InputError(f"{where}: got {value}, expected a finite number")
            return value
        case list() | tuple():
            return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        case Mapping() if all(isinstance(name, str) for name in value):
            return {name: _plain(item, f"{where}.{name}") for name, item in value.items()}
    raise TypeError(
        f"{where}: got {type(value).__name__} {value!r}, expected plain JSON: strings, finite "
        "numbers, booleans, None, lists, and mappings with strings as keys"
    )


def _files(folder: Path) -> Iterator[tuple[bytes, Path]]:
    """(relative name, path) of every file below ``folder``, through symbolic links."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=refuse, followlinks=True):
        for name in names:
            file = Path(parent, name)
            yield os.fsencode(file.relative_to(folder)), file


def _file_digest(path: Path) -> bytes:
    if path.exists() and not (path.is_file() or path.is_dir()):  # it might never end
        raise InputError(f"{path}: a pipe or a device; expected a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
