"""Grow a network in a training loop of your own, without Lightning.

Run it: python examples/plain_loop.py
"""

import torch
from torch import Tensor, nn

import kasmina
from tolaria import Orchestrator

NUM_EPOCHS = 20
Batch = tuple[Tensor, Tensor]


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    """The loss by which the loop trains, and by which candidates are tried."""
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def stripes(num_images: int, rng_seed: int) -> list[Batch]:
    """Noisy images whose class is the direction of a stripe: neighbours must be seen together."""
    generator = torch.Generator().manual_seed(rng_seed)
    x = 0.5 * torch.randn(num_images, 1, 8, 8, generator=generator)
    y = torch.randint(0, 2, (num_images,), generator=generator)
    at = torch.randint(0, 8, (num_images,), generator=generator)
    for i in range(num_images):
        if y[i]:
            x[i, 0, at[i], :] += 1.0
        else:
            x[i, 0, :, at[i]] += 1.0
    return list(zip(x.split(50), y.split(50), strict=True))


def accuracy(model: nn.Module, batches: list[Batch]) -> float:
    """The share of images that the model puts into their class."""
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    model.train()
    return right / sum(len(y) for _, y in batches)


def main() -> None:
    """Train by hand and tell Esper of each step and of each end of an epoch."""
    torch.set_num_threads(1)  # for small tensors, two contended threads are slower than one
    torch.manual_seed(0)
    train, held_out = stripes(1500, 1), stripes(500, 2)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    with Orchestrator.attach(
        model,
        optimizer,
        example=(train[0][0],),
        loss_fn=loss_fn,
        data=(train, held_out),
        num_epochs=NUM_EPOCHS,
    ) as esper:
        for epoch in range(NUM_EPOCHS):
            for batch in train:
                optimizer.zero_grad()
                loss = loss_fn(model, batch)
                loss.backward()
                optimizer.step()
                esper.after_step(loss)
            report = esper.epoch_boundary({"val_acc": accuracy(model, held_out)})
            print(f"epoch {epoch + 1}: {report.decision.cause}", flush=True)

    print(kasmina.summary(model))
    print(f"held-out accuracy {accuracy(model, held_out):.3f}")
    print(f"what happened, and why: esper inspect {esper.run_dir}")


if __name__ == "__main__":
    main()
