"""Ctrl-C and SIGTERM while a run trains: the first one ends it in order, a second one at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Final, Self

import lightning.pytorch as pl

_STOPS: Final = (signal.SIGINT, signal.SIGTERM)
_SHELL: Final = 128
"""What a shell adds to a signal's number to get an exit code."""
_AT_ONCE: Final = b"\nesper: stopped at once; the run goes on from its last checkpoint\n"
_SHOW_CURSOR: Final = b"\x1b[?25h"
"""A live table hides it."""


class Stops(pl.Callback):
    """While it is entered, SIGINT and SIGTERM raise KeyboardInterrupt wherever the process is.

    It ends there: whatever was raised by then, in the order in which things broke, is left behind
    by the `with`, and `received` says what happened. A signal that was ignored before, as SIGINT is
    in a shell's background job, stays ignored.

    A callback too, and the trainer's first: Python drops what is raised in a destructor or a hook
    of a fork, so every batch asks again; and from the first Ctrl-C on Lightning would ignore them.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """The first one that arrived."""
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """As a shell gives it for a process that the signal ended."""
        assert self.received is not None
        return _SHELL + self.received

    def __enter__(self) -> Self:
        found = {number: signal.getsignal(number) for number in _STOPS}
        self._before = {n: handler for n, handler in found.items() if handler != signal.SIG_IGN}
        self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # What broke since is the signal's doing.
        return self.received is not None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End here if the signal's own exception was dropped."""
        self._raise_if_received()

    def on_validation_batch_start(self, *arguments: Any, **options: Any) -> None:
        """The same in a validation."""
        self._raise_if_received()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Listen on while the run is being ended; an error after a signal is the signal's doing."""
        self._listen()
        if not isinstance(exception, KeyboardInterrupt):
            self._raise_if_received()

    def _raise_if_received(self) -> None:
        if self.received is not None:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        for number in self._before:
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os.write(2, _SHOW_CURSOR + _AT_ONCE if os.isatty(2) else _AT_ONCE)
            os._exit(_SHELL + number)
        self.received = signal.Signals(number)
        # A terminal stops a loader's workers too: torch would raise that wherever we are by then.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise KeyboardInterrupt
