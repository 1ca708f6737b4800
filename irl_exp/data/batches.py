"""Token rows into batches of like length: little padding, an order that the generator decides."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

# Rows are shuffled, then sorted by length inside pools of this many batches.
POOL = 16


class LengthBatches(Sampler[list[int]]):
    """Batches of indices, reshuffled every epoch."""

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
