"""Encoding a live state to bytes and back, against copying the same columns, and four libraries."""

from __future__ import annotations

from collections.abc import Iterator

import leyline
from bench.harness import Comparison, Effort, Peer, Quantiles, Row, once_us
from bench.packets import state_packet
from bench.serializers import PEERS, memcpy
from leyline.checksum import crc32

TITLE = "The contract's bytes"
_OF_MEMCPY = {32: 1.5, 1_000: 1.1, 10_000: 1.1}
"""Goal by the number of seeds."""
_OF_PROTOBUF = 1 / 100
_DECODE_SPREAD = 1.5


def rows(effort: Effort) -> Iterator[Row]:
    """Encoding for three sizes, each beside five peers, and decoding."""
    for num_seeds in _OF_MEMCPY:
        yield from _encode_rows(effort, num_seeds)
    yield _decode_row(effort)


def _encode_rows(effort: Effort, num_seeds: int) -> Iterator[Row]:
    packet, body = state_packet(num_seeds), bytearray()
    repeats = max(20, 200_000 // max(num_seeds, 32))

    def ours() -> None:
        leyline.encode_body(packet, body)

    found = effort.compare(ours, memcpy(packet), repeats=repeats)
    checksum_us = min(once_us(lambda: crc32(body), repeats) for _ in range(5))
    yield _row(
        num_seeds, found, "memcpy", _OF_MEMCPY[num_seeds], f"{checksum_us:.2f} us of ours the CRC"
    )
    for name, peer in PEERS.items():
        most = _OF_PROTOBUF if name == "protobuf" else None
        slow = effort.compare(ours, peer(packet), num_pairs=9, repeats=max(2, 2_000 // num_seeds))
        yield _row(num_seeds, slow, name, most)


def _row(num_seeds: int, found: Comparison, peer: str, most: float | None, note: str = "") -> Row:
    return Row.timed(
        f"codec/encode/{num_seeds}/{peer}",
        f"live state of {num_seeds:,} seeds to bytes",
        "us",
        found,
        peer=peer,
        most=most,
        note=note,
    )


def _decode_row(effort: Effort) -> Row:
    """Columns come back as views, so all but the CRC is the same for every size."""
    rest_us: dict[int, list[float]] = {}
    for num_seeds in _OF_MEMCPY:
        data = leyline.encode(state_packet(num_seeds))
        rest_us[num_seeds] = [
            once_us(lambda d=data: leyline.decode(d), 200) - once_us(lambda d=data: crc32(d), 200)  # type: ignore[misc]
            for _ in range(effort.num(21))
        ]
    medians = {num: Quantiles.of(values).p50 for num, values in rest_us.items()}
    least, most = min(medians), max(medians)
    return Row(
        id="codec/decode",
        claim=f"bytes to a state of {most:,} seeds, without the CRC",
        unit="us",
        ours=Quantiles.of(rest_us[most]),
        peer=Peer(
            f"{least} seeds", medians[most] / medians[least], medians[least], most=_DECODE_SPREAD
        ),
    )
