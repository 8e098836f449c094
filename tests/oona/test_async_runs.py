"""The watch over coroutines in tests sees what it is there for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.oona.async_runs import ClockedLoop


async def holds_the_loop() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockedLoop)
    loop.advance(1.0)


async def leaves_a_task() -> None:
    asyncio.get_running_loop().create_task(asyncio.sleep(60.0), name="forgotten")
    await asyncio.sleep(0)


async def never_awaits() -> None:
    asyncio.sleep(0.0)


async def loses_an_exception() -> None:
    lost = asyncio.get_running_loop().create_future()
    lost.set_exception(OSError("lost"))
    knot: list[object] = [lost]
    knot.append(knot)  # only the garbage collector finds it


@pytest.mark.parametrize(
    ("main", "complaint"),
    [
        (holds_the_loop, "asyncio complained:\n.*took 1.000 seconds"),
        (leaves_a_task, "tasks left alive: .*forgotten"),
        (never_awaits, "warned of:\n.*'sleep' was never awaited"),
        (loses_an_exception, "asyncio complained:\n.*never retrieved"),
    ],
)
def test_each_fault_is_seen(
    main: Callable[[], Coroutine[Any, Any, None]], complaint: str, run_async: Callable[..., Any]
) -> None:
    """A callback that holds the loop, a task that outlives its coroutine, one never awaited and an
    exception never retrieved each fail the test they happen in."""
    with pytest.raises(AssertionError, match=complaint):
        run_async(main(), clocked=True)


def test_hours_pass_at_once(run_async: Callable[..., Any]) -> None:
    """On the clocked loop timers fire in order, at their time, without waiting for it."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        fired: list[float] = []
        for hours in (2, 1, 3):
            loop.call_later(3600.0 * hours, lambda: fired.append(loop.time()))
        await asyncio.sleep(4 * 3600.0)
        return fired

    assert run_async(main(), clocked=True) == pytest.approx([3600.0, 7200.0, 10800.0])
