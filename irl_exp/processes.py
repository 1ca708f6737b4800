"""Several processes that train as one: the first runs the study, the others help where it trains.

Only the first process knows of a study, a store, a tracker. What all are to do it calls by
`everywhere`, which gives the others a copy of the arguments; between two such calls they wait. So
all that is not training happens once, whoever started the processes: the first one (`helped`), or
torchrun or srun (`launched`).

In a training every process goes through the same batches in the same order and computes `mine` of
each. With one process all of this is nothing: `mine` is the batch, `portion` the mean.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from irl_exp.config import InputError

# How long a training waits for one of its processes, and the others for the next training.
TRAINING, BETWEEN = timedelta(minutes=30), timedelta(days=30)


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, of all and of those on this machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


Rows = TypeVar("Rows", Tensor, list[Any])

_place = Place(0, 1, 0, 1)
_between: Any = None  # the group in which the others wait
_in_step = False


def size() -> int:
    return _place.size


def rank() -> int:
    return _place.rank


def local_size() -> int:
    """How many of the processes share this machine's cores, as far as it is known."""
    return _place.local_size


# --- what trains ------------------------------------------------------------------------------


def everywhere(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function` in all processes; its result, and what it does to its arguments, is that of
    the first."""
    if size() > 1:
        _tell((function, args, kwargs, torch.initial_seed()))
    return function(*args, **kwargs)


def mine(rows: Rows) -> Rows:
    """This process's rows of a batch: every `size`-th. All of them, where there are fewer than
    processes: nobody is without, and a mean is the same."""
    return rows if len(rows) < size() else rows[rank() :: size()]


def portion(mean: Tensor, weight: float) -> Tensor:
    """A mean over `mine` whose rows weigh `weight`, scaled: the average of what all processes have
    is the mean over the whole batch. So are, by DDP's averaging, its gradients."""
    if size() == 1:
        return mean
    mean = torch.where(mean.new_tensor(weight) > 0, mean, 0.0)  # that of nothing is NaN
    return mean * (weight * size() / total(weight, mean.device))


def keep_in_step(wanted: bool) -> None:
    """Whether a network is divided among the processes: then all are to pass it equally often."""
    global _in_step
    _in_step = wanted


def pieces(rows: Tensor, sizes: int | list[int]) -> Sequence[Tensor]:
    """Rows in the pieces that pass a network, of so many or fewer; in step, as many pieces as all
    have."""
    cut = rows.split(sizes)
    if not _in_step:
        return cut
    count = torch.tensor(len(cut))
    dist.all_reduce(count, dist.ReduceOp.MAX)
    return cut if len(cut) == count else rows.tensor_split(int(count))


def total(weight: float, device: torch.device) -> float:
    """The sum of what all processes have."""
    if size() == 1:
        return weight
    sums = torch.tensor(weight, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return float(sums)


def gathered(own: Tensor, n: int) -> Tensor:
    """Values of `mine` [n / size, ...] of n rows, a multiple of `size` -> those of all n."""
    if size() == 1:
        return own
    everyone = own.new_zeros(n, *own.shape[1:])
    mine(everyone).copy_(own)
    dist.all_reduce(everyone)
    return everyone


# --- how they find each other -----------------------------------------------------------------


def launched() -> Place | None:
    """What torchrun or srun say in the environment, if they started several processes."""
    names = (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        # srun leaves it to the binding of each task which cores it may use.
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", None),
    )
    for keys in names:
        found = [int(os.environ.get(key, 1)) if key else 1 for key in keys]
        if found[1] > 1:
            return Place(*found)
    return None


def require(wanted: int, inside_sweep: bool) -> None:
    """Raises InputError where the processes that are there are not those that are wanted."""
    if inside_sweep and wanted > 1:
        raise InputError(
            f"trainer.processes={wanted} in a multirun: its runs would share one process; expected "
            "trainer=cpu or gpu, or hydra/launcher=joblib or submitit_slurm, which give each run "
            "its own"
        )
    if size() not in (1, wanted):
        raise InputError(
            f"trainer.processes={wanted}: the launcher started {size()} processes; expected "
            f"trainer=ddp trainer.processes={size()}"
        )


@contextmanager
def helped(count: int) -> Iterator[None]:
    """With as many processes as `count` on this machine, where no launcher has started them."""
    if count == size():
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count}
    others = [
        subprocess.Popen(
            [sys.executable, "-m", "irl_exp"],
            env=os.environ
            | {key: str(value) for key, value in shared.items()}
            | {"RANK": str(i), "LOCAL_RANK": str(i), "LOCAL_WORLD_SIZE": str(count)},
        )
        for i in range(1, count)
    ]
    with joined(Place(0, count, 0, count), f"tcp://127.0.0.1:{port}", others):
        try:
            yield
        except RuntimeError as error:
            gone = [str(i) for i, other in enumerate(others, start=1) if _has_ended(other)]
            if not gone:
                raise
            raise InputError(
                f"of the {count} processes that train, {' and '.join(gone)} ended (killed, or out "
                "of memory?); the same command goes on from the last checkpoint"
            ) from error


def _has_ended(process: subprocess.Popen) -> bool:
    """Its connections close a little before it can be seen to have ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
    return process.returncode is not None


@contextmanager
def joined(
    place: Place, address: str = "env://", others: Sequence[subprocess.Popen] = ()
) -> Iterator[None]:
    """Part of the group, until it ends; then the first process sends the others home, or kills
    those that it has started: where it was interrupted they wait for what will not come."""
    global _place, _between, _in_step
    if "SLURM_STEP_NUM_TASKS" in os.environ and address == "env://":
        from lightning_fabric.plugins.environments import SLURMEnvironment

        # From the list of nodes and the number of the job, unless they are given.
        os.environ["MASTER_ADDR"] = SLURMEnvironment(auto_requeue=False).main_address
        os.environ["MASTER_PORT"] = str(SLURMEnvironment(auto_requeue=False).main_port)
    _see_one_device(place.local_rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, address, TRAINING, place.size, place.rank)
        _place, _between = place, dist.new_group(backend="gloo", timeout=BETWEEN)
        yield
        if place.rank == 0:
            _tell(None)
    finally:
        _place, _between, _in_step = Place(0, 1, 0, 1), None, False
        for other in others:
            other.kill()
            other.wait()
        if dist.is_initialized():
            dist.destroy_process_group()


def serve(place: Place) -> None:
    """What all but the first process do: help, until they are sent home or the first is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the first to say how a run ends
    with joined(place), suppress(ConnectionError):
        while call := _heard():
            function, args, kwargs, seed = call
            # What libraries draw unasked (dropout) differs between processes.
            torch.manual_seed(seed + place.rank)
            function(*args, **kwargs)


def _tell(call: Any) -> None:
    dist.broadcast_object_list([call], src=0, group=_between)


def _heard() -> Any:
    heard: list[Any] = [None]
    try:
        dist.broadcast_object_list(heard, src=0, group=_between)
    except RuntimeError as error:
        raise ConnectionError("the first process is gone") from error
    return heard[0]


def _see_one_device(local_rank: int) -> None:
    """Every process has a CUDA device of its own and calls it cuda:0, so that what one sends to
    another arrives on the other's. To be said before CUDA starts."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = given.split(",") if given is not None else [str(i) for i in range(local_rank + 1)]
    if 0 < local_rank < len(devices):  # fewer: the launcher has bound each task to its own
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[local_rank]
