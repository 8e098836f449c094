"""What a hand-written loop pays for each step, beside the loss.item() that it does anyway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bench.harness import Effort, Row, Target
from bench.towers import attached

TITLE = "A step of a hand-written loop"
_STEP_US = 1_000.0
_SHARE = 0.02
"""Of a step of a millisecond."""


def rows(effort: Effort) -> Iterator[Row]:
    """With and without telemetry, nothing grown."""
    yield _row(effort, "after_step, telemetry on", "on")
    yield _row(effort, "after_step, telemetry off", "off", telemetry="off")


def _row(effort: Effort, claim: str, name: str, **settings: Any) -> Row:
    loss = torch.tensor(0.5)
    with attached(**settings) as esper:
        esper.after_step(loss)
        esper.epoch_boundary({"val_loss": 1.0})
        found = effort.compare(lambda: esper.after_step(loss), lambda: loss.item(), repeats=200)
    return Row.timed(
        f"steps/telemetry-{name}",
        claim,
        "us",
        found,
        peer="loss.item()",
        target=Target(p50=_SHARE * _STEP_US),
    )
