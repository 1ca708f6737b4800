"""The loss of next-token prediction is the library's own, and falls."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from irl_exp.config import TrainerConfig
from irl_exp.models import language_model
from irl_exp.modules.language_modeling import LanguageModeling
from irl_exp.modules.training import fit

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15]]


def batches(rows: list[list[int]], size: int, pad: int) -> DataLoader:
    return DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=size,
        collate_fn=lambda batch: language_model.pad(batch, pad, "right"),
    )


def test_the_loss_is_the_mean_over_real_tokens_after_the_first(tiny_folder: Path) -> None:
    tiny = language_model.load(tiny_folder)
    ids, mask = language_model.pad(ROWS, tiny.tokenizer.pad_token_id, side="right")
    labels = ids.masked_fill(mask == 0, -100)
    with torch.no_grad():
        found = LanguageModeling(tiny, 1e-3, 0.0, 0.1).loss(ids, mask)
        expected = tiny.network(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_validation_loss_weighs_tokens_alike(tiny_folder: Path) -> None:
    """In batches of any size: 5, 1 and 2 predicted tokens count 5, 1 and 2 times."""
    tiny = language_model.load(tiny_folder)
    pad = tiny.tokenizer.pad_token_id
    module = LanguageModeling(tiny, 1e-3, 0.0, 0.1)
    silent = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    losses = []
    for size in (1, 2, 3):
        loader = batches(ROWS, size, pad)
        losses.append(silent.validate(module, loader, verbose=False)[0]["validation_loss"])
    assert losses == pytest.approx([losses[-1]] * 3, rel=1e-4)


def test_training_learns_what_it_reads(
    tiny_folder: Path, texts: list[str], tmp_path: Path, trainer: TrainerConfig
) -> None:
    model = language_model.load(tiny_folder)
    rows = [model.tokenizer(text)["input_ids"][:32] for text in texts[:400]]
    pad = model.tokenizer.pad_token_id
    loader = batches(rows, 16, pad)
    module = LanguageModeling(model, 3e-3, 0.01, 0.1)
    everything = language_model.pad(rows, pad, "right")
    with torch.no_grad():
        before = module.loss(*everything)
    fit(module, loader, trainer, tmp_path, epochs=3, max_grad_norm=1.0)
    with torch.no_grad():
        after = module.loss(*everything)
    # A uniform guess has a loss of log 400 = 6.0.
    assert after < before - 2
    assert after < 4.5
