"""The boundary: timed part by part, all of it or nothing, and held after three faults in a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from kasmina import FunctionTask
from kasmina.slots.slot import attached_seeds
from leyline import (
    Advance,
    BoundaryTiming,
    Cull,
    Decision,
    Germinate,
    Stage,
    limits,
)
from tamiyo import State
from tests.tolaria.plain_loops import (
    HELD_OUT,
    SCHEDULE,
    SEED,
    TRAIN,
    Scripted,
    adam,
    assert_same,
    assert_same_state,
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
    seed_parameters,
    train_epoch,
    use_policy,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import BoundaryReport, Orchestrator
from tolaria.boundary.stage_timer import StageTimer
from tolaria.config import load_config
from tolaria.disk.journal import read
from tolaria.growth.batch_source import GivenBatches
from tolaria.rates.groups import SEED_KEY
from tolaria.resume import growth_state
from tolaria.session import Session

NUM_HELD = 10


class Clock:
    """Moves on by the same time whenever it is read."""

    def __init__(self, tick_s: float):
        self.now_s, self.tick_s = 0.0, tick_s

    def __call__(self) -> float:
        self.now_s += self.tick_s
        return self.now_s


def _timed(model: nn.Module, run_dir: Path, clock: Clock, **settings: Any) -> Orchestrator:
    config = load_config({"run_dir": run_dir, "telemetry": "off", "checkpoint": False, **settings})
    return Orchestrator(
        model,
        [adam(model)],
        config,
        session=Session.open(config),
        task=FunctionTask(model, loss_fn),
        source=GivenBatches((TRAIN, HELD_OUT), 4, 1 << 20),
        clock_s=clock,
    )


def _hold(state: State) -> Decision:
    return Decision(epoch=state.packet.epoch, policy="scripted", cause="nothing")


# --- times -----------------------------------------------------------------------------------


def test_a_boundary_is_the_sum_of_its_three_parts(tmp_path: Path) -> None:
    """Gather, decide and apply are timed by the clock that was given; everything else is outside
    and not in the sum; the event tells the same."""
    model = make_host()
    clock = Clock(0.001)
    with _timed(model, tmp_path / "run", clock) as esper:
        events = listen(esper)
        report = esper.epoch_boundary({"val_loss": 1.0})
    # Each stage reads the clock twice; the controller reads it twice more; apply has two stages.
    assert report.gather_ms == pytest.approx(1.0)
    assert report.decide_ms == pytest.approx(3.0)
    assert report.apply_ms == pytest.approx(2.0)
    assert report.total_ms == pytest.approx(6.0)
    assert report.within_limit
    assert {"survey", "race", "counterfactual", "snapshot", "germination"} <= set(report.outside_ms)
    (timing,) = [event for event in events if isinstance(event, BoundaryTiming)]
    assert timing == report.timing()


def test_a_late_decision_is_discarded_and_marked(tmp_path: Path) -> None:
    """A policy over its deadline changes nothing, and the boundary is over its limit."""
    model = make_host()
    settings = {"policy": "schedule", "schedule": SCHEDULE}
    with _timed(model, tmp_path / "run", Clock(0.010), **settings) as esper:
        report = esper.epoch_boundary({"val_loss": 1.0})
    assert report.decision.late
    assert report.decision.commands == ()
    assert not report.within_limit
    assert report.total_ms > limits.BOUNDARY_MS


@pytest.mark.parametrize(("apply_ms", "within"), [(10.0, True), (12.1, False)])
def test_the_limit_is_eighteen_ms(apply_ms: float, within: bool) -> None:
    """18 ms are within the limit, more are not."""
    decision = Decision(epoch=3, policy="hold", cause="")
    took = {"gather": 1.0, "decide": 5.0, "apply": apply_ms + 2.0 * within}
    report = BoundaryReport.of(decision, [], took, outside_ms={})
    assert report.within_limit is within
    assert report.epoch == 3


def test_the_same_stage_adds_up_and_a_failing_one_counts() -> None:
    """Two blocks of one name are one sum, also when a block raises."""
    timer = StageTimer(Clock(0.002))
    with timer.stage("a"):
        pass
    with pytest.raises(KeyError), timer.stage("a"):
        raise KeyError
    assert timer.took_ms == {"a": pytest.approx(4.0)}


# --- all or nothing --------------------------------------------------------------------------


def _broken(state: State) -> Decision:
    raise ZeroDivisionError("a bug")


def _no_decision(state: State) -> Any:
    return {"epoch": state.packet.epoch}


def _unreadable(state: State) -> Decision:
    return Decision(epoch=state.packet.epoch, policy="scripted", cause=None)  # type: ignore[arg-type]


def _other_epoch(state: State) -> Decision:
    return Decision(epoch=state.packet.epoch + 1, policy="scripted", cause="")


def _no_command(state: State) -> Decision:
    commands: Any = (Cull(seed=SEED, cause="", embargo_epochs=1), "cull them all")
    return Decision(epoch=state.packet.epoch, policy="scripted", cause="", commands=commands)


@pytest.mark.parametrize(
    "bug", [_broken, _no_decision, _unreadable, _other_epoch, _no_command], ids=lambda b: b.__name__
)
def test_a_policy_with_a_bug_changes_nothing_and_training_goes_on(
    bug: Callable[[State], Decision], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table, model, optimizer and policy are as they were; there is one fault; the decision that
    is published says that the boundary did not count; the journal can be read."""
    wrong = False
    policy = Scripted(lambda state: bug(state) if wrong else schedule.decide(state))
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "probe", schedule=SCHEDULE) as probe:
        schedule = probe.controller._policy
    use_policy(monkeypatch, policy)
    with attach(model, optimizer, tmp_path / "run") as esper:
        run(model, optimizer, esper, 3)
        train_epoch(model, optimizer, esper)
        before = _everything(model, optimizer, esper)
        events = listen(esper)
        wrong = True
        report = esper.epoch_boundary(evaluate(model))

        _assert_unchanged(model, optimizer, esper, before)
        assert policy.num_asked == 3
        (fault,) = faults(events)
        assert fault.where == "boundary"
        assert "did not count" in report.decision.cause
        assert report.decision.commands == ()

        wrong = False
        run(model, optimizer, esper, 1)
        assert esper.executor.table.stage(SEED) is Stage.EVALUATING
        assert_tracked(model, optimizer)
    assert len(list(read(tmp_path / "run" / "journal.bin"))) > 10


