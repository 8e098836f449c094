"""What the seeds' state costs by the call: transitions, queries, alphas, records; and its memory.

Run it: python -m bench.seeds
"""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from bench.pairs import Action, Row, compare, show
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


class Bare:
    """What a call costs that does nothing."""

    stage = Stage.DORMANT

    def advance(self, seed: str, to: Stage, known: Evidence) -> None:
        """Do nothing."""


def transition_rows(table: SeedTable) -> list[Row]:
    """One seed's transition beside a bare call, and everybody's beside a memcpy."""
    bare, evidence = Bare(), Evidence(epochs_in_stage=1)
    held = [array.copy() for array in (table.column("stage"), table.column("epochs_in_stage"))]
    spare = [np.empty_like(array) for array in held]

    def copy_columns() -> None:
        for source, target in zip(held, spare, strict=True):
            np.copyto(target, source)

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
    ]


def query_row(table: SeedTable) -> Row:
    """A seed's stage beside the attribute of an object."""
    bare = Bare()
    query, read = lambda: table.stage(SEED), lambda: bare.stage
    return row_of("state query", 0.4, "us", query, read, "attribute read", 5000)


def alpha_rows(table: SeedTable) -> list[Row]:
    """Every alpha moved on by a step, beside a memcpy of them."""
    alpha = table.column("alpha")
    other, twice = np.empty_like(alpha), np.empty(2 * MANY, dtype=np.float32)
    ramps, scattered = LinearRamps(), LinearRamps()
    for number in range(MANY):
        ramps.begin(f"a/{number}", number, 10**9)
        scattered.begin(f"a/{number}", 2 * number, 10**9)
    rows = (("rows in order", ramps, alpha), ("in every second row", scattered, twice))
    return [
        row_of(
            f"alpha for {MANY:,} seeds, {where}",
            20,
            "us",
            partial(moved.step, target),
            lambda: np.copyto(other, alpha),
            "memcpy",
            100,
        )
        for where, moved, target in rows
    ]


def memory_row(table: SeedTable) -> Row:
    """The columns' bytes a seed, and those of its name apart."""
    return Row(
        "memory per seed in the table",
        "10,000 seeds <= 1.5 MB",
        f"{table.size_bytes / 1e6:.2f} MB: {table.size_bytes / MANY:.0f} bytes a seed, "
        "room to grow included",
        f"names and their index apart: {names_bytes(table) / MANY:.0f} bytes a seed",
        table.size_bytes <= 1_500_000,
    )


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


def rows() -> list[Row]:
    """Every claim about single calls, records and memory."""
    table = table_of(MANY)
    with tempfile.TemporaryDirectory() as folder:
        return [
            *transition_rows(table),
            query_row(table),
            *alpha_rows(table),
            memory_row(table),
            *record_rows(Path(folder)),
        ]


if __name__ == "__main__":
    show(TITLE, rows)
