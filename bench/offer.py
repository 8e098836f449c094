"""What telemetry costs the training step that offers it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

import leyline
import oona
from bench.harness import Effort, Peer, Quantiles, Row, Target, band_of, once_us
from bench.packets import state_packet
from oona.opening import PUBLISHERS

TITLE = "Offering events from the training step"

_WIDTH = 340
_NUM_STEPS = 25
_NUM_PAIRS = 60
_RATES = ((10_000, 1.02), (100_000, 1.05))
_P99_GOAL = 1.05
_PACKET_SHARE_GOAL = 0.002
_OFFER_GOAL_US = 3.0


def _trainer() -> Callable[[], None]:
    """One training step of about two milliseconds."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(_WIDTH, _WIDTH) for _ in range(4)])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs = torch.randn(64, _WIDTH)

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    return step


def _block_s(
    step: Callable[[], None], bus: oona.Bus | None, events: list[leyline.Event]
) -> list[float]:
    """Times of some steps in a row, in s, each with its offers."""
    took = []
    for _ in range(_NUM_STEPS):
        start = time.perf_counter()
        step()
        if bus is not None:
            for event in events:
                bus.offer(event)
        took.append(time.perf_counter() - start)
    return took


def rows(effort: Effort) -> Iterator[Row]:
    """One packet per step, then floods, in a full run by both publishers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield _packet_row(effort, folder)
        for rate, most in _RATES:
            for publisher in PUBLISHERS[:1] if effort.is_quick else PUBLISHERS:
                yield _flood_row(effort, folder, publisher, rate, most)


class _Blocks(NamedTuple):
    """Steps with offers among steps without, s."""

    ours_s: list[float]
    bare_s: list[float]
    ratio: float
    """Of the means of blocks that ran one after the other: the median."""
    band: tuple[float, float]


def _paired(effort: Effort, bus: oona.Bus, events: list[leyline.Event]) -> _Blocks:
    step = _trainer()
    for _ in range(50):
        step()
    ratios, same = [], []
    ours_s: list[float] = []
    bare_s: list[float] = []
    for _ in range(effort.num(_NUM_PAIRS)):
        before = _block_s(step, None, [])
        ours = _block_s(step, bus, events)
        after = _block_s(step, None, [])
        ratios.append(2 * sum(ours) / (sum(before) + sum(after)))
        same.append(sum(after) / sum(before))
        ours_s += ours
        bare_s += before + after
    return _Blocks(ours_s, bare_s, statistics.median(ratios), band_of(same))


def _offers_us(bus: oona.Bus, event: leyline.Event) -> list[float]:
    return [once_us(lambda: bus.offer(event), 200) for _ in range(30)]


def _flood_row(effort: Effort, folder: Path, publisher: str, rate: int, most: float) -> Row:
    step = _trainer()
    step_s = min(once_us(step, 20) for _ in range(5)) / 1e6
    num = max(1, round(rate * step_s))
    events: list[leyline.Event] = [leyline.StepMetrics(step=i, loss=0.5) for i in range(num)]
    with oona.Bus.open(folder / f"{publisher}-{rate}", "run", publisher=publisher) as bus:
        one_us = min(_offers_us(bus, events[0]))
        found = _paired(effort, bus, events)
        bus.flush(10.0)
        counts = bus.statistics()
    bare = Quantiles.of(found.bare_s, 1e3)
    assert bare.p99 is not None
    return Row(
        id=f"offer/{rate}/{publisher}",
        claim=f"step with {rate // 1000}k events/s, publisher in a {publisher}",
        unit="ms",
        ours=Quantiles.of(found.ours_s, 1e3),
        target=Target(p99=_P99_GOAL * bare.p99),
        peer=Peer("the bare step", found.ratio, bare.p50, found.band, most),
        note=f"{num} offers of {one_us:.1f} us are {num * one_us / step_s / 1e4:.1f} % of it; "
        f"{counts.dropped:,} of {counts.offered:,} dropped",
    )


def _packet_row(effort: Effort, folder: Path) -> Row:
    packet = state_packet(32)
    with oona.Bus.open(folder / "packet", "run") as bus:
        ours = Quantiles.of(_offers_us(bus, packet))
        found = _paired(effort, bus, [packet])
    step_us = statistics.median(found.bare_s) * 1e6
    return Row(
        id="offer/packet",
        claim="offering a packet of 32 seeds",
        unit="us",
        ours=ours,
        target=Target(p50=_OFFER_GOAL_US),
        peer=Peer("the bare step", ours.p50 / step_us, step_us, found.band, _PACKET_SHARE_GOAL),
        note=f"whole steps with it {found.ratio:.4f}",
    )
