"""The commit point: a boundary that is broken off anywhere happened in whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from kasmina import FunctionTask
from kasmina.slots.slot import attached_seeds
from leyline import Decision, Stage
from tamiyo import State
from tests.tolaria.plain_loops import (
    HELD_OUT,
    SCHEDULE,
    SEED,
    TRAIN,
    Scripted,
    adam,
    assert_tracked,
    attach,
    copy_of,
    copy_of_state,
    evaluate,
    faults,
    listen,
    loss_fn,
    make_host,
    run,
    train_epoch,
    use_policy,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator
from tolaria.boundary.breakers import CLOSED, OPEN
from tolaria.config import load_config
from tolaria.growth.batch_source import GivenBatches
from tolaria.growth.policies import build_policy
from tolaria.rates.groups import SEED_KEY
from tolaria.session import Session


class TornClock:
    """A clock at whose n-th reading, counted from when it is set, an exception arrives."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._num_left = -1
        self._error: BaseException | None = None

    def tear(self, num_readings: int, error: BaseException) -> None:
        self._num_left, self._error = num_readings, error

    def __call__(self) -> float:
        self._now_s += 1e-5
        self._num_left -= 1
        if self._num_left == 0 and self._error is not None:
            raise self._error
        return self._now_s


def _attach(model: nn.Module, optimizer: Optimizer, clock: TornClock, run_dir: Path) -> Any:
    config = load_config(
        {
            "run_dir": run_dir,
            "telemetry": "off",
            "checkpoint": False,
            "policy": "schedule",
            "schedule": SCHEDULE,
            "trial_steps": [1],
            "num_epochs": 10,
        }
    )
    esper = Orchestrator(
        model,
        [optimizer],
        config,
        session=Session.open(config),
        task=FunctionTask(model, loss_fn),
        source=GivenBatches((TRAIN, HELD_OUT), 1, 1 << 20),
        clock_s=clock,
    )
    esper.start(resumed=False)
    return esper


def _state(model: nn.Module, optimizer: Optimizer, esper: Orchestrator) -> list[Any]:
    """All that a boundary may change, in a form that == compares."""
    table = esper.executor.state_dict().pop("table")
    return [
        {name: value.tolist() for name, value in copy_of(model).items()},
        repr(copy_of_state(optimizer)),
        [sorted(map(id, group["params"])) for group in optimizer.param_groups],
        [(name, id(held[2])) for name, held in attached_seeds(model).items()],
        {name: p.requires_grad for name, p in model.named_parameters()},
        repr([(n, c.tolist()) for n, c in table["columns"].items() if "trial" not in n]),
        table["history"].tolist(),
        esper.controller.state_dict(),
        esper.epoch,
    ]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(MemoryError, marks=pytest.mark.slow), KeyboardInterrupt],
    ids=lambda kind: kind.__name__,
)
def test_an_exception_at_any_reading_of_the_clock_leaves_all_or_nothing(
    kind: type[BaseException], tmp_path: Path
) -> None:
    """The boundary at which a graft begins is broken off again and again, each time one reading of
    the clock later, before, between and within its stages. Model, optimizer, table, policy and the
    count of epochs are as before, until it comes through: then the graft is there in whole, is
    tracked, and training goes on. An interrupt is raised on, an error of a stage is a fault."""
    model, clock = make_host(), TornClock()
    optimizer = adam(model)
    with _attach(model, optimizer, clock, tmp_path / "run") as esper:
        run(model, optimizer, esper, 1)
        train_epoch(model, optimizer, esper)
        metrics = evaluate(model)
        before, breakers = _state(model, optimizer, esper), esper.breakers.state_dict()
        undone = set()
        for reading in range(1, 60):
            esper.breakers.load_state_dict(breakers)  # or three in a row would open one
            clock.tear(reading, kind("torn"))
            try:
                report = esper.epoch_boundary(metrics)
            except kind:
                report = None
            clock.tear(-1, kind())
            if attached_seeds(model):
                break
            if report is not None:
                undone.add(report.decision.undone)
                esper.epoch -= 1  # it did not count, but it has passed
            assert _state(model, optimizer, esper) == before, reading
        else:
            pytest.fail("the boundary never came through")
        wanted = {"gather", "decide", "apply"} if issubclass(kind, Exception) else set()
        assert undone == wanted
        assert list(attached_seeds(model)) == [SEED]
        assert esper.executor.table.stage(SEED) is Stage.GRAFTING
        assert_tracked(model, optimizer)
        train_epoch(model, optimizer, esper)


def test_an_interrupt_that_came_out_as_another_error_is_raised_on(tmp_path: Path) -> None:
    """As Python's locks do with a Ctrl-C that comes while they are waited for: it is the user's,
    and never a fault of the boundary that training outlives."""
    model, clock = make_host(), TornClock()
    optimizer = adam(model)
    with _attach(model, optimizer, clock, tmp_path / "run") as esper:
        train_epoch(model, optimizer, esper)
        before, metrics = _state(model, optimizer, esper), evaluate(model)
        for reading in range(1, 60):  # the first ones come before the stages
            error = RuntimeError("release unlocked lock")
            error.__context__ = KeyboardInterrupt()
            clock.tear(reading, error)
            with pytest.raises((KeyboardInterrupt, RuntimeError)) as caught:
                esper.epoch_boundary(metrics)
            assert _state(model, optimizer, esper) == before
            if caught.type is KeyboardInterrupt:
                return
        pytest.fail("it never came in a stage")


class _Stubborn(torch.optim.Adam):
    """An optimizer that takes no seed."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if SEED_KEY in param_group:
            raise MemoryError("no more groups")
        super().add_param_group(param_group)


def test_a_fault_of_one_part_does_not_count_against_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three failures to apply open the executor's breaker and not the policy's, which was asked
    each time and answered; its state is as if it had not been."""
    model = make_host()
    optimizer = _Stubborn(model.parameters(), lr=0.01)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        events = listen(esper)
        reports = run(model, optimizer, esper, 6)
        assert [report.decision.undone for report in reports] == ["", *["apply"] * 3, "", ""]
        assert [esper.breakers.policy.state, esper.breakers.executor.state] == [CLOSED, OPEN]
        assert len(faults(events)) == 3
        assert all("no more groups" in fault.what for fault in faults(events))
        assert reports[-1].total_ms == 0.0
        assert not attached_seeds(model)


def test_while_the_policy_is_held_seeds_live_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the policy's breaker open nobody asks it, but gathering and applying go on: a seed that
    was grafted before finishes its ramp, epochs are counted, and a faulted seed would be taken
    out."""
    model = make_host()
    optimizer = adam(model)
    schedule = build_policy(load_config({"policy": "schedule", "schedule": SCHEDULE}))

    def decide(state: State) -> Decision:
        if state.packet.epoch > 2:
            raise ZeroDivisionError("a bug")
        return schedule.decide(state)

    policy = Scripted(decide)
    use_policy(monkeypatch, policy)
    with attach(model, optimizer, tmp_path / "run") as esper:
        run(model, optimizer, esper, 5)
        assert esper.breakers.policy.state == OPEN
        stay = esper.executor.table.get(SEED, "epochs_in_stage")
        (report,) = run(model, optimizer, esper, 1)
        assert (report.decide_ms > 0, report.gather_ms > 0, report.apply_ms > 0) == (True,) * 3
        assert "growth holds: the policy" in report.decision.cause
        assert esper.executor.table.get(SEED, "epochs_in_stage") == stay + 1
        assert esper.executor.table.get(SEED, "alpha") == 1.0
        assert_tracked(model, optimizer)
