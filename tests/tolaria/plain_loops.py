"""A tiny convolutional task and a hand-written training loop, for tests without Lightning."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from kasmina.slots.slot import attached_seeds
from leyline import Decision, Event, Fault
from tamiyo import Policy, State
from tolaria import BoundaryReport, Orchestrator

Batch = tuple[Tensor, Tensor]
SITE = "conv"
SEED = "conv/0"
NUM_BATCHES = 4
SCHEDULE = ((1, SITE, "conv"),)
"""TRAINING in epoch 2, GRAFTING in 3, STABILIZATION in 4, EVALUATING in 5."""


class ConvNet(nn.Module):
    """One convolution, with batch statistics and dropout in it, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.conv(images)))
        return self.head(self.dropout(hidden.mean((2, 3))))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Contended threads are many times slower, and their number changes bits."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def make_host(rng_seed: int = 0) -> ConvNet:
    torch.manual_seed(rng_seed)
    return ConvNet()


def make_batches(num_batches: int, rng_seed: int, size: int = 16) -> list[Batch]:
    """Images of waves of three frequencies, in noise."""
    generator = torch.Generator().manual_seed(rng_seed)
    batches = []
    for _ in range(num_batches):
        labels = torch.randint(0, 3, (size,), generator=generator)
        phase = torch.rand(size, 1, generator=generator) * 6.28
        wave = torch.sin(torch.arange(8) * (labels + 1)[:, None] * 0.8 + phase)
        noise = torch.randn(size, 1, 8, 8, generator=generator)
        batches.append((wave[:, None, None, :] + 0.3 * noise, labels))
    return batches


TRAIN = make_batches(NUM_BATCHES, 1)
HELD_OUT = make_batches(2, 2, 32)


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def adam(model: nn.Module) -> Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def attach(model: nn.Module, optimizer: Any, run_dir: Path, **settings: Any) -> Orchestrator:
    """Attach with trials of a few steps, no bus and no checkpoints, unless settings say so."""
    defaults: dict[str, Any] = {
        "loss_fn": loss_fn,
        "data": (TRAIN, HELD_OUT),
        "telemetry": "off",
        "checkpoint": False,
        "trial_steps": [3, 6],
        "num_epochs": 10,
        "veto": False,
    }
    if "schedule" in settings:
        defaults["policy"] = "schedule"
    return Orchestrator.attach(model, optimizer, run_dir=run_dir, **{**defaults, **settings})


def train_step(model: nn.Module, optimizer: Optimizer, batch: Batch) -> Tensor:
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    loss.backward()
    optimizer.step()
    return loss.detach()


def train_epoch(
    model: nn.Module,
    optimizer: Optimizer,
    esper: Orchestrator | None = None,
    batches: Sequence[Batch] = TRAIN,
    after_step: Callable[[Tensor], None] = lambda loss: None,
) -> list[float]:
    """One epoch without its boundary; returns the losses."""
    model.train()
    losses = []
    for batch in batches:
        loss = train_step(model, optimizer, batch)
        if esper is not None:
            esper.after_step(loss, batch)
        after_step(loss)
        losses.append(float(loss))
    return losses


def evaluate(model: nn.Module) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        return {"val_loss": float(torch.stack([loss_fn(model, b) for b in HELD_OUT]).mean())}


def run(
    model: nn.Module, optimizer: Optimizer, esper: Orchestrator, num_epochs: int
) -> list[BoundaryReport]:
    """Train and pass that many boundaries."""
    reports = []
    for _ in range(num_epochs):
        train_epoch(model, optimizer, esper)
        reports.append(esper.epoch_boundary(evaluate(model)))
    return reports


def stages(report: BoundaryReport) -> list[tuple[int, int]]:
    return [(r.was, r.now) for r in report.reports if not r.refused]


def listen(esper: Orchestrator) -> list[Event]:
    """Every event from now on."""
    heard: list[Event] = []
    esper.session.recorder.listeners.append(heard.append)
    return heard


def faults(events: Sequence[Event]) -> list[Fault]:
    return [event for event in events if isinstance(event, Fault)]


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def copy_of_state(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The optimizer's state of each parameter, in order of its groups."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [
        {
            k: v.clone() if isinstance(v, Tensor) else v
            for k, v in optimizer.state.get(p, {}).items()
        }
        for p in parameters
    ]


def assert_same_state(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert list(mine) == list(other)
        for key, value in mine.items():
            same = (
                torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]
            )
            assert same, key


def assert_tracked(model: nn.Module, optimizer: Optimizer) -> None:
    """Every parameter that can be trained is in one group, and nothing else has state."""
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert {id(p) for p in model.parameters() if p.requires_grad} <= set(grouped)
    assert set(grouped) <= {id(p) for p in model.parameters()}
    assert {id(p) for p in optimizer.state} <= set(grouped)


def seed_parameters(model: nn.Module, seed: str = SEED) -> list[nn.Parameter]:
    return list(attached_seeds(model)[seed][2].parameters())


def streams() -> list[bytes]:
    """Where every random stream of the process stands."""
    return [
        repr(random.getstate()).encode(),
        np.random.get_state()[1].tobytes() + repr(np.random.get_state()[2:]).encode(),
        torch.get_rng_state().numpy().tobytes(),
    ]


class Scripted:
    """A policy that does what the test says, and remembers how often it was asked."""

    name = "scripted"

    def __init__(self, decide: Callable[[State], Any]):
        self._decide = decide
        self.num_asked = 0

    def decide(self, state: State) -> Decision:
        self.num_asked += 1
        decision: Decision = self._decide(state)
        return decision

    def state_dict(self) -> dict[str, Any]:
        return {"num_asked": self.num_asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_asked = state["num_asked"]


def use_policy(monkeypatch: pytest.MonkeyPatch, policy: Policy) -> None:
    monkeypatch.setattr("tolaria.live_run.build_policy", lambda config: policy)
