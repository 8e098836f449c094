"""Answers that have no end."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from oona.streams.bounded_socket import AnswerLimits, BoundedSocket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_too_much_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    """As many bytes as allowed may come for each question, in however many parts; not one more."""
    ours, theirs = pair
    bounded = BoundedSocket(ours, AnswerLimits(10, 60.0))
    for _ in range(3):
        bounded.sendall(b"?")
        theirs.sendall(bytes(10))
        assert (bounded.recv(4), bounded.recv(100)) == (bytes(4), bytes(6))
    theirs.sendall(b"x")
    with pytest.raises(OSError, match="more than 10 bytes"):
        bounded.recv_into(bytearray(5))


def test_a_drip_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    """An answer that comes byte by byte is given up at its time, which each question begins."""
    ours, theirs = pair
    now_s = [0.0]
    bounded = BoundedSocket(ours, AnswerLimits(1000, 10.0), lambda: now_s[0])
    for _ in range(3):
        now_s[0] += 9.0
        theirs.sendall(b"x")
        assert bounded.recv(1) == b"x"
        bounded.sendall(b"?")
    now_s[0] += 10.5
    theirs.sendall(b"x")
    with pytest.raises(OSError, match="not over after 10 s"):
        bounded.recv(1)


def test_the_rest_is_the_sockets_own(pair: tuple[socket.socket, socket.socket]) -> None:
    """Timeouts, options and closing reach the socket."""
    ours, _ = pair
    bounded = BoundedSocket(ours, AnswerLimits(1, 1.0))
    bounded.settimeout(0.25)
    assert ours.gettimeout() == 0.25
    assert bounded.fileno() == ours.fileno()
