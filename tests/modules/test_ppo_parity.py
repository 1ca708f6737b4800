"""PPO's formulas against what TRL's own PPOTrainer computed on the same rollouts.

`benchmarks/peers/trl_ppo/record.py` wrote the recording, for three pairs of discount and lambda.
"""

from pathlib import Path

import pytest

from benchmarks.peers.trl_ppo.parity import Recording, agreement, load, own_terms

TOLERANCE = 1e-5
RECORDING = Path(__file__).with_name("trl_ppo.safetensors")


@pytest.fixture(scope="module")
def cases() -> dict[str, Recording]:
    return load(RECORDING)


@pytest.mark.parametrize("case", ["plain", "lambda", "discounted"])
def test_every_quantity_is_that_of_trl(cases: dict[str, Recording], case: str) -> None:
    found = agreement(cases[case])
    assert {name: apart for name, apart in found.items() if not apart <= TOLERANCE} == {}


@pytest.mark.parametrize("case", ["plain", "lambda", "discounted"])
def test_the_recording_reaches_every_branch(cases: dict[str, Recording], case: str) -> None:
    """Completions of many lengths, one cut off; ratios and values beyond their ranges."""
    trl = cases[case]
    rows, clip = trl["micro_batch_inds"], trl.settings["cliprange"]
    lengths = trl.real.sum(-1)
    assert lengths.unique().numel() >= 5
    assert lengths.min() < 3 and lengths.max() == trl.real.shape[1]
    ratio = (trl["new_logprobs"] - trl["logprobs"][rows]).exp()
    assert (ratio > 1 + clip).any() and (ratio < 1 - clip).any()
    moved = (trl["vpred"] - trl["values"][rows]).abs()
    assert (moved > trl.settings["cliprange_value"]).any()
    assert trl["kl"].sum(-1).mean() > 1


def test_where_an_episode_ends_matters_below_lambda_one_alone(cases: dict[str, Recording]) -> None:
    """TRL values the place after the last token; undiscounted sums do not see it."""
    plain, shrunk = own_terms(cases["plain"]), own_terms(cases["lambda"])
    for name in ("advantages", "returns"):
        assert plain[name] <= TOLERANCE
        assert shrunk[name] > 1e-2
    assert plain["value loss"] > 1e-2  # over one place less
