"""The collector as a process: its store, its tasks, its signals, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final

from leyline import RunLockedError
from oona import run_file
from oona.audit.database import PassingError
from oona.audit.store import Store, open_store
from oona.audit.store_url import redact
from oona.collecting.collector import Collector
from oona.collecting.patience import Patience
from oona.metrics.aggregates import Aggregates
from oona.metrics.operations import Operations
from oona.servers import url as bus_url
from oona.streams.groups import ConsumerGroup
from oona.streams.transport import ServerError

_LOG = logging.getLogger("esper")
_GRACE_S: Final = 1.5
"""How long a stop waits for what is under way before it is cancelled."""
_LOCK_TIMEOUT_S: Final = 10.0
"""How long to wait for another writer of the trail, such as `esper events`, which is done soon."""
_LOCK_INTERVAL_S: Final = 0.05


def collect(
    target: Path | str,
    store_url: str,
    *,
    is_live: Callable[[], bool],
    metrics_port: int | None = None,
    on_metrics: Callable[[str], None] = lambda _: None,
) -> int:
    """Collect the events of a run, or of every run on a server, until it is over or told to stop.

    SIGTERM and SIGINT stop it within two seconds, with all that was received committed. Call it
    in the main thread.

    Args:
        target: a run's directory, or the URL of a server, which is followed until a stop.
        store_url: sqlite:PATH or postgresql://...
        is_live: whether the run still goes on.
        metrics_port: serve /metrics there, on the loopback interface; 0 for any port that is free.
        on_metrics: is told the URL of /metrics.

    Returns:
        How many events were new to the store.

    Raises:
        EsperError: the store cannot be used or refused a batch for good, or the port is taken.
    """
    aggregates = Aggregates()
    with ExitStack() as held:
        if metrics_port is not None:
            from oona.metrics.prometheus import PrometheusEndpoint  # late: few ask for it

            on_metrics(held.enter_context(PrometheusEndpoint(aggregates, metrics_port)).url)
        return asyncio.run(_serve(target, store_url, is_live, aggregates))


async def _serve(
    target: Path | str, store_url: str, is_live: Callable[[], bool], aggregates: Aggregates
) -> int:
    operations = Operations()
    # A database that refuses here is no passing matter: its URL or its login is wrong.
    patience = Patience(lambda: not is_live(), asyncio.Event(), (PassingError,))
    store = await patience.keep_trying(partial(_open_when_free, store_url, operations))
    collector = Collector(
        partial(open_group, target, store_url),
        store,
        run_dir=target if isinstance(target, Path) else None,
        is_live=is_live,
        operations=operations,
        aggregates=aggregates,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(collector.run(), name="oona-collector")
            _stop_on_signals(collector, work)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        if num_refused := collector.num_refused + store.num_refused:
            _LOG.warning("audit: %d damaged or hostile records were passed over", num_refused)
        await store.close()
    return collector.num_events


def open_group(target: Path | str, store_url: str) -> ConsumerGroup:
    """Join the consumer group of a store, on the server that a run names now or at a URL.

    Raises:
        ServerError: there is no such server, or it does not answer.
    """
    url, run_id = str(target), None
    if isinstance(target, Path):
        address = run_file.read(target)
        if address is None or address.url in bus_url.NAMED:
            raise ServerError(f"{target} names no server to read from")
        url, run_id = address.url, address.run_id
    bus_url.check_url(url)
    # One group for each store: stores do not take events from one another.
    group = f"audit-{blake2b(redact(store_url).encode(), digest_size=6).hexdigest()}"
    return ConsumerGroup(url, group, f"{socket.gethostname()}-{os.getpid()}", run_id=run_id)


async def _open_when_free(store_url: str, operations: Operations) -> Store:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LOCK_TIMEOUT_S
    while True:
        try:
            return await open_store(store_url, operations)
        except RunLockedError:
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(_LOCK_INTERVAL_S)


def _stop_on_signals(collector: Collector, work: asyncio.Task[None]) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        collector.stop()
        loop.call_later(_GRACE_S, work.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
