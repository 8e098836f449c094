"""What a thousand registered sites cost a training step while nothing grows: the goal is nothing.

Run it: python -m bench.dormant
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.pairs import Row, compare, show
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


def _equal(ours: Callable[[], Tensor], theirs: Callable[[], Tensor]) -> bool:
    """Whether steps taken by turns have the same outputs, to the bit."""
    return all(torch.equal(ours(), theirs()) for _ in range(_NUM_EQUAL_STEPS))


def rows() -> list[Row]:
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
            is_equal = _equal(ours, peer)
            esper.epoch_boundary({})
            is_equal &= _equal(ours, peer)
            num_sites = len(esper.executor.grounds.sites)
            weights = zip(model.parameters(), bare.parameters(), strict=True)
            num_differing = sum(not torch.equal(mine, other) for mine, other in weights)
            found = compare(ours, peer, num_pairs=31, repeats=3)
    return [
        Row(
            claim=f"step with {num_sites:,} registered sites, all dormant",
            goal="inside the A/A band",
            found=f"{found.ours_us / 1e3:.2f} ms",
            beside=f"bare model {found.peer_us / 1e3:.2f} ms: {found.ratio:.3f} times; "
            f"bare over itself {found.same[0]:.3f} to {found.same[1]:.3f}",
            met=num_sites == _NUM_SITES and found.ratio <= found.same[1],
        ),
        Row(
            claim=f"outputs of {2 * _NUM_EQUAL_STEPS} steps and weights after them",
            goal="bit-identical",
            found=f"{num_differing} of {len(list(bare.parameters())):,} tensors differ",
            beside=f"outputs {'equal' if is_equal else 'differ'}",
            met=is_equal and num_differing == 0,
        ),
    ]


if __name__ == "__main__":
    show(TITLE, rows)
