"""The writer: the training thread copies a state and goes on, one thread at a time writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from leyline import CheckpointError
from tolaria.disk.manifest import Occasion
from tolaria.disk.staging import Staged, Staging
from tolaria.disk.store import CheckpointStore, Groups

WAIT_S: Final = 30.0
"""How long a save waits for the one before it, and the end of the run for the last one."""


class CheckpointWriter:
    """Saves to a store, at most one at a time.

    Args:
        store: nobody else uses it while a save is under way: `wait` first.
        sync_journal: makes durable what a checkpoint refers to; called before it counts, and it
            does not count if this raises RunError.
        background: False writes in the caller's thread, whose errors are then known at once.
        wait_s: bound on every wait for the disk.
    """

    def __init__(
        self,
        store: CheckpointStore,
        sync_journal: Callable[[], None],
        *,
        background: bool,
        wait_s: float = WAIT_S,
    ):
        self.num_skipped = 0
        """Saves that were given up because the one before was not done in time."""
        self._store = store
        self._sync_journal = sync_journal
        self._background = background
        self._wait_s = wait_s
        self._staging = Staging()
        self._thread: threading.Thread | None = None
        self._problem: str | None = None

    def save(
        self, step: int, state: Mapping[str, Any], occasion: Occasion, groups: Groups = ()
    ) -> str | None:
        """Save a state; when this returns it may change again.

        Returns:
            What went wrong since the last call, or None. What goes wrong with this very save is
            told by the next call, or by `close`, unless it is found before the writing begins.
        """
        if not self.wait():
            self.num_skipped += 1
            return (
                f"the checkpoint of step {step} was skipped: after {self._wait_s:g} s the one "
                f"before it is still being written; {self.num_skipped} skipped so far"
            )
        earlier = self.take_problem()
        try:
            self._store.check(step)
            staged = self._staging.stage(state)
        except CheckpointError as error:
            return "; ".join(filter(None, (earlier, str(error))))
        # What stays if the thread ends by an error that it did not expect.
        self._problem = f"the checkpoint of step {step} was not finished: its writer failed"
        arguments = (step, staged, occasion, groups)
        if self._background:
            # Not a daemon: a process that ends in order lets the save in flight end first.
            self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint")
            self._thread.start()
            return earlier
        self._write(*arguments)
        return "; ".join(filter(None, (earlier, self.take_problem()))) or None

    def wait(self) -> bool:
        """Wait for the save under way; False if it takes too long."""
        if self._thread is not None:
            self._thread.join(self._wait_s)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def take_problem(self) -> str | None:
        """What went wrong with the last save that has ended, once."""
        if self._thread is not None and self._thread.is_alive():
            return None
        problem, self._problem = self._problem, None
        return problem

    def close(self) -> str | None:
        """Wait for the save under way, let go of the memory and of what failed saves have left.

        Returns:
            What went wrong with it, or None.
        """
        if not self.wait():
            return f"the last checkpoint is not yet written after {self._wait_s:g} s"
        self._staging.release()
        self._store.sweep()
        return self.take_problem()

    def _write(self, step: int, staged: Staged, occasion: Occasion, groups: Groups) -> None:
        try:
            self._store.write(step, staged, occasion, groups, self._sync_journal)
        except CheckpointError as error:
            self._problem = str(error)
        else:
            self._problem = None
