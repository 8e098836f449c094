"""Risk in real runs: each level does what docs/risk.md says, whatever the policy asks for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline import Advance, Command, Decision, Germinate, RiskChanged, Stage
from tamiyo import State
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    SITE,
    TRAIN,
    Scripted,
    adam,
    attach,
    evaluate,
    faults,
    listen,
    make_host,
    run,
    stages,
    train_step,
    use_policy,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator
from tolaria.boundary.breakers import FAILURES_TO_OPEN
from tolaria.disk.journal import read
from tolaria.rollback.triggers import MemoryLimit

NO_TRIALS: dict[str, Any] = {"loss_fn": None, "data": None, "example": TRAIN[0][0]}
PLANT = Germinate(seed=SEED, site=SITE, blueprint="conv", cause="asked for")
GRAFT = Advance(seed=SEED, to=int(Stage.GRAFTING), cause="asked for")


class Clock:
    """Seconds; in these epochs every boundary takes more than the time it has."""

    def __init__(self, slow: set[int]):
        self.slow, self.now_s = slow, 0.0
        self.esper: Orchestrator | None = None

    def __call__(self) -> float:
        is_slow = self.esper is not None and self.esper.epoch in self.slow
        self.now_s += 0.02 if is_slow else 1e-6
        return self.now_s


def slow_at(esper: Orchestrator, epochs: set[int]) -> None:
    clock = Clock(epochs)
    clock.esper, esper.clock_s = esper, clock


def alphas(model: Any, optimizer: Any, esper: Orchestrator, num_epochs: int) -> list[float]:
    """Train on; the seed's alpha after every step."""
    found = []
    for _ in range(num_epochs):
        model.train()
        for batch in TRAIN:
            esper.after_step(train_step(model, optimizer, batch), batch)
            found.append(esper.executor.table.get(SEED, "alpha"))
        esper.epoch_boundary(evaluate(model))
    return found


def always(*commands: Command) -> Callable[[State], Decision]:
    """Asks for the same at every boundary, and claims that all is well."""
    return lambda state: Decision(
        epoch=state.packet.epoch, policy="scripted", cause="mine", commands=commands
    )


def test_yellow_makes_the_ramp_twice_as_long(tmp_path: Path) -> None:
    """A breaker that is open: alpha rises in every other step for as long as the level lasts, in
    every step before and after, by the same amount."""
    model = make_host()
    optimizer = adam(model)
    settings = {**NO_TRIALS, "schedule": SCHEDULE, "ramp_epochs": 12}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        run(model, optimizer, esper, 2)
        for _ in range(FAILURES_TO_OPEN):
            esper.breakers.policy.settle("it broke")
        path = alphas(model, optimizer, esper, 16)
        levels = [d["risk_level"] for d in esper.report()["decisions"]][1:-1]
    first, last = levels.index(1), len(levels) - levels[::-1].index(1)
    assert 0 < first < last < len(levels)
    assert levels == [0] * first + [1] * (last - first) + [0] * (len(levels) - last)
    rises = [round(48 * (b - a)) for a, b in zip([0.0, *path], path, strict=False)]
    expected = [1 if not level else step % 2 for level in levels for step in range(4)]
    assert rises[: 48 + 2 * (last - first)] == expected[: 48 + 2 * (last - first)]


def test_boundaries_over_their_time_are_told_and_slow_nothing(tmp_path: Path) -> None:
    """The level rises, and the ramp goes on as in a run whose boundaries were quick."""
    paths, levels = [], []
    for name, slow in (("quick", set[int]()), ("slow", {1, 2, 3})):
        model = make_host()
        optimizer = adam(model)
        settings = {**NO_TRIALS, "schedule": SCHEDULE, "ramp_epochs": 5}
        with attach(model, optimizer, tmp_path / name, **settings) as esper:
            slow_at(esper, slow)
            run(model, optimizer, esper, 2)
            paths.append(alphas(model, optimizer, esper, 6))
            levels.append([d["risk_level"] for d in esper.report()["decisions"]])
    assert levels == [[0] * 8, [0, 0, 0, 1, 1, 0, 0, 0]]
    assert paths[0] == paths[1]


