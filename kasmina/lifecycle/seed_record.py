"""Seed records: one row of the state table as bytes that can be kept, checked and put back alone.

Five uint32 (CRC-32 of all that follows it, magic, format, sizes of the seed's and the blueprint's
name), then the row of the columns' block, `parameters`, the ring and the two names; all in native
byte order.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kasmina.lifecycle.seed_columns import FLOATS, INTEGERS, SeedColumns
from kasmina.lifecycle.seed_row import export_rows
from leyline import TRANSITIONS, CheckpointError, limits

_MAGIC: Final = 0x44454553
_FORMAT: Final = 1
_CHECKSUM: Final = struct.Struct("=I")
_NUM_CELLS: Final = len(INTEGERS) + len(FLOATS)
_CONTENT: Final = struct.Struct(f"=IIII{4 * _NUM_CELLS}sq{limits.HISTORY_LENGTH}s")
_RECORD: Final = struct.Struct(f"=I{_CONTENT.format[1:]}")
_FIXED_BYTES: Final = _RECORD.size
_CELLS: Final = struct.Struct(f"={_NUM_CELLS}i")
_PLACE: Final = {name: place for place, name in enumerate(INTEGERS)}
_STAGE_AND_COUNT: Final = struct.Struct(f"=i{4 * _PLACE['num_transitions'] - 4}xi")
_EDGES: Final = frozenset(was << 4 | to for was, ends in TRANSITIONS.items() for to in ends)


class SeedRecord(NamedTuple):
    """One seed as it was after a transition."""

    seed: str
    blueprint: str
    """Name of its blueprint; empty where it has none."""
    block: bytes
    parameters: int
    ring: bytes

    @property
    def site(self) -> str:
        """Name of the seed's site."""
        return self.seed.rpartition("/")[0]

    @property
    def checkpoint_id(self) -> int:
        """Number of the record; it rises over the run."""
        return self.integer("checkpoint_id")

    def integer(self, name: str) -> int:
        """One of the int32 columns."""
        value: int = _CELLS.unpack(self.block)[_PLACE[name]]
        return value

    def write_to(self, columns: SeedColumns, row: int) -> None:
        """Put every cell of the row back."""
        columns.block_cells[row :: columns.capacity] = memoryview(self.block).cast("i")
        columns.cells["parameters"][row] = self.parameters
        start = row * limits.HISTORY_LENGTH
        columns.ring_cells[start : start + limits.HISTORY_LENGTH] = self.ring

    def row(self) -> NDArray[Any]:
        """The seed's documented row, one item of the dtype ROW."""
        columns = SeedColumns()
        self.write_to(columns, columns.append())
        return export_rows(columns, np.zeros(1, dtype=np.intp))


def pack_record(columns: SeedColumns, row: int, seed: str, blueprint: str) -> bytes:
    """Make a record of a row."""
    name, kind = seed.encode(), blueprint.encode()
    fixed = _CONTENT.pack(
        _MAGIC,
        _FORMAT,
        len(name),
        len(kind),
        columns.block_cells[row :: columns.capacity].tobytes(),
        columns.cells["parameters"][row],
        columns.ring[row].tobytes(),
    )
    content = fixed + name + kind
    return _CHECKSUM.pack(crc32(content)) + content


def unpack_record(record: bytes | memoryview) -> SeedRecord:
    """Read a record; bytes after its end are left alone.

    Raises:
        CheckpointError: it is cut short, damaged, of another format, or holds what no seed can be.
    """
    if len(record) < _FIXED_BYTES:
        raise CheckpointError(f"seed record cut short: {len(record)} bytes of {_FIXED_BYTES}")
    checksum, magic, layout, name_bytes, kind_bytes, block, parameters, ring = _RECORD.unpack_from(
        record
    )
    if magic != _MAGIC:
        raise CheckpointError("not a seed record: its magic number is another")
    if layout != _FORMAT:
        raise CheckpointError(f"seed record of format {layout} refused: this is {_FORMAT}")
    end = _FIXED_BYTES + name_bytes + kind_bytes
    content = record[_CHECKSUM.size : end]
    if crc32(content) != checksum or len(content) != end - _CHECKSUM.size:
        raise CheckpointError("seed record damaged: its CRC-32 does not fit its content")
    name_end = _CONTENT.size + name_bytes
    try:
        seed = str(content[_CONTENT.size : name_end], "utf-8")
        blueprint = str(content[name_end:], "utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"seed record refused: its names are not UTF-8: {error}") from error
    if not _is_possible(block, ring):
        raise CheckpointError(
            f"seed record of {seed!r} refused: its stage and transitions are not those of this "
            "lifecycle"
        )
    return SeedRecord(seed, blueprint, block, parameters, ring)


def _is_possible(block: bytes, ring: bytes) -> bool:
    """Whether the transitions are edges of the lifecycle that end at the record's stage."""
    stage, made = _STAGE_AND_COUNT.unpack_from(block)
    if made < 0:
        return False
    last = ring[(made - 1) % limits.HISTORY_LENGTH] & 15 if made else 0
    return bool(last == stage and _EDGES.issuperset(ring[:made]))
