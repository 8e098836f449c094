"""What a thousand dormant sites cost a training step: the goal is nothing."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.harness import Effort, Peer, Quantiles, Row, Target
from tolaria import Orchestrator

TITLE = "Dormant sites"

_NUM_SITES = 1_000
_WIDTH = 8
_NUM_EQUAL_STEPS = 20


def _host() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(_WIDTH, _WIDTH) for _ in range(_NUM_SITES)])


def _trainer(
    model: nn.Module, optimizer: torch.optim.Optimizer, after: Callable[[Tensor], None]
) -> Callable[[], Tensor]:
    """One training step, always on the same batch."""
    inputs = torch.randn(16, _WIDTH, generator=torch.Generator().manual_seed(1))

    def step() -> Tensor:
        optimizer.zero_grad()
        outputs: Tensor = model(inputs)
        loss = outputs.square().mean()
        loss.backward()  # type: ignore[no-untyped-call] # torch's
        optimizer.step()
        after(loss.detach())
        return outputs

    return step


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3)


def _num_differing(ours: Callable[[], Tensor], theirs: Callable[[], Tensor]) -> int:
    """Steps, taken by turns, whose outputs are not the same to the bit."""
    return sum(not torch.equal(ours(), theirs()) for _ in range(_NUM_EQUAL_STEPS))


def rows(effort: Effort) -> Iterator[Row]:
    """The step with every site registered and dormant beside the bare model's."""
    bare = _host()
    model = copy.deepcopy(bare)
    optimizer = _sgd(model)
    peer = _trainer(bare, _sgd(bare), lambda loss: None)
    with tempfile.TemporaryDirectory() as folder:
        esper = Orchestrator.attach(
            model,
            optimizer,
            example=torch.zeros(1, _WIDTH),
            run_dir=str(Path(folder) / "run"),
            policy="schedule",
            telemetry="off",
            checkpoint=False,
        )
        with esper:
            ours = _trainer(model, optimizer, esper.after_step)
            num_differing = _num_differing(ours, peer)
            esper.epoch_boundary({})
            num_differing += _num_differing(ours, peer)
            num_sites = len(esper.executor.grounds.sites)
            weights = zip(model.parameters(), bare.parameters(), strict=True)
            num_differing += sum(not torch.equal(mine, other) for mine, other in weights)
            found = effort.compare(ours, peer, num_pairs=31, repeats=3)
    beside = Peer("the bare model", found.ratio, found.peer_us.p50 / 1e3, found.band, found.band[1])
    yield Row(
        id="dormant/step",
        claim=f"step with {num_sites:,} registered sites, all dormant",
        unit="ms",
        ours=found.ours_us.scaled(1e-3),
        peer=beside,
        note="the goal is to be inside the band",
    )
    yield Row(
        id="dormant/bits",
        claim=f"outputs of {2 * _NUM_EQUAL_STEPS} steps, weights after them",
        unit="tensors that differ",
        ours=Quantiles(num_differing),
        target=Target(p50=0),
        note=f"of {len(list(bare.parameters())):,}",
    )
