"""The collector: takes events from a server's consumer group to a store, until a run is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import leyline
from oona.audit.store import Store
from oona.collecting.patience import Patience, pause
from oona.collecting.tally import Tally
from oona.metrics.aggregates import Aggregates
from oona.metrics.operations import Operations
from oona.off_loop import off_loop
from oona.publishing.drain import drain
from oona.reading.reader import read
from oona.reading.sequences import SequenceSet
from oona.streams.groups import ConsumerGroup, Delivery
from oona.streams.transport import ServerError

_LOG = logging.getLogger("esper")
_T = TypeVar("_T")
_WAIT_S: Final = 0.2
"""How long one read waits for news, and so how soon a stop is seen."""
_AFTERMATH_S: Final = 0.5
"""How long events are still expected after a run's end: the emergency lane overtakes others."""
_CLAIM_INTERVAL_S: Final = 5.0
_CALL_TIMEOUT_S: Final = 10.0
_OUTBOX_EVENTS: Final = 1000


class Collector:
    """Reads, commits, acknowledges, in this order: what a crash interrupts is delivered again.

    Args:
        open_group: connects to the server as a member of the store's consumer group.
        store: where events go; its owner closes it.
        run_dir: the run's directory: what its outbox holds is taken too, whenever the server is
            away and at the end; None: every run on a server, until `stop`.
        is_live: whether there may be more events to come; asked whenever there are none.
        operations: where operations are timed.
        aggregates: what the events are added up in as well.
        clock: seconds, never backward.
    """

    def __init__(
        self,
        open_group: Callable[[], ConsumerGroup],
        store: Store,
        *,
        run_dir: Path | None,
        is_live: Callable[[], bool],
        operations: Operations,
        aggregates: Aggregates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.num_events = 0
        """Events that were new to the store."""
        self.num_refused = 0
        """Damaged or hostile records of the server or the outbox that were passed over."""
        self.problem = ""
        """Why the server could not be read the last time; empty if it can be."""
        self._open_group = open_group
        self._store = store
        self._run_dir = run_dir
        self._is_live = is_live
        self._operations = operations
        self._tally = None if aggregates is None else Tally(aggregates)
        self._clock = clock
        self._stopping = asyncio.Event()
        self._patience = Patience(lambda: self._has_ended or not is_live(), self._stopping)
        self._seen = SequenceSet()
        self._started = self._ended = 0
        """Sequences of the last start and the last end of the run that were seen."""

    def stop(self) -> None:
        """Have `run` return soon; what was received by then is committed."""
        self._stopping.set()

    async def run(self) -> None:
        """Collect until the run is over and all of it is in the store, or until `stop`.

        Raises:
            EsperError: the store refused a batch for good, or still did after the end or a stop;
                nothing of it is acknowledged.
        """
        num_failures = 0
        while not self._stopping.is_set():
            is_live = self._is_live()  # first: what it sends before its end is then found below
            try:
                await self._follow()
                num_failures = 0
            except ServerError as error:  # a store's own errors are not among them
                num_failures += 1
                self._note(str(error), aloud=is_live)
            if self._stopping.is_set() or self._is_complete:
                return
            await self._drain_outbox()
            if not is_live or self._has_ended:
                return
            await pause(self._stopping, num_failures)

    @property
    def _has_ended(self) -> bool:
        return self._run_dir is not None and self._ended > self._started

    @property
    def _is_complete(self) -> bool:
        return self._has_ended and self._seen.is_complete(self._ended)

    async def _follow(self) -> None:
        """Take what the server delivers, until there is no more to come."""
        group = await self._call("connect to the bus", self._open_group)
        try:
            self._note("")
            quiet_since = claimed = self._clock()
            deliveries = await self._call("claim events", group.claim)
            while True:
                if deliveries:
                    await self._commit(deliveries)
                    await self._call("acknowledge events", partial(group.acknowledge, deliveries))
                    quiet_since = self._clock()
                elif self._is_over(self._clock() - quiet_since):
                    return
                if self._stopping.is_set():
                    return
                if self._clock() - claimed >= _CLAIM_INTERVAL_S:
                    claimed = self._clock()
                    deliveries = await self._call("claim events", group.claim)
                else:
                    deliveries = await self._call("read events", partial(group.read, _WAIT_S))
        finally:
            self.num_refused = max(self.num_refused, group.num_refused)
            group.close()

    def _is_over(self, quiet_s: float) -> bool:
        if self._has_ended:
            return self._is_complete or quiet_s > _AFTERMATH_S
        return not self._is_live()

    async def _commit(self, deliveries: Sequence[Delivery]) -> None:
        await self._append([e for delivery in deliveries for e in delivery.envelopes])

    async def _append(self, envelopes: Sequence[leyline.Envelope]) -> None:
        if not envelopes:
            return
        append = partial(self._store.append, envelopes)
        self.num_events += await self._patience.keep_trying(append)
        if self._tally is not None:
            self._tally.take(envelopes)
        if self._run_dir is None:
            return
        for envelope in envelopes:
            self._seen.add(envelope.sequence)
            match envelope.event:
                case leyline.RunStarted():
                    self._started = max(self._started, envelope.sequence)
                case leyline.RunEnded():
                    self._ended = max(self._ended, envelope.sequence)

    async def _drain_outbox(self) -> None:
        """Take what the run's directory holds, in case the server never gets it."""
        if self._run_dir is None:
            return
        # Other readers of the server wait for what a dead trainer left, too.
        await self._call("drain the outbox", partial(drain, self._run_dir))
        envelopes = await self._call("open the outbox", partial(read, self._run_dir))
        try:
            page = partial(_next_page, envelopes)
            while not self._stopping.is_set() and (
                batch := await self._call("read the outbox", page)
            ):
                await self._append([e for e in batch if self._seen.missing(e.sequence, e.sequence)])
        finally:
            with suppress(ValueError):  # cancelled: a thread that nobody waits for reads on
                envelopes.close()
        self.num_refused = max(self.num_refused, envelopes.num_refused)  # the server's again

    async def _call(self, operation: str, function: Callable[[], _T]) -> _T:
        return await off_loop(
            operation, function, timeout_s=_CALL_TIMEOUT_S, operations=self._operations
        )

    def _note(self, problem: str, *, aloud: bool = False) -> None:
        if aloud and problem != self.problem:
            _LOG.warning("audit: %s; events wait in the run's outbox", problem)
        self.problem = problem


def _next_page(envelopes: Iterable[leyline.Envelope]) -> list[leyline.Envelope]:
    return list(islice(envelopes, _OUTBOX_EVENTS))
