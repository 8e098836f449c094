"""The messages that Esper's parts exchange: frozen, tagged, and refused when a field is unknown.

Epochs and steps are counted from 1; 0 means "before the first". Losses and gains are in the unit
of the user's own loss. NaN in a float field means "not measured". Names of seeds are
"<site>/<number>": the number counts the places at that site.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from struct import calcsize
from types import MappingProxyType
from typing import Annotated, Any, Final, cast

import msgspec

from leyline.errors import ContractError
from leyline.limits import NAME_LENGTH

VERSION: Final = 2
"""The one contract version; a message of another version is refused."""

Name = Annotated[str, msgspec.Meta(max_length=NAME_LENGTH)]


class Priority(IntEnum):
    """The lane an event travels in; when space is short the lowest number is dropped first."""

    METRIC = 0
    REPORT = 1
    DECISION = 2
    EMERGENCY = 3


class Message(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True
):
    """Base of all messages."""


# --- what can be planted where ---------------------------------------------------------------


class SiteInfo(Message, frozen=True, tag="site"):
    """A submodule whose output a seed may extend."""

    name: Name
    shape: tuple[int, ...]
    """Shape of the output for the example seen, batch axis included."""
    channels: int
    accepts: tuple[Name, ...]
    """Blueprints that fit."""
    num_chunks: int = 1
    """Equal parts of the channels, each a place; seed number n hangs on part n % num_chunks."""


class Candidate(Message, frozen=True, tag="candidate"):
    """One blueprint at one site, with what it would add."""

    site: Name
    blueprint: Name
    parameters: int
    flops: int
    """Forward FLOPs per example, of matrix products, convolutions and attention."""


class Schema(Message, frozen=True, tag="schema"):
    """Names that packets refer to by index; sent once, and again whenever one is added."""

    run_id: Name
    schema_id: int
    sites: tuple[SiteInfo, ...]
    blueprints: tuple[Name, ...]
    candidates: tuple[Candidate, ...]
    metrics: tuple[Name, ...]
    seeds: tuple[Name, ...]


# --- state, from Tolaria and Kasmina to Tamiyo -----------------------------------------------

COLUMN_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "metrics": "d",
        "stage": "i",
        "blueprint": "i",
        "epochs_in_stage": "i",
        "grafting_strategy": "i",
        "error_count": "i",
        "site": "i",
        "embargo_epochs_left": "i",
        "trial_steps": "i",
        "parameters": "q",
        "alpha": "f",
        "trial_gain": "f",
        "trial_error": "f",
        "counterfactual_gain": "f",
        "counterfactual_error": "f",
    }
)
"""Item format (struct module) of every column in a StatePacket."""


class StatePacket(Message, frozen=True, tag="state"):
    """All that a policy may know, as columns; row i is the seed named by Schema.seeds[i].

    Timings and free memory are left out on purpose: nothing measured in seconds may choose
    structure, or a resumed run would differ from an undisturbed one.
    """

    schema_id: int
    epoch: int
    step: int
    num_epochs: int
    """Epochs the run will have; 0 when unknown."""
    host_parameters: int
    grown_parameters: int
    """Parameters that growth has added to the live model so far."""
    param_budget: int
    """Parameters that growth may add in all."""
    trials_possible: bool
    metrics: memoryview
    stage: memoryview
    blueprint: memoryview
    epochs_in_stage: memoryview
    grafting_strategy: memoryview
    error_count: memoryview
    site: memoryview
    embargo_epochs_left: memoryview
    trial_steps: memoryview
    parameters: memoryview
    alpha: memoryview
    trial_gain: memoryview
    trial_error: memoryview
    counterfactual_gain: memoryview
    counterfactual_error: memoryview

    def __post_init__(self) -> None:
        num_seeds = self.stage.nbytes // calcsize(COLUMN_FORMATS["stage"])
        uneven = [
            name
            for name, item in COLUMN_FORMATS.items()
            if name != "metrics" and getattr(self, name).nbytes != num_seeds * calcsize(item)
        ]
        if self.metrics.nbytes % calcsize(COLUMN_FORMATS["metrics"]):
            uneven.append("metrics")
        if uneven:
            raise ContractError(
                f"state packet of {num_seeds} seeds refused: {', '.join(uneven)} must hold whole "
                "items of the format in COLUMN_FORMATS, one for each seed"
            )

    def column(self, name: str) -> memoryview:
        """The column as typed items, for a live packet and for a decoded one alike."""
        view: memoryview = getattr(self, name)
        return view.cast("B").cast(cast(Any, COLUMN_FORMATS[name]))


# --- decisions, from Tamiyo to Kasmina -------------------------------------------------------


class Germinate(Message, frozen=True, tag="germinate"):
    """Build a blueprint for a seed, prove that it fits and put it on trial."""

    seed: Name
    site: Name
    blueprint: Name
    cause: str


class Advance(Message, frozen=True, tag="advance"):
    """Move a seed to its next stage; `to` is the number of a Stage."""

    seed: Name
    to: int
    cause: str


class Cull(Message, frozen=True, tag="cull"):
    """Remove a seed and keep its place empty for some epochs."""

    seed: Name
    cause: str
    embargo_epochs: int


Command = Germinate | Advance | Cull
"""What a policy may ask for."""


class Score(Message, frozen=True, tag="score"):
    """One candidate that a decision considered: what it brought, what was asked of it."""

    seed: Name
    site: Name
    blueprint: Name
    parameters: int
    gain: float
    """Held-out loss without the seed minus with it."""
    gain_error: float
    """Standard error of the gain, over held-out batches."""
    threshold: float
    """The gain it had to exceed."""
    steps: int
    """Trial steps it was trained for."""
    chosen: bool


class Decision(Message, frozen=True, tag="decision"):
    """What a policy wants done at one boundary, and why. No commands means "hold"."""

    epoch: int
    policy: Name
    cause: str
    commands: tuple[Command, ...] = ()
    scores: tuple[Score, ...] = ()
    late: bool = False
    """The policy's answer came too late and was discarded; a resumed run holds here too."""


