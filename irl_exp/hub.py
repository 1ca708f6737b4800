"""Models and data sets by path: a folder, or a repository of the Hugging Face hub at one commit.

A step asks for the identity first, which costs one small request, and for the folder, which may be
a long download, only when it computes.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, constants, is_offline_mode, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from irl_exp.config import ADAPTER_FILE, InputError
from irl_exp.store import content_digest

Kind = Literal["model", "dataset"]

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# What is read of a repository. Python files are not in these lists: nothing of it is executed.
FILES: dict[Kind, list[str]] = {
    "model": [
        # Configuration, tokenizer and chat template.
        *("*.json", "*.txt", "*.model", "*.vocab", "*.bpe", "chat_template.jinja"),
        *("model.safetensors", "model-*.safetensors", "adapter_model.safetensors"),
    ],
    "dataset": [
        "README.md",  # its header says which files a split has
        *(
            f"*.{name}{zipped}"
            for name in ("csv", "tsv", "json", "jsonl")
            for zipped in ("", ".gz")
        ),
        "*.parquet",
    ],
}
# A model's files lie side by side; below them are copies for other libraries.
IGNORED: dict[Kind, list[str]] = {"model": ["*/*"], "dataset": []}
# Weights of a repository without safetensors; they are loaded as tensors and nothing else.
PICKLES = ["pytorch_model.bin", "pytorch_model-*.bin"]
# Seconds after which a hub that does not answer cannot be reached.
PATIENCE = 10.0


@dataclass(frozen=True)
class Source:
    """Where a model or data set is. `commit` is None for a folder, else 40 hex digits."""

    path: str
    kind: Kind
    commit: str | None

    @property
    def identity(self) -> dict[str, str | None]:
        """What decides its content, by the keys of the configuration: an id and its commit; a
        folder counts by its content, not by where it lies, and one of an adapter with what it
        adapts. Raises InputError where that cannot be told."""
        if self.commit is not None:
            return {"path": self.path, "revision": self.commit}
        folder = Path(self.path).expanduser()
        found = {"path": content_digest(folder), "revision": None}
        if not (folder / ADAPTER_FILE).is_file():
            return found
        base = resolve(*adapted(folder), "model")
        if base.commit is None and (base.folder() / ADAPTER_FILE).is_file():
            raise InputError(f"{folder}: adapts an adapter, {base.path}; expected one of a model")
        return {**found, "adapted": json.dumps(base.identity)}

    def folder(self) -> Path:
        """The folder with its files, downloaded to the hub's cache if they are not there yet."""
        if self.commit is None:
            return Path(self.path).expanduser()
        down = self._silence()
        with _in_one_line(self.path, self.commit, down):
            folder = self._download(FILES[self.kind], offline=down is not None)
            if self.kind == "model" and not any(folder.glob("*.safetensors")):
                folder = self._download(PICKLES, offline=down is not None)
            return folder

    def _silence(self) -> Exception | None:
        """Why the hub cannot be reached, if so: unasked, the library would try for minutes."""
        try:
            _Hub().repo_info(self.path, repo_type=self.kind, revision=self.commit)
        except HfHubHTTPError as error:
            return error if error.response.status_code >= 500 else None
        except Exception as error:  # what a network can raise has no common base
            return error
        return None

    def _download(self, files: list[str], offline: bool) -> Path:
        folder = snapshot_download(
            self.path,
            repo_type=self.kind,
            revision=self.commit,
            allow_patterns=files,
            ignore_patterns=IGNORED[self.kind],
            local_files_only=offline,
        )
        return Path(folder)


def resolve(path: str, revision: str | None, kind: Kind) -> Source:
    """The source that `path` and `revision` (a branch, tag or commit of a hub id) name now.

    Where the hub cannot be reached, a branch or tag is at the commit at which the cache has it.
    Raises InputError if there is no such folder, repository or revision, or no access to it.
    """
    place = Path(path).expanduser()
    if path and place.is_dir():
        if revision is not None:
            raise InputError(f"{path}: a folder has no revision {revision}; expected null")
        return Source(path, kind, None)
    if place.is_file():
        raise InputError(f"{path}: a file; expected a folder or a hub id")
    if not HUB_ID.fullmatch(path):
        raise InputError(f"{path}: no such folder, and no hub id; expected one of them")
    with _in_one_line(path, revision or "main"):
        # Told to work offline, the library says nothing of it; else it warns that it does.
        found = _Hub().resolve_revision(
            path, repo_type=kind, revision=revision, local_files_only=is_offline_mode()
        )
        return Source(path, kind, found.resolved)


def adapted(folder: Path) -> tuple[str, str | None]:
    """Path or hub id, and revision, of what the adapter in a folder adapts."""
    try:
        facts = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
        path, revision = facts.get("base_model_name_or_path"), facts.get("revision")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{folder / ADAPTER_FILE}: damaged; expected an adapter's facts"
        ) from error
    if not isinstance(path, str) or not path:
        raise InputError(f"{folder / ADAPTER_FILE}: does not say what it adapts; expected a path")
    return path, revision


class _Hub(HfApi):
    """The library's client, which by itself waits for an answer for ever."""

    def repo_info(self, *args: Any, **kwargs: Any) -> Any:
        return super().repo_info(*args, **{**kwargs, "timeout": PATIENCE})


@contextmanager
def _in_one_line(path: str, revision: str, down: Exception | None = None) -> Iterator[None]:
    """Turn whatever the library raises into an InputError; `down`: why it works offline, if so."""
    access = "set HF_TOKEN, or log in with `hf auth login`"
    try:
        yield
    except GatedRepoError as error:
        said = f"gated: accept its terms at {constants.ENDPOINT}/{path}, then {access}"
        raise InputError(f"{path}: {said}") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{path}: the repository has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        said = f"no such folder, and no such repository on the hub; if it is private, {access}"
        raise InputError(f"{path}: {said}") from error
    except (RevisionResolutionError, LocalEntryNotFoundError) as error:
        part = "only in part" if isinstance(error, IncompleteSnapshotError) else "not"
        why = "HF_HUB_OFFLINE is set" if is_offline_mode() else _words(down or error.__cause__)
        where = f"revision {revision} of that hub id is {part} in {constants.HF_HUB_CACHE}"
        said = f"no such folder, {where}, and the hub cannot be reached ({why})"
        raise InputError(f"{path}: {said}") from error
    except HfHubHTTPError as error:
        refused = error.response.status_code in (401, 403)
        said = f"cannot be read from the hub: {_words(error)}"
        raise InputError(f"{path}: {said}" + f"; {access}" * refused) from error
    except Exception as error:  # a full disk, a proxy, a broken transfer: they share no base
        raise InputError(f"{path}: cannot be read from the hub: {_words(error)}") from error


def _words(error: BaseException | None) -> str:
    return " ".join(str(error or "no reason given").split())[:300] or type(error).__name__
