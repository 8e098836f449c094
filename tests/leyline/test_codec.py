"""The codec: bytes to messages and back, and what it refuses."""

from __future__ import annotations

import json
import math
import struct
import time
import tracemalloc
import zlib
from array import array
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import leyline
from leyline import COLUMN_FORMATS, ContractError, StatePacket, limits
from tests.leyline.examples import MESSAGES, any_message, exact, messages

STEP = leyline.StepMetrics(step=7, loss=0.5)


def framed(body: bytes, *, magic: bytes = b"LEYL", version: int = 3, reserved: int = 0) -> bytes:
    """A body under a header that fits it, written without the codec."""
    header = struct.pack("<4sHHII", magic, version, reserved, len(body), zlib.crc32(body))
    return header + body


def body_of(message: Any) -> bytes:
    return leyline.encode(message)[16:]


def packet(num_seeds: int, **columns: memoryview) -> StatePacket:
    """A packet whose row i holds i + 1 in every column."""
    counted = range(1, num_seeds + 1)
    filled = {name: memoryview(array(item, counted)) for name, item in COLUMN_FORMATS.items()}
    return StatePacket(
        schema_id=1,
        epoch=2,
        step=3,
        num_epochs=4,
        host_parameters=5,
        grown_parameters=6,
        param_budget=7,
        trials_possible=True,
        **(filled | columns),
    )


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_round_trip(kind: type[leyline.Message], data: st.DataObject) -> None:
    """Every message of every type comes back as it was, floats and columns bit for bit."""
    message = data.draw(messages(kind))
    assert exact(leyline.decode(leyline.encode(message))) == exact(message)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(any_message())
def test_encoding_is_deterministic(message: Any) -> None:
    """Decoding and encoding again gives the same bytes."""
    encoded = leyline.encode(message)
    assert leyline.encode(leyline.decode(encoded)) == encoded


def test_not_measured_survives() -> None:
    """NaN, "not measured", is still NaN after a round trip, and so are the infinities."""
    for loss in (math.nan, math.inf, -math.inf, -0.0):
        decoded = leyline.decode(leyline.encode(leyline.StepMetrics(step=1, loss=loss)))
        assert isinstance(decoded, leyline.StepMetrics)
        assert struct.pack("<d", decoded.loss) == struct.pack("<d", loss)


# --- the header ----------------------------------------------------------------------------------


def test_header_facts() -> None:
    """The header is 16 bytes, little endian: magic, version 3, 0, body size, CRC-32 of the body."""
    data = leyline.encode(STEP)
    body = data[16:]
    assert data[:4] == b"LEYL"
    assert data[4:6] == b"\x03\x00"
    assert data[6:8] == b"\x00\x00"
    assert int.from_bytes(data[8:12], "little") == len(body)
    assert int.from_bytes(data[12:16], "little") == zlib.crc32(body)
    assert leyline.VERSION == 3


def test_body_is_msgpack_with_the_tag_first() -> None:
    """Any msgpack reader reads the body: an array of the tag and the fields in order."""
    assert msgspec.msgpack.decode(body_of(STEP)) == ["step", 7, 0.5, []]


# --- columns are views ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_columns_are_views_into_the_input(kind: type) -> None:
    """Every decoded column looks into the buffer that was decoded, also inside an envelope."""
    envelope = leyline.Envelope(
        run_id="r", sequence=1, priority=0, monotonic_ns=0, wall_ns=0, event=packet(3)
    )
    for message in (packet(3), envelope):
        data = leyline.encode(message)
        given_data = kind(data)
        decoded = leyline.decode(given_data)
        found = decoded.event if isinstance(decoded, leyline.Envelope) else decoded
        assert isinstance(found, StatePacket)
        for name in COLUMN_FORMATS:
            assert getattr(found, name).obj is (data if kind is memoryview else given_data)
            assert found.column(name).tolist() == [1, 2, 3]


def test_a_write_into_the_buffer_shows_in_the_column() -> None:
    """A column of a decoded bytearray is the bytearray's own memory."""
    data = bytearray(leyline.encode(packet(1)))
    decoded = leyline.decode(data)
    assert isinstance(decoded, StatePacket)
    place = data.index(struct.pack("=q", 1))
    data[place : place + 8] = struct.pack("=q", 99)
    assert decoded.column("parameters").tolist() == [99]