def test_orange_plants_nothing_whatever_the_policy_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory above its limit: the policy is told the level, its command is left out, the decision
    says so and bears the level; once that has fallen to yellow the same command counts."""
    told: dict[int, int] = {}  # a busy machine has the policy asked again

    def decide(state: State) -> Decision:
        told[state.packet.epoch] = state.packet.risk_level
        return always(PLANT)(state)

    use_policy(monkeypatch, Scripted(decide))
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **NO_TRIALS) as esper:
        events = listen(esper)
        esper.watch.memory = MemoryLimit(100, lambda: 101 if esper.epoch < 3 else 50)
        first, *_, third, fourth = run(model, optimizer, esper, 4)
        assert (first.decision.commands, first.decision.risk_level) == ((), 2)
        assert first.decision.cause == "mine; left out because the risk is orange: 1 germinate"
        assert first.decision.risk_causes == ("memory: 101% of its limit in use",)
        assert not third.reports
        assert not third.decision.commands
        assert stages(fourth)[0] == (Stage.DORMANT, Stage.GERMINATED)
        assert (
            [*told.values()]
            == [2, 2, 2, 1]
            == [d["risk_level"] for d in esper.report()["decisions"]]
        )
    changed = [(e.epoch, e.was, e.now) for e in events if isinstance(e, RiskChanged)]
    assert changed == [(1, 0, 2), (4, 2, 1)]
    kept = [e for e in read(tmp_path / "run" / "journal.bin") if isinstance(e, RiskChanged)]
    assert kept == [e for e in events if isinstance(e, RiskChanged)]


@pytest.mark.slow
def test_alpha_stands_still_at_red(tmp_path: Path) -> None:
    """In three epochs at red it is to the bit where it was; then it goes on at half speed."""
    model = make_host()
    optimizer = adam(model)
    settings = {**NO_TRIALS, "schedule": SCHEDULE, "ramp_epochs": 2}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        esper.watch.chance.replay({3: 3, 4: 3}, 8)
        run(model, optimizer, esper, 2)
        path = alphas(model, optimizer, esper, 6)
        assert [d["risk_level"] for d in esper.report()["decisions"]] == [0, 0, 3, 3, 3, 2, 2, 1]
    ups = [0.125, 0.25, 0.375, 0.5]
    assert path == [*ups, *[0.5] * 12, 0.5, 0.625, 0.625, 0.75, 0.75, 0.875, 0.875, 1.0]


@pytest.mark.slow
def test_seeds_settle_at_orange_and_wait_at_red(tmp_path: Path) -> None:
    """A seed at alpha 1 is due at the end of epoch 3, but that is red, and so are two more; at the
    first boundary at orange it moves on, and at the next."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **NO_TRIALS, schedule=SCHEDULE) as esper:
        esper.watch.chance.replay({3: 3}, 8)
        reports = run(model, optimizer, esper, 6)
    assert [r.decision.risk_level for r in reports] == [0, 0, 3, 3, 2, 2]
    assert [stages(r) for r in reports[2:]] == [
        *([], []),
        [(Stage.GRAFTING, Stage.STABILIZATION)],
        [(Stage.STABILIZATION, Stage.EVALUATING)],
    ]
    assert "left out because the risk is red: 1 advance" in reports[3].decision.cause


def test_red_holds_and_rolls_back_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not finite takes the graft out in its own step; at the red boundary nothing
    more is rolled back. The graft of another seed, which the policy asks for every time, is left
    out until red is over."""
    other = Germinate(seed="head/0", site="head", blueprint="low_rank", cause="asked for")
    graft = Advance(seed="head/0", to=int(Stage.GRAFTING), cause="asked for")
    asked = {1: (PLANT, other), 2: (GRAFT,)}

    def decide(state: State) -> Decision:
        return always(*asked.get(state.packet.epoch, (graft,)))(state)

    use_policy(monkeypatch, Scripted(decide))
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **NO_TRIALS) as esper:
        run(model, optimizer, esper, 2)
        events = listen(esper)
        table = esper.executor.table
        esper.after_step(math.nan)
        assert table.stage(SEED) is Stage.ROLLED_BACK
        reports = run(model, optimizer, esper, 3)
        assert table.stage(SEED) is Stage.ROLLED_BACK
        assert [fault.where for fault in faults(events)] == ["loss"]
    assert [r.decision.risk_level for r in reports] == [3, 3, 2]
    causes = ("values that are not finite: 1", "rollbacks: 1")
    assert reports[0].decision.risk_causes == causes
    assert [stages(r) for r in reports] == [[], [], [(Stage.TRAINING, Stage.GRAFTING)]]
    changed = [(e.epoch, e.was, e.now) for e in events if isinstance(e, RiskChanged)]
    assert changed == [(3, 0, 3), (5, 3, 2)]


@pytest.mark.slow
def test_trials_wait_at_red_and_are_made_at_orange(tmp_path: Path) -> None:
    """A seed that was planted before three red boundaries has been tried for no step after them;
    at the first one at orange its trial is run."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        esper.watch.chance.replay({2: 3, 3: 3}, 8)
        num_steps = []
        for _ in range(5):
            run(model, optimizer, esper, 1)
            num_steps.append(esper.executor.table.get(SEED, "trial_steps"))
        assert [d["risk_level"] for d in esper.report()["decisions"]] == [0, 3, 3, 3, 2]
    assert num_steps == [0, 0, 0, 0, 6]


@pytest.mark.slow
def test_a_calm_run_is_green_in_every_decision(tmp_path: Path) -> None:
    """With a graft that goes well, gradient norms told: no level, no cause, no event."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **NO_TRIALS, schedule=SCHEDULE) as esper:
        events = listen(esper)
        for _ in range(9):
            for batch in TRAIN * 2:
                loss = train_step(model, optimizer, batch)
                esper.after_step(loss, grad_norm=esper.clip_gradients(1e9))
            esper.epoch_boundary(evaluate(model))
    decisions = [event for event in events if isinstance(event, Decision)]
    assert {(d.risk_level, d.risk_causes, d.risk_by_chance) for d in decisions} == {(0, (), 0)}
    assert not [event for event in events if isinstance(event, RiskChanged)]
