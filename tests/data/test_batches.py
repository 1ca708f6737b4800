"""Batches: every row once an epoch, like lengths together, and going on where one was left."""

import torch

from irl_exp.data.batches import POOL, LengthBatches, ResumableLoader

LENGTHS = [1 + (7 * i) % 23 for i in range(90)]


def loader(seed: int = 0) -> ResumableLoader:
    order = torch.Generator().manual_seed(seed)
    return ResumableLoader(range(90), LengthBatches(LENGTHS, 4, order), list)


def test_an_epoch_has_every_row_once_and_no_order_twice() -> None:
    batches = loader()
    first, second = list(batches), list(batches)
    assert len(first) == len(batches) == 23
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == list(range(90))
    assert first != second
    assert list(loader()) == first
    assert list(loader(seed=1)) != first


def test_rows_of_a_batch_are_of_like_length() -> None:
    """As like as they come: sorted inside a pool, of which there is one here and a bit."""
    assert len(LENGTHS) < 2 * POOL * 4
    spans = [max(LENGTHS[i] for i in b) - min(LENGTHS[i] for i in b) for b in loader()]
    assert sum(spans) / len(spans) < 3


def test_it_goes_on_in_the_middle_of_an_epoch() -> None:
    """The rest of that epoch, then the same next ones; the state of one loader in another."""
    whole = loader()
    expected = [list(whole) for _ in range(3)]

    left = loader()
    list(left)
    epoch = iter(left)
    for _ in range(5):
        next(epoch)
    state = left.state_dict()

    resumed = loader()
    resumed.load_state_dict(state)
    assert list(resumed) == expected[1][5:]
    assert list(resumed) == expected[2]


def test_fixed_batches_go_on_too() -> None:
    batches = [[0, 1], [2, 3], [4]]
    resumed = ResumableLoader("abcde", batches, "".join)
    resumed.load_state_dict({"given": 1, "order": None})
    assert list(resumed) == ["cd", "e"]
    assert list(resumed) == ["ab", "cd", "e"]


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(torch.get_rng_state(), before)
