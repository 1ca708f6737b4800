"""What a notebook needs: run a study, recover a reward from pairs, score texts with one.

`import irl_exp` offers these names and loads what is heavy when they are called.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irl_exp.finished_run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from irl_exp.models.reward_model import Reward


@dataclass(frozen=True)
class LoadedReward:
    """A saved reward, ready to score; higher = better = less toxic.

    Attributes:
        folder: where its files are.
        raw: the reward itself.
        threshold: the score below which calibration calls a text toxic; None if nobody fitted it.
    """

    folder: Path
    raw: Reward
    threshold: float | None

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """Raw scores, float32 [n], of n prompts with one completion each, on the CPU.

        They are what `irl-score` writes: of one prompt's completions they can be compared, and of
        different prompts only as far as the reward is not off by a constant for each. A whole text
        is a completion of the prompt "".

        Raises:
            TypeError: a single text where a list is expected, or something else than texts.
            ValueError: not as many completions as prompts.
        """
        for name, texts in (("prompts", prompts), ("completions", completions)):
            if isinstance(texts, str):
                raise TypeError(f"{name}: got one text; expected a list of texts, as [{texts!r}]")
            for text in texts:
                if not isinstance(text, str):
                    raise TypeError(f"{name}: got {type(text).__name__} in it; expected texts")
        if len(prompts) != len(completions):
            counts = f"{len(prompts)} prompts and {len(completions)} completions"
            raise ValueError(f"{counts}; expected one completion for each prompt")
        if not len(prompts):
            import torch

            return torch.empty(0)
        return self.raw.score(list(prompts), list(completions))


def load_reward(
    path: str | Path, revision: str | None = None, *, batch_size: int = 64, device: str = "cpu"
) -> LoadedReward:
    """The reward in a folder or a repository of the Hugging Face hub.

    Args:
        path: an artifact of the step recover or ground_truth, what `irl-export` wrote, or any
            sequence classifier with one output, higher = less toxic; a folder or a hub id.
        revision: branch, tag or commit of a hub id.
        batch_size: texts that pass the network at once.
        device: where it computes: cpu, cuda, mps.

    Raises:
        InputError: there is no such folder or repository, no reward in it, or one that is not as
            it was written.
    """
    from irl_exp import hub
    from irl_exp.models import saved_rewards
    from irl_exp.models.reward_model import REWARD_FILE, Facts

    folder = hub.resolve(str(path), revision, "model").folder()
    raw = saved_rewards.load_any(folder, batch_size, device)
    ours = (folder / REWARD_FILE).is_file()
    return LoadedReward(folder, raw, Facts.load(folder).threshold if ours else None)


def run(overrides: Sequence[str] | Mapping[str, Any] = ()) -> Run:
    """Run one study as `irl-exp` does, in a run directory, and read what came out.

    Args:
        overrides: what one would type, as ["solver=svm", "+debug=smoke"]; or a mapping of dotted
            keys to values, as {"solver": "svm", "+debug": "smoke", "rlhf.kl_coef": 0.2}.

    Finished work is found in the store, and a study that was interrupted goes on. What a run sets
    in its process (torch's threads and generators, logging) is as before when it returns.

    Raises:
        InputError: what `irl-exp` would refuse, in the same words.
    """
    from irl_exp import cli

    if isinstance(overrides, Mapping):
        overrides = [f"{key}={_value(value)}" for key, value in overrides.items()]
    elif isinstance(overrides, str):
        raise TypeError(f"overrides: got one text; expected a list of texts, as [{overrides!r}]")
    with _process_as_it_was():
        return Run.read(cli.study(list(overrides)))


def recover(
    pairs: str | Path | Sequence[Mapping[str, Any]],
    solver: str = "logistic",
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Run:
    """Recover the reward that tells the two sides of pairs apart: an audit (docs/audit.md).

    Args:
        pairs: a file of them, or records; with the fields `aligned` and `reference`, or `chosen`
            and `rejected`, and perhaps `prompt`. A side is a text, k texts, or messages. Records
            are kept under outputs/pairs/, so that the run can be repeated from its directory.
        solver: an option of conf/solver/, such as "svm", or "ensemble" for several seeds.
        overrides: as of `run`, for all else: {"model": "neox-50k", "seed": 1}.

    Raises:
        InputError: no pairs, or fields by other names (a file's columns can be named by overrides).
    """
    path = Path(pairs).expanduser() if isinstance(pairs, str | Path) else _kept(pairs)
    fields = _fields(path)
    asked = {
        "+experiment": "audit",
        "demonstrations": "preferences" if "chosen" in fields else "file",
        "demonstrations.path": str(path.absolute()),
        "demonstrations.prompt_column": None,
        "solver": solver,
    }
    typed = [f"{key}={_value(value)}" for key, value in asked.items()]
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={_value(value)}" for key, value in overrides.items()]
    return run([*typed, *overrides])


def _kept(records: Sequence[Mapping[str, Any]]) -> Path:
    """The records as a file of their digest's name."""
    text = "".join(json.dumps(dict(record), sort_keys=True) + "\n" for record in records)
    folder = Path("outputs") / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return path


def _fields(path: Path) -> Mapping[str, Any]:
    """The first record of a file, for the names of its fields."""
    from irl_exp.config import InputError
    from irl_exp.data.formats import records

    for _, record in records(path, str(path), []):
        return record
    raise InputError(f"{path} has no pairs; expected some")


def _value(value: Any) -> str:
    """A value as Hydra reads it: JSON, but for a text, whose quotes are Hydra's own."""
    if isinstance(value, str | Path):
        # Only before a quote, and at the end, does a backslash of Hydra's mean anything.
        quoted = re.sub(
            r"(\\*)('|$)", lambda found: found[1] * 2 + "\\'" * bool(found[2]), str(value)
        )
        return f"'{quoted}'"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(v)}" for key, v in value.items()) + "}"
    return repr(value) if isinstance(value, float) else json.dumps(value)


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """A run of its own process may set what it likes; here are others who counted on it."""
    import logging

    import numpy as np
    import torch

    log = logging.getLogger()
    handlers, level = list(log.handlers), log.level
    threads, precise = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    draws, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        log.handlers[:], log.level = handlers, level
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precise)
        torch.use_deterministic_algorithms(deterministic)
        random.setstate(draws)
        np.random.set_state(numbers)  # noqa: NPY002
