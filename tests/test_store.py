"""The store: real processes race, die and resume; digests and fingerprints have known answers."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import irl_exp.store
from irl_exp.config import InputError
from irl_exp.store import Artifact, Store, content_digest, fingerprint, read_registration

IDENTITY = {"seed": 0}

# Another process that fetches the same artifact. Its compute says so, leaves a checkpoint, starts a
# child that outlives it (as the workers of a data loader may) and then waits for a line on stdin.
WORKER = """
import logging, os, sys, time
from pathlib import Path
from irl_exp.store import Store

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)

def compute(path):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    (path / "checkpoint").write_text("half")
    (path / "result").write_text("theirs")
    print("child", child, flush=True)
    sys.stdin.readline()
    os.kill(child, 9)

print("hit", Store(Path(sys.argv[1])).fetch("pretrain", {"seed": 0}, compute).hit, flush=True)
"""


def start(root: Path, script: str = WORKER) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, str(root)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"the process ended without a line with {word!r}")


def writes(text: str) -> Callable[[Path], None]:
    def compute(path: Path) -> None:
        (path / "result").write_text(text)

    return compute


def fail(path: Path) -> None:
    (path / "checkpoint").write_text("half")
    raise RuntimeError("no luck")


def never(path: Path) -> None:
    raise AssertionError("computed again")


def result(artifact: Artifact) -> str:
    return (artifact.path / "result").read_text()


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


# Fetch: hits, misses, manifest


def test_the_second_fetch_is_a_hit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.fetch("pretrain", IDENTITY, writes("mine"))
    second = store.fetch("pretrain", IDENTITY, never)
    assert (first.hit, second.hit) == (False, True)
    assert first.path == second.path == tmp_path / "pretrain" / fingerprint(IDENTITY)
    assert first.seconds == second.seconds >= 0  # a hit reads it from the manifest
    assert result(second) == "mine"
    store.fetch("pretrain", {"seed": 1}, writes("other"))
    store.fetch("align", IDENTITY, writes("another step"))
    assert (store.hits, store.misses) == (1, 3)


def test_the_manifest_says_what_was_computed_and_names_no_machine(tmp_path: Path) -> None:
    artifact = Store(tmp_path).fetch("pretrain", {"b": (1, 2), "a": None}, writes("mine"))
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert manifest["step"] == "pretrain"
    assert manifest["fingerprint"] == artifact.fingerprint
    assert manifest["identity"] == {"a": None, "b": [1, 2]}
    assert manifest["seconds"] == artifact.seconds
    assert manifest["created"].endswith("+00:00")
    assert set(manifest["versions"]) == {"python", "torch", "transformers"}
    assert manifest["files"] == {"result": sha256(b"mine").hexdigest()}
    assert len(manifest) == 8


def test_an_exception_publishes_nothing_and_leaves_its_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="no luck"):
        store.fetch("pretrain", IDENTITY, fail)
    assert visible(tmp_path / "pretrain") == []

    def resume(path: Path) -> None:
        (path / "result").write_text((path / "checkpoint").read_text() + " and the rest")

    artifact = store.fetch("pretrain", IDENTITY, resume)
    assert not artifact.hit
    assert result(artifact) == "half and the rest"


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "null", "{}", '{"fingerprint": "other", "seconds": 1.0}']
)
def test_a_broken_manifest_is_never_a_hit(tmp_path: Path, manifest: str) -> None:
    store = Store(tmp_path)
    broken = store.fetch("pretrain", IDENTITY, writes("broken"))
    (broken.path / "manifest.json").write_text(manifest)
    again = store.fetch("pretrain", IDENTITY, writes("whole"))
    assert (again.hit, result(again)) == (False, "whole")
    assert store.fetch("pretrain", IDENTITY, never).hit
    assert [(aside / "result").read_text() for aside in damaged(tmp_path)] == ["broken"]


def damaged(root: Path) -> list[Path]:
    return sorted(root.glob("pretrain/.damaged-*"))


def nested(path: Path) -> None:
    (path / "result").write_bytes(bytes(range(64)))
    (path / "inside").mkdir()
    (path / "inside" / "é").write_bytes(b"\0\xff")


def test_every_flipped_byte_is_found_set_aside_and_computed_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = Store(tmp_path).fetch("pretrain", IDENTITY, nested)
    sound = {file: file.read_bytes() for file in artifact.path.rglob("*") if file.is_file()}
    assert len(sound) == 3
    for file, place in [(f, place) for f in sound for place in range(len(sound[f]))]:
        data = bytearray(sound[file])
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
        caplog.clear()
        store = Store(tmp_path)
        if store.fetch("pretrain", IDENTITY, nested).hit:  # the word is another, not what it says
            assert file.name == "manifest.json"
            assert json.loads(data) == json.loads(sound[file])
        else:
            [aside] = damaged(tmp_path)
            assert (aside / file.relative_to(artifact.path)).read_bytes() == data
            assert "is damaged (" in caplog.text and str(aside) in caplog.text
            assert store.fetch("pretrain", IDENTITY, never).hit
            shutil.rmtree(aside)
        for path, whole in sound.items():
            path.write_bytes(whole)


@pytest.mark.parametrize("harm", ["truncated", "missing", "a folder"])
def test_files_that_are_not_whole_are_found(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = Store(tmp_path).fetch("pretrain", IDENTITY, nested)
    file = artifact.path / "result"
    data = file.read_bytes()
    file.unlink()
    if harm == "truncated":
        file.write_bytes(data[:-1])
    elif harm == "a folder":
        file.mkdir()
    assert not Store(tmp_path).fetch("pretrain", IDENTITY, nested).hit
    assert f"pretrain {artifact.fingerprint} is damaged (result" in caplog.text
    assert len(damaged(tmp_path)) == 1


def test_what_was_compared_is_not_read_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = Store(tmp_path).fetch("pretrain", IDENTITY, writes("mine"))
    (artifact.path / "left by somebody").touch()  # is nothing that anybody reads
    reads = []

    def digest(file: Path) -> bytes:
        reads.append(file.name)
        return sha256(file.read_bytes()).digest()

    monkeypatch.setattr(irl_exp.store, "_file_digest", digest)
    for _ in range(3):
        assert Store(tmp_path).fetch("pretrain", IDENTITY, never).hit
    assert reads == ["result"]
    os.utime(artifact.path / "result")
    assert Store(tmp_path).fetch("pretrain", IDENTITY, never).hit
    assert reads == ["result", "result"]


def test_an_artifact_of_a_version_without_digests_is_used_as_it_is(tmp_path: Path) -> None:
    artifact = Store(tmp_path).fetch("pretrain", IDENTITY, writes("mine"))
    path = artifact.path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"], manifest["checksum"]
    path.write_text(json.dumps(manifest))
    assert Store(tmp_path).fetch("pretrain", IDENTITY, never).hit


def test_an_attempt_that_lost_bytes_is_not_published(tmp_path: Path) -> None:
    """As after a power cut between a manifest and its rename."""
    artifact = Store(tmp_path).fetch("pretrain", IDENTITY, writes("mine"))
    attempt = artifact.path.rename(artifact.path.with_name(f".tmp-{artifact.fingerprint}"))
    (attempt / "result").write_text("")
    again = Store(tmp_path).fetch("pretrain", IDENTITY, writes("again"))
    assert (again.hit, result(again)) == (False, "again")


def test_an_artifact_folder_without_manifest_is_never_a_hit(tmp_path: Path) -> None:
    (tmp_path / "pretrain" / fingerprint(IDENTITY)).mkdir(parents=True)
    assert not Store(tmp_path).fetch("pretrain", IDENTITY, writes("mine")).hit


def occupy(place: Path, what: str) -> None:
    place.parent.mkdir(parents=True)
    if what == "a file":
        place.touch()
    elif what == "a link to nothing":
        place.symlink_to(place.parent.parent / "nowhere")
    else:
        elsewhere = place.parent.parent / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "mine").touch()
        place.symlink_to(elsewhere)


@pytest.mark.parametrize("what", ["a file", "a link to nothing", "a link to a folder"])
def test_what_is_no_artifact_but_has_its_name_is_set_aside(tmp_path: Path, what: str) -> None:
    place = tmp_path / "pretrain" / fingerprint(IDENTITY)
    occupy(place, what)
    was = place.is_symlink() and place.readlink()
    computed = Store(tmp_path).fetch("pretrain", IDENTITY, writes("mine"))
    assert (computed.hit, result(computed)) == (False, "mine")
    [aside] = damaged(tmp_path)
    kept = aside / place.name
    assert kept.readlink() == was if was else kept.is_file()
    assert what != "a link to a folder" or (tmp_path / "elsewhere" / "mine").exists()


@pytest.mark.parametrize("what", ["a file", "a link to nothing", "a link to a folder"])
@pytest.mark.parametrize("name", ["", ".tmp-"])
def test_rerun_replaces_what_is_no_artifact(tmp_path: Path, what: str, name: str) -> None:
    place = tmp_path / "pretrain" / f"{name}{fingerprint(IDENTITY)}"
    occupy(place, what)
    computed = Store(tmp_path).fetch("pretrain", IDENTITY, writes("mine"), rerun=True)
    assert result(computed) == "mine"
    assert computed.path.is_dir() and not computed.path.is_symlink()
    assert what != "a link to a folder" or (tmp_path / "elsewhere" / "mine").exists()


def test_rerun_starts_from_nothing_and_replaces_the_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = store.fetch("pretrain", IDENTITY, writes("old"))
    reader = (old.path / "result").open()
    with pytest.raises(RuntimeError):
        store.fetch("pretrain", IDENTITY, fail, rerun=True)
    assert store.fetch("pretrain", IDENTITY, never).hit  # the old one is still there

    def compute(path: Path) -> None:
        assert not list(path.iterdir())  # not even the checkpoint of the failed rerun
        assert result(old) == "old"
        (path / "result").write_text("new")

    new = store.fetch("pretrain", IDENTITY, compute, rerun=True)
    assert (new.hit, new.path, result(new)) == (False, old.path, "new")
    with reader:
        assert reader.read() == "old"
    assert (store.hits, store.misses) == (1, 3)
    assert sorted(path.name for path in new.path.parent.iterdir()) == [
        f".lock-{new.fingerprint}",
        new.fingerprint,
    ]


def test_a_store_that_cannot_be_written_to_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"store .*file: .*Not a directory.*expected a folder"):
        Store(tmp_path / "file").fetch("pretrain", IDENTITY, writes("mine"))


# Several processes, and their deaths


def test_of_two_processes_one_computes_and_the_other_waits(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        read_until(first, "child")
        with start(tmp_path) as second:
            assert second.stdin is not None
            second.stdin.close()  # so that it would not wait if it computed
            read_until(second, f"pretrain {fingerprint(IDENTITY)}: waiting for another process")
            assert visible(tmp_path / "pretrain") == []
            first.communicate("go on\n")
            assert read_until(second, "hit") == "hit True\n"
    assert Store(tmp_path).fetch("pretrain", IDENTITY, never).hit


def test_threads_of_one_process_wait_for_each_other_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    started = threading.Event()

    def slow(path: Path) -> None:
        started.set()
        time.sleep(0.1)
        (path / "result").write_text("mine")

    thread = threading.Thread(target=store.fetch, args=("pretrain", IDENTITY, slow))
    thread.start()
    started.wait()
    assert result(store.fetch("pretrain", IDENTITY, never)) == "mine"
    thread.join()


def test_the_lock_of_a_killed_process_is_taken_over_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with start(tmp_path) as killed:
        child = int(read_until(killed, "child").split()[1])
        killed.kill()
        killed.wait()
    assert visible(tmp_path / "pretrain") == []

    def resume(path: Path) -> None:
        assert (path / "checkpoint").read_text() == "half"
        (path / "result").write_text("mine")

    begin = time.monotonic()
    artifact = Store(tmp_path).fetch("pretrain", IDENTITY, resume)
    assert time.monotonic() - begin < 10  # the killed process left a child that lives for 60 s
    assert (artifact.hit, result(artifact)) == (False, "mine")
    assert "waiting" not in caplog.text
    os.kill(child, signal.SIGKILL)


def test_a_rerun_killed_while_it_publishes_loses_no_work(tmp_path: Path) -> None:
    old = Store(tmp_path).fetch("pretrain", IDENTITY, writes("old"))
    # Dies at its second rename: the old artifact is out of the way, the new one not yet in place.
    script = """
