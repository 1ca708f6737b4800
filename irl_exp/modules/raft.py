"""Alignment without policy gradients: fine-tuning on what the tilted expert would write.

After RAFT (Dong et al. 2023, arXiv 2304.06767), whose best of a batch is here a draw from
pi_ref exp(R/beta)/Z, so that the network learns the very policy that KL-regularized RLHF aims at:
maximum likelihood on its samples minimizes KL(tilted || pi). What it has learned by heart costs KL
and earns nothing, so training goes on only as long as E R - beta KL on validation prompts rises.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from irl_exp import processes
from irl_exp.config import RaftConfig, TrainerConfig
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.metrics.behavior import distinct_n
from irl_exp.models import generation, language_model, policies
from irl_exp.models.generation import NetworkPolicy
from irl_exp.models.language_model import LanguageModel
from irl_exp.models.reward_model import Scorer
from irl_exp.modules.early_stopping import EarlyStopping
from irl_exp.modules.training import by_recipe, fit

Pair = tuple[Tensor, Tensor]


def align(
    config: RaftConfig,
    reference: Path,
    reward: Scorer,
    prompts: Sequence[str],
    validation: Sequence[str],
    max_new_tokens: int,
    *,
    order: torch.Generator,
    generator: torch.Generator,
    trainer: TrainerConfig,
    folder: Path,
) -> None:
    """Train the policy in the folder `reference` and save it in `folder`.

    `order` decides which completions come when, `generator`, on the device that samples, all that
    is drawn.
    """
    device = str(generator.device)
    before = generation.load_network(reference, device)
    base = NetworkPolicy(before, max_new_tokens, trainer.sample_batch_size)
    expert = policies.TiltedPolicy(base, reward, config.kl_coef, config.candidates)
    samples = expert.sample(prompts, config.k, generator)
    batches = LengthBatches(samples.lengths.flatten().tolist(), config.batch_size, order)
    policy = generation.load_network(reference)
    language_model.require_plain_head(policy.network)

    module = Raft(config, policy, before, reward, max_new_tokens, generator)
    fit(
        module,
        ResumableLoader(
            list(zip(*samples.flat(), strict=True)),
            batches,
            partial(collate, policy, max_new_tokens),
        ),
        trainer,
        folder,
        epochs=config.epochs,
        max_grad_norm=config.max_grad_norm,
        validation=DataLoader(
            list(validation[: config.validation_prompts]),  # type: ignore[arg-type]
            batch_size=trainer.sample_batch_size,
            collate_fn=list,
            generator=torch.Generator(),
        ),
        callbacks=[EarlyStopping(config.patience, module.criterion)],
    )
    policy.save(folder)
    policies.save_policy(folder, "network")


def collate(
    policy: LanguageModel, max_new_tokens: int, texts: Sequence[tuple[str, str]]
) -> tuple[Pair, Pair]:
    """(prompt, completion) pairs -> what the module reads."""
    prompts, completions = zip(*texts, strict=True)
    return (
        language_model.encode_prompts(policy, prompts, max_new_tokens),
        language_model.encode_completions(policy, completions, max_new_tokens),
    )


class Raft(pl.LightningModule):
    """Mean negative log-likelihood of completion tokens, in nats; validation samples and scores.

    Training batches are (prompt, completion), ids and mask each, the prompt padded on the left and
    the completion on the right; validation batches are lists of prompts.
    """

    def __init__(
        self,
        config: RaftConfig,
        policy: LanguageModel,
        reference: LanguageModel,
        reward: Scorer,
        max_new_tokens: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config = config
        self.network = policy.network.train()
        self.policy = NetworkPolicy(policy, max_new_tokens, 2**31)
        self.reference = reference
        self.reward = reward
        self.generator = generator

    def training_step(self, batch: tuple[Pair, Pair], index: int) -> Tensor:
        log_probs = language_model.completion_log_probs(self.network, *batch)
        tokens = batch[1][1].sum()
        loss = processes.portion(-log_probs.sum() / tokens, int(tokens))
        self.log("loss", loss, sync_dist=True)
        return loss

    def validation_step(self, prompts: list[str], index: int) -> None:
        samples = self.policy.sample(prompts, 1, self.generator, self.reference)
        assert samples.kl is not None
        score, kl = self.reward.score(*samples.flat()).mean(), samples.kl.mean()
        self.log_dict(
            {
                "objective/kl": kl,
                "objective/scores": score,
                "objective/rlhf_reward": score - self.config.kl_coef * kl,
                "completion/length": samples.lengths.float().mean(),
                "completion/distinct_2": distinct_n(samples.flat()[1], 2),
            },
            batch_size=len(prompts),
            on_epoch=True,
            sync_dist=True,
        )

    def criterion(self, logged: Any) -> Tensor:
        """What early stopping makes least: minus the KL-penalized return."""
        return -logged["objective/rlhf_reward"]

    def configure_optimizers(self) -> Any:
        config = self.config
        recipe = {
            "learning_rate": config.learning_rate,
            "weight_decay": config.weight_decay,
            "warmup": config.warmup,
        }
        return by_recipe(self.trainer, self.network, recipe)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["generator"] = self.generator.get_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.generator.set_state(checkpoint["generator"])
