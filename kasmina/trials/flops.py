"""FLOPs of matrix products and convolutions, counted by torch; elementwise work is not counted."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from torch.utils.flop_counter import FlopCounterMode

Result = TypeVar("Result")


class _OneModule(nullcontext[None]):
    """Takes all for one module."""

    parents = frozenset({"Global"})


def _counter() -> FlopCounterMode:
    counter = FlopCounterMode(display=False)
    # torch's own tracker hooks every module's backward, which a seed with a graph inside does not
    # survive, and which costs most of the count.
    tracker: AbstractContextManager[Any] = _OneModule()
    counter.mod_tracker = tracker  # type: ignore[assignment] # all that is asked of one
    return counter


def count_flops(action: Callable[[], object]) -> int:
    """Run an action once and count its FLOPs, backward passes included."""
    with _counter() as counter:
        action()
    return int(counter.get_total_flops())


class FlopLedger:
    """FLOPs of what was run; of actions of one kind the first is counted, for it slows them."""

    def __init__(self) -> None:
        self.total = 0
        self._of: dict[Hashable, int] = {}

    def run(self, kind: Hashable, action: Callable[[], Result]) -> Result:
        """Run an action and enter it, counting if it is the first of its kind."""
        if kind in self._of:
            self.total += self._of[kind]
            return action()
        with _counter() as counter:
            result = action()
        self._of[kind] = int(counter.get_total_flops())
        self.total += self._of[kind]
        return result

    def run_bare(self, kind: Hashable, action: Callable[[], Result]) -> Result:
        """The same for what may be run twice: counted in a run of its own, so never slowed."""
        if kind not in self._of:
            self.run(kind, action)
        return self.run(kind, action)

    def of(self, kind: Hashable) -> int:
        """FLOPs of one action of a kind; 0 if none was run."""
        return self._of.get(kind, 0)
