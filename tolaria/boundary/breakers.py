"""Breakers: what fails three times in a row is left alone for a while, then tried once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import pybreaker

_LOG = logging.getLogger("esper")
CLOSED: Final = pybreaker.STATE_CLOSED
OPEN: Final = pybreaker.STATE_OPEN
HALF_OPEN: Final = pybreaker.STATE_HALF_OPEN
FAILURES_TO_OPEN: Final = 3
"""Failures in a row, with no success between them."""
_HOLD_BOUNDARIES: Final = 10
_HOLD_S: Final = 60.0
_LONGEST_HOLD_S: Final = 960.0
_NEVER_S: Final = 10**9
"""pybreaker's own timeout, which is in wall-clock seconds: time is counted here instead."""


class Change(NamedTuple):
    """A breaker's change of state."""

    name: str
    was: str
    now: str
    why: str
    hold: float
    """How long it stays open, in `unit`; 0 unless it has opened."""
    unit: str

    def log(self) -> None:
        """Say it to the user: loudly when it opens."""
        level = logging.WARNING if self.now == OPEN else logging.INFO
        _LOG.log(level, "breaker %s: %s -> %s: %s", *self[:4])


OnChange = Callable[[Change], None]


class _Failure(Exception):
    """Makes pybreaker count one."""


class Breaker(pybreaker.CircuitBreakerListener):
    """One named breaker; it guards by being asked, and learns how each call went.

    Args:
        name: what it guards.
        clock: what its time is counted by; never goes back.
        hold: how long it stays open; one call is let through once more than that has passed.
        longest_hold: every call that was let through and failed doubles the hold up to this.
        unit: what the clock counts, for readers.
        on_change: told of every change of state.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float],
        hold: float,
        longest_hold: float,
        unit: str,
        on_change: OnChange,
    ):
        self.name = name
        self.hold = hold
        """How long it stays open the next time, or now if it is open."""
        self._first_hold = hold
        self._longest_hold = longest_hold
        self._clock = clock
        self._unit = unit
        self._on_change = on_change
        self._opened_at = 0.0
        self._why = ""
        self._is_restoring = False
        self._storage = pybreaker.CircuitMemoryStorage(CLOSED)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=FAILURES_TO_OPEN,
            reset_timeout=_NEVER_S,
            state_storage=self._storage,
            throw_new_error_on_trip=False,
            listeners=[self],
        )

    @property
    def state(self) -> str:
        """One of CLOSED, OPEN and HALF_OPEN."""
        name: str = self._breaker.current_state
        return name

    @property
    def waited(self) -> float:
        """How long it has been open, in its unit; 0 while it is not."""
        return self._clock() - self._opened_at if self.state == OPEN else 0.0

    def admits(self) -> bool:
        """Whether a call may be made now; each that may is settled before the next is asked for."""
        if self.state == OPEN and self.waited > self.hold:
            self._breaker.half_open()
        return self.state != OPEN

    def settle(self, failure: str | None) -> None:
        """Count how an admitted call went: the failure in words, or None for a success."""
        self._why = failure or "it works again"
        with suppress(_Failure), self._breaker.calling():
            if failure is not None:
                raise _Failure

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:
        """Called by pybreaker."""
        if self._is_restoring:
            return
        was, now = old_state.name, new_state.name
        if now == OPEN:
            self._opened_at = self._clock()
            if was == HALF_OPEN:
                self.hold = min(2 * self.hold, self._longest_hold)
        elif now == CLOSED:
            self.hold = self._first_hold
        why = "its time is up" if now == HALF_OPEN else self._why
        held = self.hold if now == OPEN else 0.0
        self._on_change(Change(self.name, was, now, why, held, self._unit))

    def state_dict(self) -> dict[str, Any]:
        """Everything its next answer depends on besides the clock."""
        return {
            "state": self.state,
            "failures": self._breaker.fail_counter,
            "waited": self.waited,
            "hold": self.hold,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; nobody is told of it."""
        self._is_restoring = True
        self._breaker.close()
        for _ in range(state["failures"]):
            self._storage.increment_counter()
        if state["state"] == OPEN:
            self._breaker.open()
        elif state["state"] == HALF_OPEN:
            self._breaker.half_open()
        self._is_restoring = False
        self._opened_at = self._clock() - state["waited"]
        self.hold = state["hold"]


class Breakers:
    """The breakers of one run.

    Args:
        num_boundaries: counts boundaries. Policy and executor are held by boundaries, not seconds,
            so that a resumed run holds where the undisturbed one did.
        clock_s: a monotonic clock in seconds, for what lies outside the process.
        on_change: told of every change of state.
    """

    def __init__(
        self,
        num_boundaries: Callable[[], int],
        clock_s: Callable[[], float],
        on_change: OnChange,
    ):
        def by_boundaries(name: str) -> Breaker:
            return Breaker(
                name,
                clock=num_boundaries,
                hold=_HOLD_BOUNDARIES,
                longest_hold=_HOLD_BOUNDARIES,
                unit="boundaries",
                on_change=on_change,
            )

        self.policy = by_boundaries("policy")
        self.executor = by_boundaries("executor")
        self.learning_rates = by_boundaries("learning rates")
        self.checkpoint = Breaker(
            "checkpoint",
            clock=clock_s,
            hold=_HOLD_S,
            longest_hold=_LONGEST_HOLD_S,
            unit="s",
            on_change=on_change,
        )
        self._on_change = on_change
        self._bus = CLOSED

    def note_bus(self, now: str, why: str) -> None:
        """Take the state of the bus's breaker, which its publisher works on its own thread."""
        if now != self._bus:
            was, self._bus = self._bus, now
            self._on_change(Change("bus", was, now, why, 0.0, "s"))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from: the breakers that are counted in boundaries."""
        return {b.name: b.state_dict() for b in self._by_boundaries()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for breaker in self._by_boundaries():
            breaker.load_state_dict(state[breaker.name])

    def _by_boundaries(self) -> tuple[Breaker, ...]:
        return self.policy, self.executor, self.learning_rates
