"""Boundaries as a policy meets them, built from plain rows."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

import leyline
from leyline import COLUMN_FORMATS, Candidate, Schema, SiteInfo, Stage, StatePacket
from tamiyo import State

NAN = float("nan")
SITES = ("block1", "block2", "block3")
BLUEPRINTS = ("conv", "low_rank", "norm")
PARAMETERS = {"conv": 300, "low_rank": 100, "norm": 10}
CANDIDATES = tuple((site, blueprint) for site in SITES for blueprint in BLUEPRINTS)


@dataclass(frozen=True)
class Row:
    """One seed, as the state table holds it; measurements not made are NaN."""

    seed: str
    blueprint: str = "conv"
    stage: Stage = Stage.DORMANT
    epochs_in_stage: int = 1
    grafting_strategy: int = 0
    parameters: int = 300
    alpha: float = 0.0
    error_count: int = 0
    embargo_epochs_left: int = 0
    trial_steps: int = 0
    trial_gain: float = NAN
    trial_error: float = NAN
    counterfactual_gain: float = NAN
    counterfactual_error: float = NAN

    @property
    def site(self) -> str:
        return self.seed.rpartition("/")[0]


def tried(seed: str, gain: float, error: float = 0.01, **cells: Any) -> Row:
    """A seed whose trial is over."""
    known = Row(seed, stage=Stage.TRAINING, trial_steps=200, trial_gain=gain, trial_error=error)
    return replace(known, **cells)


def grafted(seed: str, stage: Stage, **cells: Any) -> Row:
    """A seed in the live model at alpha 1, an epoch after it came to its stage."""
    return replace(Row(seed, stage=stage, alpha=1.0), **cells)


def judged(seed: str, gain: float, error: float) -> Row:
    """A seed in EVALUATING whose counterfactual is measured."""
    return grafted(seed, Stage.EVALUATING, counterfactual_gain=gain, counterfactual_error=error)


def boundary(
    *rows: Row,
    epoch: int = 20,
    num_epochs: int = 100,
    host_parameters: int = 1000,
    grown_parameters: int = 0,
    param_budget: int = 1000,
    trials_possible: bool = True,
    candidates: Sequence[tuple[str, str]] = CANDIDATES,
    parameters: dict[str, int] = PARAMETERS,
    step_costs: dict[str, float] | None = None,
    metrics: dict[str, float] | None = None,
    **known: Any,
) -> tuple[StatePacket, Schema]:
    """A state packet and its schema."""
    sites = tuple(dict.fromkeys([*SITES, *(site for site, _ in candidates)]))
    blueprints = tuple(dict.fromkeys([*BLUEPRINTS, *(kind for _, kind in candidates)]))

    measured = {"loss": 0.5, "accuracy": 0.75} if metrics is None else metrics

    def cell(row: Row, name: str) -> float:
        if name == "site":
            return sites.index(row.site)
        if name == "blueprint":
            return -1 if row.stage is Stage.DORMANT else blueprints.index(row.blueprint)
        value: float = getattr(row, name)
        return value

    columns = {
        name: memoryview(array(item, [cell(row, name) for row in rows]))
        for name, item in COLUMN_FORMATS.items()
        if name != "metrics"
    }
    schema = Schema(
        run_id="run",
        schema_id=1,
        sites=tuple(
            SiteInfo(name=site, shape=(8, 4), channels=4, accepts=blueprints) for site in sites
        ),
        blueprints=blueprints,
        candidates=tuple(
            Candidate(
                site=site,
                blueprint=kind,
                parameters=parameters.get(kind, 1),
                flops=2,
                step_cost=(step_costs or {}).get(kind, 0.0),
            )
            for site, kind in candidates
        ),
        metrics=tuple(measured),
        seeds=tuple(row.seed for row in rows),
    )
    packet = StatePacket(
        schema_id=1,
        epoch=epoch,
        step=epoch * 10,
        num_epochs=num_epochs,
        host_parameters=host_parameters,
        grown_parameters=grown_parameters,
        param_budget=param_budget,
        trials_possible=trials_possible,
        metrics=memoryview(array("d", measured.values())),
        **columns,
        **known,
    )
    return packet, schema


def state(*rows: Row, **options: Any) -> State:
    """The same as a policy's state."""
    return State(*boundary(*rows, **options))


def sent(packet: StatePacket, schema: Schema) -> tuple[StatePacket, Schema]:
    """The same after a journey as bytes."""
    arrived = leyline.decode(leyline.encode(packet)), leyline.decode(leyline.encode(schema))
    assert isinstance(arrived[0], StatePacket)
    assert isinstance(arrived[1], Schema)
    return arrived


def measurements(low: float = -1.0, high: float = 1.0) -> st.SearchStrategy[float]:
    """Measured values as the table holds them, or "not measured"."""
    return st.one_of(st.just(NAN), st.floats(low, high, width=32))


@st.composite
def rows(draw: st.DrawFn, stages: Sequence[Stage] = tuple(Stage)) -> tuple[Row, ...]:
    """Up to eight seeds in any of these stages."""
    places = draw(st.lists(st.sampled_from(SITES), max_size=8))
    return tuple(
        Row(
            seed=f"{site}/{places[:number].count(site)}",
            blueprint=(kind := draw(st.sampled_from(BLUEPRINTS))),
            stage=draw(st.sampled_from(stages)),
            epochs_in_stage=draw(st.integers(0, 2)),
            parameters=PARAMETERS[kind],
            alpha=draw(st.sampled_from([0.0, 0.5, 1.0])),
            error_count=draw(st.sampled_from([0, 0, 0, 1])),
            embargo_epochs_left=draw(st.sampled_from([0, 3])),
            trial_steps=draw(st.sampled_from([50, 200])),
            trial_gain=draw(measurements()),
            trial_error=draw(measurements(low=0.0)),
            counterfactual_gain=draw(measurements()),
            counterfactual_error=draw(measurements(low=0.0)),
        )
        for number, site in enumerate(places)
    )


@st.composite
def boundaries(draw: st.DrawFn) -> tuple[StatePacket, Schema]:
    """Any boundary of any run."""
    num_epochs = draw(st.sampled_from([0, 10, 100]))
    return boundary(
        *draw(rows()),
        epoch=draw(st.integers(1, num_epochs or 50)),
        num_epochs=num_epochs,
        grown_parameters=draw(st.integers(0, 1000)),
        trials_possible=draw(st.booleans()),
        metrics={"val_loss": draw(st.sampled_from([0.5, 0.499, 0.1])), "train_loss": 0.49},
        risk_level=draw(st.sampled_from([0, 0, 0, 1, 2, 4])),
    )