def test_decoding_allocates_no_column() -> None:
    """Decoding three megabytes of columns takes less than sixteen kilobytes of memory."""
    data = leyline.encode(packet(50_000))
    assert len(data) > 2_500_000
    leyline.decode(data)
    tracemalloc.start()
    decoded = leyline.decode(data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(decoded, StatePacket)
    assert peak_bytes < 16_384


def test_uneven_columns_are_refused() -> None:
    """A packet whose columns differ in length, or end in half an item, cannot exist."""
    short = memoryview(array("i", [1]))
    with pytest.raises(ContractError, match="3 seeds refused: site must hold"):
        packet(3, site=short)
    with pytest.raises(ContractError, match="metrics"):
        packet(3, metrics=memoryview(b"half an item"))
    fields = msgspec.msgpack.decode(body_of(packet(3)))
    for place, name in enumerate(StatePacket.__struct_fields__, start=1):
        if name not in COLUMN_FORMATS:
            continue
        cut = [*fields]
        cut[place] = cut[place][:-1]
        with pytest.raises(ContractError, match="message malformed: state packet of"):
            leyline.decode(framed(msgspec.msgpack.encode(cut)))


# --- encode_body ---------------------------------------------------------------------------------


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(any_message(), min_size=1, max_size=5), st.binary(max_size=40))
def test_encode_body_equals_encode(batch: list[Any], left_over: bytes) -> None:
    """Whatever the buffer held before, header and buffer are then exactly what encode gives."""
    buffer = bytearray(left_over)
    for message in batch:
        assert leyline.encode_body(message, buffer) + buffer == leyline.encode(message)


def test_encode_is_within_its_limit() -> None:
    """The quickest of two hundred encodings of 32 seeds takes no longer than ENCODE_US."""
    state, buffer = packet(32), bytearray()
    took_ns = []
    for _ in range(200):
        start_ns = time.perf_counter_ns()
        leyline.encode_body(state, buffer)
        took_ns.append(time.perf_counter_ns() - start_ns)
    assert min(took_ns) / 1e3 < limits.ENCODE_US


@pytest.mark.parametrize(
    "step",
    [2**64, -(2**63) - 1, "\ud800", object()],
    ids=["over 64 bits", "under 64 bits", "lone surrogate", "no plain value"],
)
def test_what_cannot_be_encoded(step: Any) -> None:
    """A value that has no place in the contract raises ContractError and names the message."""
    with pytest.raises(ContractError, match="StepMetrics cannot be encoded"):
        leyline.encode(leyline.StepMetrics(step=step, loss=0.0))


def test_a_message_that_holds_itself() -> None:
    """A field without an end is refused too."""
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(ContractError, match="RunEnded cannot be encoded"):
        leyline.encode(
            leyline.RunEnded(run_id="r", epoch=1, status="failed", parameters=1, metrics=endless)
        )


def test_buffers_that_cannot_be_used() -> None:
    """A column with gaps, an input with gaps and a small target that is looked at are refused."""
    with pytest.raises(ContractError, match="StatePacket cannot be encoded"):
        leyline.encode(packet(2, site=memoryview(array("i", range(4)))[::2]))
    with pytest.raises(ContractError, match="its buffer has gaps"):
        leyline.decode(memoryview(leyline.encode(STEP) * 2)[::2])
    buffer = bytearray(8)
    with memoryview(buffer), pytest.raises(ContractError, match="StepMetrics cannot be encoded"):
        leyline.encode_body(STEP, buffer)


# --- the size cap --------------------------------------------------------------------------------


def started(model: str) -> leyline.RunStarted:
    return leyline.RunStarted(
        run_id="r", epoch=0, num_epochs=1, host_parameters=1, model=model, resumed=False
    )


def test_the_largest_message() -> None:
    """A message of exactly the largest size goes through; one byte more is not written."""
    room = limits.MESSAGE_SIZE_BYTES - len(leyline.encode(started("m" * 70_000))) + 70_000
    data = leyline.encode(started("m" * room))
    assert len(data) == limits.MESSAGE_SIZE_BYTES
    assert leyline.decode(data) == started("m" * room)
    with pytest.raises(ContractError, match=r"RunStarted takes 16777217 bytes, more than .* split"):
        leyline.encode(started("m" * (room + 1)))


