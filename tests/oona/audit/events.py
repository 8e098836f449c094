"""Envelopes as a run sends them, for tests that keep them."""

from __future__ import annotations

from collections.abc import Iterable

import leyline
from leyline import Event

NOON_NS = 1_763_726_400 * 10**9
"""2025-11-21, noon UTC."""


def enveloped(
    events: Iterable[Event], *, run_id: str = "run", first: int = 1
) -> list[leyline.Envelope]:
    """The events of a run in order, a second apart."""
    return [
        leyline.Envelope(
            run_id=run_id,
            sequence=sequence,
            priority=leyline.PRIORITIES[type(event)],
            monotonic_ns=sequence,
            wall_ns=NOON_NS + sequence * 10**9,
            event=event,
        )
        for sequence, event in enumerate(events, first)
    ]


def steps(num: int, *, run_id: str = "run", first: int = 1) -> list[leyline.Envelope]:
    """So many steps of a run."""
    events = [leyline.StepMetrics(step=step, loss=1 / step) for step in range(1, num + 1)]
    return enveloped(events, run_id=run_id, first=first)


def seed_report(seed: str, *, epoch: int = 2) -> leyline.SeedReport:
    """A seed that has just germinated."""
    return leyline.SeedReport(
        epoch=epoch,
        seed=seed,
        site=seed.rpartition("/")[0],
        blueprint="low_rank",
        was=0,
        now=1,
        parameters=3,
        alpha=0.0,
        cause="race 1",
    )
