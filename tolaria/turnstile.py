"""The turnstile: one call of the training loop at a time, from the thread that owns the run."""

from __future__ import annotations

from types import TracebackType

from kasmina import SeedTable
from leyline import RunError


class Turnstile:
    """Held while a step or a boundary is under way. Entering it changes nothing where it refuses.

    Raises:
        OwnerError: another thread owns the table.
        RunError: a call is under way already: this one comes from a callback or a listener.
    """

    def __init__(self, table: SeedTable):
        self._table = table
        self._held = False

    def __enter__(self) -> None:
        self._table.check_owner()
        if self._held:
            raise RunError(
                "after_step() or epoch_boundary() was called while another call of theirs is under "
                "way, as from a callback or a listener; nothing was changed: call them from the "
                "training loop, after the callback has returned"
            )
        self._held = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held = False
