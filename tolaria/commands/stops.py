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

    A callback too, and the trainer's first: from the first Ctrl-C on Lightning would ignore them.
    A signal that was ignored before, as SIGINT is in a shell's background job, stays ignored.
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
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Listen on while the run is being ended."""
        self._listen()

    def _listen(self) -> None:
        for number in self._before:
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os.write(2, _SHOW_CURSOR + _AT_ONCE if os.isatty(2) else _AT_ONCE)
            os._exit(_SHELL + number)
        self.received = signal.Signals(number)
        raise KeyboardInterrupt
