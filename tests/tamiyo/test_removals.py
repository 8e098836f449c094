"""Removals: each time a blueprint is taken out of the same place, its embargo doubles."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import Cull, Stage
from tamiyo import HeuristicPolicy, HeuristicRules, RandomPolicy, RandomRules, State
from tamiyo.removals import Removals
from tests.tamiyo.boundaries import Row, judged, state

USELESS = judged("block1/0", -0.5, 0.01)
OUT = Row("block1/0", stage=Stage.CULLED, embargo_epochs_left=3)


def embargo(policy: HeuristicPolicy | RandomPolicy, row: Row = USELESS) -> int:
    """The embargo of the cull that the policy asks for."""
    (cull,) = [c for c in policy.decide(state(row)).commands if isinstance(c, Cull)]
    return cull.embargo_epochs


def test_doubled_on_repeat() -> None:
    """15, 30, 60 epochs for the same blueprint at the same place, whatever the seed's number; the
    first time 15 for another blueprint or site. The cause of a longer one says so.
    """
    for policy in (HeuristicPolicy(), RandomPolicy()):
        for number, epochs in enumerate((15, 30, 60)):
            row = replace(USELESS, seed=f"block1/{number}")
            assert embargo(policy, row) == epochs
            policy.decide(state(replace(OUT, seed=row.seed)))
        assert embargo(policy, replace(USELESS, blueprint="norm")) == 15
        assert embargo(policy, replace(USELESS, seed="block2/0")) == 15
        cull = policy.decide(state(USELESS)).commands[0]
        assert cull.cause.endswith("so its embargo is 120 epochs")


def test_a_removal_is_counted_once() -> None:
    """However many boundaries a seed stays out, and if some of them never reach the policy."""
    policy = HeuristicPolicy()
    for left in (15, 14, 9, 1):
        policy.decide(state(replace(OUT, embargo_epochs_left=left)))
    assert embargo(policy) == 30


def test_a_rollback_counts_too() -> None:
    """Whoever took it out, the place remembers."""
    policy = HeuristicPolicy(HeuristicRules(embargo_epochs=4))
    policy.decide(state(Row("block1/0", stage=Stage.ROLLED_BACK, embargo_epochs_left=4)))
    assert embargo(policy) == 8


def test_chunks_are_places_of_their_own() -> None:
    """On a site of two chunks, seeds 0 and 2 are on the same one, seed 1 is not."""

    def chunked(row: Row) -> State:
        plain = state(row)
        sites = tuple(msgspec.structs.replace(s, num_chunks=2) for s in plain.schema.sites)
        return State(plain.packet, msgspec.structs.replace(plain.schema, sites=sites))

    removals = Removals()
    removals.note(chunked(OUT))
    for number, epochs in ((0, 10), (1, 5), (2, 10)):
        known = chunked(replace(USELESS, seed=f"block1/{number}"))
        assert removals.embargo_epochs(known, known.rows[0], 5) == epochs


def test_saved() -> None:
    """A resumed policy knows what was out, and how often: it does not count it again."""
    for first, second in ((HeuristicPolicy(), HeuristicPolicy()), (RandomPolicy(), RandomPolicy())):
        first.decide(state(OUT))
        second.load_state_dict(first.state_dict())
        second.decide(state(OUT))
        assert embargo(second) == embargo(first) == 30


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(0, 20))
def test_no_embargo_is_too_long_for_the_table(once: int, times: int) -> None:
    """Doubling ends where the table's 32 bits do."""
    removals = Removals()
    for _ in range(times):
        removals.note(state(OUT))
        removals.note(state())
    known = state(USELESS)
    epochs = removals.embargo_epochs(known, known.rows[0], once)
    assert epochs == min(once * 2 ** min(times, 16), 2**31 - 1)


def test_the_control_takes_its_settings() -> None:
    """What an embargo is the first time is the run's setting."""
    assert embargo(RandomPolicy(RandomRules(embargo_epochs=3))) == 3
