"""Next-token prediction: how a reference policy learns to write comments."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from irl_exp import processes
from irl_exp.models import language_model
from irl_exp.models.language_model import LanguageModel
from irl_exp.modules.training import by_recipe


class LanguageModeling(pl.LightningModule):
    """Mean negative log-likelihood of every token after the first, in nats.

    Batches are (ids, mask), int64 [n, L], right-padded.
    """

    def __init__(
        self, model: LanguageModel, learning_rate: float, weight_decay: float, warmup: float
    ) -> None:
        super().__init__()
        self.network = model.network.train()
        self.recipe: dict[str, Any] = {
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "warmup": warmup,
        }

    def loss(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = language_model.hidden_states(self.network, ids, mask)
        real = mask[:, 1:].bool()
        log_probs = language_model.token_log_probs(
            self.network.get_output_embeddings(), hidden[:, :-1][real], ids[:, 1:][real]
        )
        return -log_probs.mean()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = processes.portion(self.loss(*batch), int(batch[1][:, 1:].sum()))
        self.log("loss", loss, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        tokens = int(batch[1][:, 1:].sum())
        self.log(
            "validation_loss", self.loss(*batch), batch_size=tokens, on_epoch=True, sync_dist=True
        )

    def configure_optimizers(self) -> Any:
        return by_recipe(self.trainer, self.network, self.recipe)
