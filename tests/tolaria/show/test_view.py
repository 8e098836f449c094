"""The view of a run: what it folds, what it tolerates, what it says."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from array import array
from itertools import groupby

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from leyline import PRIORITIES, Priority, Stage
from tests.tolaria.show.events import a_run, schema, started
from tolaria.show.latency import percentile
from tolaria.show.plain import view_dict
from tolaria.show.view import RunView

RUN = a_run()


def view_of(events: list[leyline.Event]) -> RunView:
    view = RunView()
    for event in events:
        view.apply(event)
    return view


def merged(rng: random.Random) -> list[leyline.Event]:
    """The run's events with its lanes shuffled into one another, each lane in its own order."""
    lanes = {
        lane: [event for event in RUN if PRIORITIES[type(event)] == lane][::-1] for lane in Priority
    }
    order = [lane for lane, events in lanes.items() for _ in events]
    rng.shuffle(order)
    return [lanes[lane].pop() for lane in order]


def without_reports(events: list[leyline.Event]) -> list[leyline.Event]:
    return [event for event in events if not isinstance(event, leyline.SeedReport)]


def test_lives_and_outcomes_of_a_whole_run() -> None:
    """Forty cancelled candidates, two fossils and one cull are all still there at the end."""
    seeds = view_dict(view_of(RUN))["seeds"]
    stages = [seed["stage"] for seed in seeds]
    assert {stage: stages.count(stage) for stage in stages} == {
        "CANCELLED": 40,
        "FOSSILIZED": 2,
        "CULLED": 1,
    }


def test_a_reused_place_keeps_each_life_apart() -> None:
    """A seed has one life per germination, each with the blueprint and gain it had then."""
    births: dict[str, list[str]] = {}
    for event in RUN:
        if isinstance(event, leyline.SeedReport) and event.now == Stage.GERMINATED:
            births.setdefault(event.seed, []).append(event.blueprint)
    assert max(map(len, births.values())) >= 3
    view = view_of(RUN)
    for seed, blueprints in births.items():
        lives = [life for life in view_dict(view)["seeds"] if life["seed"] == seed]
        assert [life["blueprint"] for life in lives] == blueprints
        assert [life["life"] for life in lives] == list(range(1, len(lives) + 1))
    for decision in view.decisions:
        for score in decision.scores:
            told = [
                life.trial.value
                for life in view.seeds
                if life.seed == score.seed and life.owns(decision.epoch, score.blueprint)
            ]
            assert told == [pytest.approx(score.gain, rel=1e-6)]


def test_history_is_the_way_through_the_stages() -> None:
    """The culled seed's history names every stage it passed, from DORMANT, in order."""
    culled = next(seed for seed in view_dict(view_of(RUN))["seeds"] if seed["stage"] == "CULLED")
    assert culled["history"] == [
        "DORMANT",
        "GERMINATED",
        "TRAINING",
        "GRAFTING",
        "STABILIZATION",
        "EVALUATING",
        "CULLED",
    ]
    assert "without it the loss is lower" in culled["cause"]


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_lanes_may_overtake_one_another(rng: random.Random) -> None:
    """However the bus's lanes are merged, the view at the end is the same."""
    assert view_dict(view_of(merged(rng))) == view_dict(view_of(RUN))


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.floats(0, 1))
def test_lost_metrics_lose_no_life_and_no_decision(rng: random.Random, kept: float) -> None:
    """Whatever of the metric lane is lost, decisions, lives, gains and boundaries are whole."""
    some = [
        event for event in RUN if PRIORITIES[type(event)] > Priority.METRIC or rng.random() < kept
    ]
    whole, partial = view_dict(view_of(RUN)), view_dict(view_of(some))
    assert partial["decisions"] == whole["decisions"]
    assert partial["boundaries"] == whole["boundaries"]
    assert partial["metrics"] == whole["metrics"]
    assert partial["parameters"] == whole["parameters"]
    for seen, expected in zip(partial["seeds"], whole["seeds"], strict=True):
        for key, value in expected.items():
            near = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            assert seen[key] == near, key


