"""A folder or a hub id becomes a folder and an identity: online, from the cache, or in one line.

The library takes its settings from the environment when it is imported, so each look at the hub is
a process of its own. What it looks at is a small server on this machine.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from irl_exp import hub
from irl_exp.config import InputError
from tests.materials import write_hub_cache

MODEL, DATA = "org/model", "org/data"
ONE, TWO = "1" * 40, "2" * 40
CONFIG = {"config.json": b"{}", "tokenizer.json": b"{}", "vocab.txt": b"a", "spiece.model": b"b"}
PICKLE = {"pytorch_model.bin": b"pickle", "pytorch_model-00001-of-00002.bin": b"one"}
OTHER = {
    "modeling.py": b"raise SystemExit('executed')",
    "README.md": b"a card",
    "onnx/model.onnx": b"x",
    "onnx/config.json": b"{}",
    "original/model.safetensors": b"x",
    "tf_model.h5": b"x",
    "flax_model.msgpack": b"x",
    "training_args.bin": b"x",
}
WEIGHTS = {"model.safetensors": b"weights"}
TABLES = {"README.md": b"a card", "data/train-00000-of-00001.parquet": b"p", "test.jsonl.gz": b"j"}

LOOK = """
import json, sys
from irl_exp import hub
from irl_exp.config import InputError

path, revision, kind, fetch, patience = json.loads(sys.argv[1])
hub.PATIENCE = patience
try:
    source = hub.resolve(path, revision, kind)
    found = source.identity
    if fetch:
        folder = source.folder()
        files = [str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()]
        found |= {"folder": str(folder), "files": sorted(files)}
    print(json.dumps(found))
except InputError as error:
    print(json.dumps({"error": str(error)}))
