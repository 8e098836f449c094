"""The places where seeds have grown, folded from the packets and reports that tell of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import leyline
from leyline import Stage
from tolaria.show.lives import Gain, Mark, Place, Reading, SeedLife

_NUM_WAITING_PACKETS: Final = 256
"""Packets kept while their schema has not come; a joiner that missed it must not grow for ever."""

_MEASURED: Final = (
    "stage",
    "site",
    "blueprint",
    "parameters",
    "alpha",
    "trial_gain",
    "trial_error",
    "counterfactual_gain",
    "counterfactual_error",
    "embargo_epochs_left",
)


class _Packet(NamedTuple):
    """A packet's occupied rows, copied: its columns are views that the run goes on writing."""

    schema_id: int
    epoch: int
    rows: tuple[tuple[int, tuple[Any, ...]], ...]


class Places:
    """Every place that was ever used, by the name of its seed."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._schemas: dict[int, leyline.Schema] = {}
        self._waiting: deque[_Packet] = deque(maxlen=_NUM_WAITING_PACKETS)

    @property
    def lives(self) -> list[SeedLife]:
        """Every life of every seed, oldest first; places never used are not listed."""
        lives = (life for place in self._places.values() for life in place.lives())
        return sorted(lives, key=lambda life: (life.first_epoch, life.seed, life.life))

    @property
    def last_lives(self) -> list[SeedLife]:
        """The newest life of every place that was used."""
        return [life for seed in self._places if (life := self.life(seed)) is not None]

    def life(self, seed: str) -> SeedLife | None:
        """The newest life of a seed; None if its place was never used."""
        lives = self.lives_of(seed)
        return lives[-1] if lives else None

    def lives_of(self, seed: str) -> list[SeedLife]:
        """The lives of a seed, oldest first."""
        return self._places[seed].lives() if seed in self._places else []

    def site_info(self, site: str) -> leyline.SiteInfo | None:
        """What the newest schema that knows a site says of it."""
        known = (info for schema in self._newest_first() for info in schema.sites)
        return next((info for info in known if info.name == site), None)

    def candidate(self, site: str, blueprint: str) -> leyline.Candidate | None:
        """What the newest schema that knows a blueprint at a site says of it."""
        known = (candidate for schema in self._newest_first() for candidate in schema.candidates)
        fitting = (c for c in known if (c.site, c.blueprint) == (site, blueprint))
        return next(fitting, None)

    def rewind(self, epoch: int) -> None:
        """Forget what followed an epoch."""
        for place in self._places.values():
            place.rewind(epoch)

    def learn(self, schema: leyline.Schema) -> None:
        """Take in the names of a schema, and the packets that waited for them."""
        self._schemas[schema.schema_id] = schema
        waiting = list(self._waiting)
        self._waiting.clear()
        for packet in waiting:
            self._read(packet)

    def note_packet(self, packet: leyline.StatePacket) -> None:
        """Take in what a packet says of the seeds."""
        columns = [packet.column(name) for name in _MEASURED]
        rows = zip(*columns, strict=True)
        occupied = tuple(
            (row, values) for row, values in enumerate(rows) if values[0] and is_stage(values[0])
        )
        self._read(_Packet(packet.schema_id, packet.epoch, occupied))

    def note_scores(self, decision: leyline.Decision) -> None:
        """Take in what the trials of a decision have brought."""
        for score in decision.scores:
            gain = Gain(score.gain, score.gain_error)
            self.changing(score.seed).trials.append(Reading(decision.epoch, score.blueprint, gain))

    def note_field(self, report: leyline.FieldReport) -> None:
        """Take in what was expected of a graft, and what the counterfactual said."""
        place = self.changing(report.seed)
        trial = Gain(report.expected_gain, report.expected_error)
        counterfactual = Gain(report.counterfactual_gain, report.counterfactual_error)
        place.trials.append(Reading(report.epoch, report.blueprint, trial))
        place.counterfactuals.append(Reading(report.epoch, report.blueprint, counterfactual))

    def changing(self, seed: str) -> Place:
        """The place of that name, which is about to change."""
        place = self._places.setdefault(seed, Place(seed))
        place.changed()
        return place

    def _newest_first(self) -> list[leyline.Schema]:
        return [self._schemas[number] for number in sorted(self._schemas, reverse=True)]

    def _read(self, packet: _Packet) -> None:
        """Turn a packet's rows into marks, or keep it until its names are known."""
        schema = self._schemas.get(packet.schema_id)
        if schema is None:
            self._waiting.append(packet)
            return
        sites = [site.name for site in schema.sites]
        for row, values in packet.rows:
            stage, site, blueprint, parameters, alpha, *gains, embargo = values
            self.changing(_name(schema.seeds, row)).marks[packet.epoch] = Mark(
                epoch=packet.epoch,
                stage=Stage(stage),
                site=_name(sites, site),
                blueprint=_name(schema.blueprints, blueprint),
                parameters=parameters,
                alpha=alpha,
                trial=Gain(*gains[:2]),
                counterfactual=Gain(*gains[2:]),
                embargo_epochs_left=embargo,
            )


def is_stage(number: int) -> bool:
    """Whether a number that anybody may have sent is that of a stage."""
    return Stage.DORMANT <= number <= Stage.ROLLED_BACK


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else f"#{index}"