@settings(max_examples=15, deadline=None)
@given(st.permutations(RUN), st.integers(0, len(RUN)))
def test_any_events_in_any_order_are_survived(events: list[leyline.Event], num: int) -> None:
    """No order and no loss of events raises, and the result is still JSON."""
    json.dumps(view_dict(view_of(events[:num])), allow_nan=False)


@pytest.mark.parametrize("first_epoch", [4, 8, 13, 20, 29])
def test_a_late_joiner_sees_what_lives(first_epoch: int) -> None:
    """Joining at any epoch shows the grafted seeds as a watcher from the start sees them."""
    late = [event for event in RUN if getattr(event, "epoch", 99) >= first_epoch]
    keys = ("seed", "site", "blueprint", "stage", "alpha", "parameters")
    early_joiner, late_joiner = (
        sorted(
            [seed[key] for key in keys]
            for seed in view_dict(view)["seeds"]
            if seed["stage"] == "FOSSILIZED"
        )
        for view in (view_of(RUN), view_of([schema(), *late]))
    )
    assert late_joiner == early_joiner


def test_lives_are_inferred_from_packets_alone() -> None:
    """Without a single report, another blueprint at a place is another life, and grafts show."""
    whole, packets = view_of(RUN), view_of(without_reports(RUN))
    for place in {life.seed for life in whole.seeds}:
        lives = [life.blueprint for life in whole.seeds if life.seed == place]
        inferred = [life.blueprint for life in packets.seeds if life.seed == place]
        assert inferred == [blueprint for blueprint, _ in groupby(lives)]

    def touched(view: RunView) -> set[tuple[str, str, Stage]]:
        return {(life.seed, life.blueprint, life.stage) for life in view.seeds if life.touched_host}

    assert touched(packets) == touched(whole)


def test_a_lost_end_does_not_join_two_blueprints() -> None:
    """Where the reports of a cancelled trial and of the next germination are lost, packets tell."""
    known = [
        event
        for event in RUN
        if not isinstance(event, leyline.SeedReport)
        or (event.epoch == 3 and event.now in (Stage.GERMINATED, Stage.TRAINING))
    ]
    whole = view_of(RUN)
    for place in {life.seed for life in whole.seeds}:
        lives = [life.blueprint for life in whole.seeds if life.seed == place]
        seen = [life.blueprint for life in view_of(known).seeds if life.seed == place]
        assert seen == [blueprint for blueprint, _ in groupby(lives)]


def test_parameters_are_the_newest_known() -> None:
    """A packet is filled before its boundary's graft: read late, it does not undo the count."""
    at_18 = [event for event in RUN if getattr(event, "epoch", 99) == 18]
    assert view_of(at_18).parameters == view_of(at_18[::-1]).parameters == 32_130


def test_events_delivered_twice_count_once() -> None:
    """An at-least-once reader that repeats every event changes nothing."""
    doubled = [event for event in RUN for _ in range(2)]
    assert view_dict(view_of(doubled)) == view_dict(view_of(RUN))


def test_a_resumed_run_replaces_what_it_lives_through_again() -> None:
    """Epochs lost to a crash and lived again leave no trace: the view equals the undisturbed."""
    at_12 = [event for event in RUN if getattr(event, "epoch", 0) <= 12]
    crashed = [event for event in a_run(99) if 12 < getattr(event, "epoch", 0) <= 16]
    after = [event for event in RUN if getattr(event, "epoch", 0) > 12]
    steps = [event for event in RUN if isinstance(event, leyline.StepMetrics)]
    resumed = view_of([*at_12, *crashed, started(epoch=12, resumed=True), *after, *steps])
    expected = view_dict(view_of(RUN))
    assert resumed.num_resumes == 1
    assert {**view_dict(resumed), "faults": []} == {**expected, "faults": []}


