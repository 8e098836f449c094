"""The controller: asks the policy within a deadline; a late answer is discarded, not used.

The state does not change while the policy thinks, so an answer that was late only because the
machine was busy can be asked for again: a preempted process must not change what grows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from leyline import Decision, Schema, StatePacket, limits
from tamiyo.policy import Policy
from tamiyo.state import State

_MAX_ASKS: Final = 10


class Controller:
    """Turns a boundary's state into a decision; the safe answer is to hold.

    Args:
        policy: who decides.
        clock_s: a monotonic clock in seconds.
        deadline_ms: time the policy has.
        work_clock_s: the time that this thread has worked, in seconds; tells a slow policy from a
            busy machine.
    """

    def __init__(
        self,
        policy: Policy,
        clock_s: Callable[[], float],
        deadline_ms: float = limits.DECIDE_MS,
        work_clock_s: Callable[[], float] = time.thread_time,
    ):
        self._policy = policy
        self._clock_s = clock_s
        self._deadline_ms = deadline_ms
        self._work_clock_s = work_clock_s
        self.num_late = 0
        """Answers that came after the deadline."""
        self._held_epochs: frozenset[int] = frozenset()

    @property
    def policy_name(self) -> str:
        """The policy's name."""
        return self._policy.name

    def hold_at(self, epochs: frozenset[int]) -> None:
        """Hold at these epochs, because the run that is being resumed held there by lateness."""
        self._held_epochs = epochs

    def decide(self, packet: StatePacket, schema: Schema) -> Decision:
        """Ask the policy. A late answer leaves the policy's own state as it was before."""
        if packet.epoch in self._held_epochs:
            return self._late(packet, "so it was before the resume")
        before = self._policy.state_dict()
        state = State(packet, schema)
        took_ms = 0.0
        for _ in range(_MAX_ASKS):
            start_s, work_start_s = self._clock_s(), self._work_clock_s()
            decision = self._policy.decide(state)
            took_ms = (self._clock_s() - start_s) * 1e3
            if isinstance(decision, Decision) and decision.late:  # asked apart, it gave no answer
                self._policy.load_state_dict(before)
                return self._late(packet, decision.cause)
            if not took_ms > self._deadline_ms:  # so a clock that gives no number accuses nobody
                return decision
            self._policy.load_state_dict(before)
            if (self._work_clock_s() - work_start_s) * 1e3 > self._deadline_ms:
                break
        return self._late(packet, f"took {took_ms:.1f} ms")

    def _late(self, packet: StatePacket, reason: str) -> Decision:
        self.num_late += 1
        return Decision(
            epoch=packet.epoch,
            policy=self._policy.name,
            cause=f"late decision discarded: {reason}, limit {self._deadline_ms:g} ms",
            late=True,
        )

    def state_dict(self) -> dict[str, Any]:
        """The policy's saved state and the count of late answers."""
        return {"policy": self._policy.state_dict(), "num_late": self.num_late}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._policy.load_state_dict(state["policy"])
        self.num_late = state["num_late"]
