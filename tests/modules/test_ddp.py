"""Two processes train what one would: the same weights, the same curves, up to rounding."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from irl_exp import processes
from irl_exp.config import InputError, RaftConfig, TrainerConfig
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.models import language_model, network_reward, trainable
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules import raft, reward_modeling, training
from irl_exp.modules.early_stopping import EarlyStopping
from irl_exp.modules.language_modeling import LanguageModeling
from irl_exp.modules.max_margin import MaxMargin, by_odds, collate
from irl_exp.modules.ppo import PPO, Rollout
from irl_exp.modules.reward_modeling import RewardModeling
from irl_exp.modules.sharding import clip_gradients, whole
from irl_exp.modules.trace import TRACE_FILE, Trace
from irl_exp.modules.training import CURVES_FILE, fit
from irl_exp.processes import Place
from tests import warm
from tests.materials import PLAIN_PPO

# 17 rows in batches of 4: five updates, the rows of four divided by two, the last row for both.
ROWS, BATCH = 17, 4
RECIPE = {"learning_rate": 1e-3, "weight_decay": 0.1, "warmup": 0.2}


def freeze(network: PreTrainedModel, *names: str) -> None:
    """Without biases that the loss does not see: their gradient is rounding, which Adam would turn
    into steps of its own size. Softmax sees no bias of all keys, a difference of scores no shift.
    """
    for name, parameter in network.named_parameters():
        if name.endswith(("query_key_value.bias", *names)):
            parameter.requires_grad_(False)


def language_modeling(
    source: Path, texts: list[str], trainer: TrainerConfig, folder: Path
) -> pl.LightningModule:
    """Rows of one token, which have nothing to predict, and rows of many."""
    model = language_model.load(source)
    freeze(model.network)
    rows = [row[: 1 + 9 * (i % 3)] for i, row in enumerate(language_model.token_ids(model, texts))]
    module = LanguageModeling(model, **RECIPE)
    pad = partial(language_model.pad, value=model.tokenizer.pad_token_id, side="right")
    order = torch.Generator().manual_seed(1)
    fit(
        module,
        ResumableLoader(rows[:ROWS], LengthBatches([9] * ROWS, BATCH, order), pad),
        trainer,
        folder,
        max_grad_norm=1.0,
        validation=DataLoader(rows[-9:], batch_size=4, collate_fn=pad),  # type: ignore[arg-type]
    )
    return module


def head(source: Path) -> NetworkReward:
    reward = network_reward.from_body(source, torch.Generator().manual_seed(3), 64)
    freeze(reward.network)
    return reward


def reward_model(
    source: Path,
    texts: list[str],
    trainer: TrainerConfig,
    folder: Path,
    count: int = ROWS,
    batch: int = BATCH,
) -> pl.LightningModule:
    reward = head(source)
    rows = network_reward.encode(reward.tokenizer, reward.network, [""] * count, texts[:count])
    examples = [(row, i % 2) for i, row in enumerate(rows)]
    module = RewardModeling(reward, **RECIPE)
    batches = LengthBatches([len(row) for row in rows], batch, torch.Generator().manual_seed(1))
    fit(
        module,
        ResumableLoader(examples, batches, reward_modeling.collate),
        trainer,
        folder,
        max_grad_norm=1.0,
        validation=DataLoader(
            examples,  # type: ignore[arg-type]
            batch_size=4,
            collate_fn=reward_modeling.collate,
        ),
    )
    return module


def recovery(
    source: Path,
    texts: list[str],
    trainer: TrainerConfig,
    folder: Path,
    objective: str,
) -> pl.LightningModule:
    """Pairs of unequal weight; early stopping, which both processes must come to at once."""
    reward = head(source)
    freeze(reward.network, "final_layer_norm.bias")
    rows = network_reward.encode(
        reward.tokenizer, reward.network, [""] * 4 * ROWS, texts[: 4 * ROWS]
    )
    orders = by_odds(torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(4)) * 3)
    orders *= torch.arange(1, ROWS + 1).view(-1, 1, 1)
    pools = [(rows[4 * i : 4 * i + 4], order) for i, order in enumerate(orders)]
    module = MaxMargin(reward, objective, **RECIPE)
    batches = LengthBatches([1] * ROWS, BATCH, torch.Generator().manual_seed(1))
    fit(
        module,
        ResumableLoader(pools, batches, collate),
        trainer,
        folder,
        max_grad_norm=1.0,
        validation=DataLoader(pools, batch_size=4, collate_fn=collate),  # type: ignore[arg-type]
        callbacks=[
            EarlyStopping(1, module.criterion),
            Trace(pd.DataFrame({"prompt": "", "completion": texts[:9]}), reward, folder),
        ],
    )
    traced = torch.tensor(pd.read_parquet(folder / TRACE_FILE)["epoch_1"].to_numpy())
    torch.testing.assert_close(traced, reward.score([""] * 9, texts[:9]))
    return module


def raft_policy(
    source: Path, texts: list[str], trainer: TrainerConfig, folder: Path
) -> pl.LightningModule:
    """Its validation draws completions: every process the same."""
    config = RaftConfig(
        name="raft",
        kl_coef=0.1,
        candidates=64,
        k=1,
        epochs=1,
        patience=1,
        batch_size=BATCH,
        learning_rate=1e-3,
        warmup=0.2,
        weight_decay=0.1,
        max_grad_norm=1.0,
        validation_prompts=8,
    )
    policy, reference = language_model.load(source), language_model.load(source)
    freeze(policy.network)
    generator = torch.Generator().manual_seed(5)
    module = raft.Raft(config, policy, reference, head(source), 8, generator)
    rows = [(text.split()[0], text[len(text.split()[0]) :]) for text in texts[:ROWS]]
    batches = LengthBatches([1] * ROWS, BATCH, torch.Generator().manual_seed(1))
    fit(
        module,
        ResumableLoader(rows, batches, partial(raft.collate, policy, 8)),
        trainer,
        folder,
        max_grad_norm=1.0,
        validation=DataLoader(["You", "The", ""], batch_size=2, collate_fn=list),  # type: ignore[arg-type]
        callbacks=[EarlyStopping(1, module.criterion)],
    )
    return module


# Everything that is reckoned over the whole batch.
PPO_CONFIG = replace(
    PLAIN_PPO,
    kl_target=0.05,
    kl_horizon=32,
    iterations=5,
    batch_size=8,
    minibatch_size=8,
    micro_batch_size=4,
    scale_scores=True,
    clip_scores=2.0,
    warmup=0.1,
)


def policy_optimization(
    source: Path,
    texts: list[str],
    trainer: TrainerConfig,
    folder: Path,
    **changes: Any,
) -> pl.LightningModule:
    """With LoRA the reference is the policy without its updates."""
    config = replace(PPO_CONFIG, **changes)
    policy = language_model.load(source)
    lora = config.trainable == "lora"
    reference = policy if lora else language_model.load(source)
    freeze(policy.network)
    generator = torch.Generator().manual_seed(6)
    trainable.restrict(policy.network, config.trainable, 1, 4, generator)
    module = PPO(config, policy, reference, head(source), 8, generator)
    prompts = [" ".join(text.split()[: 1 + i % 3]) for i, text in enumerate(texts[:40])]
    batches = [list(range(i, i + 8)) for i in range(0, 40, 8)]
    fit(module, ResumableLoader(prompts, batches, list, whole=True), trainer, folder)
    trainable.merge(policy.network)
    return module


TRAININGS: dict[str, Callable[..., pl.LightningModule]] = {
    "language_modeling": language_modeling,
    "reward_model": reward_model,
    # Of 129 rows one process has 65, which pass the network in two pieces, the other in one.
    "uneven": partial(reward_model, count=2 * 129, batch=129),
    "hinge": partial(recovery, objective="hinge"),
    "max_entropy": partial(recovery, objective="max_entropy"),
    "raft": raft_policy,
    "ppo": policy_optimization,
    "lora": partial(policy_optimization, trainable="lora", learning_rate=1e-2),
    "stopped_ppo": partial(policy_optimization, stop_kl=0.5, learning_rate=1e-2),
}


# How many processes train, and whether they divide the networks.
WAYS = {"one": (1, False), "ddp": (2, False), "fsdp": (2, True)}


@dataclass(frozen=True)
class Trained:
    """In one of these ways."""

    modules: dict[str, pl.LightningModule]
    curves: dict[str, list[dict[str, float]]]
    rollout: Rollout


@pytest.fixture(scope="module")
def trained(
    tiny_folder: Path,
    texts: list[str],
    trainer: TrainerConfig,
    world: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Trained]:
    """All at once: a second process takes seconds to start. Checkpoints are often due, for saving
    them is part of what processes do together."""
    found = {}
    for way, (count, sharded) in WAYS.items():
        # Both change what a block is, and are to work together.
        hardware = replace(trainer, sharded=sharded, recompute_activations=sharded)
        folders = {name: tmp_path_factory.mktemp(name) for name in TRAININGS}
        with pytest.MonkeyPatch.context() as patch, processes.helped(count):
            patch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
            modules = {
                name: train(tiny_folder, texts, hardware, folders[name])
                for name, train in TRAININGS.items()
            }
            generator = torch.Generator().manual_seed(0)
            ppo = PPO(PPO_CONFIG, world.reference, world.reference, head(tiny_folder), 4, generator)
            rollout = processes.everywhere(PPO.rollout, ppo, world.prompts * 16)
        curves = {name: read(folder / CURVES_FILE) for name, folder in folders.items()}
        found[way] = Trained(modules, curves, rollout)
    return found


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def read(curves: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in curves.read_text().splitlines()]


several = pytest.mark.parametrize("way", ["ddp", "fsdp"])


@several
@pytest.mark.parametrize("name", [name for name in TRAININGS if name != "stopped_ppo"])
def test_two_processes_learn_what_one_does(
    trained: dict[str, Trained], tiny: LanguageModel, name: str, way: str
) -> None:
    one, two = (weights(trained[key].modules[name]) for key in ("one", way))
    before = {f"network.{key}": value for key, value in weights(tiny.network).items()}
    assert max(float((one[key] - before[key]).abs().max()) for key in one if key in before) > 1e-3
    assert max(float((one[key] - two[key]).abs().max()) for key in one) <= 1e-4
    curves, same = (trained[key].curves[name] for key in ("one", way))
    assert len(curves) > 0
    for line, other in zip(curves, same, strict=True):
        assert line == pytest.approx(other, rel=1e-3, abs=1e-4)


@several
def test_two_processes_stop_where_one_does(trained: dict[str, Trained], way: str) -> None:
    """The KL of the whole rollout decides, for both."""
    one, two = (trained[key].modules["stopped_ppo"].stopped for key in ("one", way))
    assert str(one).startswith("iteration ")
    assert one == two


def test_two_processes_write_what_one_does(trained: dict[str, Trained]) -> None:
    """Completions of one to four tokens: the draws of both go by what both have left to write."""
    one, two = (trained[key].rollout for key in ("one", "ddp"))
    assert {1, 2, 3, 4} <= set(one.mask.sum(-1).tolist())
    assert one.texts == two.texts
    for name in ("scores", "log_probs", "values", "rewards", "advantages", "returns"):
        torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=1e-4, atol=1e-5)


class Watched(LanguageModeling):
    """Counts the numbers of weights and of moments that its process holds, while it trains."""

    held: tuple[int, int]

    def on_train_batch_end(self, *args: Any) -> None:
        moments = [v["exp_avg"] for v in self.optimizers().state.values()]  # type: ignore[union-attr]
        self.held = held(self.parameters()), held(moments)


def held(tensors: Iterable[Tensor]) -> int:
    return sum(t.to_local().numel() if isinstance(t, DTensor) else t.numel() for t in tensors)


@pytest.mark.parametrize("trained_part", ["all", "last_layers", "lora"])
def test_blocks_are_divided_while_they_train(
    tiny_folder: Path,
    texts: list[str],
    trainer: TrainerConfig,
    tmp_path: Path,
    trained_part: str,
) -> None:
    """Of an even number of weights in each tensor of a block each process has half, and of their
    moments; before and after the network is whole. Parts that do not train are divided, too."""
    model = language_model.load(tiny_folder)
    trainable.restrict(model.network, trained_part, 1, 2, torch.Generator().manual_seed(0))
    module = Watched(model, **RECIPE)
    blocks = list(trainable.blocks(model.network.base_model).parameters())
    others = [p for p in module.parameters() if not any(p is block for block in blocks)]
    rows = language_model.token_ids(model, texts)[:8]
    pad = partial(language_model.pad, value=model.tokenizer.pad_token_id, side="right")
    before = {name: value.clone() for name, value in weights(module).items()}
    with processes.helped(2):
        loader = DataLoader(rows, batch_size=4, collate_fn=pad)  # type: ignore[arg-type]
        fit(module, loader, replace(trainer, sharded=True), tmp_path, max_grad_norm=1.0)

    def moving(parameters: list[nn.Parameter]) -> int:
        return sum(p.numel() for p in parameters if p.requires_grad)

    assert module.held == (
        held(blocks) // 2 + held(others),
        moving(blocks) // 2 + moving(others),
    )
    after = weights(module)
    assert list(after) == list(before)
    for name, parameter in module.named_parameters():
        assert not isinstance(parameter, DTensor)
        assert torch.equal(after[name], before[name]) != parameter.requires_grad


def test_a_process_that_ends_is_named() -> None:
    """As one that was killed for its memory: the first one's network would only say that a
    connection was closed."""
    with (
        pytest.raises(InputError, match=r"of the 2 processes that train, 1 ended .* goes on from"),
        processes.helped(2),
    ):
        processes.everywhere(leave)


def leave() -> None:
    if processes.rank():
        os.kill(os.getpid(), signal.SIGKILL)
    processes.total(1.0, torch.device("cpu"))


def test_gradients_are_clipped_by_the_norm_of_all() -> None:
    """3 and 4, of which each process has a half, beside a whole 12: the norm is 13."""
    with processes.helped(2):
        norm, *gradients = processes.everywhere(clipped, 6.5)
    assert norm == pytest.approx(13.0)
    assert gradients == pytest.approx([1.5, 2.0, 6.0])


def clipped(longest: float) -> list[float]:
    mesh = init_device_mesh("cpu", (2,))
    divided = nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Shard(0)]))
    single = nn.Parameter(torch.zeros(1))
    divided.grad = distribute_tensor(torch.tensor([3.0, 4.0]), mesh, [Shard(0)])
    single.grad = torch.tensor([12.0])
    norm = clip_gradients([divided, single], longest)
    return [float(norm), *whole(divided.grad).tolist(), *single.grad.tolist()]


# --- who starts them --------------------------------------------------------------------------

SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, None),
        (TORCHRUN, Place(3, 4, 1, 2)),
        (SRUN, Place(3, 4, 1, 1)),
        # One task, whatever its batch script was given.
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),
    ],
)
def test_what_a_launcher_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: Place | None
) -> None:
    for name in (*SRUN, *TORCHRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes.launched() == place


def test_other_processes_than_wanted_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.require(2, inside_sweep=False)  # it will start them
    processes.require(1, inside_sweep=True)
    with pytest.raises(InputError, match="in a multirun: its runs would share"):
        processes.require(2, inside_sweep=True)
    monkeypatch.setattr(processes, "_place", Place(0, 4, 0, 2))
    processes.require(4, inside_sweep=False)
    with pytest.raises(InputError, match="the launcher started 4 processes; expected"):
        processes.require(1, inside_sweep=False)


@pytest.mark.slow
def test_a_multirun_is_refused(tmp_path: Path) -> None:
    words = ["-m", "+debug=smoke", "trainer=ddp", "seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep"]
    run = launch([warm.command("irl-exp"), *words], tmp_path)
    said = run.communicate()[0]
    assert run.returncode == 1
    assert "2 runs failed" in said
    assert said.count("trainer.processes=2 in a multirun: ") >= 2
    assert "expected trainer=cpu or gpu, or hydra/launcher=joblib or submitit_slurm" in said
    assert not (tmp_path / "store").exists()


# --- the whole command ------------------------------------------------------------------------

SHORT = ["+debug=smoke", "dataset.size=1200", "trainer.threads=1", "until=pretrain"]
# The command, with checkpoints so often that a short training has some.
DRIVER = """
import sys
from irl_exp import cli
from irl_exp.modules import training
training.CHECKPOINT_SECONDS, training.COST_FACTOR = 0.1, 1.0
cli.main()
"""


def command() -> list[str]:
    return [sys.executable, "-c", DRIVER]


def launch(words: list[str], folder: Path, **variables: str) -> subprocess.Popen:
    store = {"IRL_EXP_STORE": str(folder / "store")}
    return subprocess.Popen(
        words,
        cwd=folder,
        env=os.environ | store | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def reference(folder: Path) -> dict[str, Tensor]:
    (found,) = (folder / "store" / "pretrain").glob("*/model.safetensors")
    return load_file(found)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def wait_for_checkpoint(folder: Path, run: subprocess.Popen) -> None:
    """One that is new: written by this run."""
    started = time.time()
    while run.poll() is None:
        found = folder.glob("store/pretrain/.tmp-*/checkpoint.ckpt")
        if any(path.stat().st_mtime > started for path in found):
            return
        time.sleep(0.05)


@pytest.mark.slow
def test_whoever_starts_them(tmp_path: Path) -> None:
    """By itself, by torchrun and by srun's variables: the same bits, once."""
    folders = {name: tmp_path / name for name in ("alone", "torchrun", "srun")}
    for folder in folders.values():
        folder.mkdir()
    words = [*SHORT, "trainer=ddp", "hydra.run.dir=run"]

    alone = launch([*command(), *words], folders["alone"])
    assert "done" in alone.communicate()[0]
    assert alone.returncode == 0
    expected = reference(folders["alone"])

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    started = launch([*torchrun, "-m", "irl_exp", *words], folders["torchrun"])
    said = started.communicate()[0]
    assert started.returncode == 0, said
    assert said.count("computing") == 2  # comments and reference, by one of the two

    node = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NODELIST": "localhost"}
    tasks = [
        launch(
            [sys.executable, "-m", "irl_exp", *words],
            folders["srun"],
            SLURM_PROCID=str(i),
            SLURM_LOCALID=str(i),
            SLURM_STEP_NUM_TASKS="2",
            **node,
        )
        for i in range(2)
    ]
    said = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "computing" in said[0]
    assert said[1] == ""

    for folder in folders.values():
        assert json.loads((folder / "run" / "status.json").read_text())["status"] == "done"
        assert same(reference(folder), expected)


