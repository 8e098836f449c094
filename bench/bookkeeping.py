"""What a boundary does with the seeds' state, by the number of seeds, and its share of a run.

Run it: python -m bench.bookkeeping
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from bench.pairs import Action, Row, compare, show
from bench.seeds import MANY, bulk_transition, fill
from kasmina import Executor
from kasmina.grafting.linear_ramps import LinearRamps
from leyline import encode_body
from tolaria.boundary.gather import Gatherer
from tolaria.data import load

TITLE = "The bookkeeping of a boundary"

_NUM_BOUNDARIES = 100


class Bookkeeping:
    """All that a boundary does with the seeds' state, a tenth of them going on a stage."""

    def __init__(self, num_seeds: int):
        self.executor = Executor(nn.Linear(8, 8), rng_seed=0)
        fill(self.executor.table, num_seeds)
        self._gatherer = Gatherer(self.executor, run_id="bench", param_budget=None)
        self._ramps = LinearRamps()
        for row in range(num_seeds):
            self._ramps.begin(self.executor.table.names[row], row, 10**9)
        chosen = np.arange(0, num_seeds, 10)
        self._transitions = bulk_transition(self.executor.table, chosen)
        self._buffer = bytearray()
        self.packet_bytes = 0

    def boundary(self) -> None:
        """Everything once."""
        table = self.executor.table
        table.end_epoch()
        self._ramps.step(table.column("alpha"))
        self._gatherer.schema(("val_loss",))
        packet = self._gatherer.packet(
            {"val_loss": 0.5}, epoch=1, step=45, num_epochs=30, host_parameters=100
        )
        self.packet_bytes = len(encode_body(packet, self._buffer)) + len(self._buffer)
        self._transitions()
        self.executor.lifecycle.take_metrics(1, 0)


def cpu_us(action: Action) -> float:
    """CPU time of one call: what others do on this machine is not the boundary's."""
    start_ns = time.thread_time_ns()
    action()
    return (time.thread_time_ns() - start_ns) / 1e3


def boundary_rows() -> Iterator[Row]:
    """p95 over boundaries, and how it grows with the seeds."""
    # As in a run: once a large tensor was freed, glibc keeps what is freed for the next buffer.
    bytes(1 << 24)
    medians = {}
    for num_seeds, goal_ms in ((32, 0.1), (MANY, 1.0), (10 * MANY, 10.0)):
        work = Bookkeeping(num_seeds)
        for _ in range(5):
            work.boundary()
        content, target = bytes(work.packet_bytes), bytearray(work.packet_bytes)

        def copy(content: bytes = content, target: bytearray = target) -> None:
            target[:] = content

        pairs = [(cpu_us(work.boundary), cpu_us(copy)) for _ in range(_NUM_BOUNDARIES)]
        ours = sorted(mine for mine, _ in pairs)
        medians[num_seeds] = statistics.median(ours)
        p95_ms = ours[int(0.95 * len(ours))] / 1e3
        ratio = statistics.median(mine / peer for mine, peer in pairs)
        yield Row(
            f"boundary bookkeeping, {num_seeds:,} seeds, CPU time",
            f"p95 <= {goal_ms:g} ms",
            f"p95 {p95_ms:.3f} ms, p50 {medians[num_seeds] / 1e3:.3f} ms",
            f"memcpy of its {work.packet_bytes:,} byte packet, {ratio:.0f}x",
            p95_ms <= goal_ms,
        )
    logs = [(math.log(num), math.log(us)) for num, us in medians.items()]
    fitted = statistics.linear_regression(*zip(*logs, strict=True)).slope
    last = (logs[2][1] - logs[1][1]) / (logs[2][0] - logs[1][0])
    yield Row(
        "slope of log time on log seeds, fitted to the three",
        "<= 1.05",
        f"{fitted:.2f}",
        f"from 10,000 to 100,000 alone {last:.2f}",
        fitted <= 1.05,
    )


def share_rows() -> list[Row]:
    """State management beside the bare steps of the shipped digits host, the smallest there is."""
    task = load("digits", rng_seed=0)
    batches = list(task.data.train_dataloader())
    optimizer = torch.optim.Adam(task.module.parameters())

    def train() -> None:
        for images, labels in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(task.module(images), labels)
            torch.autograd.backward(loss)
            optimizer.step()

    work = Bookkeeping(MANY)
    alpha = work.executor.table.column("alpha")
    ramps = LinearRamps()
    for row in range(0, MANY, 10):
        ramps.begin(f"a/{row}", row, 10**9)

    def manage() -> None:
        for _ in batches:
            ramps.step(alpha)
            work.executor.after_step(0.5)
        work.boundary()

    found = compare(manage, train, num_pairs=15)
    return [
        Row(
            f"state of {MANY:,} seeds, 1,000 grafting: {len(batches)} steps, a boundary",
            "< 5 % of the run",
            f"{found.ours_us / 1e3:.2f} ms an epoch, {found.ratio:.1%}",
            f"the digits host's epoch, a bare loop: {found.peer_us / 1e3:.1f} ms",
            found.ratio < 0.05,
        )
    ]


def rows() -> list[Row]:
    """Every claim about boundaries of many seeds."""
    return [*boundary_rows(), *share_rows()]


if __name__ == "__main__":
    show(TITLE, rows)
