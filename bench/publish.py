"""How many events a second reach the server, against the server's own benchmark program."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import leyline
from bench.harness import Effort, Peer, Quantiles, Row
from oona.outbox.outbox import Outbox
from oona.publishing.publisher import Publisher
from oona.servers.embedded import EmbeddedServer
from oona.streams.writer import RedisTransport

TITLE = "Publishing"

_NUM_EVENTS = 100_000
_NUM_ROUNDS = 5
_GOAL = 1 / 2
_PIPELINES = {1: 30_000, 100: 300_000}
"""Events of the peer's run, by how many commands it sends at once."""
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


def _ours_us(folder: Path, url: str, number: int) -> float:
    outbox = _fill(folder / f"{number}.bin")
    transport = RedisTransport(url, f"run{number}")
    start = time.perf_counter()
    publisher = Publisher(outbox, transport)
    assert publisher.flush(60.0)
    took_s = time.perf_counter() - start
    publisher.stop(5.0)
    return took_s / _NUM_EVENTS * 1e6


def _theirs_us(program: str, socket: str, pipeline: int) -> float:
    """Time of an event: one per XADD, 50 clients, from the C program."""
    num_events = _PIPELINES[pipeline]
    command = [
        *(program, "-s", socket, "-n", str(num_events), "-P", str(pipeline), "-q", "--csv"),
        *("XADD", "peer", "MAXLEN", "~", "10000", "*", "event", "x" * 90),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)  # noqa: S603
    numbers = re.findall(r'"([\d.]+)"', done.stdout.splitlines()[-1])
    return 1e6 / float(numbers[0])


def rows(effort: Effort) -> Iterator[Row]:
    """Packed entries beside one event per XADD, plain and in pipelines, by turns."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    ours: list[float] = []
    theirs: dict[int, list[float]] = {pipeline: [] for pipeline in _PIPELINES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = EmbeddedServer(folder / "server.log")
        try:
            for number in range(effort.num(_NUM_ROUNDS)):
                ours.append(_ours_us(folder, server.url, number))
                for pipeline in _PIPELINES if program else ():
                    socket = str(server.socket_path)
                    theirs[pipeline].append(_theirs_us(str(program), socket, pipeline))
        finally:
            server.stop()
    for pipeline, found in theirs.items():
        yield _row(ours, found, pipeline)


def _row(ours: list[float], theirs: list[float], pipeline: int) -> Row:
    name = f"one event per XADD, {pipeline} in a pipeline"
    if not theirs:
        peer, missing = None, f"none of {', '.join(_PROGRAMS)} is installed"
    else:
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        most = _GOAL if pipeline == 1 else None
        ratio, beside = statistics.median(ratios), statistics.median(theirs)
        peer, missing = Peer(f"redis-benchmark, {name}", ratio, beside, most=most), ""
    return Row(
        id=f"publish/pipeline-{pipeline}",
        claim="an event from the outbox to the server",
        unit="us",
        ours=Quantiles.of(ours),
        peer=peer,
        missing=missing,
    )
