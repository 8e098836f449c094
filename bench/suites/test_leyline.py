"""The contract: messages to bytes and back."""

from __future__ import annotations

from typing import Any

import pytest

import leyline
from bench.packets import state_packet

sizes = pytest.mark.parametrize("num_seeds", [32, 1_000, 10_000])


@pytest.mark.benchmark(group="encode")
@sizes
def test_encode(benchmark: Any, num_seeds: int) -> None:
    body = bytearray()
    benchmark(leyline.encode_body, state_packet(num_seeds), body)
    assert len(body) > num_seeds


@pytest.mark.benchmark(group="decode")
@sizes
def test_decode(benchmark: Any, num_seeds: int) -> None:
    packet = benchmark(leyline.decode, leyline.encode(state_packet(num_seeds)))
    assert isinstance(packet, leyline.StatePacket)
