"""Inside a running event loop, as in a notebook cell, everything is as outside of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from tests.tolaria.lightning.models import MLP, PLANT, assert_same_tensors, esper, fit, weights
from tests.tolaria.plain_loops import adam, attach, evaluate, make_host, train_epoch
from tests.tolaria.plain_loops import one_thread as one_thread

_T = TypeVar("_T")


def in_a_loop(work: Callable[[], _T]) -> _T:
    """Call something from a coroutine, and let the loop's other tasks have their turn after it."""
    turns: list[None] = []

    async def other() -> None:
        turns.append(None)

    async def main() -> _T:
        task = asyncio.create_task(other())
        found = work()
        asyncio.get_running_loop()
        await task
        return found

    found = asyncio.run(main())
    assert turns
    return found


def test_a_fit_grows_and_delivers_as_ever(tmp_path: Path) -> None:
    """Bus and server included: the weights are the same bits, every event is delivered."""

    def fitted(run: str) -> tuple[Any, Any]:
        callback = esper(tmp_path / run, schedule=PLANT, telemetry="embedded", checkpoint=True)
        _, model = fit(MLP, [callback], max_epochs=3)
        assert callback.orchestrator is not None
        return model, callback.orchestrator.close()

    usual, _ = fitted("outside")
    model, statistics = in_a_loop(lambda: fitted("inside"))
    assert_same_tensors(weights(model), weights(usual))
    assert len(weights(model)) > len(weights(MLP())), "nothing has grown"
    assert statistics.delivered == statistics.offered > 0


def test_a_hand_written_loop_does_too(tmp_path: Path) -> None:
    """Also where every epoch is an await apart, and other tasks run between them."""

    async def train(run: Path) -> dict[str, torch.Tensor]:
        model = make_host()
        optimizer = adam(model)
        with attach(
            model, optimizer, run, schedule=[[1, "head", "low_rank"]], telemetry="embedded"
        ) as run_of_it:
            for _ in range(4):
                train_epoch(model, optimizer, run_of_it)
                await asyncio.sleep(0)
                run_of_it.epoch_boundary(evaluate(model))
        assert run_of_it.close().delivered > 0
        return weights(model)

    async def main() -> dict[str, torch.Tensor]:
        return await asyncio.create_task(train(tmp_path / "inside"))

    inside = asyncio.run(main())
    usual = make_host()
    optimizer = adam(usual)
    schedule = [[1, "head", "low_rank"]]
    with attach(usual, optimizer, tmp_path / "outside", schedule=schedule) as esper_run:
        for _ in range(4):
            train_epoch(usual, optimizer, esper_run)
            esper_run.epoch_boundary(evaluate(usual))
    assert_same_tensors(inside, weights(usual))
    assert len(inside) > len(weights(make_host()))
