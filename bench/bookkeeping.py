"""What a boundary does with the seeds' state, by the number of seeds, and its share of a run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from bench.harness import Effort, Peer, Quantiles, Row, Target
from bench.harness.effort import Action
from bench.seeds import MANY, bulk_transition, fill
from kasmina import Executor
from kasmina.grafting.linear_ramps import LinearRamps
from leyline import encode_body
from tolaria.boundary.gather import Gatherer
from tolaria.data import load

TITLE = "The bookkeeping of a boundary"

_NUM_BOUNDARIES = 100
_GOALS_MS = {32: 0.1, MANY: 1.0, 10 * MANY: 10.0}


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
            {"val_loss": 0.5},
            epoch=1,
            step=45,
            num_epochs=30,
            host_parameters=100,
            grown_parameters=10,
        )
        self.packet_bytes = len(encode_body(packet, self._buffer)) + len(self._buffer)
        self._transitions()
        self.executor.lifecycle.take_metrics(1, 0)


def cpu_us(action: Action) -> float:
    """CPU time of one call: what others do on this machine is not the boundary's."""
    start_ns = time.thread_time_ns()
    action()
    return (time.thread_time_ns() - start_ns) / 1e3


def boundary_rows(effort: Effort) -> Iterator[Row]:
    """The tail over boundaries, and how the median grows with the seeds."""
    # As in a run: once a large tensor was freed, glibc keeps what is freed for the next buffer.
    bytes(1 << 24)
    medians = {}
    for num_seeds, goal_ms in _GOALS_MS.items():
        work = Bookkeeping(num_seeds)
        for _ in range(5):
            work.boundary()
        content, target = bytes(work.packet_bytes), bytearray(work.packet_bytes)

        def memcpy(content: bytes = content, target: bytearray = target) -> None:
            target[:] = content

        num_pairs = effort.num(_NUM_BOUNDARIES)
        pairs = [(cpu_us(work.boundary), cpu_us(memcpy)) for _ in range(num_pairs)]
        ours = Quantiles.of([mine for mine, _ in pairs], 1e-3)
        medians[num_seeds] = ours.p50
        ratio = statistics.median(mine / peer for mine, peer in pairs)
        peer_ms = statistics.median(peer for _, peer in pairs) / 1e3
        yield Row(
            id=f"bookkeeping/{num_seeds}",
            claim=f"the seeds' part of a boundary, {num_seeds:,} seeds, CPU time",
            unit="ms",
            ours=ours,
            target=Target(p95=goal_ms),
            peer=Peer(f"memcpy of its packet, {work.packet_bytes:,} bytes", ratio, peer_ms),
        )
    yield _slope_row(medians)


def _slope_row(medians: dict[int, float]) -> Row:
    logs = [(math.log(num), math.log(ms)) for num, ms in medians.items()]
    last = (logs[2][1] - logs[1][1]) / (logs[2][0] - logs[1][0])
    return Row(
        id="bookkeeping/slope",
        claim="slope of log time on log seeds, fitted to the three",
        unit="exponent",
        ours=Quantiles(statistics.linear_regression(*zip(*logs, strict=True)).slope),
        target=Target(p50=1.05),
        note=f"from 10,000 to 100,000 alone {last:.2f}",
    )


def share_row(effort: Effort) -> Row:
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

    return Row.timed(
        "bookkeeping/share",
        f"state of {MANY:,} seeds, 1,000 grafting: {len(batches)} steps and a boundary",
        "ms",
        effort.compare(manage, train, num_pairs=15),
        peer="the digits host's epoch, a bare loop",
        most=0.05,
    )


def rows(effort: Effort) -> Iterator[Row]:
    """Every claim about boundaries of many seeds."""
    yield from boundary_rows(effort)
    yield share_row(effort)