def test_a_resume_with_nothing_to_do_is_at_the_step_of_its_epoch() -> None:
    """Also where it goes on from an earlier epoch: the steps after that are forgotten."""
    whole = view_of(RUN)
    assert view_of([*RUN, started(epoch=whole.epoch, resumed=True)]).step == whole.step > 0
    (at_12,) = (e.step for e in RUN if isinstance(e, leyline.EpochMetrics) and e.epoch == 12)
    assert view_of([*RUN, started(epoch=12, resumed=True)]).step == at_12


def test_a_decoded_event_shows_as_a_direct_one() -> None:
    """`esper watch` and `esper train` see the same: the codec loses nothing the view needs."""
    decoded = [leyline.decode(leyline.encode(event)) for event in RUN]
    assert view_dict(view_of(decoded)) == view_dict(view_of(RUN))  # type: ignore[arg-type]


def test_a_packet_is_copied() -> None:
    """The run goes on writing its columns after the event; the view keeps what they said."""
    packet = next(e for e in RUN if isinstance(e, leyline.StatePacket) and e.epoch == 6)
    alpha = array("f", packet.column("alpha"))
    live = msgspec.structs.replace(packet, alpha=memoryview(alpha))
    view = view_of([schema(), live])
    before = [life.alpha for life in view.seeds]
    alpha[:] = array("f", [0.5] * len(alpha))
    assert [life.alpha for life in view.seeds] == before != [0.5]


def test_the_dict_has_the_promised_keys_and_no_nan() -> None:
    """Seeds, boundaries and decisions carry the keys a test may rely on; NaN is None."""
    fields = view_dict(view_of(RUN))
    json.dumps(fields, allow_nan=False)
    assert set(fields["boundaries"][0]) == {
        *("epoch", "gather_ms", "decide_ms", "apply_ms", "total_ms", "outside_ms")
    }
    assert set(fields["seeds"][0]) == {
        *("seed", "life", "site", "blueprint", "stage", "alpha", "parameters", "history", "cause"),
        *("trial_gain", "trial_error", "counterfactual_gain", "counterfactual_error"),
    }
    assert {"epoch", "policy", "cause", "commands", "scores"} <= set(fields["decisions"][0])
    kinds = {command["kind"] for item in fields["decisions"] for command in item["commands"]}
    assert kinds == {"germinate", "advance", "cull"}
    cancelled = next(seed for seed in fields["seeds"] if seed["stage"] == "CANCELLED")
    assert cancelled["counterfactual_gain"] is None


def test_an_empty_run_has_an_empty_view() -> None:
    """Nothing applied, nothing claimed."""
    view = RunView()
    fields = view_dict(view)
    assert (fields["seeds"], fields["boundaries"], fields["decisions"]) == ([], [], [])
    assert math.isnan(view.latency(95).total)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], q: float) -> None:
    """A percentile equals NumPy's, linear between ranks."""
    assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)))


def test_p95_is_of_the_sums() -> None:
    """The boundary's p95 is the percentile of each boundary's sum, not the sum of percentiles."""
    timings = [event for event in RUN if isinstance(event, leyline.BoundaryTiming)]
    totals = [timing.gather_ms + timing.decide_ms + timing.apply_ms for timing in timings]
    latency = view_of(RUN).latency(95)
    assert latency.total == pytest.approx(float(np.percentile(totals, 95)))
    apply_ms = [timing.apply_ms for timing in timings]
    assert latency.apply == pytest.approx(float(np.percentile(apply_ms, 95)))


def test_the_metrics_before_growth_are_those_of_the_grafts_epoch() -> None:
    """The first graft takes effect after epoch 4, so epoch 4 is the last without growth."""
    view = view_of(RUN)
    assert view.first_graft_epoch == 4
    assert view.metrics_at(4) == view.metrics[4]


def test_the_view_is_light() -> None:
    """Importing the view pulls in neither torch nor rich."""
    code = (
        "import sys, tolaria.show.view; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
