"""Draining: what a killed run left in its outbox goes to its server, if anyone asks."""

from __future__ import annotations

from pathlib import Path

import leyline
from oona import run_file
from oona.outbox import file as outbox_file
from oona.outbox.outbox import Outbox
from oona.publishing.publisher import Publisher
from oona.servers import url as bus_url


def drain(run_dir: Path | str, timeout_s: float = 2.0) -> bool:
    """Send what waits in the outbox of a run that sends no more; nothing is raised.

    A live run, and another one who drains, has the claim on its outbox and is left alone.

    Args:
        run_dir: of a run, live, ended or killed.
        timeout_s: how long to try; a server that does not answer ends it at once.

    Returns:
        Whether nothing waits any more.
    """
    run_dir = Path(run_dir)
    address = run_file.read(run_dir)
    if address is None:
        return False
    try:
        bus_url.check_url(address.url)
        outbox = Outbox.to_send(run_dir / outbox_file.FILE_NAME)
        if outbox.is_drained():
            return True
        if address.url in bus_url.NAMED or not _take(outbox):
            return False
        from oona.streams.writer import RedisTransport  # late: importing redis takes 0.1 s

        transport = RedisTransport(address.url, address.run_id)
    except leyline.BusError:
        return False
    publisher = Publisher(outbox, transport)
    publisher.flush(timeout_s, retries=False)
    publisher.stop(timeout_s)
    return outbox.is_drained()


def _take(outbox: Outbox) -> bool:
    try:
        return outbox.claim.take()
    except OSError:
        return False