import os, sys
from pathlib import Path
from irl_exp.store import Store
rename, calls = os.rename, []

def rename_once(source, target):
    if calls:
        os.kill(os.getpid(), 9)
    calls.append(rename(source, target))

os.rename = rename_once
Store(Path(sys.argv[1])).fetch(
    "pretrain", {"seed": 0}, lambda path: (path / "result").write_text("new"), rerun=True
)
"""
    with start(tmp_path, script) as killed:
        assert killed.wait() == -signal.SIGKILL
    assert not old.path.exists()
    recovered = Store(tmp_path).fetch("pretrain", IDENTITY, never)
    assert (recovered.hit, result(recovered)) == (False, "new")


def test_a_rerun_killed_while_it_clears_a_finished_attempt_publishes_no_half(
    tmp_path: Path,
) -> None:
    artifact = Store(tmp_path).fetch("pretrain", IDENTITY, writes("old"))
    # What a process leaves that dies between its manifest and its rename. So many files, that the
    # manifest is not the first that goes.
    attempt = artifact.path.rename(artifact.path.with_name(f".tmp-{artifact.fingerprint}"))
    for i in range(30):
        (attempt / f"file {i}").touch()
    # Dies when it is the manifest's turn.
    script = """
import os, sys
from pathlib import Path
from irl_exp.store import Store

