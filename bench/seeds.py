"""What the seeds' state costs by the call, and in memory."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from bench.harness import Effort, Quantiles, Row, Target
from bench.harness.effort import Action
from kasmina import SeedTable, unpack_record
from kasmina.grafting.linear_ramps import LinearRamps
from leyline import Evidence, Stage
from tolaria.disk.seed_records import SeedRecords

TITLE = "The state of seeds"

MANY = 10_000
SEED = "block1.conv/77"
LAP = (Stage.GERMINATED, Stage.TRAINING, Stage.CANCELLED, Stage.DORMANT)


def table_of(num_seeds: int) -> SeedTable:
    """A table of dormant seeds at one site."""
    table = SeedTable()
    fill(table, num_seeds)
    return table


def fill(table: SeedTable, num_seeds: int) -> None:
    """Add dormant seeds at one site."""
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


class Bare:
    """What a call costs that does nothing."""

    stage = Stage.DORMANT

    def advance(self, seed: str, to: Stage, known: Evidence) -> None:
        """Do nothing."""


def transition_rows(effort: Effort, table: SeedTable) -> Iterator[Row]:
    """One seed's transition beside a bare call, and everybody's beside a memcpy."""
    bare, evidence = Bare(), Evidence(epochs_in_stage=1)
    held = [array.copy() for array in (table.column("stage"), table.column("epochs_in_stage"))]
    spare = [np.empty_like(array) for array in held]

    def copy_columns() -> None:
        for source, target in zip(held, spare, strict=True):
            np.copyto(target, source)

    yield Row.timed(
        "seeds/transition/single",
        "validated transition, single",
        "us",
        effort.compare(
            one_transition(table),
            lambda: bare.advance(SEED, Stage.GERMINATED, evidence),
            repeats=2000,
        ),
        peer="a bare call",
        target=Target(p50=2.0),
        most=25.0,
    )
    everybody = bulk_transition(table_of(MANY), np.arange(MANY))
    yield Row.timed(
        "seeds/transition/bulk",
        f"validated transition, bulk of {MANY:,}",
        "ns a seed",
        effort.compare(everybody, copy_columns, repeats=20),
        peer="memcpy of two columns",
        target=Target(p50=20.0),
        per=MANY,
    )


def query_row(effort: Effort, table: SeedTable) -> Row:
    """A seed's stage beside the attribute of an object."""
    bare = Bare()
    found = effort.compare(lambda: table.stage(SEED), lambda: bare.stage, repeats=5000)
    target = Target(p50=0.4)
    return Row.timed(
        "seeds/query", "state query", "us", found, peer="attribute", target=target, most=10.0
    )


def alpha_rows(effort: Effort, table: SeedTable) -> Iterator[Row]:
    """Every alpha moved on by a step, beside a memcpy of them."""
    alpha = table.column("alpha")
    other, twice = np.empty_like(alpha), np.empty(2 * MANY, dtype=np.float32)
    ramps, scattered = LinearRamps(), LinearRamps()
    for number in range(MANY):
        ramps.begin(f"a/{number}", number, 10**9)
        scattered.begin(f"a/{number}", 2 * number, 10**9)
    for where, moved, column in (("in order", ramps, alpha), ("every second", scattered, twice)):
        found = effort.compare(
            partial(moved.step, column), lambda: np.copyto(other, alpha), repeats=100
        )
        yield Row.timed(
            f"seeds/alpha/{where.replace(' ', '-')}",
            f"a step of {MANY:,} alphas, rows {where}",
            "us",
            found,
            peer="memcpy",
            target=Target(p50=20.0),
        )


def memory_row(table: SeedTable) -> Row:
    """The columns' bytes, and those of the names apart."""
    return Row(
        id="seeds/memory",
        claim=f"table of {MANY:,} seeds, room to grow included",
        unit="MB",
        ours=Quantiles(table.size_bytes / 1e6),
        target=Target(p50=1.5),
        note=f"{table.size_bytes / MANY:.0f} bytes a seed; names and their index apart: "
        f"{names_bytes(table) / MANY:.0f}",
    )


def names_bytes(table: SeedTable) -> int:
    """Memory of the names, their list and their index."""
    index = {name: row for row, name in enumerate(table.names)}
    words = sum(name.__sizeof__() for name in table.names)
    return words + table.names.__sizeof__() + index.__sizeof__()


def record_rows(effort: Effort, folder: Path) -> Iterator[Row]:
    """Saving into, and restoring from, the mapped file, beside copying and torch.save."""
    table = table_of(MANY)
    file = SeedRecords(folder / "seeds.bin")
    size = len(table.record(SEED, "low_rank"))
    source, target = bytes(size), memoryview(bytearray(1 << 20))

    def memcpy() -> None:
        target[4096 : 4096 + size] = source

    def save() -> None:
        file.commit(SEED, 1, table.record(SEED, "low_rank"))

    def torch_save() -> None:
        torch.save(unpack_record(whole), io.BytesIO())

    save()
    save()
    whole = file.records(SEED)[0]
    assert unpack_record(whole).seed == SEED
    for claim, action, peer, most in (
        ("save, crash-safe", save, memcpy, 25.0),
        ("restore, checked", lambda: table.restore(whole), memcpy, 25.0),
        ("save, crash-safe", save, torch_save, None),
    ):
        yield Row.timed(
            f"seeds/record/{claim.split(',')[0]}/{peer.__name__}",
            f"one seed's record of {size} bytes: {claim}",
            "us",
            effort.compare(action, peer, repeats=2000 if peer is memcpy else 200),
            peer=peer.__name__.replace("_", "."),
            most=most,
        )


def rows(effort: Effort) -> Iterator[Row]:
    """Every claim about single calls, records and memory."""
    table = table_of(MANY)
    yield from transition_rows(effort, table)
    yield query_row(effort, table)
    yield from alpha_rows(effort, table)
    yield memory_row(table)
    with tempfile.TemporaryDirectory() as folder:
        yield from record_rows(effort, Path(folder))