def test_an_oversize_message_is_refused_unread() -> None:
    """What is too large is refused for its size, valid or not, and no part of it is decoded."""
    valid = framed(msgspec.msgpack.encode(started("m" * limits.MESSAGE_SIZE_BYTES)))
    for data in (valid, bytes(len(valid))):
        tracemalloc.start()
        with pytest.raises(ContractError, match=f"message of {len(valid)} bytes refused: at most"):
            leyline.decode(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 65_536


def test_lengths_that_lie() -> None:
    """A tiny message that claims four billion items is refused before room is made for them."""
    packed = msgspec.msgpack.encode
    claims = {
        "tuple": b"\x98" + packed("schema") + packed("r") + packed(1) + b"\xdd\xff\xff\xff\xff",
        "map": b"\x96"
        + b"".join(map(packed, ("run_ended", "r", 1, "s", 2)))
        + b"\xdf"
        + b"\xff" * 4,
        "text": b"\x93" + packed("step") + b"\xdb\xff\xff\xff\xff",
        "message": b"\xdd\xff\xff\xff\xff" + packed("schema"),
    }
    for body in claims.values():
        tracemalloc.start()
        with pytest.raises(ContractError):
            leyline.decode(framed(body))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 65_536


# --- what is refused -----------------------------------------------------------------------------


def resealed(change: Any) -> bytes:
    """STEP as plain values, changed, under a header that fits."""
    return framed(msgspec.msgpack.encode(change(msgspec.msgpack.decode(body_of(STEP)))))


REFUSED = {
    "nothing": (b"", "cut short: 0 bytes, the header alone has 16"),
    "half a header": (leyline.encode(STEP)[:15], "cut short"),
    "half a body": (leyline.encode(STEP)[:-1], "header says"),
    "more than a body": (leyline.encode(STEP) + b"\x00", "header says"),
    "flipped bit": (leyline.encode(STEP)[:-1] + b"\x01", "damaged: its CRC-32"),
    "other magic": (framed(body_of(STEP), magic=b"LEYM"), "not a Leyline message"),
    "reserved": (framed(body_of(STEP), reserved=1), "not a Leyline message"),
    "older version": (framed(body_of(STEP), version=2), "version 2 refused: this is version 3"),
    "newer version": (framed(body_of(STEP), version=4), "version 4 refused: this is version 3"),
    "unknown tag": (resealed(lambda plain: ["stop", *plain[1:]]), "malformed.*stop"),
    "no tag": (resealed(lambda plain: plain[1:]), "malformed"),
    "extra field": (resealed(lambda plain: [*plain, 1]), "malformed.*at most"),
    "missing field": (resealed(lambda plain: plain[:2]), "malformed.*at least"),
    "wrong type": (resealed(lambda plain: ["step", "7", 0.5]), "malformed.*int"),
    "not an array": (resealed(lambda plain: dict(enumerate(plain))), "malformed"),
    "two bodies": (framed(body_of(STEP) * 2), "malformed"),
    "empty body": (framed(b""), "malformed"),
    "deep arrays": (framed(b"\x91" * 200_000 + b"\x00"), "malformed"),
    "deep maps": (framed(b"\x81\xa1a" * 200_000 + b"\x00"), "malformed"),
    "deep inside": (framed(b"\x93\xa4step" + b"\x91" * 200_000 + b"\x00"), "malformed"),
    "not UTF-8": (
        framed(body_of(started("ok-model")).replace(b"ok-model", b"\xff\xfe-model")),
        "malformed",
    ),
    "long name": (
        framed(msgspec.msgpack.encode(["run_ended", "r" * 513, 1, "finished", 2, {}])),
        "malformed.*512",
    ),
    "JSON": (framed(json.dumps(["step", 7, 0.5]).encode()), "malformed"),
    "a command inside an envelope": (
        framed(msgspec.msgpack.encode(["envelope", "r", 1, 0, 0, 0, ["cull", "s/0", "", 3]])),
        "malformed.*cull",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    """Every kind of wrong message raises ContractError that says what is wrong."""
    data, sentence = REFUSED[what]
    with pytest.raises(ContractError, match=sentence):
        leyline.decode(data)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_noise_is_refused(noise: bytes, under_a_header: bool) -> None:
    """Random bytes, with or without a header that fits them, raise ContractError."""
    with pytest.raises(ContractError):
        leyline.decode(framed(noise) if under_a_header else noise)


# --- mutations -----------------------------------------------------------------------------------
