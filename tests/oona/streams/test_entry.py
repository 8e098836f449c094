"""Stream entries."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import leyline
from oona.streams import entry


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_what_is_packed_is_unpacked(bodies: list[bytes]) -> None:
    """Unpacking gives back the bodies, and the entry states their number."""
    packed = entry.pack(leyline.Priority.REPORT, bodies)
    assert packed.num_events == len(bodies)
    assert entry.unpack(str(packed.num_events).encode(), packed.payload) == bodies


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_only_contract_errors_escape(num_events: bytes, payload: bytes) -> None:
    """Whatever the bytes, unpacking gives a list or raises ContractError."""
    with contextlib.suppress(leyline.ContractError):
        assert str(len(entry.unpack(num_events, payload))).encode() == num_events


def test_a_wrong_number_or_size_is_refused() -> None:
    """An entry that claims another number, lacks a field or is too large is refused."""
    payload = entry.pack(leyline.Priority.REPORT, [b"a", b"b"]).payload
    for num_events, content in (
        (b"3", payload),
        (None, payload),
        (b"2", None),
        (b"1", bytes(entry.READ_SIZE_BYTES + 1)),
    ):
        with pytest.raises(leyline.ContractError, match="refused"):
            entry.unpack(num_events, content)
