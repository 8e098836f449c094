"""What a run shows: its events folded, one at a time, into the model every display reads.

`esper train` feeds it directly, `esper watch` from the bus, `esper inspect` and the report from the
journal. Late joiners, lost metrics and lanes that overtake one another are tolerated.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import TypeVar

import msgspec

import leyline
from leyline import Stage
from tolaria.show.latency import BoundaryMs, boundary_ms, percentile
from tolaria.show.lives import SeedLife
from tolaria.show.places import Places, is_stage

_Dated = TypeVar(
    "_Dated",
    leyline.BreakerChange,
    leyline.Decision,
    leyline.Fault,
    leyline.FieldReport,
    leyline.LatencyAlert,
    leyline.RiskChanged,
    leyline.SeedReport,
)


class RunView:
    """A run as far as its events tell."""

    def __init__(self) -> None:
        self.run_id = ""
        self.model = ""
        self.num_resumes = 0
        self.epoch = 0
        """The last epoch anything is known about."""
        self.num_epochs = 0
        self.step = 0
        self.loss = math.nan
        """The loss of the last step known."""
        self.host_parameters = 0
        self.metrics: dict[int, dict[str, float]] = {}
        """Metrics by epoch; ask `epochs` for them in order."""
        self.flops: dict[int, dict[str, int]] = {}
        """FLOPs since the run began, by epoch and by what they went into."""
        self.decisions: list[leyline.Decision] = []
        self.faults: list[leyline.Fault] = []
        self.field_reports: list[leyline.FieldReport] = []
        self.breaker_changes: list[leyline.BreakerChange] = []
        self.alerts: list[leyline.LatencyAlert] = []
        """Parts of the boundary that became too slow, and those that no longer were."""
        self.risk_changes: list[leyline.RiskChanged] = []
        """Every rise and fall of the level of risk."""
        self.refusals: list[leyline.SeedReport] = []
        """Transitions that were asked for and refused."""
        self.sites: leyline.SitesFound | None = None
        """What the survey found; None before it."""
        self.lifecycle: leyline.LifecycleMetrics | None = None
        """How the seeds' lives went on at the last boundary that is known."""
        self.learning_rates: leyline.LearningRates | None = None
        """The learning rates after the last boundary that is known."""
        self.bus: leyline.BusReport | None = None
        """What the bus last said of itself; older than its ledger on the disk."""
        self.ended: leyline.RunEnded | None = None
        self.standing = ""
        """What became of the run that no event tells, such as "killed"; its directory does."""
        self._boundaries: dict[int, leyline.BoundaryTiming] = {}
        self._steps: dict[int, int] = {}
        """The step that each epoch ended with."""
        self._places = Places()
        self._parameters = ((0, 0), 0)
        self._stages: tuple[int, dict[str, int]] = (0, {})

    # --- reading ---------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """What became of the run: how it ended, or "running"."""
        return self.standing or (self.ended.status if self.ended else "running")

    @property
    def parameters(self) -> int:
        """Parameters of the network now, host and growth."""
        return self._parameters[1] or self.host_parameters

    @property
    def epochs(self) -> list[int]:
        """The epochs whose metrics are known, in order."""
        return sorted(self.metrics)

    @property
    def seeds(self) -> list[SeedLife]:
        """Every life of every seed, oldest first; places never used are not listed."""
        return self._places.lives

    @property
    def stages(self) -> dict[str, int]:
        """Places in use by stage name: as last reported, else as far as their lives are known."""
        reported = {name: num for name, num in self._stages[1].items() if name != "DORMANT"}
        return reported or dict(Counter(life.stage.name for life in self._places.last_lives))

    @property
    def boundaries(self) -> list[leyline.BoundaryTiming]:
        """Timings of the boundaries, by epoch."""
        return [self._boundaries[epoch] for epoch in sorted(self._boundaries)]

    @property
    def breakers(self) -> dict[str, leyline.BreakerChange]:
        """The last change of every breaker that ever opened, by its name."""
        return {change.name: change for change in self.breaker_changes}

    @property
    def standing_alerts(self) -> list[leyline.LatencyAlert]:
        """The alerts that have begun and not ended."""
        last = {alert.part: alert for alert in self.alerts}
        return [alert for alert in last.values() if not alert.resolved]

    @property
    def first_graft_epoch(self) -> int | None:
        """The epoch after which the network first had something grafted on it."""
        grafts = (life.epoch_of(Stage.GRAFTING) for life in self.seeds)
        return min((epoch for epoch in grafts if epoch is not None), default=None)

    def life(self, seed: str) -> SeedLife | None:
        """The newest life of a seed; None if its place was never used."""
        return self._places.life(seed)

    def lives_of(self, seed: str) -> list[SeedLife]:
        """Every life of a seed, oldest first; none if its place was never used."""
        return self._places.lives_of(seed)

    def site_info(self, site: str) -> leyline.SiteInfo | None:
        """What is known of a site; None if no schema told of it."""
        return self._places.site_info(site)

    def candidate(self, site: str, blueprint: str) -> leyline.Candidate | None:
        """What a blueprint would add at a site; None if no schema told of it."""
        return self._places.candidate(site, blueprint)

    def step_at(self, epoch: int) -> int:
        """The step that an epoch ended with; 0 if that is not known."""
        return self._steps.get(epoch, 0)

    def metrics_at(self, epoch: int | None) -> dict[str, float]:
        """The metrics of the last epoch known up to and with this one (None: of them all)."""
        known = [at for at in self.epochs if epoch is None or at <= epoch]
        return self.metrics[known[-1]] if known else {}

    @property
    def flops_spent(self) -> dict[str, int]:
        """FLOPs of the whole run so far by what they went into; empty where they are not known."""
        return self.flops[max(self.flops)] if self.flops else {}

    def latency(self, q: float) -> BoundaryMs:
        """The q-th percentile (0 to 100) of each part and of the sum, in ms; NaN if none ran."""
        timings = [boundary_ms(timing) for timing in self.boundaries]
        return BoundaryMs(*(percentile([ms[part] for ms in timings], q) for part in range(4)))

    def num_over_limit(self, limits_ms: Sequence[float]) -> tuple[int, ...]:
        """Boundaries in which each part, and the sum, took longer than its limit in ms."""
        timings = [boundary_ms(timing) for timing in self.boundaries]
        return tuple(
            sum(ms[part] > limit for ms in timings) for part, limit in enumerate(limits_ms)
        )

    def outside_ms(self) -> dict[str, float]:
        """Time spent outside the boundaries, by kind, summed over the run, in ms."""
        total: dict[str, float] = {}
        for timing in self.boundaries:
            for kind, ms in timing.outside_ms.items():
                total[kind] = total.get(kind, 0.0) + ms
        return total

    # --- folding ---------------------------------------------------------------------------

    def apply(self, event: leyline.Event) -> None:
        """Fold one event in."""
        match event:
            case leyline.RunStarted():
                self._start(event)
            case leyline.Schema():
                self.run_id = self.run_id or event.run_id
                self._places.learn(event)
            case leyline.StatePacket():
                self._note_parameters(event.epoch, 0, event.host_parameters, event.grown_parameters)
                self._progress(event.epoch, event.num_epochs, event.step)
                self._note_flops(event)
                self._places.note_packet(event)
            case leyline.StepMetrics():
                self.note_step(event.step, event.loss)
            case leyline.EpochMetrics():
                self._note_epoch(event)
            case leyline.LifecycleMetrics():
                self._progress(event.epoch)
                if self.lifecycle is None or event.epoch >= self.lifecycle.epoch:
                    self.lifecycle = event
            case leyline.LearningRates():
                self._progress(event.epoch, 0, event.step)
                if self.learning_rates is None or event.epoch >= self.learning_rates.epoch:
                    self.learning_rates = event
            case leyline.BoundaryTiming():
                self._progress(event.epoch)
                self._boundaries[event.epoch] = event
            case leyline.Decision():
                self._note_decision(event)
            case leyline.SeedReport():
                self._note_report(event)
            case leyline.FieldReport():
                self._note_field(event)
            case leyline.SitesFound():
                if self.sites is None or event.epoch >= self.sites.epoch:
                    self.sites = event
            case leyline.Fault():
                self._progress(event.epoch)
                _insert(self.faults, event)
            case leyline.BreakerChange():
                self._progress(event.epoch)
                _insert(self.breaker_changes, event)
            case leyline.LatencyAlert():
                self._progress(event.epoch)
                _insert(self.alerts, event)
            case leyline.RiskChanged():
                self._progress(event.epoch)
                _insert(self.risk_changes, event)
            case leyline.BusReport():
                self._progress(event.epoch)
                if self.bus is None or event.epoch >= self.bus.epoch:
                    self.bus = event
            case leyline.RunEnded():
                self.run_id = self.run_id or event.run_id
                self._progress(event.epoch)
                self.ended = event
                self._note_parameters(event.epoch, 2, 0, event.parameters)

    def note_step(self, step: int, loss: float) -> None:
        """Note the loss of a step, unless a later one is known."""
        if step >= self.step:
            self.step, self.loss = step, loss

    def _start(self, event: leyline.RunStarted) -> None:
        self.run_id, self.model = event.run_id, event.model
        self.num_epochs = event.num_epochs or self.num_epochs
        self.host_parameters = event.host_parameters
        if event.resumed:
            self._rewind(event.epoch)

    def _rewind(self, epoch: int) -> None:
        """Forget what followed the epoch a resumed run continues from: it happens anew."""
        self.num_resumes += 1
        self._steps = {at: step for at, step in self._steps.items() if at <= epoch}
        self.epoch, self.step, self.ended = epoch, max(self._steps.values(), default=0), None
        self._parameters, self._stages = ((0, 0), self._parameters[1]), (0, {})
        self.lifecycle = self.learning_rates = self.bus = None
        self.sites = self.sites if self.sites and self.sites.epoch <= epoch else None
        self.metrics = {at: known for at, known in self.metrics.items() if at <= epoch}
        self.flops = {at: known for at, known in self.flops.items() if at <= epoch}
        self._boundaries = {at: known for at, known in self._boundaries.items() if at <= epoch}
        self.decisions = [decision for decision in self.decisions if decision.epoch <= epoch]
        self.field_reports = [report for report in self.field_reports if report.epoch <= epoch]
        self.refusals = [report for report in self.refusals if report.epoch <= epoch]
        self.breaker_changes = [c for c in self.breaker_changes if c.epoch <= epoch]
        self.risk_changes = [c for c in self.risk_changes if c.epoch <= epoch]
        self.alerts = []  # a resumed run measures its boundaries anew
        self._places.rewind(epoch)

    def _progress(self, epoch: int, num_epochs: int = 0, step: int = 0) -> None:
        self.epoch = max(self.epoch, epoch)
        self.num_epochs = num_epochs or self.num_epochs
        self.step = max(self.step, step)

    def _note_parameters(self, epoch: int, rank: int, host: int, grown: int) -> None:
        """Keep the newest count; of one epoch's, the packet's is the oldest."""
        self.host_parameters = self.host_parameters or host
        self._parameters = max(self._parameters, ((epoch, rank), host + grown))

    def _note_flops(self, packet: leyline.StatePacket) -> None:
        if packet.training_flops or packet.search_flops:
            spent = {"training": packet.training_flops, "search": packet.search_flops}
            self.flops[packet.epoch] = spent

    def _note_epoch(self, event: leyline.EpochMetrics) -> None:
        self._progress(event.epoch, event.num_epochs, event.step)
        self.metrics[event.epoch] = dict(event.metrics)
        self._steps[event.epoch] = event.step
        self._note_parameters(event.epoch, 1, 0, event.parameters)
        if event.epoch >= self._stages[0]:
            self._stages = event.epoch, dict(event.stages)

    def _note_decision(self, event: leyline.Decision) -> None:
        self._progress(event.epoch)
        if _insert(self.decisions, event):
            self._places.note_scores(event)

    def _note_report(self, event: leyline.SeedReport) -> None:
        self._progress(event.epoch)
        if event.refused:
            _insert(self.refusals, event)
        elif is_stage(event.was) and is_stage(event.now):
            _insert(self._places.changing(event.seed).reports, event)

    def _note_field(self, event: leyline.FieldReport) -> None:
        self._progress(event.epoch)
        if _insert(self.field_reports, event):
            self._places.note_field(event)


def _insert(events: list[_Dated], event: _Dated) -> bool:
    """Insert by epoch unless it is there already; NaN must equal itself, so bytes are compared."""
    data = msgspec.msgpack.encode(event)
    first = bisect_left(events, event.epoch, key=attrgetter("epoch"))
    last = bisect_right(events, event.epoch, key=attrgetter("epoch"), lo=first)
    if any(msgspec.msgpack.encode(known) == data for known in events[first:last]):
        return False
    events.insert(last, event)
    return True
