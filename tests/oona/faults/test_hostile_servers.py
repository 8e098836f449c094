"""A server that refuses, lies or babbles in place of its answers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import redis

import oona
from oona.servers.embedded import EmbeddedServer
from tests.oona.faults.evidence import arrived, exact, offer, wait_for
from tests.oona.faults.proxy import Proxy, url_of
from tests.reliability.plugin import Faults

REPLIES = {
    b"-OOM command not allowed when used memory > 'maxmemory'.\r\n": "used memory > 'maxmemory'",
    b"-LOADING dataset in memory\r\n": "dataset in memory",
    b"-NOAUTH Authentication required.\r\n": "Authentication required",
    b"-WRONGTYPE Operation against a key\r\n": "WRONGTYPE Operation",
    b"-NOPERM no permissions to run 'xadd'\r\n": "no permissions to run 'xadd'",
    b"-READONLY You can't write against a replica.\r\n": "You can't write against",
    b"-BUSY Valkey is busy running a script.\r\n": "BUSY Valkey is busy",
    b"-MOVED 1 127.0.0.1:7001\r\n": "1 127.0.0.1:7001",
    b"\x00\xffgarbage\r\n": "Protocol Error",
    b"+OK\r\n": "is no entry's id",
    b":12\r\n": "is no entry's id",
    b":x\r\n": "invalid literal",
    b"$-1\r\n": "is no entry's id",
    b"*1\r\n" * 5_000: "recursion",
    b"$100\r\nabc": "Timeout",
    b"": "Timeout",
}
ENDLESS = {
    b"+a": "more than 1048576 bytes",
    b"$9999999999\r\na": "more than 1048576 bytes",
    b"*99999999\r\n:1\r\n:1\r\n\n": "Protocol Error",
}
_SLACK_BYTES = 32 * 1024 * 1024


def spoil(
    tmp_path: Path,
    server: EmbeddedServer,
    reply: bytes,
    reason: str,
    *,
    is_endless: bool = False,
) -> None:
    """Answer so to what a run sends, and see that it stands it, says why, and heals."""
    with Proxy(server.socket_path) as proxy, oona.Bus.open(tmp_path, "run", url_of(proxy)) as bus:
        offer(bus, 20)
        assert bus.flush(10.0), bus.statistics()
        proxy.reply, proxy.is_endless = reply, is_endless
        offer(bus, 100)
        wait_for(lambda: exact(bus).state.startswith("server "), bus)
        told = exact(bus)
        assert reason in told.state, told.state
        assert told.queued == 100
        assert "secret" not in told.state
        assert told.num_faults == 0, "the wall is for what nobody has foreseen"
        offer(bus, 20)
        proxy.heal()
        assert bus.flush(10.0), bus.statistics()
        assert exact(bus).delivered == 140


def cases(replies: Iterable[bytes]) -> list[Any]:
    """Those that nobody waits a second for are fast."""
    return [
        pytest.param(
            reply,
            id=re.sub("[^A-Za-z0-9+$:*-]+", "_", reply[:12].decode(errors="replace")) or "nothing",
            marks=pytest.mark.slow if REPLIES[reply] == "Timeout" else (),
        )
        for reply in replies
    ]


@pytest.mark.parametrize("reply", cases(REPLIES))
@pytest.mark.fault(8)
def test_a_bad_answer_to_an_append_is_told_and_outlived(
    tmp_path: Path,
    limited_server: EmbeddedServer,
    admin: redis.Redis,
    reply: bytes,
    faults: Faults,
) -> None:
    """The run goes on offering, its ledger is exact, its state says why, and once the server
    behaves everything arrives: nothing counts as delivered that was not answered as it must be."""
    spoil(tmp_path, limited_server, reply, REPLIES[reply])
    assert sorted(arrived(admin)) == list(range(1, 141))
    faults.injected()


@pytest.mark.slow
@pytest.mark.fault(8)
@pytest.mark.parametrize("reply", ENDLESS, ids=["line", "value", "list"])
def test_an_answer_without_end_takes_no_memory(
    tmp_path: Path, limited_server: EmbeddedServer, reply: bytes, faults: Faults
) -> None:
    """A line, a value or a list that never ends is given up after a megabyte."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_bytes()
    spoil(tmp_path, limited_server, reply, ENDLESS[reply], is_endless=True)
    assert peak_bytes() - before < _SLACK_BYTES
    faults.injected()


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply", cases(reply for reply in REPLIES if reply.startswith((b"-NO", b"-LO", b"\x00")))
)
def test_a_server_that_is_bad_from_the_start(
    tmp_path: Path, limited_server: EmbeddedServer, admin: redis.Redis, reply: bytes
) -> None:
    """The same while connecting: the run starts, says why nothing is delivered, and heals."""
    with Proxy(limited_server.socket_path) as proxy:
        proxy.reply = reply
        start_s = time.monotonic()
        with oona.Bus.open(tmp_path, "run", url_of(proxy)) as bus:
            assert time.monotonic() - start_s < 2.0
            offer(bus, 20)
            wait_for(lambda: exact(bus).state.startswith("server unreachable"), bus)
            assert REPLIES[reply] in exact(bus).state
            proxy.heal()
            assert bus.flush(10.0), bus.statistics()
            assert exact(bus).delivered == 20
    assert sorted(arrived(admin)) == list(range(1, 21))


def peak_bytes() -> int:
    """The most memory that this process has had at a time."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
