"""How many events a second reach the server, against the server's own benchmark program.

Run it: python -m bench.publish
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import leyline
from bench.pairs import Row, show
from oona.outbox.outbox import Outbox
from oona.publishing.publisher import Publisher
from oona.servers.embedded import EmbeddedServer
from oona.streams.writer import RedisTransport

TITLE = "Publishing"

_NUM_EVENTS = 100_000
_NUM_ROUNDS = 5
_GOAL = 2.0
_PROGRAMS = ("valkey-benchmark", "redis-benchmark")


def _fill(path: Path) -> Outbox:
    """An outbox in which events wait."""
    outbox = Outbox(path, ring_size_bytes=32 * 1024 * 1024)
    for number in range(_NUM_EVENTS):
        envelope = leyline.Envelope(
            run_id="run",
            sequence=number + 1,
            priority=0,
            monotonic_ns=1,
            wall_ns=1,
            event=leyline.StepMetrics(step=number, loss=0.5),
        )
        assert outbox.append(leyline.Priority.METRIC, "StepMetrics", leyline.encode(envelope))
    return outbox


def _ours_per_s(folder: Path, url: str, number: int) -> float:
    outbox = _fill(folder / f"{number}.bin")
    transport = RedisTransport(url, f"run{number}")
    start = time.perf_counter()
    publisher = Publisher(outbox, transport)
    assert publisher.flush(60.0)
    took_s = time.perf_counter() - start
    publisher.stop(5.0)
    return _NUM_EVENTS / took_s


def _theirs_per_s(program: str, socket: str, num_events: int, pipeline: int) -> float:
    """One event per XADD, 50 clients, from the C program."""
    command = [
        *(program, "-s", socket, "-n", str(num_events), "-P", str(pipeline), "-q", "--csv"),
        *("XADD", "peer", "MAXLEN", "~", "10000", "*", "event", "x" * 90),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)  # noqa: S603
    numbers = re.findall(r'"([\d.]+)"', done.stdout.splitlines()[-1])
    return float(numbers[0])


def rows() -> list[Row]:
    """Packed entries beside one event per XADD, plain and pipelined, by turns."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    ours, plain, piped = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = EmbeddedServer(folder / "server.log")
        try:
            for number in range(_NUM_ROUNDS):
                ours.append(_ours_per_s(folder, server.url, number))
                if program is not None:
                    socket = str(server.socket_path)
                    plain.append(_theirs_per_s(program, socket, 30_000, 1))
                    piped.append(_theirs_per_s(program, socket, 300_000, 100))
        finally:
            server.stop()
    ours.sort(), plain.sort(), piped.sort()
    middle = _NUM_ROUNDS // 2
    if program is None:
        beside, met = f"not compared: none of {', '.join(_PROGRAMS)} is installed", False
    else:
        beside = (
            f"{Path(program).name}: {plain[middle]:,.0f}, {ours[middle] / plain[middle]:.1f} x; "
            f"with 100 in a pipeline {piped[middle]:,.0f}, {ours[middle] / piped[middle]:.1f} x"
        )
        met = ours[middle] >= _GOAL * plain[middle]
    return [
        Row(
            "events a second from the outbox to the server",
            f">= {_GOAL:.0f} x one event per XADD",
            f"{ours[middle]:,.0f}",
            beside,
            met,
        )
    ]


if __name__ == "__main__":
    show(TITLE, rows)
