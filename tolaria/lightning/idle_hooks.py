"""Idle hooks: what a callback does nothing in, kept out of Lightning's training step.

Lightning opens a profiler context for every hook of every callback that can be called, also for
those that a callback has only inherited; one that is None is passed over.
"""

from __future__ import annotations

from typing import Any, Final

import lightning.pytorch as pl

_EACH_STEP: Final = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_validation_batch_start",
)


class IdleHooks:
    """The hooks of each step that a callback only inherits, as None on the instance."""

    def __init__(self, callback: pl.Callback):
        self._own: dict[str, Any] = vars(callback)
        self._idle: set[str] = set()
        for name in _EACH_STEP:
            if getattr(type(callback), name) is getattr(pl.Callback, name):
                self.rest(name)

    def rest(self, name: str, *, idle: bool = True) -> None:
        """Keep one hook out of the steps from now on, or let it into them again."""
        if idle and name not in self._own:
            self._own[name] = None
            self._idle.add(name)
        elif not idle and name in self._idle:
            self._idle.discard(name)
            del self._own[name]

    def remove(self) -> None:
        """Let all of them in again."""
        for name in list(self._idle):
            self.rest(name, idle=False)
