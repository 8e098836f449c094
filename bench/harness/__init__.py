"""The latency harness: paired timings, rows with a verdict, one table, results to compare."""

from bench.harness.effort import Comparison, Effort, band_of, once_us
from bench.harness.quantiles import Quantiles
from bench.harness.row import Peer, Row, Target, Verdict

__all__ = [
    "Comparison",
    "Effort",
    "Peer",
    "Quantiles",
    "Row",
    "Target",
    "Verdict",
    "band_of",
    "once_us",
]
