"""A solver of the user's own, outside the package: a Python file that defines solve(problem).

The file counts by its content and not by its path, so its bytes are read once: what enters the
recovery's fingerprint is what runs. No file is run but one that the configuration names.
"""

import hashlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from irl_exp.config import ForeignError, InputError
from irl_exp.models.reward_model import Reward
from irl_exp.models.saved_rewards import load_reward
from irl_exp.solvers.problem import Problem

# Beside a recovered reward: the file that it comes from, for a reader; nothing ever runs it.
SOURCE_FILE = "solver.py"
EXPECTED = "expected a Python file that defines solve(problem)"


@dataclass(frozen=True)
class Plugin:
    """A file by the name that was typed, and its bytes."""

    file: str
    source: bytes

    @classmethod
    def read(cls, file: str) -> "Plugin":
        """Raises InputError where it can't be read. Relative to the folder of the process."""
        try:
            return cls(file, Path(file).expanduser().read_bytes())
        except OSError as error:
            raise InputError(f"{file}: {error.strerror}; {EXPECTED}") from error

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.source).hexdigest()

    def load(self) -> Callable[[Problem], Any]:
        """Run the file as a module of its own and give its `solve`.

        Raises InputError, with the file's own line, where it can't be run or defines none.
        """
        # From the bytes and not by import: that would take a stale __pycache__, and leave one.
        module = ModuleType(f"_irl_exp_plugin_{self.digest[:16]}")
        module.__file__ = self.file
        sys.modules[module.__name__] = module  # where dataclasses look up their annotations
        try:
            exec(compile(self.source, self.file, "exec", dont_inherit=True), module.__dict__)
        except (Exception, SystemExit) as error:
            raise InputError(f"{self._told(error)}; {EXPECTED}") from error
        solve = getattr(module, "solve", None)
        if not callable(solve):
            raise InputError(f"{self.file}: no function solve in it; {EXPECTED}")
        return solve

    def solve(self, problem: Problem) -> Reward:
        """What the file's `solve` returns. Raises ForeignError for what it raises, InputErrors
        excepted, and InputError where it returns something else than a reward."""
        solve = self.load()
        (problem.folder / SOURCE_FILE).write_bytes(self.source)
        try:
            reward = solve(problem)
        except (InputError, KeyboardInterrupt):
            raise
        except BaseException as error:  # sys.exit() too: it would end a sweep without a word
            raise ForeignError(self._told(error)) from error
        parts = (getattr(reward, name, None) for name in ("score", "save"))
        if not isinstance(getattr(reward, "kind", None), str) or not all(map(callable, parts)):
            raise InputError(
                f"{self.file}: solve returned a {type(reward).__name__}; expected a reward, as "
                "problem.new_reward() or Features.export() gives"
            )
        return reward

    def require_saved(
        self, reward: Reward, folder: Path, texts: tuple[list[str], list[str]], problem: Problem
    ) -> None:
        """Refuse a reward that is not the same once it has been saved in `folder` and loaded:
        every later step works with what was saved."""
        expected = "expected one of the kinds in irl_exp/models/reward_kinds.py"
        try:
            again = load_reward(folder, problem.trainer.score_batch_size, problem.device)
        except InputError as error:
            why = str(error).removeprefix(f"{folder}: ")
            raise InputError(
                f"{self.file}: the reward can't be loaded again: {why}; {expected}"
            ) from error
        before, after = (r.score(*texts).cpu() for r in (reward, again))
        if not torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.std())):
            raise InputError(
                f"{self.file}: once saved and loaded, the reward scores texts otherwise; {expected}"
            )

    def _told(self, error: BaseException) -> str:
        """FILE, line N: KIND: what it says; N is the last line of the file that led there."""
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if self._is(f.filename)
        ]
        if isinstance(error, SyntaxError) and self._is(error.filename):
            lines.append(error.lineno)
        where = f"{self.file}, line {lines[-1]}" if lines else self.file
        said = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
        return f"{where}: {type(error).__name__}{': ' if said else ''}{said}"

    def _is(self, filename: str | None) -> bool:
        return filename == self.file
