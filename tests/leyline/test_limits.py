"""The limits agree with one another and with the record they describe."""

from __future__ import annotations

import struct

from leyline import limits


def test_the_parts_of_a_boundary_fit_into_it() -> None:
    """Gather, decide and apply together stay within the boundary's limit."""
    assert limits.GATHER_MS + limits.DECIDE_MS + limits.APPLY_MS <= limits.BOUNDARY_MS


def test_encoding_fits_into_gathering() -> None:
    """A packet can be encoded in a tenth of the time that gathering has."""
    assert limits.ENCODE_US / 1e3 <= limits.GATHER_MS / 10


def test_size_of_a_seeds_record() -> None:
    """Eight int32, a ring of ten transitions of two int32 and four float32 are 128 bytes."""
    record = struct.calcsize(f"=8i{limits.HISTORY_LENGTH * 2}i4f")
    assert record == limits.SEED_RECORD_BYTES == 128
