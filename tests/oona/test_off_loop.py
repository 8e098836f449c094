"""Blocking work off the loop: named, timed, bounded, and never lost in silence."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

import leyline
from oona.metrics.operations import Operations
from oona.off_loop import StillRunningError, off_loop


def under_way() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("off-loop ")]


def let_all_end(release: threading.Event) -> None:
    release.set()
    for thread in under_way():
        thread.join(5.0)
        assert not thread.is_alive()


def test_a_call_gives_what_it_returns_or_raises(run_async: Callable[..., Any]) -> None:
    """The result and the exception are the function's own; it runs in a named thread that sees the
    caller's context, the loop goes on meanwhile, and each call is counted with its errors."""
    caller = contextvars.ContextVar("caller", default="nobody")
    operations = Operations()
    gate = threading.Event()

    def look(number: int) -> tuple[int, str, str]:
        assert gate.wait(5.0)
        return number, caller.get(), threading.current_thread().name

    async def main() -> None:
        caller.set("the test")
        async with asyncio.TaskGroup() as group:
            looking = off_loop("look", look, 7, timeout_s=5.0, operations=operations)
            task = group.create_task(looking, name="look")
            await asyncio.sleep(0)
            gate.set()
        assert task.result() == (7, "the test", "off-loop look")
        with pytest.raises(KeyError, match="missing"):
            await off_loop("look", {}.__getitem__, "missing", timeout_s=5.0, operations=operations)

    run_async(main())
    summary = operations.summary()["look"]
    assert (summary.count, summary.errors, summary.active) == (2, 1, 0)


@pytest.mark.parametrize("raises", [False, True])
def test_a_call_that_takes_too_long_is_said_twice(
    raises: bool, run_async: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """After 600 s by the loop's clock the waiter is told that the thread goes on, by name; it is
    counted as active until it ends, and how it ended is in the log."""
    operations = Operations()
    release = threading.Event()

    def stuck() -> str:
        assert release.wait(30.0)
        if raises:
            raise OSError("disk gone")
        return "done"

    async def main() -> float:
        with pytest.raises(StillRunningError, match=r"append has taken longer than 600 s: its thr"):
            await off_loop("append", stuck, timeout_s=600.0, operations=operations)
        return asyncio.get_running_loop().time()

    assert run_async(main(), clocked=True) == pytest.approx(600.0)
    assert operations.summary()["append"].active == 1
    let_all_end(release)
    assert operations.summary()["append"].active == 0
    end = "raised OSError('disk gone')" if raises else "returned"
    assert caplog.messages == [f"append, given up after 600 s, has now {end}"]


def test_cancelling_stops_the_waiting_at_once(
    run_async: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A cancelled caller is free although the call is not over; what becomes of it is logged, and
    a timeout around the call is the caller's own, not this one's."""
    began, release = threading.Event(), threading.Event()

    def stuck() -> None:
        began.set()
        assert release.wait(30.0)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1.0):
                await off_loop("send", stuck, timeout_s=60.0)
        assert not isinstance(caught.value, StillRunningError)

    run_async(main(), clocked=True)
    assert began.wait(5.0)
    assert len(under_way()) == 1
    let_all_end(release)
    assert caplog.messages == ["send, cancelled, has now returned"]


def test_an_end_in_the_moment_of_the_timeout_is_no_loss(
    run_async: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A call that has ended when its time is up, though the loop has not heard of it, gives its
    result or raises its error; one whose caller is cancelled then has its error in the log."""

    async def ended(function: Callable[[], Any], timeout_s: float) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(
            off_loop("append", function, timeout_s=timeout_s), name="append"
        )
        await asyncio.sleep(0)
        for thread in under_way():
            thread.join(5.0)  # holds the loop: what the thread says waits behind the timeout
        return task

    def fail() -> None:
        raise OSError("disk full")

    async def main() -> None:
        assert await (await ended(lambda: 7, 0.0)) == 7
        with pytest.raises(OSError, match="disk full"):
            await (await ended(fail, 0.0))
        (task := await ended(fail, 60.0)).cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(main())
    assert caplog.messages == ["append, cancelled, has now raised OSError('disk full')"]


def test_a_timeout_of_the_function_is_its_own(run_async: Callable[..., Any]) -> None:
    """A TimeoutError that the function raises is passed on as it is."""

    def fail() -> None:
        raise TimeoutError("the server's own")

    async def main() -> None:
        with pytest.raises(TimeoutError, match="the server's own"):
            await off_loop("send", fail, timeout_s=60.0)

    run_async(main())


def test_sixteen_calls_at_once_are_the_most(run_async: Callable[..., Any]) -> None:
    """The seventeenth is refused with the names of those under way, and nothing is started."""
    release = threading.Event()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(16):
                waiting = off_loop("append", release.wait, 30.0, timeout_s=30.0)
                group.create_task(waiting, name=f"append {number}")
            await asyncio.sleep(0)
            with pytest.raises(leyline.BusError, match=r"look refused: 16 .* \(append\), and 16"):
                await off_loop("look", int, timeout_s=1.0)
            assert len(under_way()) == 16
            release.set()

    run_async(main())
    let_all_end(release)


def test_a_loop_that_is_closed_meanwhile_is_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    """A call whose loop was closed without cancelling the waiter ends with one line in the log."""
    release = threading.Event()
    loop = asyncio.new_event_loop()
    waiting = off_loop("append", release.wait, 30.0, timeout_s=30.0)
    task = loop.create_task(waiting)
    loop.call_later(0.0, loop.stop)
    loop.run_forever()
    loop.close()
    let_all_end(release)
    assert caplog.messages == ["append has ended after its event loop was closed"]
    del task