def die(event, arguments):
    if event == "os.remove" and Path(arguments[0]).name == "manifest.json":
        os.kill(os.getpid(), 9)

sys.addaudithook(die)
Store(Path(sys.argv[1])).fetch("pretrain", {"seed": 0}, lambda path: None, rerun=True)
"""
    with start(tmp_path, script) as killed:
        assert killed.wait() == -signal.SIGKILL
    again = Store(tmp_path).fetch("pretrain", IDENTITY, writes("new"))
    assert (again.hit, result(again)) == (False, "new")


# Registrations


def test_a_registration_is_a_file_with_the_path_of_the_run(tmp_path: Path) -> None:
    store, run = Store(tmp_path / "store"), tmp_path / os.fsdecode(b"caf\xe9\n")
    run.mkdir()
    (tmp_path / "link").symlink_to(run)
    store.register(tmp_path / "link")
    path = os.fsencode(run.resolve())
    [note] = (store.root / ".runs").iterdir()
    assert note.name == sha256(path).hexdigest()[:16]
    assert note.read_bytes() == path + b"\n"
    assert read_registration(note) == run.resolve()


def test_registering_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    store.register(tmp_path / "run")
    [note] = (store.root / ".runs").iterdir()
    before = note.stat()
    monkeypatch.chdir(tmp_path)
    store.register(Path("run"))
    assert list((store.root / ".runs").iterdir()) == [note]
    assert (note.stat().st_ino, note.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_is_no_registration_names_no_run_and_is_mended(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.register(tmp_path / "run")
    [note] = (store.root / ".runs").iterdir()
    whole = note.read_bytes()
    for broken in (b"", whole[:-2], b"/elsewhere\n"):
        note.write_bytes(broken)
        assert read_registration(note) is None
        store.register(tmp_path / "run")
        assert note.read_bytes() == whole
    assert read_registration(tmp_path / "nothing") is None
    assert read_registration(tmp_path) is None


# The guard: who is alone, and who is not

# Another process that uses the store until a line comes.
RUN = """
import logging, sys
from pathlib import Path
from irl_exp.store import Store

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
with Store(Path(sys.argv[1])).in_use():
    print("in use", flush=True)
    sys.stdin.readline()
