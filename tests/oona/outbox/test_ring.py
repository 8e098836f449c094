"""One lane of the outbox, in plain memory."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from oona.outbox import ring as ring_module
from oona.outbox import triple
from oona.outbox.ring import STATE_SIZE_BYTES, Ring

RING_SIZE_BYTES = 256
HEADER_SIZE_BYTES = 16


def make(size_bytes: int = RING_SIZE_BYTES) -> tuple[bytearray, Ring]:
    memory = bytearray(STATE_SIZE_BYTES + size_bytes)
    return memory, load(memory)


def load(memory: bytearray) -> Ring:
    view = memoryview(memory)
    return Ring(view[:STATE_SIZE_BYTES], view[STATE_SIZE_BYTES:])


def body(number: int, size_bytes: int) -> bytes:
    return bytes((number + i) % 256 for i in range(size_bytes))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, RING_SIZE_BYTES)),
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS)
def test_what_was_accepted_comes_out_in_order_and_nothing_else(actions: list[Any]) -> None:
    """A ring is a queue: accepted bodies come out once, in order, also after a reopening."""
    memory, ring = make()
    waiting: list[bytes] = []
    for number, (action, size) in enumerate(actions):
        if action == "append":
            accepted = ring.append(body(number, size))
            fits_alone = size <= RING_SIZE_BYTES - HEADER_SIZE_BYTES
            assert accepted <= fits_alone
            assert accepted or not (fits_alone and not waiting), "an empty ring takes what fits"
            if accepted:
                waiting.append(body(number, size))
        elif action == "take":
            batch = ring.take(ring.state.tail, size, 10_000)
            taken = [] if batch is None else [record.body for record in batch.records]
            assert taken == waiting[: len(taken)]
            assert taken or not waiting
            if batch is not None:
                ring.acknowledge(batch)
            del waiting[: len(taken)]
        else:
            ring = load(memory)
        assert ring.is_sane()
        assert ring.num_waiting(ring.state) == len(waiting)
        assert ring.state.accepted - ring.state.delivered == len(waiting)
        assert ring.state.damaged == 0
        assert ring.history(0)[1] == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.data())
def test_one_damaged_byte_costs_at_most_its_own_record(before: int, data: st.DataObject) -> None:
    """Records beside a damaged one are delivered; the damaged one is counted, not delivered."""
    memory, ring = make(1024)
    for number in range(before):  # so that the records wrap around the end
        ring.append(body(number, 30))
        ring.acknowledge(ring.take(ring.state.tail, 99, 10_000))  # type: ignore[arg-type]
    sent = [body(number, 20 + number) for number in range(8)]
    assert all(ring.append(item) for item in sent)
    damaged_at = data.draw(st.integers(STATE_SIZE_BYTES, len(memory) - 1))
    memory[damaged_at] ^= data.draw(st.integers(1, 255))

    batch = load(memory).take(ring.state.tail, 99, 10_000)
    assert batch is not None
    delivered = [record.body for record in batch.records]
    assert len(delivered) >= len(sent) - 1
    assert [item for item in sent if item in delivered] == delivered
    ring.acknowledge(batch)
    assert ring.state.delivered == before + len(delivered)
    assert ring.state.damaged == len(sent) - len(delivered)
    assert ring.is_sane()


def test_a_kill_at_any_line_leaves_the_old_state_or_the_new() -> None:
    """Memory copied before every line of append and acknowledge is always a sane ring."""
    memory, ring = make()
    copies: list[bytes] = []

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in (ring_module.__file__, triple.__file__):
            return None
        copies.append(bytes(memory))
        return trace

    for number in range(40):
        before = ring.state
        sys.settrace(trace)
        try:
            accepted = ring.append(body(number, 30 + number))
            if number % 3 == 0:
                ring.acknowledge(ring.take(ring.state.tail, 2, 10_000))  # type: ignore[arg-type]
        finally:
            sys.settrace(None)
        for copy in copies:
            found = load(bytearray(copy))
            state = found.state
            assert found.is_sane()
            assert state.accepted in (before.accepted, before.accepted + accepted)
            assert found.num_waiting(state) == state.accepted - state.acknowledged
            assert found.history(0)[1] == 0, "a live reader never takes half a record for damage"
        copies.clear()
    assert ring.state.delivered > 10
    assert ring.state.oldest > 0, "the ring wrapped"


def test_acknowledged_records_stay_until_they_are_overwritten() -> None:
    """History is read back from the oldest record on, and shrinks only under new records."""
    _, ring = make()
    bodies = [body(number, 40) for number in range(4)]
    for item in bodies:
        assert ring.append(item)
        ring.acknowledge(ring.take(ring.state.tail, 1, 10_000))  # type: ignore[arg-type]
    assert [record.body for record in ring.history(0)[0]] == bodies
    assert ring.append(body(9, 40))
    kept = [record.body for record in ring.history(0)[0]]
    assert kept == [*bodies[5 - len(kept) :], body(9, 40)]
    assert 1 < len(kept) < 5
