"""Events on their way: which messages are events, their lanes, and the envelope around them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from leyline.messages.base import Message, Name, Priority
from leyline.messages.decisions import Decision
from leyline.messages.reports import FieldReport, SeedReport, SitesFound
from leyline.messages.sites import Schema
from leyline.messages.state import StatePacket
from leyline.messages.telemetry import (
    BoundaryTiming,
    BreakerChange,
    BusReport,
    DropsCounted,
    EpochMetrics,
    Fault,
    LatencyAlert,
    LearningRates,
    LifecycleMetrics,
    RiskChanged,
    RunEnded,
    RunStarted,
    StepMetrics,
)

Event = (
    Schema
    | StatePacket
    | Decision
    | SeedReport
    | FieldReport
    | SitesFound
    | RunStarted
    | StepMetrics
    | EpochMetrics
    | LifecycleMetrics
    | BoundaryTiming
    | LatencyAlert
    | LearningRates
    | BreakerChange
    | BusReport
    | DropsCounted
    | RiskChanged
    | Fault
    | RunEnded
)
"""What a run tells about itself; travels in an Envelope."""

PRIORITIES: Final[Mapping[type[Message], Priority]] = MappingProxyType(
    {
        StepMetrics: Priority.METRIC,
        StatePacket: Priority.METRIC,
        EpochMetrics: Priority.REPORT,
        LifecycleMetrics: Priority.REPORT,
        BoundaryTiming: Priority.REPORT,
        LatencyAlert: Priority.REPORT,
        LearningRates: Priority.REPORT,
        FieldReport: Priority.REPORT,
        BusReport: Priority.REPORT,
        SitesFound: Priority.REPORT,
        Schema: Priority.DECISION,
        Decision: Priority.DECISION,
        BreakerChange: Priority.DECISION,
        RiskChanged: Priority.DECISION,
        DropsCounted: Priority.DECISION,
        RunStarted: Priority.EMERGENCY,
        SeedReport: Priority.EMERGENCY,
        Fault: Priority.EMERGENCY,
        RunEnded: Priority.EMERGENCY,
    }
)
"""The lane of every event type; lifecycle and fault events are the last to be dropped."""


class Envelope(Message, frozen=True, tag="envelope"):
    """An event on its way: who sent it, which one it is, and when."""

    run_id: Name
    sequence: int
    """Counts the run's events from 1, over all lanes; with run_id it is the event's id."""
    priority: int
    monotonic_ns: int
    wall_ns: int
    event: Event