"""

ALONE = """
import sys
from pathlib import Path
from irl_exp.config import InputError
from irl_exp.store import Store

try:
    with Store(Path(sys.argv[1])).alone():
        print("alone")
except InputError as error:
    print(error)
"""


def is_free(root: Path) -> bool:
    """Whether another process can have the store alone now."""
    with start(root, ALONE) as process:
        said = process.communicate()[0].strip()
    assert said in ("alone", f"store {root}: a run is under way; try again when none is")
    return said == "alone"


def test_runs_share_the_store_and_nobody_is_alone_until_the_last_is_over(tmp_path: Path) -> None:
    with start(tmp_path, RUN) as first, start(tmp_path, RUN) as second:
        read_until(first, "in use")
        read_until(second, "in use")
        assert not is_free(tmp_path)
        first.communicate("go on\n")
        assert not is_free(tmp_path)
        second.communicate("go on\n")
    assert is_free(tmp_path)


def test_a_killed_run_uses_nothing(tmp_path: Path) -> None:
    with start(tmp_path, RUN) as run:
        read_until(run, "in use")
        run.kill()
    assert is_free(tmp_path)


def test_a_run_waits_for_who_is_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.in_use():
        pass
    with store.alone():
        run = start(tmp_path, RUN)
        read_until(run, f"store {tmp_path}: waiting for irl-store gc")
        assert run.poll() is None
    with run:
        read_until(run, "in use")
        run.communicate("go on\n")


def test_a_process_keeps_the_store_until_its_outermost_use_is_over(tmp_path: Path) -> None:
    """The kernel would drop the lock with the first descriptor that any of them closes."""
    root = tmp_path / "store"
    (tmp_path / "link").symlink_to(root)
    with Store(root).in_use():
        with Store(root).in_use(), Store(tmp_path / "link").in_use():
            pass
        assert not is_free(root)
        Store(root).fetch("pretrain", IDENTITY, writes("mine"))
        Store(root).register(tmp_path)
        assert not is_free(root)
        with pytest.raises(InputError, match="a run is under way"), Store(root).alone():
            pass
        assert not is_free(root)
    assert is_free(root)
    with Store(root).in_use():  # the next job of a multirun
        assert not is_free(root)


def test_who_computes_is_not_alone_with_the_store(tmp_path: Path) -> None:
    def compute(path: Path) -> None:
        assert not is_free(tmp_path)

    assert not Store(tmp_path).fetch("pretrain", IDENTITY, compute).hit
    assert is_free(tmp_path)


def test_what_no_run_has_used_is_no_store_to_be_alone_with(tmp_path: Path) -> None:
    said = r"no \.lock in it; expected a store"
    with pytest.raises(InputError, match=said), Store(tmp_path).alone():
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def reader() -> Iterator[Path]:
    """A folder in which this process cannot write once its mode forbids it, not even as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        if os.getuid() == 0:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*/")):
            path.chmod(0o755)