def _everything(model: nn.Module, optimizer: Optimizer, esper: Orchestrator) -> dict[str, Any]:
    return {
        "weights": copy_of(model),
        "state": copy_of_state(optimizer),
        "groups": [dict(group) for group in optimizer.param_groups],
        "seeds": list(attached_seeds(model).values()),
        "trained": {n: p.requires_grad for n, p in model.named_parameters()},
        "executor": esper.executor.state_dict(),
    }


def _assert_unchanged(
    model: nn.Module, optimizer: Optimizer, esper: Orchestrator, before: dict[str, Any]
) -> None:
    after = _everything(model, optimizer, esper)
    assert_same(after["weights"], before["weights"])
    assert_same_state(after["state"], before["state"])
    for key in ("groups", "seeds", "trained"):
        assert after[key] == before[key], key
    table, old = after["executor"].pop("table"), before["executor"].pop("table")
    assert after["executor"] == before["executor"]
    assert table["names"] == old["names"]
    for name, column in table["columns"].items():
        if name.startswith("trial_"):
            continue  # a race measured them before the boundary
        assert torch.equal(column.nan_to_num(-7), old["columns"][name].nan_to_num(-7)), name
    assert torch.equal(table["history"], old["history"])


class _Stubborn(torch.optim.Adam):
    """An optimizer that refuses the second seed."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if param_group.get(SEED_KEY) == "conv/1":
            raise RuntimeError("no more groups")
        super().add_param_group(param_group)


def test_a_fault_after_seeds_were_moved_puts_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A boundary that takes one seed out, grafts another at the same site and then fails in the
    optimizer leaves the first where it was, with its moments and its ramp, and the second out."""
    both = [SEED, "conv/1"]

    def decide(state: State) -> Decision:
        epoch, commands = state.packet.epoch, []
        if epoch in (1, 3):
            seed = both[epoch // 2]
            commands = [Germinate(seed=seed, site="conv", blueprint="conv", cause="")]
        elif epoch in (2, 4):
            commands = [Advance(seed=both[epoch // 2 - 1], to=Stage.GRAFTING, cause="")]
            if epoch == 4:
                commands.insert(0, Advance(seed=SEED, to=Stage.ROLLED_BACK, cause=""))
        return Decision(epoch=epoch, policy="s", cause="", commands=tuple(commands))

    use_policy(monkeypatch, Scripted(decide))
    model = make_host()
    optimizer = _Stubborn(model.parameters(), lr=0.01)
    with attach(model, optimizer, tmp_path / "run") as esper:
        run(model, optimizer, esper, 3)
        train_epoch(model, optimizer, esper)
        before = _everything(model, optimizer, esper)
        assert before["trained"]["conv.esper.0.body.0.weight"]
        events = listen(esper)
        esper.epoch_boundary(evaluate(model))

        assert "no more groups" in faults(events)[0].what
        _assert_unchanged(model, optimizer, esper, before)
        assert list(attached_seeds(model)) == [SEED]
        train_epoch(model, optimizer, esper)
        assert all(p.grad is not None for p in seed_parameters(model))


def test_three_faults_in_a_row_open_the_breaker_for_ten_boundaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the policy is not asked, no fault is added and training goes on; after ten boundaries
    it is asked again, and one more fault closes the door at once."""
    policy = Scripted(_broken)
    calls: list[int] = []

    def asked(epoch: int) -> None:
        if epoch not in calls[-1:]:  # on a busy machine a late answer is asked for again
            calls.append(epoch)

    def decide(state: State) -> Decision:
        asked(state.packet.epoch)
        return _broken(state) if state.packet.epoch < 15 else _hold(state)

    policy._decide = decide
    use_policy(monkeypatch, policy)
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run") as esper:
        events = listen(esper)
        reports = run(model, optimizer, esper, 3 + NUM_HELD)
        assert calls == [1, 2, 3]
        assert len(faults(events)) == 3
        assert all("growth holds" in report.decision.cause for report in reports[3:])
        assert min(report.decide_ms for report in reports[3:]) < 1.0
        run(model, optimizer, esper, 1 + NUM_HELD)
        assert calls == [1, 2, 3, 14]
        assert len(faults(events)) == 4
        run(model, optimizer, esper, 2)
        assert calls == [1, 2, 3, 14, 25, 26]
        assert len(faults(events)) == 4


def test_faults_that_are_not_in_a_row_open_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A boundary that counts ends the row."""
    policy = Scripted(lambda state: _broken(state) if state.packet.epoch % 3 else _hold(state))
    use_policy(monkeypatch, policy)
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run") as esper:
        events = listen(esper)
        run(model, optimizer, esper, 9)
        assert len(faults(events)) == 6
        assert all("ZeroDivisionError" in fault.what for fault in faults(events))


def test_an_open_breaker_survives_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the breaker remembers travels with the growth state: a resumed run holds as long."""
    use_policy(monkeypatch, Scripted(_broken))
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run") as esper:
        run(model, optimizer, esper, 5)
        state = growth_state.growth_state(esper)
    with attach(model, optimizer, tmp_path / "other") as later:
        events = listen(later)
        growth_state.restore_growth(later, state, rng=False)
        run(model, optimizer, later, NUM_HELD - 2)
        assert faults(events) == []
        run(model, optimizer, later, 1)
        assert len(faults(events)) == 1
