"""The state machine: a live run that is broken in every way, beside the model of what must hold."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.reliability.grown_loops import (
    LANES,
    Boundary,
    Counts,
    Gardener,
    GrownLoop,
    Orders,
    Step,
    Trace,
    Undone,
    twin_of,
)
from tests.reliability.pictures import picture
from tests.reliability.rollback_checks import check_state, check_stop, check_words
from tests.reliability.rollback_model import Kept, Model
from tests.tolaria.plain_loops import faults, listen, use_policy

_kind: Final = st.sampled_from(["NaN", "Inf", "gradient", "asked", "memory"])
_kinds: Final = st.lists(_kind, min_size=1, max_size=6)
_orders: Final = st.tuples(*[st.sampled_from(["on", "on", "stay", "out"]) for _ in LANES])


class Rollbacks(RuleBasedStateMachine):
    """One run; whatever is done to it, it is where the model says, to the bit."""

    folder: ClassVar[Path]
    patch: ClassVar[pytest.MonkeyPatch]
    num_survived: ClassVar[int] = 0
    """Rollbacks after which all was as it must be."""
    is_sound = False

    @initialize(
        guarded=st.booleans(),
        num_epochs=st.integers(0, 9),
        births=st.tuples(*[st.integers(1, 4) for _ in LANES]),
    )
    def begin(self, guarded: bool, num_epochs: int, births: tuple[int, ...]) -> None:
        self.guarded, self.num_undone = guarded, 0
        self.place = Path(tempfile.mkdtemp(dir=self.folder))
        self.trace: Trace = ()
        self.metric_is_known, self.is_sound = False, True
        self.loop = self.opened()
        self.model = Model(self.kept(), guarded)
        self.model.saved.append((self.model.newest, {}, 0))
        for epoch in range(1, num_epochs + 1):
            self.pass_epochs([tuple("on" if epoch >= birth else "stay" for birth in births)])

    def gardener(self) -> Gardener:
        use_policy(self.patch, found := Gardener())
        return found

    def opened(self) -> GrownLoop:
        how = {"checkpoint": True, "guard_every_step": self.guarded}
        return GrownLoop(self.place / "run", self.gardener(), **how)

    def kept(self, epoch: int | None = None) -> Kept:
        run, now = self.loop.run, picture(self.loop)
        return Kept(run.epoch if epoch is None else epoch, run.step, now, self.trace)

    # --- what is good ------------------------------------------------------------------------

    @rule(num_steps=st.integers(1, 3))
    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.trace = (*self.trace, Step(self.loop.num_done))
            assert math.isfinite(self.loop.step())
            if self.guarded:
                self.model.good(self.kept())

    @rule(num_epochs=st.integers(1, 5))
    def grow(self, num_epochs: int) -> None:
        self.pass_epochs([("on",) * len(LANES)] * num_epochs)

    @rule(epochs=st.lists(_orders, min_size=1, max_size=3))
    def pass_epochs(self, epochs: list[Orders]) -> None:
        for orders in epochs:
            self.train(2)
            self.loop.boundary(orders)
            self.passed(orders)
            self.metric_is_known = True

    def passed(self, orders: Orders) -> None:
        self.trace = (*self.trace, Boundary(orders))
        self.model.passed(self.kept())

    @rule()
    def resume(self) -> None:
        self.loop.run.close("interrupted")
        closed, self.loop = self.loop, self.opened()
        self.loop.num_done = closed.num_done
        self.model.resumed()
        assert picture(self.loop) == self.model.newest.picture
        self.calm(self.model.newest.trace, ())

    @rule(kinds=_kinds, num_steps=st.integers(0, 2))
    def break_off(self, kinds: list[str], num_steps: int) -> None:
        """Break the run between two boundaries, again and again."""
        for number, kind in enumerate(kinds):
            self.train(num_steps if number else 0)
            self.break_by(kind)

    def break_by(self, kind: str) -> None:
        run = self.loop.run
        if kind == "memory" and len(self.model.saved) > 1:
            for state in (run.recovery.newest, *run.recovery.before_grafts.values()):
                assert state is not None
                state._side.fill({"model.gone": torch.ones(3)})
            self.goes_back(lambda: run.roll_back("no memory"), from_disk=True)
        elif kind == "gradient" and self.guarded:
            self.goes_back(lambda: self.loop.step(gradient=math.nan), in_one_step=True)
        elif kind == "gradient":
            self.loop.step(gradient=math.nan)
            self.goes_back(self.loop.step, in_one_step=True)  # its loss tells
        elif kind in ("NaN", "Inf"):
            self.goes_back(lambda: self.loop.step(poison=float(kind)), in_one_step=True)
        else:
            self.goes_back(lambda: run.roll_back("asked to"))

    @rule(kind=st.sampled_from(["weights", "metric"]), orders=_orders)
    def break_boundary(self, kind: str, orders: Orders) -> None:
        """Let the boundary find that the run is broken."""
        self.train(1)
        metrics = {"val_loss": math.nan if kind == "metric" else 1.0}
        if kind == "weights":
            with torch.no_grad():
                self.loop.model.conv.weight[0] = math.nan
        elif not (self.metric_is_known and self.model.blames(picture(self.loop))):
            self.loop.boundary(orders, metrics)
            self.passed(orders)
            self.metric_is_known = False
            return
        self.goes_back(lambda: self.loop.boundary(orders, metrics), at_boundary=True)

    # --- what must come of it ----------------------------------------------------------------

    def goes_back(
        self,
        act: Callable[[], Any],
        *,
        in_one_step: bool = False,
        at_boundary: bool = False,
        from_disk: bool = False,
    ) -> None:
        """Break the run, and see that it is where it must be."""
        run, heard, self.is_sound = self.loop.run, listen(self.loop.run), False
        now = picture(self.loop)
        verdict = self.model.broken(now, in_one_step=in_one_step, from_disk=from_disk)
        ramp_steps = run.steps_since_boundary if at_boundary and not verdict.stops else None
        if verdict.stops:
            check_stop(self.loop, act, in_one_step=in_one_step)
        else:
            act()
            check_words(self.loop, verdict, faults(heard)[-1].action, from_disk=from_disk)
        check_state(self.loop, verdict, ramp_steps)
        self.num_undone, self.is_sound = self.num_undone + 1, True
        if verdict.stops:
            self.resume()
            return
        self.calm(verdict.target.trace, verdict.out)
        state = self.kept(verdict.target.epoch)
        if from_disk and not verdict.out:
            state = state._replace(step=verdict.target.step)
        self.model.went_back(verdict, state, from_disk=from_disk)
        if at_boundary:
            self.model.passed(self.kept())

    def calm(self, trace: Trace, out: tuple[str, ...]) -> None:
        """Go on from a state that came about like this."""
        self.loop.calm_down()
        self.metric_is_known = False
        self.trace = (*trace, Undone(out, Counts.of(self.loop)))

    def teardown(self) -> None:
        """The end is that of a run in which nothing of what was undone ever happened."""
        if not self.is_sound:
            return  # the error that is on its way is the one that matters
        self.grow(1)
        with self.loop.run:
            end = picture(self.loop)
        twin = twin_of(self.trace, self.place / "twin", self.gardener())
        with twin.run:
            assert picture(twin) == end
        type(self).num_survived += self.num_undone
