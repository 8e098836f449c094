"""Patience with a store: what it refuses for now is tried again, until it takes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import leyline
from oona.audit.database import PassingError

_LOG = logging.getLogger("esper")
_T = TypeVar("_T")
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0
_NUM_LAST_TRIES: Final = 4
"""Tries once nothing more is to come: whoever waits for the end is to hear of it."""


class Patience:
    """Tries until it succeeds, until told to stop, or a few times more after the end.

    Args:
        has_ended: whether nothing more is to come; asked after each failure.
        stopping: is set to stop.
        passing: errors that may pass; all others are the caller's at once.
    """

    def __init__(
        self,
        has_ended: Callable[[], bool],
        stopping: asyncio.Event,
        passing: tuple[type[Exception], ...] = (PassingError, leyline.BusError),
    ):
        self._has_ended = has_ended
        self._stopping = stopping
        self._passing = passing

    async def keep_trying(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Try with growing pauses; the first failure and the end of failing are logged.

        Raises:
            EsperError: the last error, if it is not to be tried again.
        """
        num_failures = num_last = 0
        while True:
            try:
                result = await attempt()
            except self._passing as error:
                num_last += self._has_ended()
                if self._stopping.is_set() or num_last > _NUM_LAST_TRIES:
                    raise
                if not num_failures:
                    _LOG.warning("audit: %s; tried again until it can be written", error)
                num_failures += 1
            else:
                if num_failures:
                    _LOG.warning("audit: written again, after %d failures", num_failures)
                return result
            await pause(self._stopping, num_last or num_failures)


async def pause(stopping: asyncio.Event, num_failures: int) -> None:
    """Wait longer the more failures in a row there were, but no longer than until told to stop."""
    doubled_s = _FIRST_PAUSE_S * 2 ** min(num_failures, 10)
    with suppress(TimeoutError):
        async with asyncio.timeout(min(doubled_s, _LONGEST_PAUSE_S)):
            await stopping.wait()