@pytest.mark.slow
@several
def test_killed_on_the_way_they_come_to_the_same_bits(tmp_path: Path, way: str) -> None:
    words = [*command(), *SHORT, f"trainer={way}", "hydra.run.dir=run"]
    (tmp_path / "whole").mkdir()
    assert "done" in launch(words, tmp_path / "whole").communicate()[0]

    killed_folder = tmp_path / "killed"
    killed_folder.mkdir()
    kills = [(signal.SIGTERM, 1)] if way == "ddp" else []
    for number, status in [*kills, (signal.SIGKILL, -signal.SIGKILL)]:
        killed = launch(words, killed_folder)
        wait_for_checkpoint(killed_folder, killed)
        killed.send_signal(number)
        killed.communicate()  # ends when all who could write to it have ended: the helper too
        assert killed.returncode == status
    said = launch(words, killed_folder).communicate()[0]
    assert "resumed at step" in said
    assert json.loads((killed_folder / "run" / "status.json").read_text())["status"] == "done"
    assert same(reference(killed_folder), reference(tmp_path / "whole"))


@pytest.mark.slow
@several
def test_a_study_by_two_processes(tmp_path: Path, way: str) -> None:
    words = [*SHORT, "until=null", f"trainer={way}", "hydra.run.dir=run"]
    run = launch([*command(), *words, "evaluation.interpret_texts=16"], tmp_path)
    said = run.communicate()[0]
    assert run.returncode == 0, said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["store/misses"] == said.count("computing")
    assert {"policy/realigned/kl", "recovery/starc", "time/total_seconds"} <= summary.keys()
    assert list((tmp_path / "store").glob("*/.tmp-*")) == []
