"""A first network that grows: put your own model and data in the place of these two.

Run it: python train.py
"""

from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kasmina
from tolaria import EsperCallback

Batch = list[Tensor]


class Model(pl.LightningModule):
    """Tells whether a point lies in a ring, with a host that is linear and so cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 2))

    def forward(self, points: Tensor) -> Tensor:
        logits: Tensor = self.net(points)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        points, labels = batch
        return nn.functional.cross_entropy(self(points), labels)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        points, labels = batch
        logits = self(points)
        self.log("val_loss", nn.functional.cross_entropy(logits, labels))
        self.log("val_acc", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Data(pl.LightningDataModule):
    """Points around the origin, labelled 1 between the radii 0.8 and 1.6."""

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(_rings(2000, rng_seed=1), batch_size=50, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(_rings(500, rng_seed=2), batch_size=100)


def _rings(num_points: int, rng_seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(rng_seed)
    points = torch.randn(num_points, 2, generator=generator)
    radius = points.norm(dim=1)
    return TensorDataset(points, ((radius > 0.8) & (radius < 1.6)).long())


def main() -> None:
    """Train as always, with one callback more; then print what has grown."""
    torch.set_num_threads(1)  # for small tensors, two contended threads are slower than one
    pl.seed_everything(0, verbose=False)
    model, data = Model(), Data()
    pl.seed_everything(0, verbose=False)  # once more, as `esper train` does: the same batches
    callback = EsperCallback(Path(__file__).with_name("esper.toml"))
    trainer = pl.Trainer(
        max_epochs=20,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    print(kasmina.summary(model))
    print(f"validation accuracy {float(trainer.callback_metrics['val_acc']):.3f}")
    print(f"what happened, and why: esper inspect {callback.run_dir}")


if __name__ == "__main__":
    main()
