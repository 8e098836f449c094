"""Catching up: what a run's outbox and server still hold, written to its audit trail."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from leyline import RunLockedError
from oona.audit.trail import FILE_NAME, AuditTrail
from oona.publishing.drain import drain
from oona.reading.reader import read

BATCH_EVENTS: Final = 1000
"""Events in one transaction."""


class CaughtUp(NamedTuple):
    """What `catch_up` has done."""

    num_new: int
    """Events that the trail did not have."""
    num_refused: int
    """Damaged or hostile records that were passed over."""
    has_other_writer: bool
    """Somebody else writes the trail now, so nothing was written here."""
    problem: str = ""
    """Why the run's server was not read; empty if it was, or ended with the run."""


def catch_up(run_dir: Path) -> CaughtUp:
    """Write every event that a run's outbox and server hold to RUN/audit.db.

    Live, ended and killed runs alike; an event comes once however often this is done. While a
    collector writes the trail it is left to do so.

    Raises:
        RunError: the directory holds no events of a bus, or its trail cannot be used.
        BusError: the outbox or the server cannot be read.
        ConfigError: ESPER_AUDIT_KEY is too short.
    """
    drain(run_dir)  # what a killed run left: other readers of its server may wait for it too
    num_new = 0
    with closing(read(run_dir)) as envelopes:
        try:
            trail = AuditTrail.open(run_dir / FILE_NAME)
        except RunLockedError:
            return CaughtUp(0, 0, has_other_writer=True)
        with trail:
            while batch := list(islice(envelopes, BATCH_EVENTS)):
                num_new += trail.append(batch)
        num_refused = envelopes.num_refused + trail.num_refused
        return CaughtUp(num_new, num_refused, has_other_writer=False, problem=envelopes.problem)
