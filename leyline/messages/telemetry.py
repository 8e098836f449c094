"""What a run tells of its course: metrics, timings, faults, its start and end."""

from __future__ import annotations

import msgspec

from leyline.messages.base import Message, Name


class RunStarted(Message, frozen=True, tag="run_started"):
    """A run, or a resumed part of one, begins."""

    run_id: Name
    epoch: int
    num_epochs: int
    host_parameters: int
    model: str
    resumed: bool
    settings: dict[str, str] = msgspec.field(default_factory=dict)
    """Of those that decide what grows the ones that are not the defaults, each as JSON."""


class StepMetrics(Message, frozen=True, tag="step"):
    """The loss of one training step, and of those just before it that were not told yet."""

    step: int
    loss: float
    earlier: tuple[float, ...] = ()
    """Losses of the steps before it, the last one last: that of step - 1."""


class EpochMetrics(Message, frozen=True, tag="epoch"):
    """The metrics of one epoch and the shape of the network after it."""

    epoch: int
    num_epochs: int
    step: int
    metrics: dict[str, float]
    parameters: int
    stages: dict[str, int]
    """Seeds by stage name."""
    flops: dict[str, int] = msgspec.field(default_factory=dict)
    """Spent since the run began, by use: "training", "races", "counterfactuals"; empty if that is
    not counted."""


class LifecycleMetrics(Message, frozen=True, tag="lifecycle"):
    """How the seeds' lives went on between the boundary before and this one."""

    epoch: int
    stages: dict[str, int]
    """Seeds by stage name."""
    transitions: int
    """Transitions made since the boundary before."""
    mean_alpha: float
    """Mean alpha of the seeds in GRAFTING; NaN if there are none."""
    seed_checkpoints: int
    """Seed records committed since the run began."""
    faults: int
    """Faults that were contained since the boundary before."""
    refusals: int
    """Requests that were refused since the boundary before."""


class BoundaryTiming(Message, frozen=True, tag="boundary"):
    """Where one boundary's time went, in ms; `outside` holds what is timed apart from it."""

    epoch: int
    gather_ms: float
    decide_ms: float
    apply_ms: float
    outside_ms: dict[str, float]


class LatencyAlert(Message, frozen=True, tag="latency_alert"):
    """The p95 of a part of the boundary has drifted over its limit, or is back within it."""

    epoch: int
    part: Name
    """"gather", "decide", "apply" or "all three"."""
    p95_ms: float
    """Over the last `num_boundaries`."""
    limit_ms: float
    num_boundaries: int
    resolved: bool
    """Whether this ends the alert; False begins it."""


class BreakerChange(Message, frozen=True, tag="breaker"):
    """A breaker opened, closed, or lets one call through to see whether it may close."""

    epoch: int
    step: int
    name: Name
    """"policy", "executor", "learning rates", "checkpoint" or "bus"."""
    was: Name
    """"closed", "open" or "half-open"."""
    now: Name
    why: str
    hold: float
    """How long it stays open before one call is let through; 0 unless it has opened."""
    unit: Name
    """What `hold` counts: "boundaries" or "s"."""


class LearningRates(Message, frozen=True, tag="learning_rates"):
    """The learning rates with which training goes on after a boundary."""

    epoch: int
    step: int
    host: tuple[float, ...]
    """Of the host's parameter groups, in order of the optimizers and of their groups."""
    seeds: dict[str, float]
    """By seed; 0 while it is frozen."""


class RiskChanged(Message, frozen=True, tag="risk"):
    """The level of risk has risen or fallen; it holds from this boundary on."""

    epoch: int
    step: int
    was: int
    """A RiskLevel."""
    now: int
    causes: tuple[str, ...]
    """What brought it about, the worst first; of a fall, how long all has been calm."""
    pace: int | None = None
    """The RiskLevel that alpha goes by: lower where what is told slows nothing; None: the level."""


class Fault(Message, frozen=True, tag="fault"):
    """Something failed and was contained."""

    epoch: int
    step: int
    where: Name
    what: str
    action: str


class BusReport(Message, frozen=True, tag="bus"):
    """What had become of the run's events when an epoch ended, and how long the bus took."""

    epoch: int
    offered: int
    delivered: int
    """Acknowledged by a server."""
    dropped: int
    queued: int
    dropped_by_type: dict[str, int]
    """By event type; "damaged" and "unknown" for what has none."""
    latency_ms: dict[str, tuple[float, float, float]]
    """p50, p95 and p99 of each operation of the bus, such as "send"."""


class DropsCounted(Message, frozen=True, tag="drops"):
    """Events were dropped; each of them used up a sequence that no reader will ever see."""

    dropped_by_type: dict[str, int]
    """All so far, by event type; "unknown" for what has none."""


class RunEnded(Message, frozen=True, tag="run_ended"):
    """A run ends: "finished", "interrupted" or "failed"."""

    run_id: Name
    epoch: int
    status: Name
    parameters: int
    metrics: dict[str, float]
