"""What a training step costs by the stage of the seeds, beside the same step without Esper.

The peer of seeds that are in the forward path is the plain network that they end as, trained in the
same loop: what is left is Esper. For the others it is the bare host, and the goal is its own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch._dynamo
from torch import Tensor, nn

from bench.harness import Effort, Row
from bench.towers import WIDTH, Tower, attached
from kasmina import export
from leyline import Stage
from tolaria import Orchestrator

TITLE = "A training step by the stage of its seeds"
_NUM_SITES: Final = 8
_BATCH_SIZE: Final = 256
_OUTSIDE: Final = (Stage.DORMANT, Stage.TRAINING)
_IN_PATH: Final = (Stage.GRAFTING, Stage.FOSSILIZED)
_MOST: Final = 1.25
"""Of the plain network, for seeds in the forward path."""
_MOST_EPOCHS: Final = 40

Batch = tuple[Tensor, Tensor]


def rows(effort: Effort) -> Iterator[Row]:
    """Eager, and compiled in a full run, for compiling takes its time."""
    yield from _rows(effort, is_compiled=False)
    if not effort.is_quick:
        # Both models share the code of their forward; each structure and mode is a graph of it.
        with torch._dynamo.config.patch(recompile_limit=64):
            yield from _rows(effort, is_compiled=True)


def _rows(effort: Effort, *, is_compiled: bool) -> Iterator[Row]:
    plain = _grown()
    with _growing(is_compiled) as (esper, ours, batch):
        bare = Tower(_NUM_SITES)
        for model in (plain, bare) if is_compiled else ():
            model.compile()
        for stage in (*_OUTSIDE, *_IN_PATH):
            go_on(esper, ours, stage)
            peer = plain if stage in _IN_PATH else bare
            yield _row(effort, stage, ours, step_of(peer, batch), is_compiled=is_compiled)


def _row(
    effort: Effort,
    stage: Stage,
    ours: Callable[[], None],
    peer: Callable[[], None],
    *,
    is_compiled: bool,
) -> Row:
    for _ in range(3):  # each of a seed's first steps is a graph of its own
        ours(), peer()
    found = effort.compare(ours, peer, num_pairs=41, repeats=3)
    how = "compiled" if is_compiled else "eager"
    return Row.timed(
        f"stages/{how}/{stage.name.lower()}",
        f"{how} step, {_NUM_SITES} seeds {stage.name}",
        "ms",
        found,
        peer="the plain network" if stage in _IN_PATH else "the bare host",
        most=_MOST if stage in _IN_PATH else found.band[1],
    )


def _grown() -> nn.Module:
    """The network that the seeds end as, plain."""
    with _growing(is_compiled=False) as (esper, ours, _):
        go_on(esper, ours, Stage.FOSSILIZED)
        return export(esper.model).requires_grad_(True)


@contextmanager
def _growing(is_compiled: bool) -> Iterator[tuple[Orchestrator, Callable[[], None], Batch]]:
    """A run in which every site grows alike, its training step, and the batch of every step."""
    torch.manual_seed(0)
    batch = torch.randn(_BATCH_SIZE, WIDTH), torch.randn(_BATCH_SIZE, WIDTH)
    model = Tower(_NUM_SITES)
    if is_compiled:
        model.compile()
    sites = [f"layers.{number}" for number in range(_NUM_SITES)]
    with attached(model, **growing(sites, batch)) as esper:
        yield esper, step_of(model, batch, esper.rates.optimizers[0], esper.after_step), batch


def growing(sites: Iterable[str], batch: Batch) -> dict[str, Any]:
    """Settings of a run in which the same grows at each site, whatever it gains."""
    return {
        "policy": "schedule",
        "schedule": [(2, site, "low_rank") for site in sites],
        "telemetry": "off",
        "veto": False,
        "loss_fn": _loss,
        "data": ([batch], [batch]),
        "trial_steps": [1],
    }


def go_on(esper: Orchestrator, step: Callable[[], None], stage: Stage) -> None:
    """Train, an epoch of one step after the other, until the seeds are in this stage."""
    while _stage(esper) is not stage:
        assert esper.epoch < _MOST_EPOCHS, f"no seed came to {stage.name}"
        step()
        esper.epoch_boundary({"val_loss": 1.0})


def _stage(esper: Orchestrator) -> Stage:
    """Of all seeds, which go together."""
    table = esper.executor.table
    stages = {table.stage(seed) for seed in table.names}
    return stages.pop() if len(stages) == 1 else Stage.DORMANT if not stages else min(stages)


def step_of(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer | None = None,
    after: Callable[[Tensor], None] | None = None,
) -> Callable[[], None]:
    """One training step, always on the same batch."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss = _loss(model, batch)
        torch.autograd.backward(loss)
        optimizer.step()
        if after is not None:
            after(loss.detach())

    return step


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])
