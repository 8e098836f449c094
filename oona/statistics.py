"""What a bus says of itself."""

from __future__ import annotations

import msgspec

from oona.metrics.operations import OperationSummary


class BusStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger of a run directory, over all processes that wrote to it, and how the bus is.

    Whenever no offer is under way, offered == delivered + dropped + queued.
    """

    offered: int = 0
    delivered: int = 0
    """Events that a server has acknowledged, each counted once however often it was sent."""
    dropped: int = 0
    queued: int = 0
    """Events that wait in the outbox, counted by reading it."""
    dropped_by_type: dict[str, int] = {}
    """Drops by event type; "damaged" is for records that could not be read any more, "unknown"
    for what is no event."""
    state: str
    """One of connecting, delivering, closed and off, or what is wrong with the server."""
    url: str
    """Where the events go; passwords are hidden."""
    breaker: str = "closed"
    """"open" while the server is away or refuses, after three failures in a row; else "closed"."""
    num_faults: int = 0
    """Unforeseen exceptions that the publisher survived."""
    operations: dict[str, OperationSummary] = {}
    """What the publisher did, by name: "connect" and "send"."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the outbox, and why events of a type were refused at the door."""