# --- reports, from Kasmina and Tolaria -------------------------------------------------------


class SeedReport(Message, frozen=True, tag="seed_report"):
    """One transition of one seed, made or refused."""

    epoch: int
    seed: Name
    site: Name
    blueprint: Name
    was: int
    now: int
    parameters: int
    alpha: float
    cause: str
    refused: str = ""
    """Why the transition was refused; empty when it was made."""


class FieldReport(Message, frozen=True, tag="field_report"):
    """What was expected of a graft, and what the counterfactual said once it had settled."""

    epoch: int
    seed: Name
    site: Name
    blueprint: Name
    parameters: int
    expected_gain: float
    expected_error: float
    counterfactual_gain: float
    counterfactual_error: float
    verdict: str


class SitesFound(Message, frozen=True, tag="sites_found"):
    """What a survey of the model found: where it may grow in this run, and where not, and why."""

    epoch: int
    grows: tuple[Name, ...]
    """Sites that may grow."""
    control: tuple[Name, ...]
    """Sites that never grow in this run: the control arm of a rollout."""
    rollout_percentage: int
    """The share of sites that may grow, as it was asked for."""
    num_refused: int
    """Submodules that are no sites."""
    refused: dict[str, str]
    """The reason for each of those, of a thousand at most."""


# --- telemetry -------------------------------------------------------------------------------


class RunStarted(Message, frozen=True, tag="run_started"):
    """A run, or a resumed part of one, begins."""

    run_id: Name
    epoch: int
    num_epochs: int
    host_parameters: int
    model: str
    resumed: bool


class StepMetrics(Message, frozen=True, tag="step"):
    """The loss of one training step."""

    step: int
    loss: float


class EpochMetrics(Message, frozen=True, tag="epoch"):
    """The metrics of one epoch and the shape of the network after it."""

    epoch: int
    num_epochs: int
    step: int
    metrics: dict[str, float]
    parameters: int
    stages: dict[str, int]
    """Seeds by stage name."""


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


class Fault(Message, frozen=True, tag="fault"):
    """Something failed and was contained."""

    epoch: int
    step: int
    where: Name
    what: str
    action: str


class RunEnded(Message, frozen=True, tag="run_ended"):
    """A run ends: "finished", "interrupted" or "failed"."""

    run_id: Name
    epoch: int
    status: Name
    parameters: int
    metrics: dict[str, float]


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
        FieldReport: Priority.REPORT,
        SitesFound: Priority.REPORT,
        Schema: Priority.DECISION,
        Decision: Priority.DECISION,
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