def forbid_writing(folder: Path) -> None:
    for path in (*folder.rglob("*/"), folder):
        path.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(65534)


def test_artifacts_can_be_used_where_nothing_can_be_written(
    reader: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Store(reader).fetch("pretrain", IDENTITY, writes("mine"))
    forbid_writing(reader)
    store = Store(reader)
    with store.in_use():
        store.register(reader)
        assert store.fetch("pretrain", IDENTITY, never).hit
        # The guard that was there is shared as ever.
        if os.getuid() == 0:
            os.seteuid(0)
        assert not is_free(reader)
    said = f"store {reader} cannot be written to: it does not know of this run"
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [said]


def test_without_a_guard_a_warning_is_enough(
    reader: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Store(reader).fetch("pretrain", IDENTITY, writes("mine"))
    (reader / ".lock").unlink()
    forbid_writing(reader)
    with Store(reader).in_use():
        assert Store(reader).fetch("pretrain", IDENTITY, never).hit
    said = f"store {reader} cannot be written to: irl-store gc will not wait for this run"
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [said]
    refused = r"Permission denied.*expected a folder"
    with pytest.raises(InputError, match=refused):
        Store(reader).fetch("pretrain", {"seed": 1}, never)
    with pytest.raises(InputError, match=refused), Store(reader / "new").in_use():
        pass


# Fingerprints


def test_the_fingerprint_is_the_hash_of_canonical_json() -> None:
    identity = {"b": [1, 2.5, True, None], "a": {"y": "ß", "x": ()}}
    canonical = rb'{"a":{"x":[],"y":"\u00df"},"b":[1,2.5,true,null]}'
    assert fingerprint(identity) == sha256(canonical).hexdigest()[:16]


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}, True),
        ({"a": (1, 2)}, {"a": [1, 2]}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {}, False),
    ],
)
def test_fingerprints_are_equal_for_equal_content(
    left: dict[str, Any], right: dict[str, Any], equal: bool
) -> None:
    assert (fingerprint(left) == fingerprint(right)) is equal


