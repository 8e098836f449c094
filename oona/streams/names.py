"""Names of streams: one for each run and lane, and one for what could not be consumed."""

from __future__ import annotations

from typing import Final

from leyline import Priority

KEY_PREFIX: Final = "esper:"
_DEAD: Final = "dead"


def stream_names(run_id: str) -> dict[Priority, bytes]:
    """The name of a run's stream for each lane, as in "esper:my-run:report"."""
    return {lane: f"{KEY_PREFIX}{run_id}:{lane.name.lower()}".encode() for lane in Priority}


def dead_letters(run_id: str) -> bytes:
    """The name of the stream of a run's entries that no consumer could get done with."""
    return f"{KEY_PREFIX}{run_id}:{_DEAD}".encode()


def run_of(stream: bytes) -> str | None:
    """The run that a stream belongs to; None if the name is none of a lane's."""
    name = stream[len(KEY_PREFIX) :].decode(errors="replace")
    run_id, _, lane = name.rpartition(":")
    return run_id if run_id and lane.upper() in Priority.__members__ else None
