"""One epoch boundary: gather, decide, apply, each timed against its limit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

import pybreaker
from torch import nn

from kasmina import Executor
from leyline import (
    BoundaryTiming,
    ContractError,
    Decision,
    Event,
    Schema,
    SeedReport,
    decode,
    encode,
    limits,
)
from tamiyo import Controller
from tolaria.gather import Gatherer
from tolaria.learning_rate import UnifiedLRController
from tolaria.undo import Undo

_LOG = logging.getLogger("esper")
_FAULTS_TO_OPEN: Final = 3
_NUM_HELD: Final = 10
"""Boundaries for which growth holds once the breaker has opened."""
_NEVER_S: Final = 10**9
"""The breaker's own timeout: counting boundaries, not seconds, keeps a resumed run the same."""


@dataclass(frozen=True)
class BoundaryReport:
    """What one boundary did and what it cost, in ms."""

    epoch: int
    decision: Decision
    reports: tuple[SeedReport, ...]
    gather_ms: float
    decide_ms: float
    apply_ms: float
    outside_ms: dict[str, float]
    """Work timed apart from the boundary: races, counterfactuals, snapshots, checkpoints."""

    @classmethod
    def of(
        cls,
        decision: Decision,
        reports: list[SeedReport],
        took_ms: Mapping[str, float],
        *,
        outside_ms: dict[str, float],
    ) -> Self:
        """A report from the times of the stages; one that did not run took 0 ms."""
        return cls(
            epoch=decision.epoch,
            decision=decision,
            reports=tuple(reports),
            gather_ms=took_ms.get("gather", 0.0),
            decide_ms=took_ms.get("decide", 0.0),
            apply_ms=took_ms.get("apply", 0.0),
            outside_ms=outside_ms,
        )

    @property
    def total_ms(self) -> float:
        """Gather, decide and apply together."""
        return self.gather_ms + self.decide_ms + self.apply_ms

    @property
    def within_limit(self) -> bool:
        """Whether the boundary kept to its 18 ms."""
        return self.total_ms <= limits.BOUNDARY_MS

    def timing(self) -> BoundaryTiming:
        """The event that carries the times."""
        return BoundaryTiming(
            epoch=self.epoch,
            gather_ms=self.gather_ms,
            decide_ms=self.decide_ms,
            apply_ms=self.apply_ms,
            outside_ms=dict(self.outside_ms),
        )


@dataclass
class StageTimer:
    """Times named stages with a monotonic clock in seconds."""

    clock_s: Callable[[], float]
    took_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add a block's time to a stage."""
        start_s = self.clock_s()
        try:
            yield
        finally:
            spent_ms = (self.clock_s() - start_s) * 1e3
            self.took_ms[name] = self.took_ms.get(name, 0.0) + spent_ms


@dataclass(frozen=True)
class Outcome:
    """What came of one boundary."""

    decision: Decision
    reports: list[SeedReport]
    fault: str | None = None
    """Why the boundary did not count; None if it did, or if growth holds after earlier faults."""


class Boundary:
    """Gathers, decides and applies: all of it counts or none of it.

    Args:
        record: told of the decision's inputs before anything changes.
    """

    def __init__(
        self,
        model: nn.Module,
        executor: Executor,
        rates: UnifiedLRController,
        gatherer: Gatherer,
        controller: Controller,
        record: Callable[[Event], None],
        embargo_epochs: int,
    ):
        self._model = model
        self._executor = executor
        self._rates = rates
        self._gatherer = gatherer
        self._controller = controller
        self._record = record
        self._embargo_epochs = embargo_epochs
        self._breaker_storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=_FAULTS_TO_OPEN,
            reset_timeout=_NEVER_S,
            state_storage=self._breaker_storage,
            throw_new_error_on_trip=False,
        )
        self._num_held = 0
        self._announced: Schema | None = None

    def ready(self) -> bool:
        """Begin the next boundary; False if growth holds in it, after three faults in a row."""
        if self._breaker.current_state == pybreaker.STATE_OPEN:
            self._num_held += 1
            if self._num_held <= _NUM_HELD:
                return False
            self._breaker.half_open()
        self._num_held = 0
        return True

    def held(self, epoch: int) -> Outcome:
        """The outcome of a boundary for which growth was not ready."""
        cause = (
            f"growth holds after {_FAULTS_TO_OPEN} boundaries in a row that did not count, "
            f"{self._num_held} of {_NUM_HELD}"
        )
        name = self._controller.policy_name
        return Outcome(Decision(epoch=epoch, policy=name, cause=cause), [])

    def commit(
        self,
        metrics: Mapping[str, float],
        timer: StageTimer,
        *,
        epoch: int,
        step: int,
        num_epochs: int,
        host_parameters: int,
    ) -> Outcome:
        """Gather, decide and apply; whatever goes wrong, everything is as it was before."""
        with timer.stage("apply"):
            undo = Undo(self._model, self._executor, self._rates, self._controller)
        try:
            with self._breaker.calling():
                with timer.stage("gather"):
                    self._executor.table.end_epoch()
                    schema = self._gatherer.schema(tuple(metrics))
                    packet = self._gatherer.packet(
                        metrics,
                        epoch=epoch,
                        step=step,
                        num_epochs=num_epochs,
                        host_parameters=host_parameters,
                    )
                # Recorded before anything changes: these are the decision's own inputs.
                if schema is not self._announced:
                    self._record(schema)
                    self._announced = schema
                self._record(packet)
                with timer.stage("decide"):
                    decision = _checked(self._controller.decide(packet, schema), epoch)
                del packet
                with timer.stage("apply"):
                    reports = self._executor.withdraw_faulted(epoch, self._embargo_epochs)
                    reports += self._executor.apply(decision, epoch)
                    live, moments = self._executor.live_seeds(), self._executor.take_moments
                    self._rates.reconcile(live, moments)
                return Outcome(decision, reports)
        except Exception as error:  # the callback edge: a bug of ours must not end a run
            undo.run()
            what = f"{type(error).__name__}: {error}"
            _LOG.exception("the boundary of epoch %d did not count", epoch)
            name, cause = self._controller.policy_name, f"the boundary did not count: {what}"
            return Outcome(Decision(epoch=epoch, policy=name, cause=cause), [], what)

    def state_dict(self) -> dict[str, Any]:
        """How many faults in a row there were, and for how many boundaries growth has held."""
        is_open = self._breaker.current_state == pybreaker.STATE_OPEN
        return {
            "faults": self._breaker.fail_counter,
            "open": is_open,
            "num_held": self._num_held,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._breaker.close()
        for _ in range(state["faults"]):
            self._breaker_storage.increment_counter()
        if state["open"]:
            self._breaker.open()
        self._num_held = state["num_held"]


def _checked(decision: Decision, epoch: int) -> Decision:
    """The decision as its readers will see it; what they could not read is no decision."""
    read = decode(encode(decision))
    if not isinstance(read, Decision):
        raise ContractError(f"the policy returned a {type(decision).__name__}, not a Decision")
    if read.epoch != epoch:
        raise ContractError(f"the policy decided for epoch {read.epoch}, but epoch {epoch} ends")
    return read
