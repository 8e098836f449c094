"""Coroutines run under watch: asyncio's debug mode, and nothing slow, forgotten or left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import selectors
import warnings
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

SLOW_CALLBACK_S = 0.2
"""A callback that holds the loop for so long has blocked: the machine is shared, so no shorter."""


class _Skipping(selectors.DefaultSelector):
    """Where a loop would wait for a timer, its clock is put forward instead."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(None if timeout is None else 0)
        if not found and timeout is not None:
            self.now_s += timeout
        return found


class ClockedLoop(asyncio.SelectorEventLoop):
    """A loop whose hours pass at once; `advance` lets time pass within a callback."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now_s

    def advance(self, seconds: float) -> None:
        self._skipping.now_s += seconds


class _Ears(logging.Handler):
    """Keeps what asyncio says."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def run_watched(main: Coroutine[Any, Any, _T], *, clocked: bool = False) -> _T:
    """Run a coroutine to its end in asyncio's debug mode.

    Args:
        main: what to run.
        clocked: on a ClockedLoop, so that timeouts and `asyncio.sleep` take no time.

    Raises:
        AssertionError: a callback held the loop, a task was left alive, a coroutine was never
            awaited, or an exception was never retrieved.
    """
    ears = _Ears()
    logger = logging.getLogger("asyncio")
    logger.addHandler(ears)
    left: set[str] = set()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            factory = ClockedLoop if clocked else asyncio.SelectorEventLoop
            with asyncio.Runner(debug=True, loop_factory=factory) as runner:
                runner.get_loop().slow_callback_duration = SLOW_CALLBACK_S
                result = runner.run(_run(main, left))
            gc.collect(1)  # what the run has made is young, and all of it takes a second
    finally:
        logger.removeHandler(ears)
    assert not left, f"tasks left alive: {sorted(left)}"
    assert not ears.said, "\n".join(["asyncio complained:", *ears.said])
    forgotten = [str(w.message) for w in warned]
    assert not forgotten, "\n".join(["warned of:", *forgotten])
    return result


async def _run(main: Coroutine[Any, Any, _T], left: set[str]) -> _T:
    result = await main
    left |= {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
    return result