"""


class Hub(ThreadingHTTPServer):
    """Repositories: (kind, id) -> revision -> (commit, files); what was asked is kept."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.repositories: dict[tuple[str, str], dict[str, tuple[str, dict[str, bytes]]]] = {}
        self.refuse: Callable[[str], tuple[int, dict[str, str]] | None] = lambda path: None
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Requests(BaseHTTPRequestHandler):
    """What the library asks of the hub: a commit, a list of files, a file."""

    server: Hub

    def do_GET(self) -> None:
        path = re.fullmatch(
            r"/(?P<api>api/)?(?P<kind>models/|datasets/)?(?P<id>\w+/\w+)"
            r"(/(?P<what>revision|tree|resolve)/(?P<revision>\w+))?(/(?P<file>.*))?",
            self.path.partition("?")[0],
        )
        if not path:  # what the library asks on its own account
            return self._answer(404, b"")
        self.server.asked.append(f"{self.command} {path[0]}")
        if refused := self.server.refuse(path[0]):
            return self._answer(refused[0], b"", refused[1])
        kind = "dataset" if path["kind"] == "datasets/" else "model"
        repository = self.server.repositories.get((kind, path["id"]))
        if repository is None:
            return self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        commit = path["revision"] or "main"
        commit = repository[commit][0] if commit in repository else commit
        files = dict(repository.values()).get(commit)
        if files is None:
            return self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if path["what"] == "tree":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                for name, data in files.items()
            ]
            return self._answer(200, json.dumps(tree).encode())
        if path["what"] == "resolve":
            data = files[path["file"]]
            return self._answer(200, data, {"ETag": _etag(data), "X-Repo-Commit": commit})
        return self._answer(200, json.dumps({"id": path["id"], "sha": commit}).encode())

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def server() -> Iterator[Hub]:
    server = Hub()
    server.repositories = {
        ("model", MODEL): {"main": (ONE, CONFIG | WEIGHTS | PICKLE | OTHER)},
        ("dataset", DATA): {"main": (ONE, TABLES | {"data.py": b"x", "images/a.png": b"x"})},
    }
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def look(tmp_path: Path, server: Hub) -> Callable[..., dict[str, Any]]:
    """look(path, …): what a new process finds, with a cache in tmp_path / "hub"."""

    def look(
        path: str = MODEL,
        revision: str | None = None,
        kind: str = "model",
        fetch: bool = False,
        patience: float = 10.0,
        **settings: str,
    ) -> dict[str, Any]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": server.url, "NO_PROXY": "127.0.0.1"}
        arguments = json.dumps([path, revision, kind, fetch, patience])
        done = subprocess.run(
            [sys.executable, "-c", LOOK, arguments],
            env={**env, "PYTHONPATH": os.pathsep.join(sys.path), **settings},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "HF_HUB_OFFLINE" not in settings or done.stderr == ""
        found: dict[str, Any] = json.loads(done.stdout)
        assert "\n" not in found.get("error", "")
        return found

    return look


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# --- folders ------------------------------------------------------------------------------------


def test_a_folder_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "org" / "model"
    here.mkdir()
    (here / "config.json").write_text("{}")
    shutil.copytree(here, there)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    sources = [hub.resolve(path, None, "model") for path in (str(here), "org/model", "~/here")]
    assert [source.folder().resolve() for source in sources] == [here, there, here]
    first = sources[0].identity
    assert [source.identity for source in sources] == [first] * 3
    assert first["revision"] is None
    (there / "config.json").write_text("{ }")
    assert sources[1].identity != first


@pytest.mark.parametrize(
    ("path", "revision", "message"),
    [
        ("./nowhere", None, "./nowhere: no such folder, and no hub id"),
        ("a/b/c", None, "a/b/c: no such folder, and no hub id"),
        ("../org", None, "../org: no such folder, and no hub id"),
        ("", None, ": no such folder, and no hub id"),
        ("file.csv", None, "file.csv: a file; expected a folder or a hub id"),
        ("folder", "v1", "folder: a folder has no revision v1; expected null"),
    ],
)
def test_what_is_neither_a_folder_nor_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, revision: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.csv").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        hub.resolve(path, revision, "model")
    assert str(refused.value).startswith(message)


# --- online -------------------------------------------------------------------------------------


def test_an_identity_is_an_id_and_a_commit_for_one_request(
    look: Callable[..., dict[str, Any]], server: Hub, tmp_path: Path
) -> None:
    assert look() == {"path": MODEL, "revision": ONE}
    assert server.asked == [f"GET /api/models/{MODEL}"]
    assert not list(tmp_path.rglob("*.safetensors"))
    # A commit needs none.
    assert look(revision=ONE) == {"path": MODEL, "revision": ONE}
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("kind", "files", "expected"),
    [
        ("model", CONFIG | WEIGHTS | PICKLE | OTHER, {*CONFIG, *WEIGHTS}),
        ("model", CONFIG | PICKLE | OTHER, {*CONFIG, *PICKLE}),
        ("dataset", TABLES | {"data.py": b"x", "a/b.png": b"x"}, {*TABLES}),
    ],
)
def test_no_more_is_fetched_than_is_read(
    look: Callable[..., dict[str, Any]],
    server: Hub,
    tmp_path: Path,
    kind: str,
    files: dict[str, bytes],
    expected: set[str],
) -> None:
    server.repositories[kind, MODEL] = {"main": (ONE, files)}
    found = look(kind=kind, fetch=True)
    assert found["folder"] == str(tmp_path / "hub" / f"{kind}s--org--model" / "snapshots" / ONE)
    assert found["files"] == sorted(expected)
    for name in expected:
        assert Path(found["folder"], name).read_bytes() == files[name]


def test_a_branch_that_moves_is_another_model(
    look: Callable[..., dict[str, Any]], server: Hub
) -> None:
    first = look(fetch=True)
    repository = server.repositories["model", MODEL]
    repository |= {"v1": repository["main"], "main": (TWO, CONFIG | {"model.safetensors": b"new"})}
    second = look(fetch=True)
    assert (first["revision"], second["revision"]) == (ONE, TWO)
    assert Path(second["folder"], "model.safetensors").read_bytes() == b"new"
    for revision in ("v1", ONE):
        assert look(revision=revision, fetch=True) == first


# --- offline ------------------------------------------------------------------------------------


