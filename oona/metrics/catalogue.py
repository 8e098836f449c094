"""Every metric that Esper exposes: its name, kind, unit, labels and meaning, for all exporters."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
_UNITS: Final = {"s": "_seconds"}
"""How Prometheus writes a unit; one in braces only says what is counted."""


class Metric(NamedTuple):
    """One metric, named by OpenTelemetry's rules; Prometheus's name follows from it."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    """Labels besides `run`, which every metric has."""

    @property
    def prometheus_name(self) -> str:
        """The name by Prometheus's rules, without the _total that a counter's samples end in."""
        return self.name.replace(".", "_") + _UNITS.get(self.unit, "")


ACTIVE: Final = Metric("esper.run.active", "gauge", "", "1 until the run has ended, then 0")
EPOCH: Final = Metric("esper.epoch", "gauge", "{epoch}", "The last epoch that is known")
STEP: Final = Metric("esper.step", "gauge", "{step}", "Optimizer steps so far")
LOSS: Final = Metric("esper.loss", "gauge", "", "Training loss of the last step")
VALUE: Final = Metric("esper.metric", "gauge", "", "A metric of the last epoch", ("name",))
PARAMETERS: Final = Metric(
    "esper.parameters", "gauge", "{parameter}", "Parameters of the network, growth included"
)
HOST_PARAMETERS: Final = Metric(
    "esper.host.parameters", "gauge", "{parameter}", "Parameters that the network began with"
)
SEEDS: Final = Metric("esper.seeds", "gauge", "{seed}", "Seeds in each state", ("state",))
TRANSITIONS: Final = Metric(
    "esper.transitions", "counter", "{transition}", "Transitions that seeds have made", ("to",)
)
REFUSALS: Final = Metric("esper.refusals", "counter", "{request}", "Transitions that were refused")
COMMANDS: Final = Metric(
    "esper.commands", "counter", "{command}", "Commands of decisions, hold for none", ("kind",)
)
RATE: Final = Metric(
    "esper.learning.rate", "gauge", "", "Learning rate of a group of the host", ("group",)
)
BOUNDARY: Final = Metric("esper.boundary", "histogram", "s", "Time from gather to apply")
OUTSIDE: Final = Metric(
    "esper.outside", "counter", "s", "Time spent beside the boundaries", ("work",)
)
ALERT: Final = Metric(
    "esper.latency.alert", "gauge", "", "1 while this part of the boundary is too slow", ("part",)
)
FAULTS: Final = Metric("esper.faults", "counter", "{fault}", "Contained faults", ("where",))
BREAKER: Final = Metric(
    "esper.breaker.open", "gauge", "", "1 while this breaker is not closed", ("breaker",)
)
RISK: Final = Metric(
    "esper.risk.level", "gauge", "", "0 green, 1 yellow, 2 orange, 3 red, 4 critical"
)
OFFERED: Final = Metric("esper.outbox.offered", "counter", "{event}", "Events offered to the bus")
DELIVERED: Final = Metric(
    "esper.outbox.delivered", "counter", "{event}", "Events that a server has acknowledged"
)
DROPPED: Final = Metric("esper.outbox.dropped", "counter", "{event}", "Events dropped", ("type",))
QUEUED: Final = Metric("esper.outbox.queued", "gauge", "{event}", "Events that wait in the outbox")
OPERATION: Final = Metric(
    *("esper.operation", "gauge", "s", "Time that an operation of the bus takes"),
    ("operation", "percentile"),
)

METRICS: Final = (
    *(ACTIVE, EPOCH, STEP, LOSS, VALUE, PARAMETERS, HOST_PARAMETERS, SEEDS),
    *(TRANSITIONS, REFUSALS, COMMANDS, RATE, BOUNDARY, OUTSIDE, ALERT, FAULTS, BREAKER, RISK),
    *(OFFERED, DELIVERED, DROPPED, QUEUED, OPERATION),
)
"""All of them, in the order they are shown."""

BOUNDARY_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.018, 0.025, 0.05, 0.1, 0.5)
"""Around the limits of the boundary, 1 to 18 ms."""
