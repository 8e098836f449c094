"""The boundary: gather, decide, apply; one commit point, each part against its limit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from kasmina import Executor
from kasmina.guard import pass_interrupt
from leyline import (
    ContractError,
    Decision,
    Event,
    RiskLevel,
    Schema,
    SeedReport,
    StatePacket,
    decode,
    encode,
)
from tamiyo import Controller
from tamiyo.risk.allowance import within
from tolaria.boundary.breakers import FAILURES_TO_OPEN, Breaker, Breakers
from tolaria.boundary.gather import Gatherer
from tolaria.boundary.stage_timer import StageTimer
from tolaria.boundary.undo import Undo
from tolaria.rates import UnifiedLRController

_LOG = logging.getLogger("esper")


class _UndoneBefore(Exception):
    """The boundary did not count in the run that is being resumed, so it does not now."""


@dataclass(frozen=True)
class Outcome:
    """What came of one boundary."""

    decision: Decision
    reports: list[SeedReport]
    fault: str | None = None
    """Why the boundary did not count; None if it did, or if growth holds after earlier faults."""
    has_gone_back: bool = False
    """Whether the run was rolled back before anything could be decided."""

    @property
    def is_replayable(self) -> bool:
        """Whether the state alone does not tell this outcome, so that a resume must know of it."""
        decided = self.decision
        by_chance = decided.late or decided.undone or decided.risk_by_chance
        return bool(by_chance) or self.has_gone_back


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
        breakers: Breakers,
    ):
        self._model = model
        self._executor = executor
        self._rates = rates
        self._gatherer = gatherer
        self._controller = controller
        self._record = record
        self._embargo_epochs = embargo_epochs
        self._breakers = breakers
        self._announced: Schema | None = None
        self._stage = "gather"
        self._undone: Mapping[int, str] = {}

    def replay(self, undone: Mapping[int, str]) -> None:
        """Fail at these epochs in the named stage, because the run that is resumed did."""
        self._undone = undone

    def ready(self) -> bool:
        """Whether the next boundary may change what grows: no breaker is open."""
        breakers = self._breakers
        admitted = [
            b.admits() for b in (breakers.policy, breakers.executor, breakers.learning_rates)
        ]
        return all(admitted)

    def commit(
        self,
        metrics: Mapping[str, float],
        timer: StageTimer,
        outside: StageTimer,
        *,
        epoch: int,
        step: int,
        num_epochs: int,
        host_parameters: int,
        grown_parameters: int,
        risk_level: RiskLevel = RiskLevel.GREEN,
    ) -> Outcome:
        """Gather, decide and apply; whatever goes wrong, everything is as it was before.

        While the executor's breaker is open nothing is done; while the policy's is, seeds live on
        and growth holds.

        Args:
            timer: of gather, decide and apply.
            outside: of the search for schedulers, which a seed that comes or goes calls for.
            risk_level: what it forbids is left out, whoever asks for it.
        """
        breakers = self._breakers
        if not breakers.executor.admits():
            return Outcome(self._held(epoch, breakers.executor), [])
        with timer.stage("apply"):
            undo = Undo(self._model, self._executor, self._rates, self._controller)
        try:
            with self._in_stage("gather", epoch, timer):
                self._executor.table.end_epoch()
                schema = self._gatherer.schema(tuple(metrics))
                packet = self._gatherer.packet(
                    metrics,
                    epoch=epoch,
                    step=step,
                    num_epochs=num_epochs,
                    host_parameters=host_parameters,
                    grown_parameters=grown_parameters,
                    risk_level=risk_level,
                )
            self._record_inputs(schema, packet)
            with self._in_stage("decide", epoch, timer):
                decision = within(risk_level, self._decide(packet, schema, epoch))
            del packet
            self._find_schedulers(decision, undo, outside)
            with self._in_stage("apply", epoch, timer):
                reports = self._executor.withdraw_faulted(epoch, self._embargo_epochs)
                reports += self._executor.apply(decision, epoch)
                live, moments = self._executor.live_seeds(), self._executor.take_moments
                self._rates.reconcile(live, moments)
        except Exception as error:  # the callback edge: a bug of ours must not end a run
            undo.run()
            pass_interrupt(error)
            return self._undone_outcome(epoch, error)
        except BaseException:
            undo.run()
            raise
        breakers.executor.settle(None)
        return Outcome(decision, reports)

    def _record_inputs(self, schema: Schema, packet: StatePacket) -> None:
        """Record what the decision is made from, before anything changes."""
        if schema is not self._announced:
            self._record(schema)
            self._announced = schema
        self._record(packet)

    def _find_schedulers(self, decision: Decision, undo: Undo, outside: StageTimer) -> None:
        """Look where groups will change: an unknown one would keep lists of the wrong length."""
        self._stage = "apply"
        if self._executor.moves_seeds(decision):
            with outside.stage("schedulers"):
                self._rates.find_schedulers()
            undo.mark_rates()

    @contextmanager
    def _in_stage(self, name: str, epoch: int, timer: StageTimer) -> Iterator[None]:
        """Remember which stage is under way, and time it."""
        self._stage = name
        if self._undone.get(epoch) == name:
            raise _UndoneBefore("so it was before the resume")
        with timer.stage(name):
            yield

    def _decide(self, packet: StatePacket, schema: Schema, epoch: int) -> Decision:
        breaker = self._breakers.policy
        for other in (self._breakers.learning_rates, breaker):
            if not other.admits():
                return self._held(epoch, other)
        decision = _checked(self._controller.decide(packet, schema), epoch)
        breaker.settle(decision.cause if decision.late else None)
        return decision

    def _undone_outcome(self, epoch: int, error: Exception) -> Outcome:
        what = f"{type(error).__name__}: {error}"
        breakers = self._breakers
        (breakers.policy if self._stage == "decide" else breakers.executor).settle(what)
        _LOG.error("the boundary of epoch %d did not count", epoch, exc_info=error)
        cause = f"the boundary did not count, {self._stage} failed: {what}"
        name = self._controller.policy_name
        decision = Decision(epoch=epoch, policy=name, cause=cause, undone=self._stage)
        return Outcome(decision, [], what)

    def _held(self, epoch: int, breaker: Breaker) -> Decision:
        """The safe decision while a breaker is open."""
        cause = (
            f"growth holds: the {breaker.name} failed {FAILURES_TO_OPEN} times in a row or when "
            f"it was tried again, {breaker.waited:g} of {breaker.hold:g} boundaries"
        )
        return Decision(epoch=epoch, policy=self._controller.policy_name, cause=cause)


def _checked(decision: Decision, epoch: int) -> Decision:
    """The decision as its readers will see it; what they could not read is no decision."""
    read = decode(encode(decision))
    if not isinstance(read, Decision):
        raise ContractError(f"the policy returned a {type(decision).__name__}, not a Decision")
    if read.epoch != epoch:
        raise ContractError(f"the policy decided for epoch {read.epoch}, but epoch {epoch} ends")
    return read
