"""Reading events back: from a server, or from a run directory and the server it names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import leyline
from oona import run_file
from oona.outbox import file as outbox_file
from oona.reading.envelopes import Envelopes
from oona.servers import url as bus_url
from oona.servers.embedded import has_ended

if TYPE_CHECKING:
    from oona.streams.reader import RedisReader


def read(
    run_or_url: str | Path,
    *,
    follow: bool = False,
    is_live: Callable[[], bool] | None = None,
    timeout_s: float | None = None,
) -> Envelopes:
    """Read the events of a run directory, or of every run on a server, in order of sequence.

    A run directory is read from its outbox and, if the server that it names answers, from there
    too; else `problem` says why it was not. Each event comes once. What is damaged or is no event
    is skipped and counted.

    Args:
        run_or_url: a run directory, or a redis://, rediss:// or unix:// URL; runs on a server
            follow one another as they began.
        follow: wait for new events (in the order they arrive) until the run has ended, or every
            run on the server has; or until the server is gone.
        is_live: asked while nothing new comes: whether anything still may. A killed run never
            says that it has ended, so without this following it has no end.
        timeout_s: stop following after so long in all.

    Raises:
        BusError: the URL is malformed, or no server answers there.
        RunError: the run directory is not there or holds no events of a bus.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    if isinstance(run_or_url, str) and ("://" in run_or_url or run_or_url in bus_url.NAMED):
        bus_url.check_url(run_or_url)
        if run_or_url in bus_url.NAMED:
            raise leyline.BusError(
                f"bus {run_or_url!r} has no address; give its run directory, or the URL in "
                f"{run_file.FILE_NAME} there"
            )
        return Envelopes(_connect(run_or_url), follow=follow, is_live=is_live, deadline=deadline)
    run_dir = Path(run_or_url)
    address = run_file.read(run_dir)
    try:
        bodies, num_damaged = outbox_file.read_file(run_dir / outbox_file.FILE_NAME)
    except OSError as error:
        if address is None:
            raise leyline.RunError(
                f"{run_dir} is not a run directory with telemetry: {error}"
            ) from error
        bodies, num_damaged = [], 0
    server, problem = (None, "") if address is None else _try_to_connect(address.url)
    return Envelopes(
        server,
        run_id=None if address is None else address.run_id,
        bodies=bodies,
        num_damaged=num_damaged,
        problem=problem,
        follow=follow,
        is_live=is_live,
        deadline=deadline,
    )


def count_delivered(url: str, run_id: str) -> int:
    """Count the events of a run that its streams hold, each once; trimmed ones are gone.

    Raises:
        BusError: the URL is malformed, or no server answers there.
    """
    bus_url.check_url(url)
    return sum(1 for _ in Envelopes(_connect(url), run_id=run_id))


def _connect(url: str) -> RedisReader:
    # Late: importing redis takes 0.1 s, which a trainer without a server must not pay.
    from oona.streams.reader import RedisReader

    return RedisReader(url)


def _try_to_connect(url: str) -> tuple[RedisReader | None, str]:
    """The server, if there is one, or why it cannot be read."""
    try:
        bus_url.check_url(url)
        return (None if url in bus_url.NAMED else _connect(url)), ""
    except leyline.BusError as error:
        return None, "" if has_ended(url) else str(error)
