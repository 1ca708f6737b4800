"""Demonstrations: for one prompt, k completions of the aligned policy and k of the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from irl_exp.config import InputError
from irl_exp.data.comments import group_ids

SPLITS = ("train", "validation", "test")
_FILE = "demonstrations.parquet"


@dataclass(frozen=True)
class Demonstrations:
    """n prompts, each with k completions of either policy (n, k >= 1) and a split.

    `prompts` are n texts, `aligned` and `reference` n lists of k texts, `splits` n names of
    `SPLITS`. Raises `InputError`, with the row that is wrong, when this does not hold.
    """

    prompts: list[str]
    aligned: list[list[str]]
    reference: list[list[str]]
    splits: list[str]

    def __post_init__(self) -> None:
        sizes = [len(column) for column in (self.aligned, self.reference, self.splits)]
        if not self.prompts or sizes != [len(self.prompts)] * 3:
            raise InputError(
                f"demonstrations have {len(self.prompts)} prompts and {sizes} entries in aligned, "
                f"reference and splits; expected one of each a prompt, and at least one prompt"
            )
        for row, prompt in enumerate(self.prompts):
            where = f"demonstrations, row {row + 1}:"
            if not isinstance(prompt, str):
                raise InputError(f"{where} the prompt is not a text")
            if self.splits[row] not in SPLITS:
                raise InputError(f"{where} split {self.splits[row]!r}; expected one of {SPLITS}")
            for policy, completions in (("aligned", self.aligned), ("reference", self.reference)):
                texts = completions[row]
                if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
                    raise InputError(f"{where} {policy} is not a list of texts")
                if not texts or len(texts) != self.k:
                    raise InputError(
                        f"{where} {policy} has {len(texts)} completions, the first row has "
                        f"{self.k}; expected k of either policy for each prompt, k at least 1"
                    )

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def k(self) -> int:
        """Completions of either policy for each prompt."""
        return len(self.aligned[0])

    def split(self, name: str) -> Demonstrations:
        """The prompts of one split, in order; `InputError` when there are none."""
        rows = [row for row, split in enumerate(self.splits) if split == name]
        if not rows:
            raise InputError(
                f"no demonstrations in split {name!r}; there are {sorted(set(self.splits))}"
            )
        return Demonstrations(
            [self.prompts[row] for row in rows],
            [self.aligned[row] for row in rows],
            [self.reference[row] for row in rows],
            [name] * len(rows),
        )

    @property
    def group_ids(self) -> NDArray[np.int64]:
        """[n] int64: equal for rows of one prompt; a row without a prompt stands for itself."""
        names = [prompt or f"\x00{row}" for row, prompt in enumerate(self.prompts)]
        return group_ids(names)

    def aligned_texts(self) -> tuple[list[str], list[str]]:
        """(prompts, completions) of the aligned policy, n*k each: scores reshape to [n, k]."""
        return self._flat(self.aligned)

    def reference_texts(self) -> tuple[list[str], list[str]]:
        """(prompts, completions) of the reference policy, n*k each: scores reshape to [n, k]."""
        return self._flat(self.reference)

    def pool(self) -> tuple[list[str], list[str]]:
        """(prompts, completions) of both policies, n*2k each.

        Scores reshape to [n, 2k]: columns [:k] are the aligned policy's, [k:] the reference's.
        """
        return self._flat([a + r for a, r in zip(self.aligned, self.reference, strict=True)])

    def _flat(self, completions: list[list[str]]) -> tuple[list[str], list[str]]:
        pairs = zip(self.prompts, completions, strict=True)
        flat = [(prompt, text) for prompt, texts in pairs for text in texts]
        return [prompt for prompt, _ in flat], [text for _, text in flat]

    def save(self, folder: Path) -> None:
        """Write `demonstrations.parquet` into an existing folder.

        One row a prompt: `prompt` (str), `aligned`, `reference` (lists of k str), `split` (str).
        """
        columns = {
            "prompt": self.prompts,
            "aligned": self.aligned,
            "reference": self.reference,
            "split": self.splits,
        }
        pd.DataFrame(columns).to_parquet(folder / _FILE, index=False)

    @classmethod
    def load(cls, folder: Path) -> Demonstrations:
        """Read what `save` wrote, or the same columns from elsewhere.

        Raises `InputError` when the file is missing, unreadable or not as the class describes, or
        when a prompt is in two splits.
        """
        path = (folder / _FILE).absolute()
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            reason = "no such file" if isinstance(error, FileNotFoundError) else "not Parquet"
            raise InputError(f"{path}: {reason}; expected a table of demonstrations") from error
        columns = ["prompt", "aligned", "reference", "split"]
        missing = [column for column in columns if column not in table.columns]
        if missing:
            raise InputError(f"{path} has no column {missing}; it has {list(table.columns)}")
        opened = table[table["prompt"] != ""]  # pairs without a prompt share nothing
        splits = opened["split"].groupby(group_ids(opened["prompt"])).nunique()
        if (splits > 1).any():
            raise InputError(
                f"{path}: {(splits > 1).sum()} prompts are in more than one split; "
                "expected each in one, for what is measured must not have been trained on"
            )
        prompts, aligned, reference, names = (
            # Parquet lists come back as arrays.
            [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in table[column]]
            for column in columns
        )
        return cls(prompts, aligned, reference, names)