def test_the_cache_is_enough(look: Callable[..., dict[str, Any]], server: Hub) -> None:
    online = look(fetch=True)
    asked = len(server.asked)
    assert look(fetch=True, HF_HUB_OFFLINE="1") == online
    assert look(fetch=True, HF_ENDPOINT=closed_port()) == online
    assert look(fetch=True, revision=ONE, HF_ENDPOINT=closed_port()) == online
    server.refuse = lambda path: (503, {})
    assert look(fetch=True) == online
    assert all(request.startswith("GET /api") for request in server.asked[asked:])


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_cache_that_other_programs_filled(
    look: Callable[..., dict[str, Any]], tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_hub_cache(tmp_path / "hub", f"{kind}s--org--mine", TWO, folder)
    found = look("org/mine", kind=kind, fetch=True, HF_HUB_OFFLINE="1")
    assert (found["path"], found["revision"], found["files"]) == ("org/mine", TWO, ["config.json"])


def test_half_a_copy_is_refused(look: Callable[..., dict[str, Any]]) -> None:
    Path(look(fetch=True)["folder"], "tokenizer.json").unlink()
    assert (
        f"revision {ONE} of that hub id is only in part in"
        in (look(fetch=True, HF_HUB_OFFLINE="1")["error"])
    )
    assert "tokenizer.json" in look(fetch=True)["files"]


@pytest.mark.parametrize("revision", [None, "v1", ONE])
def test_what_is_neither_cached_nor_reached(
    look: Callable[..., dict[str, Any]], tmp_path: Path, revision: str | None
) -> None:
    where = f"revision {revision or 'main'} of that hub id is not in {tmp_path / 'hub'}"
    for settings, reason in (
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set)"),
        ({"HF_ENDPOINT": closed_port()}, "Connection refused)"),
    ):
        found = look(revision=revision, fetch=True, **settings)["error"]
        said = f"{MODEL}: no such folder, {where}, and the hub cannot be reached ("
        assert found.startswith(said) and found.endswith(reason)


@pytest.mark.parametrize("revision", [None, ONE])
def test_a_hub_that_says_nothing_is_left(
    look: Callable[..., dict[str, Any]], revision: str | None
) -> None:
    """By itself the library waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        found = look(revision=revision, fetch=True, patience=0.3, HF_ENDPOINT=url)
    assert "the hub cannot be reached (timed out)" in found["error"]


# --- refusals -----------------------------------------------------------------------------------

TOKEN = "set HF_TOKEN, or log in with `hf auth login`"
NONE = "no such repository on the hub"


@pytest.mark.parametrize(
    ("path", "revision", "message"),
    [
        ("org/none", None, f"org/none: no such folder, and {NONE}; if it is private, {TOKEN}"),
        (MODEL, "v9", f"{MODEL}: the repository has no revision v9"),
        (MODEL, "3" * 40, f"{MODEL}: the repository has no revision {'3' * 40}"),
        ("a--b", None, "a--b: cannot be read from the hub: "),
    ],
)
def test_what_is_not_there(
    look: Callable[..., dict[str, Any]], path: str, revision: str | None, message: str
) -> None:
    assert look(path, revision, fetch=True)["error"].startswith(message)


@pytest.mark.parametrize(
    ("place", "status", "headers", "message"),
    [
        ("/resolve/", 403, {"X-Error-Code": "GatedRepo"}, "gated: accept its terms at {url}/"),
        ("/tree/", 401, {"X-Error-Code": "GatedRepo"}, "gated: accept its terms at {url}/"),
        ("/api/", 403, {"X-Error-Message": "your token may not"}, "403 Forbidden: your token may"),
        ("/api/", 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "401"),
    ],
)
def test_what_needs_credentials(
    look: Callable[..., dict[str, Any]],
    server: Hub,
    place: str,
    status: int,
    headers: dict[str, str],
    message: str,
) -> None:
    server.refuse = lambda path: (status, headers) if place in path else None
    found = look(fetch=True)["error"]
    assert message.format(url=server.url) in found
    assert found.endswith(TOKEN)


def test_a_cache_that_cannot_be_written(
    look: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "hub").write_text("in the way")
    assert f"{MODEL}: cannot be read from the hub: [Errno" in look(fetch=True)["error"]
