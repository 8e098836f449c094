"""The LightningModule of the built-in tasks, plain: it knows nothing of Esper."""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from tolaria.data.loader import Batch

CONSTANT_SHARE = 0.6
FINAL_FACTOR = 0.01


class Classifier(L.LightningModule):
    """Cross-entropy over the logits of `net`, with AdamW.

    The learning rate is constant for the first 60 % of `num_epochs`, then falls linearly to 1 %.
    """

    def __init__(self, net: nn.Module, *, learning_rate: float, num_epochs: int) -> None:
        super().__init__()
        self.net = net
        self.learning_rate = learning_rate
        self.num_epochs = num_epochs

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        logits: Tensor = self.net(inputs)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of a batch; logs `train_loss`."""
        inputs, labels = batch
        loss = F.cross_entropy(self(inputs), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss` and `val_acc`."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `test_loss` and `test_acc`."""
        self._evaluate("test", batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, with a scheduler that steps once an epoch."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _evaluate(self, split: str, batch: Batch) -> None:
        inputs, labels = batch
        logits = self(inputs)
        metrics = {
            f"{split}_loss": F.cross_entropy(logits, labels),
            f"{split}_acc": (logits.argmax(1) == labels).float().mean(),
        }
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(labels))

    def _learning_rate_factor(self, epoch: int) -> float:
        """Of the 0-based epoch: 1 at first, FINAL_FACTOR from the last on; 1 in runs of 1 or 2."""
        start, last = CONSTANT_SHARE * self.num_epochs, self.num_epochs - 1
        if epoch < start or start >= last:
            return 1.0
        return 1.0 - (1.0 - FINAL_FACTOR) * min(1.0, (epoch - start) / (last - start))
