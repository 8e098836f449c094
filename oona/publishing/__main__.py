"""The process that `PublisherProcess` starts: one publisher, until told to stop or orphaned."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from oona.outbox.outbox import Outbox
from oona.publishing import status
from oona.publishing.process import STOP, Errand
from oona.publishing.publisher import Publisher
from oona.streams.writer import RedisTransport

_LOOK_INTERVAL_S: Final = 0.02
"""How often its word is renewed and the trainer's pulse felt."""
_LAST_FLUSH_S: Final = 2.0


def main() -> None:
    """Publish what an outbox holds and will hold."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    stdin = os.fdopen(0, "rb", buffering=0)
    errand = msgspec.json.decode(_line(stdin.fileno()), type=Errand)
    outbox = Outbox.to_send(Path(errand.path))
    transport = RedisTransport(errand.url, errand.run_id)
    publisher = Publisher(outbox, transport, bytes_per_s=errand.bytes_per_s)
    last = status.PublisherStatus()
    told = b"\n"
    # A pipe whose other end a forked worker holds too does not end with the trainer.
    while told and STOP not in told and os.getppid() == errand.trainer_pid:
        ready, _, _ = select.select([stdin], [], [], _LOOK_INTERVAL_S)
        if ready:
            told = os.read(stdin.fileno(), 4096)
            publisher.wake()
        now = publisher.status()
        if now != last:
            status.write(outbox.status, now)
            last = now
    if STOP not in told:  # the trainer was killed: whatever it left is sent, if it can be
        publisher.flush(_LAST_FLUSH_S, retries=False)
    publisher.stop(_LAST_FLUSH_S)
    status.write(outbox.status, publisher.status())


def _line(descriptor: int) -> bytes:
    """The first line; what follows it is left to be read."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            sys.exit("no errand: this program is started by Esper alone")
        line += byte
    return line


if __name__ == "__main__":
    main()
