"""Stream entries."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from oona.streams import entry
from tests.leyline.examples import messages


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


@settings(max_examples=30)
@given(st.lists(messages(leyline.Envelope), max_size=4), st.lists(st.binary(max_size=80)))
def test_the_kinds_of_events_are_told_apart_by_name(
    envelopes: list[leyline.Envelope], others: list[bytes]
) -> None:
    """An entry says which event types it holds, as the ledger names them, and how many of each;
    what is no envelope counts as unknown."""
    bodies = [leyline.encode(envelope) for envelope in envelopes]
    step = leyline.encode(leyline.StepMetrics(step=1, loss=0.5))
    packed = entry.pack(leyline.Priority.REPORT, [*bodies, *others, step])
    expected = Counter(type(envelope.event).__name__ for envelope in envelopes)
    expected[entry.UNKNOWN] = 1 + len(others)
    assert dict(part.split("=") for part in packed.kinds.split(",")) == {
        name: str(num) for name, num in expected.items()
    }
    assert entry.kinds_of(packed.kinds.encode()) == expected.keys()


@given(st.binary(max_size=60) | st.none())
def test_kinds_that_anybody_wrote_do_no_harm(kinds: bytes | None) -> None:
    """Whatever the bytes, the names found in them are text; too many bytes are not looked at."""
    assert all(isinstance(name, str) for name in entry.kinds_of(kinds))
    assert entry.kinds_of(b"StepMetrics=1," * 1000) == frozenset()
