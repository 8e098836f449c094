"""The one way that blocking work leaves an event loop: named, timed, bounded in time and number."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, TypeVar, TypeVarTuple, cast

import leyline
from oona.metrics.operations import Operations

_LOG = logging.getLogger("esper")
_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")
_NUM_CALLS: Final = 16
"""Most blocking calls at once in a process; those given up count until they end."""
_THREAD_PREFIX: Final = "off-loop "


class StillRunningError(leyline.BusError, TimeoutError):
    """A blocking call that took too long: nobody waits for it any more, but it goes on."""


async def off_loop(
    operation: str,
    function: Callable[[*_Arguments], _T],
    *args: *_Arguments,
    timeout_s: float,
    operations: Operations | None = None,
) -> _T:
    """Call a function that may block in a thread of its own, and wait for it without blocking.

    Each call has a daemon thread, so that one which never returns delays neither the end of the
    loop nor that of the process. Cancelling stops the waiting at once, not the call. What becomes
    of a call that nobody waits for is logged, its exception too.

    Args:
        operation: its name, in errors, the log, the thread's name and `operations`.
        function, args: what to call; it sees the caller's context variables.
        timeout_s: how long to wait.
        operations: where it is counted until it has really ended; None: nowhere.

    Raises:
        StillRunningError: it has not ended in time.
        BusError: 16 such calls are under way already.
        BaseException: what the function raised.
    """
    under_way = [t.name for t in threading.enumerate() if t.name.startswith(_THREAD_PREFIX)]
    if len(under_way) >= _NUM_CALLS:
        names = ", ".join(sorted({name.removeprefix(_THREAD_PREFIX) for name in under_way}))
        raise leyline.BusError(
            f"{operation} refused: {len(under_way)} blocking calls are under way ({names}), and "
            f"{_NUM_CALLS} are the most; wait for some, or see why they do not end"
        )
    call = _Call[_T](operation, lambda: function(*args), operations)
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run, args=(call.run,), name=_THREAD_PREFIX + operation, daemon=True
    )
    thread.start()
    try:
        async with asyncio.timeout(timeout_s):
            await call.ended.wait()
    except TimeoutError as error:
        if call.give_up(f"given up after {timeout_s:g} s"):
            raise StillRunningError(
                f"{operation} has taken longer than {timeout_s:g} s: its thread goes on, because a "
                "thread cannot be stopped; see what it waits for (a disk, a server, a lock)"
            ) from error
    except asyncio.CancelledError:
        if not call.give_up("cancelled"):
            call.say_end("cancelled")
        raise
    return call.outcome()


class _Call(Generic[_T]):
    """A call on its way through a thread; entered there, it keeps whatever is raised."""

    def __init__(self, name: str, function: Callable[[], _T], operations: Operations | None):
        self.ended = asyncio.Event()
        self._name = name
        self._function = function
        self._operations = operations
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._has_ended = False
        self._given_up = ""
        self._result: _T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Call the function, in the thread; its exception is the waiter's."""
        with self:
            if self._operations is None:
                self._result = self._function()
            else:
                with self._operations.timed(self._name):
                    self._result = self._function()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._error = error
        with self._lock:
            self._has_ended = True
            given_up = self._given_up
        if given_up:
            self.say_end(given_up)
        else:
            self._wake()
        return True

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self.ended.set)
        except RuntimeError:  # the loop was closed over the head of the waiter
            _LOG.warning("%s has ended after its event loop was closed", self._name)

    def give_up(self, why: str) -> bool:
        """Nobody waits any more; False if it has ended in this very moment."""
        with self._lock:
            self._given_up = why
            return not self._has_ended

    def say_end(self, given_up: str) -> None:
        """Log what became of it."""
        end = "returned" if self._error is None else f"raised {self._error!r}"
        _LOG.warning("%s, %s, has now %s", self._name, given_up, end)

    def outcome(self) -> _T:
        """What the function returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return cast("_T", self._result)