@pytest.mark.parametrize("value", [Path("model"), {1: "a"}, {"set"}, b"bytes", object()])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"identity\.model\[1\]: got .* expected plain JSON"):
        fingerprint({"model": ["neox", value]})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"identity\.solver\.margin: got (nan|inf)"):
        fingerprint({"solver": {"margin": value}})


# Digests


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_digest_of_a_file_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "comments.csv").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    assert content_digest(tmp_path / "comments.csv") == expected


def test_the_digest_of_a_folder_ignores_where_and_when_it_was_written(tmp_path: Path) -> None:
    files = {"config.json": "{}", "weights/a.bin": "1", "weights/b.bin": "2"}
    here = tree(tmp_path / "here", files)
    there = tree(tmp_path / "far" / "away", dict(reversed(files.items())))
    os.utime(there / "config.json", (0, 0))
    (there / "empty").mkdir()
    linked = tmp_path / "linked"  # as the hub's cache lays out a checkpoint
    linked.mkdir()
    (linked / "config.json").symlink_to(here / "config.json")
    (linked / "weights").symlink_to(here / "weights")
    assert content_digest(here) == content_digest(there) == content_digest(linked)


@pytest.mark.parametrize(
    "files",
    [
        {"a": "1", "b": "3"},  # other content
        {"a": "1", "c": "2"},  # another name
        {"a": "2", "b": "1"},  # contents exchanged
        {"a": "12", "b": ""},  # a border moved
        {"a": "1"},
        {"a": "1", "d/b": "2"},
    ],
)
def test_the_digest_of_a_folder_depends_on_names_and_content(
    tmp_path: Path, files: dict[str, str]
) -> None:
    original = tree(tmp_path / "original", {"a": "1", "b": "2"})
    changed = tree(tmp_path / "changed", files)
    assert content_digest(original) != content_digest(changed)


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: No such file or directory; expected"):
        content_digest(tmp_path / "nowhere")
    folder = tree(tmp_path / "folder", {"a": "1"})
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="gone: No such file"):
        content_digest(folder)


def test_an_artifact_can_be_copied_to_another_store(tmp_path: Path) -> None:
    artifact = Store(tmp_path / "one").fetch("pretrain", IDENTITY, writes("mine"))
    shutil.copytree(artifact.path, tmp_path / "two" / "pretrain" / artifact.fingerprint)
    assert Store(tmp_path / "two").fetch("pretrain", IDENTITY, never).hit
