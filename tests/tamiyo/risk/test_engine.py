"""The risk engine: it rises at once, falls step by step, and no anomaly becomes the usual."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import RiskLevel
from tamiyo.risk.engine import Assessment, RiskEngine
from tamiyo.risk.rules import RiskRules
from tamiyo.risk.signals import Chance, Signals
from tamiyo.risk.usual import Usual

RULES = RiskRules(rollbacks_critical=4)
CALM = Signals()
COUNTS = [f.name for f in fields(Signals) if f.name.startswith("num_")]

chances = st.builds(
    Chance,
    overruns_in_a_row=st.integers(0, 8),
    memory_share=st.sampled_from([0.0, 0.5, 0.9, 1.0, 1.01, 5.0]),
    num_short_since_rollback=st.integers(0, 4),
    saves_held=st.booleans(),
    replayed=st.none(),
)
norms = st.none() | st.floats(0.0, 1e3)
signals = st.builds(
    Signals,
    **dict.fromkeys(COUNTS, st.just(0) | st.integers(0, 4)),
    has_unsettled=st.booleans(),
    gradient_norm=norms,
    gradient_variance=norms,
    chance=st.just(Chance()) | chances,
)
mostly_calm = st.lists(st.just(CALM) | signals, max_size=8)


def assessed(engine: RiskEngine, course: Sequence[Signals]) -> list[Assessment]:
    return [engine.assess(each) for each in course]


def after(course: Sequence[Signals]) -> RiskEngine:
    engine = RiskEngine(RULES)
    assessed(engine, course)
    return engine


def more(one: Signals, other: Signals) -> Signals:
    """At least as much of everything as in either."""
    chance = Chance(
        overruns_in_a_row=max(one.chance.overruns_in_a_row, other.chance.overruns_in_a_row),
        memory_share=max(one.chance.memory_share, other.chance.memory_share),
        num_short_since_rollback=max(
            one.chance.num_short_since_rollback, other.chance.num_short_since_rollback
        ),
        saves_held=one.chance.saves_held or other.chance.saves_held,
    )
    return Signals(
        **{name: max(getattr(one, name), getattr(other, name)) for name in COUNTS},
        has_unsettled=one.has_unsettled or other.has_unsettled,
        gradient_norm=max(one.gradient_norm or 0.0, other.gradient_norm or 0.0),
        gradient_variance=max(one.gradient_variance or 0.0, other.gradient_variance or 0.0),
        chance=chance,
    )


@settings(max_examples=50, deadline=None)
@given(mostly_calm, signals, signals)
def test_more_of_any_signal_is_no_lower_level(
    course: list[Signals], one: Signals, other: Signals
) -> None:
    """Wherever a run stands: a boundary with at least as much of everything comes out as high."""
    assert after(course).assess(more(one, other)).level >= after(course).assess(one).level


def own_level(engine: RiskEngine, each: Signals) -> RiskLevel:
    """What a boundary says by itself, to a run with these rollbacks and norms behind it."""
    probe = RiskEngine(RULES)
    probe.load_state_dict({**engine.state_dict(), "level": 0, "num_calm": 0})
    return probe.assess(each).level


@settings(max_examples=50, deadline=None)
@given(mostly_calm)
def test_it_rises_at_once_and_falls_by_one_after_calm_boundaries_only(
    course: list[Signals],
) -> None:
    """It is at once what a boundary says if that is no less; else it stays, and falls by one level
    at the second boundary in a row that says less. A run that stays calm comes to GREEN."""
    engine, num_calm = RiskEngine(RULES), 0
    for each in [*course, *[CALM] * 20]:
        was, own = engine.level, own_level(engine, each)
        level = engine.assess(each).level
        num_calm = num_calm + 1 if own < was else 0
        falls = num_calm == RULES.calm_boundaries
        assert level == (own if own >= was else was - falls)
        num_calm = 0 if falls else num_calm
    assert engine.level is RiskLevel.GREEN


@pytest.mark.parametrize(
    ("signal", "values", "levels"),
    [
        ("num_outliers", (2, 3, 30), "GYY"),
        ("num_spikes", (1, 9), "YY"),
        ("num_non_finite", (1, 9), "RR"),
        ("num_rollbacks", (1, 2, 4), "RRC"),
        ("gradient_norm", (3.9, 4.0, 15.0, 16.0, 1e9), "GYYOO"),
        ("gradient_variance", (15.0, 16.0, 255.0, 256.0, 1e9), "GYYOO"),
        ("num_breakers_open", (1, 2, 3), "YOO"),
        ("overruns_in_a_row", (2, 3, 99), "GYY"),
        ("memory_share", (0.89, 0.9, 1.0, 1.01), "GYYO"),
        ("num_short_since_rollback", (2, 3, 4), "GCC"),
        ("saves_held", (True,), "Y"),
    ],
)
def test_each_signal_alone(signal: str, values: tuple[float, ...], levels: str) -> None:
    """After six boundaries with norms of 1 and with a graft unsettled, value by value; without an
    unsettled graft a norm is yellow at most."""
    usual = Signals(gradient_norm=1.0, gradient_variance=1.0)
    found = {}
    for has_unsettled in (True, False):
        one = replace(usual, has_unsettled=has_unsettled)
        is_chance = signal in {field.name for field in fields(Chance)}
        each = [
            replace(one, chance=Chance(**{signal: value}))  # type: ignore[arg-type] # by its field
            if is_chance
            else replace(one, **{signal: value})  # type: ignore[arg-type] # by its field
            for value in values
        ]
        engines = [after([usual] * 6) for _ in each]
        found[has_unsettled] = [e.assess(s).level for e, s in zip(engines, each, strict=True)]
    assert "".join(level.name[0] for level in found[True]) == levels
    most = RiskLevel.YELLOW if signal.startswith("gradient") else RiskLevel.CRITICAL
    assert found[False] == [min(level, most) for level in found[True]]


def test_red_takes_six_calm_boundaries_to_green() -> None:
    """Two for each level, whose names come one after the other, with the cause until the end."""
    engine = RiskEngine()
    assert engine.assess(Signals(num_rollbacks=1, num_non_finite=1)).level is RiskLevel.RED
    found = assessed(engine, [CALM] * 7)
    assert [each.level.name for each in found] == [
        *("RED", "ORANGE", "ORANGE", "YELLOW", "YELLOW", "GREEN", "GREEN")
    ]
    assert found[0].causes == (
        "values that are not finite: 1",
        "rollbacks: 1",
        "calm for 1 of 2 boundaries",
    )
    assert found[-1].causes == ()


@settings(max_examples=50, deadline=None)
@given(mostly_calm, mostly_calm)
def test_saved_at_any_point_it_goes_on_alike(before: list[Signals], then: list[Signals]) -> None:
    """The state goes through JSON; every later assessment is the same to the last word."""
    engine = after(before)
    resumed = RiskEngine(RULES)
    resumed.load_state_dict(json.loads(json.dumps(engine.state_dict())))
    assert assessed(resumed, then) == assessed(engine, then)
    assert resumed.state_dict() == engine.state_dict()


@given(
    st.lists(st.floats(0.5, 1.5), min_size=4, max_size=12),
    st.lists(st.floats(10.0, 1e9), min_size=1, max_size=2),
    st.floats(0.1, 1e3),
)
def test_an_anomaly_is_no_part_of_the_usual(
    usual: list[float], anomalies: list[float], then: float
) -> None:
    """After one or two values far above the usual the next one is judged as if they had not been;
    so is it after one that is not finite."""
    looking, twin = Usual(4.0), Usual(4.0)
    for value in usual:
        assert looking.take(value) == twin.take(value)
    for value in [*anomalies, float("inf"), float("nan")]:
        looking.take(value)
    assert looking.take(then) == twin.take(then)


def test_the_third_in_a_row_is_how_things_are_now() -> None:
    """Gradients that stay ten times as large are told three times, then they are the usual."""
    looking = Usual(4.0)
    assert [looking.take(1.0) for _ in range(6)] == [0.0] * 4 + [1.0] * 2
    assert [looking.take(10.0) for _ in range(8)] == [10.0] * 3 + [0.0] * 4 + [1.0]


@settings(max_examples=50, deadline=None)
@given(mostly_calm.map(lambda course: [replace(s, num_rollbacks=0) for s in course]))
def test_what_is_finite_stays_below_red(course: list[Signals]) -> None:
    """Without a value that is not finite, a rollback, or memory short for long, a run is never
    held; with no graft unsettled, memory within its limit and no two breakers open it is slowed at
    most; time alone never does more than that."""
    tame = [
        replace(s, num_non_finite=0, chance=replace(s.chance, num_short_since_rollback=0))
        for s in course
    ]
    assert after(tame).level <= RiskLevel.ORANGE
    tamer = [
        replace(
            s,
            has_unsettled=False,
            num_breakers_open=min(s.num_breakers_open, 1),
            chance=replace(s.chance, memory_share=min(s.chance.memory_share, 1.0)),
        )
        for s in tame
    ]
    assert after(tamer).level <= RiskLevel.YELLOW


@pytest.mark.parametrize("level", RiskLevel)
@given(chances)
def test_what_chance_said_before_a_resume_counts_in_place_of_what_it_says_now(
    level: RiskLevel, now: Chance
) -> None:
    """And it is on record again, at the same level."""
    found = RiskEngine().assess(Signals(chance=replace(now, replayed=level)))
    assert (found.level, found.by_chance) == (level, level)
    said = RiskEngine().assess(Signals(chance=now))
    assert said.by_chance is said.level


def test_the_run_ends_only_where_it_was_asked_for() -> None:
    """Any number of rollbacks is red without `rollbacks_critical`; with it the one that makes them
    so many within the window is critical. What is left over of it ends nothing: a resumed run can
    go on, until the next."""
    endless = [Signals(num_rollbacks=1)] * 30
    assert {found.level for found in assessed(RiskEngine(), endless)} == {RiskLevel.RED}
    course = [*endless[:4], *[CALM] * 3, endless[0], *[CALM] * 12, endless[0]]
    found = assessed(RiskEngine(RULES), course)
    assert [at for at, each in enumerate(found, 1) if each.ends_run] == [4, 8]
    assert [each.level.name for each in found[3:7]] == ["CRITICAL"] * 2 + ["RED"] * 2


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), max_size=20))
def test_time_and_disks_change_no_pace(course: list[tuple[int, bool, bool]]) -> None:
    """Whatever the run's own signals are: overruns and disks that refuse leave what alpha goes by
    as it is without them, and without them it is the level."""
    quick, busy = RiskEngine(), RiskEngine()
    for num_outliers, goes_back, is_slow in course:
        own = Signals(num_outliers=num_outliers, num_rollbacks=int(goes_back))
        chance = Chance(overruns_in_a_row=9 * is_slow, saves_held=is_slow)
        quick.assess(own)
        busy.assess(replace(own, chance=chance))
        assert quick.level == quick.pace == busy.pace
        assert busy.level >= busy.pace
