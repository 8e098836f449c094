"""The bus in words: its ledger, what it dropped, and how long its operations take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline import BusReport
from tolaria.show.phrases import clean

if TYPE_CHECKING:
    from oona import BusStatistics, Ledger


def bus_words(bus: BusStatistics | BusReport) -> str:
    """The ledger on one line."""
    counts = (bus.offered, bus.delivered, bus.dropped, bus.queued)
    words = ("offered", "delivered", "dropped", "queued")
    return "  ".join(f"{count:,} {word}" for count, word in zip(counts, words, strict=True))


def dropped_words(bus: BusReport | Ledger) -> str:
    """The events dropped so far by type, the most first; empty if none was."""
    by_num = sorted(bus.dropped_by_type.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{num:,} {clean(kind)}" for kind, num in by_num if num)


def latency_words(report: BusReport) -> str:
    """p50, p95 and p99 of each operation; empty if none was timed."""
    timed = [
        f"{clean(name)} " + "/".join(f"{ms:.2f}" for ms in percentiles)
        for name, percentiles in sorted(report.latency_ms.items())
    ]
    return f"p50/p95/p99 ms: {', '.join(timed)}" if timed else ""


def bus_line(report: BusReport) -> str:
    """All of it on one line, as it was at the end of an epoch."""
    dropped = dropped_words(report)
    parts = [bus_words(report), f"dropped {dropped}" if dropped else "", latency_words(report)]
    return f"bus after epoch {report.epoch}: " + "; ".join(part for part in parts if part)
