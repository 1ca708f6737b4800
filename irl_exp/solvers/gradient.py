"""What every gradient solver does: some parts of a network train, until validation says enough."""

from collections.abc import Sequence

from pytorch_lightning import Callback
from torch.utils.data import DataLoader

from irl_exp.config import GradientSolver
from irl_exp.models import trainable
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.early_stopping import EarlyStopping
from irl_exp.modules.max_margin import MaxMargin
from irl_exp.modules.reward_modeling import RewardModeling
from irl_exp.modules.trace import Trace
from irl_exp.modules.training import fit
from irl_exp.solvers.problem import Problem


def new_reward(problem: Problem) -> NetworkReward:
    """The reference's body with a fresh head, ready to train in the parts that are to."""
    config = problem.config
    assert isinstance(config, GradientSolver)
    # Divided blocks are gathered in the network's own pass, and in no other.
    frozen = config.trainable == "head" and not problem.trainer.sharded
    reward = problem.new_head() if frozen else problem.new_reward()
    trainable.restrict(
        reward.network,
        config.trainable,
        config.last_layers,
        config.lora_rank,
        problem.generator("lora"),
    )
    return reward


def train(
    problem: Problem,
    module: MaxMargin | RewardModeling,
    rows: Sequence[Sequence[int]],
    loader: DataLoader,
    validation: DataLoader,
    max_grad_norm: float,
) -> NetworkReward:
    """The module's reward, trained, as a plain network on the problem's device. `rows` are all that
    the loader's batches hold."""
    config = problem.config
    assert isinstance(config, GradientSolver)
    callbacks: list[Callback] = []
    if config.patience is not None:
        callbacks.append(EarlyStopping(config.patience, module.criterion))
    if problem.traced is not None:
        callbacks.append(Trace(problem.traced, module.reward, problem.folder))
    with trainable.used_embeddings(module.reward.network, rows):
        fit(
            module,
            loader,
            problem.trainer,
            problem.folder,
            epochs=config.epochs,
            max_grad_norm=max_grad_norm,
            validation=validation,
            callbacks=callbacks,
        )
    trainable.merge(module.reward.network)
    module.reward.network.to(problem.device)  # type: ignore[arg-type]
    return module.reward
