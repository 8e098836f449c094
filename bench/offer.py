"""What telemetry costs the training step that offers it.

Run it: python -m bench.offer
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import leyline
import oona
from bench.packets import state_packet
from bench.pairs import Row, once_us, show
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


def _ratios(bus: oona.Bus, events: list[leyline.Event]) -> tuple[float, float, float, float]:
    """Ratios of the mean step times and of their p99; the noise; the bare step in s."""
    step = _trainer()
    for _ in range(50):
        step()
    means, same = [], []
    ours_all: list[float] = []
    bare_all: list[float] = []
    for _ in range(_NUM_PAIRS):
        before = _block_s(step, None, [])
        ours = _block_s(step, bus, events)
        after = _block_s(step, None, [])
        means.append(2 * sum(ours) / (sum(before) + sum(after)))
        same.append(sum(after) / sum(before))
        ours_all += ours
        bare_all += before + after
    p99 = statistics.quantiles(ours_all, n=100)[98] / statistics.quantiles(bare_all, n=100)[98]
    spread = statistics.quantiles([abs(ratio - 1) for ratio in same], n=10)[8]
    return statistics.median(means), p99, spread, statistics.median(bare_all)


def _offer_us(bus: oona.Bus, event: leyline.Event) -> float:
    return min(once_us(lambda: bus.offer(event), 200) for _ in range(30))


def _flood_row(folder: Path, publisher: str, rate: int, goal: float) -> Row:
    step = _trainer()
    step_s = min(once_us(step, 20) for _ in range(5)) / 1e6
    num = max(1, round(rate * step_s))
    events: list[leyline.Event] = [leyline.StepMetrics(step=i, loss=0.5) for i in range(num)]
    with oona.Bus.open(folder / f"{publisher}-{rate}", "run", publisher=publisher) as bus:
        one_us = _offer_us(bus, events[0])
        ratio, p99, spread, step_s = _ratios(bus, events)
        bus.flush(10.0)
        counts = bus.statistics()
    return Row(
        f"{rate // 1000}k events/s, publisher in a {publisher}",
        f"<= {goal}, p99 <= {_P99_GOAL}",
        f"{ratio:.3f}, p99 {p99:.2f}",
        f"bare step {step_s * 1e3:.2f} ms (itself +-{spread:.3f}); {num} offers of {one_us:.1f} us "
        f"are {num * one_us / step_s / 1e4:.1f} % of it; {counts.dropped:,} of "
        f"{counts.offered:,} dropped",
        ratio <= goal and p99 <= _P99_GOAL,
    )


def _packet_row(folder: Path) -> Row:
    packet = state_packet(32)
    with oona.Bus.open(folder / "packet", "run") as bus:
        one_us = _offer_us(bus, packet)
        ratio, _, spread, step_s = _ratios(bus, [packet])
    return Row(
        "one 32-seed packet per step",
        f"<= {_OFFER_GOAL_US:.0f} us, <= {_PACKET_SHARE_GOAL:.1%} of a 2 ms step",
        f"{one_us:.1f} us, {one_us / step_s / 1e6:.2%} of the step",
        f"paired step times {ratio:.4f} (bare step {step_s * 1e3:.2f} ms, itself +-{spread:.3f})",
        one_us <= _OFFER_GOAL_US and one_us / step_s / 1e6 <= _PACKET_SHARE_GOAL,
    )


def rows() -> list[Row]:
    """One packet per step, then floods by both publishers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        floods = [
            _flood_row(folder, publisher, rate, goal)
            for rate, goal in _RATES
            for publisher in PUBLISHERS
        ]
        return [_packet_row(folder), *floods]


if __name__ == "__main__":
    show(TITLE, rows)
