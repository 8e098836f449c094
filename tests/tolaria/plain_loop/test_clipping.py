"""Clipping in a hand-written loop: host and seeds apart."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from kasmina.slots.slot import attached_seeds
from tests.tolaria.plain_loops import (
    SEED,
    TRAIN,
    adam,
    attach,
    loss_fn,
    make_host,
    run,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread

MAX_NORM = 0.01


def _backward(model: nn.Module) -> dict[str, Tensor]:
    """Fresh gradients of one batch, by name."""
    model.zero_grad(set_to_none=True)
    model.train()
    torch.manual_seed(3)
    loss_fn(model, TRAIN[0]).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _torchs_own(gradients: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    norm = clip_grad_norm_(parameters, MAX_NORM)
    return norm, [p.grad for p in parameters if p.grad is not None]


def test_host_and_seed_are_clipped_apart(tmp_path: Path) -> None:
    """With a seed at work, the host's gradients and their norm are what torch's own clipping makes
    of them alone, bit for bit, and so are the seed's; without one it is torch's own clipping."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=((1, "conv", "conv"),)) as esper:
        for num_parts in (1, 2):
            run(model, optimizer, esper, num_parts - 1)
            train_epoch(model, optimizer, esper)
            raw = _backward(model)
            norm = esper.clip_gradients(MAX_NORM)
            seeds = [n for n in raw if ".esper." in n]
            host = [n for n in raw if n not in seeds]
            assert (SEED in attached_seeds(model)) == bool(seeds) == (num_parts == 2)
            found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            for part in (host, seeds)[:num_parts]:
                expected_norm, expected = _torchs_own([raw[name] for name in part])
                assert all(torch.equal(found[n], e) for n, e in zip(part, expected, strict=True))
                assert not torch.equal(found[part[0]], raw[part[0]]), "the limit is met"
                if part is host:
                    assert torch.equal(norm, expected_norm)
            esper.epoch_boundary({"val_loss": 1.0})
