"""Encoding a live state to bytes and back, against copying the same columns, and protobuf.

Run it: python -m bench.codec
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import leyline
from bench.packets import state_packet
from bench.pairs import Row, compare, once_us, show
from leyline.checksum import crc32

TITLE = "The contract's bytes"

_GOALS = {32: 1.5, 1_000: 1.1, 10_000: 1.1}
_PROTO_GOAL = 100.0
_PROTO_TYPES = {"d": 1, "f": 2, "i": 5, "q": 3}
"""By item format: double, float, int32 and int64, as descriptor.proto numbers them."""


def _copier(packet: leyline.StatePacket) -> Callable[[], object]:
    """Copy every column into one buffer: the least that making bytes of them can cost."""
    columns = [getattr(packet, name).cast("B") for name in leyline.COLUMN_FORMATS]
    target = memoryview(bytearray(sum(map(len, columns))))

    def copy() -> None:
        at = 0
        for column in columns:
            end = at + len(column)
            target[at:end] = column
            at = end

    return copy


def _protobuf(packet: leyline.StatePacket) -> Callable[[], object]:
    """Serialize the same columns as packed repeated fields."""
    file = descriptor_pb2.FileDescriptorProto(name="state.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="State")
    for number, (name, item) in enumerate(leyline.COLUMN_FORMATS.items(), start=1):
        message.field.add(name=name, number=number, label=3, type=_PROTO_TYPES[item])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.State"))
    columns = {name: getattr(packet, name) for name in leyline.COLUMN_FORMATS}
    return lambda: kind(**columns).SerializeToString()


def _encode_row(num_seeds: int, goal: float) -> Row:
    packet, body = state_packet(num_seeds), bytearray()
    repeats = max(20, 200_000 // max(num_seeds, 32))
    found = compare(lambda: leyline.encode_body(packet, body), _copier(packet), repeats=repeats)
    checksum_us = min(once_us(lambda: crc32(body), repeats) for _ in range(5))
    serialize = _protobuf(packet)
    proto_us = min(once_us(serialize, 3) for _ in range(5))
    faster = proto_us / found.ours_us
    return Row(
        f"live state of {num_seeds:,} seeds -> bytes",
        f"<= {goal} x memcpy, >= {_PROTO_GOAL:.0f} x as fast as protobuf",
        f"{found.ours_us:.1f} us, {checksum_us:.2f} of it the CRC-32",
        f"copying the columns {found.peer_us:.1f} us: {found.ratio:.2f} (itself "
        f"{found.same[0]:.2f} to {found.same[1]:.2f}); protobuf {proto_us:,.0f} us: {faster:.0f} x",
        found.ratio <= goal and faster >= _PROTO_GOAL,
    )


def _decode_row() -> Row:
    took_us: dict[int, float] = {}
    checksum_us: dict[int, float] = {}
    for num_seeds in _GOALS:
        data = leyline.encode(state_packet(num_seeds))
        took_us[num_seeds] = min(once_us(lambda d=data: leyline.decode(d), 200) for _ in range(9))  # type: ignore[misc]
        checksum_us[num_seeds] = min(once_us(lambda d=data: crc32(d), 200) for _ in range(9))  # type: ignore[misc]
    rest_us = {num: took_us[num] - checksum_us[num] for num in took_us}
    spread = max(rest_us.values()) / min(rest_us.values())
    return Row(
        "bytes -> state, columns as views",
        "independent of the number of seeds (within 1.5 x)",
        ", ".join(f"{num:,} seeds {us:.1f} us" for num, us in rest_us.items()),
        f"without the CRC-32, which is {', '.join(f'{us:.2f}' for us in checksum_us.values())} us;"
        f" spread {spread:.2f}",
        spread <= 1.5,
    )


def rows() -> list[Row]:
    """Encoding for three sizes, and decoding."""
    return [*(_encode_row(num, goal) for num, goal in _GOALS.items()), _decode_row()]


if __name__ == "__main__":
    show(TITLE, rows)
