"""What the seeds' state costs: transitions, queries, alphas, boundaries, records, memory.

Run it: python -m bench.seeds
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.pairs import Action, Row, compare, show
from kasmina import Executor, SeedTable, unpack_record
from kasmina.grafting.linear_ramps import LinearRamps
from leyline import Evidence, Stage, encode_into
from tolaria.data import load
from tolaria.disk.seed_records import SeedRecords
from tolaria.gather import Gatherer

TITLE = "The state of seeds"

MANY = 10_000
SEED = "block1.conv/77"
LAP = (Stage.GERMINATED, Stage.TRAINING, Stage.CANCELLED, Stage.DORMANT)
_NUM_BOUNDARIES = 100


def table_of(num_seeds: int) -> SeedTable:
    table = SeedTable()
    fill(table, num_seeds)
    return table


def fill(table: SeedTable, num_seeds: int) -> None:
    for number in range(num_seeds):
        table.add(f"block1.conv/{number}", site=0)


def one_transition(table: SeedTable) -> Action:
    """One validated transition, on evidence read from the row."""
    stages = cycle(LAP)

    def advance() -> None:
        evidence = table.evidence(SEED, trials_waived=True, blueprint_proven=True)
        table.advance(SEED, next(stages), evidence)

    return advance


def bulk_transition(table: SeedTable, rows: np.ndarray) -> Action:
    """One validated transition of each of these rows."""
    stages, proven = cycle(LAP), np.ones(len(rows), dtype=np.bool_)

    def advance() -> None:
        refused = table.advance_all(rows, next(stages), blueprint_proven=proven)
        assert not refused.any()

    return advance


def row_of(
    claim: str,
    goal: float,
    unit: str,
    ours: Action,
    peer: Action,
    what: str,
    repeats: int,
    *,
    per: int = 1,
) -> Row:
    """A row whose goal is an amount of time, in us or ns, beside a peer of the same run."""
    found = compare(ours, peer, repeats=repeats)
    scale = 1e3 if unit.startswith("ns") else 1.0
    spent, beside = found.ours_us * scale / per, found.peer_us * scale / per
    return Row(
        claim,
        f"<= {goal:g} {unit}",
        f"{spent:.3g} {unit}",
        f"{what} {beside:.3g}, {found.ratio:.1f}x",
        spent <= goal,
    )


def single_rows() -> list[Row]:
    table = table_of(MANY)
    evidence = Evidence(epochs_in_stage=1)

    class Bare:
        stage = Stage.DORMANT

        def advance(self, seed: str, to: Stage, known: Evidence) -> None:
            pass

    bare = Bare()
    alpha = table.column("alpha")
    other, twice = np.empty_like(alpha), np.empty(2 * MANY, dtype=np.float32)
    ramps, scattered = LinearRamps(), LinearRamps()
    for number in range(MANY):
        ramps.begin(f"a/{number}", number, 10**9)
        scattered.begin(f"a/{number}", 2 * number, 10**9)
    held = [array.copy() for array in (table.column("stage"), table.column("epochs_in_stage"))]
    spare = [np.empty_like(array) for array in held]

    def copy_columns() -> None:
        for source, target in zip(held, spare, strict=True):
            np.copyto(target, source)

    copy_alpha = lambda: np.copyto(other, alpha)  # noqa: E731 # an action like the others
    return [
        row_of(
            "validated transition, single",
            2,
            "us",
            one_transition(table),
            lambda: bare.advance(SEED, Stage.GERMINATED, evidence),
            "bare call",
            2000,
        ),
        row_of(
            f"validated transition, bulk of {MANY:,}",
            20,
            "ns a seed",
            bulk_transition(table_of(MANY), np.arange(MANY)),
            copy_columns,
            "memcpy of two columns",
            20,
            per=MANY,
        ),
        row_of(
            "state query",
            0.4,
            "us",
            lambda: table.stage(SEED),
            lambda: bare.stage,
            "attribute read",
            5000,
        ),
        row_of(
            f"alpha for {MANY:,} seeds, rows in order",
            20,
            "us",
            lambda: ramps.step(alpha),
            copy_alpha,
            "memcpy",
            100,
        ),
        row_of(
            f"alpha for {MANY:,} seeds, in every second row",
            20,
            "us",
            lambda: scattered.step(twice),
            copy_alpha,
            "memcpy",
            100,
        ),
        Row(
            "memory per seed in the table",
            "10,000 seeds <= 1.5 MB",
            f"{table.size_bytes / 1e6:.2f} MB: {table.size_bytes / MANY:.0f} bytes a seed, "
            "room to grow included",
            f"names and their index apart: {names_bytes(table) / MANY:.0f} bytes a seed",
            table.size_bytes <= 1_500_000,
        ),
    ]


def names_bytes(table: SeedTable) -> int:
    """Memory of the names, their list and their index."""
    index = {name: row for row, name in enumerate(table.names)}
    words = sum(name.__sizeof__() for name in table.names)
    return words + table.names.__sizeof__() + index.__sizeof__()


def record_rows(folder: Path) -> list[Row]:
    """Saving into, and restoring from, the mapped file, beside a copy of the same bytes."""
    table = table_of(MANY)
    file = SeedRecords(folder / "seeds.bin")
    size = len(table.record(SEED, "low_rank"))
    source, target = bytes(size), memoryview(bytearray(1 << 20))

    def copy() -> None:
        target[4096 : 4096 + size] = source

    def save() -> None:
        file.commit(SEED, 1, table.record(SEED, "low_rank"))

    save()
    save()
    whole = file.records(SEED)[0]
    rows = []
    for claim, action in (
        ("one seed's record: save, crash-safe", save),
        ("one seed's record: restore, checked", lambda: table.restore(whole)),
    ):
        found = compare(action, copy, repeats=2000)
        rows.append(
            Row(
                claim,
                "<= 25x memcpy",
                f"{found.ours_us:.2f} us for {size} bytes",
                f"memcpy {found.peer_us:.3f} us, {found.ratio:.1f}x",
                found.ratio <= 25,
            )
        )
    assert unpack_record(whole).seed == SEED
    return rows


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
        table = self.executor.table
        table.end_epoch()
        self._ramps.step(table.column("alpha"))
        self._gatherer.schema(("val_loss",))
        packet = self._gatherer.packet(
            {"val_loss": 0.5}, epoch=1, step=45, num_epochs=30, host_parameters=100
        )
        self.packet_bytes = encode_into(packet, self._buffer)
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
    with tempfile.TemporaryDirectory() as folder:
        return [*single_rows(), *record_rows(Path(folder)), *boundary_rows(), *share_rows()]


if __name__ == "__main__":
    show(TITLE, rows)
