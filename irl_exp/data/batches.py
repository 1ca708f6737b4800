"""Batches: rows of like length together, and a loader that can go on in the middle of an epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from irl_exp import processes

# Rows are shuffled, then sorted by length inside pools of this many batches.
POOL = 16


class LengthBatches(Sampler[list[int]]):
    """Batches of indices: little padding, an order that the generator decides anew every epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self.lengths = torch.as_tensor(lengths)
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.lengths), generator=self.generator)
        pools = order.split(self.batch_size * POOL)
        batches = [
            batch
            for pool in pools
            for batch in pool[self.lengths[pool].argsort(stable=True)].split(self.batch_size)
        ]
        for index in torch.randperm(len(batches), generator=self.generator).tolist():
            yield batches[index].tolist()


class ResumableLoader(DataLoader):
    """Training batches whose place in an epoch Lightning saves and restores.

    `batches` are lists of indices into `rows`; a `LengthBatches` among them is set back to the
    order of the epoch that was left. Where several processes train, each is given its own rows of
    every batch; the `whole` batch where the module itself sees to that.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        batches: Sampler[list[int]] | Sequence[list[int]],
        collate: Callable[[list[Any]], Any],
        whole: bool = False,
    ) -> None:
        # A generator of its own: else every epoch would draw from the global one.
        super().__init__(
            rows,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=collate if whole else _Mine(collate),
            generator=torch.Generator(),
        )
        self.order = batches.generator if isinstance(batches, LengthBatches) else None
        self.given = 0  # batches of this epoch so far
        self.skipped = 0  # of which an earlier process gave so many
        self.epoch_order: torch.Tensor | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.order is not None:
            self.epoch_order = self.order.get_state()
        self.given, self.skipped = self.skipped, 0
        for batch in islice(super().__iter__(), self.given, None):
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given, "order": self.epoch_order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = state["given"]
        if self.order is not None:
            self.order.set_state(state["order"])


@dataclass(frozen=True)
class _Mine:
    """Makes a batch of this process's rows alone."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, rows: list[Any]) -> Any:
        return self.collate(processes.mine(rows))
