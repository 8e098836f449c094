"""The replay: what a deadline or a failure decided, kept so that a resumed run decides alike."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import msgspec

from leyline import Decision, Event, Fault, RunError
from tolaria.disk.files import reason, write_atomic
from tolaria.disk.sealed import seal, unseal

FILE_NAME: Final = "replay.json"


class Replay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The boundaries of a run whose outcome its state alone does not tell."""

    late: tuple[int, ...] = ()
    """Epochs whose decision came too late and was discarded."""
    undone: dict[int, str] = {}
    """The stage that failed, by the epoch whose boundary did not count."""
    short_of_memory: tuple[int, ...] = ()
    """Epochs at whose boundary a graft was rolled back for want of memory."""
    risk: dict[int, int] = {}
    """The RiskLevel that time, memory and disks alone came to, by epoch, where it was not GREEN."""
    last_epoch: int = 0
    """The last epoch whose boundary was passed: up to it none of these is looked at again."""

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """Read it from a run's events."""
        events = list(events)
        decisions = [event for event in events if isinstance(event, Decision)]
        faults = [event for event in events if isinstance(event, Fault)]
        return cls(
            late=tuple(d.epoch for d in decisions if d.late),
            undone={d.epoch: d.undone for d in decisions if d.undone},
            short_of_memory=tuple(f.epoch for f in faults if f.where == "memory"),
            risk={d.epoch: d.risk_by_chance for d in decisions if d.risk_by_chance},
            last_epoch=max((d.epoch for d in decisions), default=0),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """What earlier resumes have kept; nothing where there is no file.

        Raises:
            RunError: the file cannot be read.
        """
        try:
            return msgspec.convert(unseal(path.read_bytes()), cls, str_keys=True)
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise RunError(f"{path} cannot be read: {reason(error)}") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {error}; restore it, or delete it") from error

    def merged(self, later: Self) -> Self:
        """This, and what a later part of the run has added."""
        late = tuple(sorted({*self.late, *later.late}))
        return type(self)(
            late=late,
            undone=self.undone | later.undone,
            short_of_memory=tuple(sorted({*self.short_of_memory, *later.short_of_memory})),
            risk=self.risk | later.risk,
            last_epoch=max(self.last_epoch, later.last_epoch),
        )

    def save(self, path: Path) -> None:
        """Keep it durably.

        Raises:
            RunError: the disk refused.
        """
        if self.last_epoch:
            write_atomic(path, seal(msgspec.to_builtins(self, str_keys=True)))
