"""Grow a LightningModule of your own: one callback, nothing else changes.

Run it: python examples/lightning_callback.py
"""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kasmina
from tolaria import EsperCallback


class Rings(pl.LightningModule):
    """Tells whether a point lies in a ring, with a host that is linear and so cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        x, y = batch
        logits = self(x)
        self.log("val_loss", nn.functional.cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def rings(num_points: int, rng_seed: int) -> TensorDataset:
    """Points around the origin, labelled 1 in the ring between the radii 0.8 and 1.6."""
    generator = torch.Generator().manual_seed(rng_seed)
    points = torch.randn(num_points, 2, generator=generator)
    radius = points.norm(dim=1)
    return TensorDataset(points, ((radius > 0.8) & (radius < 1.6)).long())


def main() -> None:
    """Train as always, with the callback; then print what has grown, and export it."""
    torch.set_num_threads(1)  # for small tensors, two contended threads are slower than one
    pl.seed_everything(0, verbose=False)
    train = DataLoader(rings(2000, 1), batch_size=50, shuffle=True)
    held_out = DataLoader(rings(500, 2), batch_size=100)

    callback = EsperCallback()
    trainer = pl.Trainer(
        max_epochs=20,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Rings()
    trainer.fit(model, train, held_out)

    print(kasmina.summary(model))
    print(f"validation accuracy {float(trainer.callback_metrics['val_acc']):.3f}")
    print(f"run directory {callback.run_dir}")
    plain = kasmina.export(model)
    print(f"exported: {type(plain).__name__}, needs no Esper import to run")


if __name__ == "__main__":
    main()
