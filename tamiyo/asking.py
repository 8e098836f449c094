"""Asking a policy that is not Esper's own: in a thread apart, for a limited time, vetted.

Whatever it does, the boundary gets a decision or an error that counts as "hold", training goes on,
and the policy's next answer follows from its last good state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from time import thread_time
from typing import Any, Final

from leyline import Decision, EsperError, PolicyError, StatePacket, decode, encode, limits
from tamiyo.plain_values import plain_state
from tamiyo.policy import Policy
from tamiyo.state import State
from tamiyo.vetting import vetted

Attempt = Callable[[Callable[[], Any]], Any]
"""Runs what may fail in any way; an Exception is the answer then."""

PATIENCE: Final = 200
"""How many times the limit of a decision is waited for before the thread is left to itself,
unless another time is asked for."""
_MAX_WORDS: Final = 500


def _held_within(busy: threading.Lock, timeout_s: float) -> bool:
    return busy.acquire(timeout=timeout_s)


class AskedApart:
    """A policy that is asked in a daemon thread, once for every decision.

    It decides from a copy of the packet, so that what it keeps or changes is its own. While a
    thread still hangs, every answer is "late" at once; what it answers later is discarded, and the
    policy is put back to its last good state before it is asked again.

    Args:
        policy: asked by one thread at a time.
        name: the name under which it is registered, whatever it calls itself.
        attempt: runs the policy's code.
        isolated: keeps the random streams of the run from what the policy draws at an epoch.
        deadline_ms: time that the policy may work.
        patience_ms: how long its answer is waited for; None: PATIENCE times the deadline.
        wait: waits for the lock, so many seconds at most, and says whether it is held then.

    Raises:
        PolicyError: it is no policy, or what it saves could not be kept.
    """

    def __init__(
        self,
        policy: Policy,
        name: str,
        *,
        attempt: Attempt,
        isolated: Callable[[int], AbstractContextManager[object]],
        deadline_ms: float = limits.DECIDE_MS,
        patience_ms: float | None = None,
        wait: Callable[[threading.Lock, float], bool] = _held_within,
    ):
        self.name = name
        self._policy = policy
        self._attempt = attempt
        self._isolated = isolated
        self._deadline_ms = deadline_ms
        self._patience_ms = PATIENCE * deadline_ms if patience_ms is None else patience_ms
        self._wait = wait
        self._thread: threading.Thread | None = None
        for method in ("decide", "state_dict", "load_state_dict"):
            if not callable(getattr(policy, method, None)):
                raise PolicyError(f"policy {name!r} has no method {method}(); write one")
        self._saved = plain_state(policy.state_dict())
        self._is_saved = True

    def decide(self, state: State) -> Decision:
        """The policy's decision; one that is late where it did not answer in time.

        Raises:
            PolicyError: what the policy raised, or why its answer is no decision.
        """
        epoch = state.packet.epoch
        if self._thread is not None and self._thread.is_alive():
            return self._late(epoch, "it still works on an earlier boundary")
        question = _Question(self._policy, state, None if self._is_saved else self._saved)
        self._is_saved = False
        thread = threading.Thread(
            target=question.answer, args=(self._attempt,), name="esper-policy", daemon=True
        )
        self._thread = thread
        with self._isolated(epoch):
            thread.start()
            is_done = self._wait(question.busy, self._patience_ms / 1e3)
        if not is_done:
            return self._late(epoch, f"no answer within {self._patience_ms:,.0f} ms")
        thread.join()
        if isinstance(question.outcome, Exception):
            raise PolicyError(f"policy {self.name!r}: {question.fault}") from question.outcome
        if question.outcome is None:
            raise PolicyError(f"policy {self.name!r} ended its thread without an answer")
        if question.worked_ms > self._deadline_ms:
            return self._late(epoch, f"worked for {question.worked_ms:.1f} ms")
        answer, saved = question.outcome
        decision = vetted(answer, state, self.name)
        self._saved, self._is_saved = saved, True
        return decision

    def _late(self, epoch: int, cause: str) -> Decision:
        return Decision(epoch=epoch, policy=self.name, cause=cause, late=True)

    def state_dict(self) -> dict[str, Any]:
        """What the policy had to save after its last good decision; it is not asked for it here."""
        return dict(self._saved)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the policy go on from a saved state when it is asked next."""
        self._saved, self._is_saved = dict(state), False


class _Question:
    """One decision that is asked for.

    Args:
        saved: what the policy goes back to first; None: it is as it was saved.
    """

    def __init__(self, policy: Policy, state: State, saved: Mapping[str, Any] | None):
        self._policy = policy
        self._packet = encode(state.packet)
        self._schema = state.schema
        self._saved = saved
        # Not an Event: a signal that comes while one is waited for breaks its inner lock.
        self.busy = threading.Lock()
        self.busy.acquire()
        self.worked_ms = 0.0
        self.fault = ""
        """What was raised, in words."""
        self.outcome: tuple[bytes, dict[str, Any]] | Exception | None = None
        """The encoded decision and what is saved after it, or what was raised; None at first."""

    def answer(self, attempt: Attempt) -> None:
        """Have the policy answer; runs in the thread."""
        start_s = thread_time()
        try:
            self.outcome = attempt(self._ask)
            if isinstance(self.outcome, Exception):
                self.fault = _words(self.outcome, attempt)
        finally:
            self.worked_ms = (thread_time() - start_s) * 1e3
            self.busy.release()

    def _ask(self) -> tuple[bytes, dict[str, Any]]:
        if self._saved is not None:
            self._policy.load_state_dict(plain_state(dict(self._saved)))
        packet = decode(self._packet)
        assert isinstance(packet, StatePacket)
        decision = self._policy.decide(State(packet, self._schema))
        if not isinstance(decision, Decision):
            raise PolicyError(f"it returned a {type(decision).__name__}, not a Decision")
        return encode(decision), plain_state(self._policy.state_dict())


def _words(error: Exception, attempt: Attempt) -> str:
    """An error in a line; its own words may fail too, and are taken in the thread for that."""
    text = attempt(lambda: str(error))
    said = "" if isinstance(text, Exception) else " ".join(text.split())[:_MAX_WORDS]
    return said if isinstance(error, EsperError) and said else f"{type(error).__name__}: {said}"
