"""Paired timings: a ratio is that of the pairs, whatever the machine does between them."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from bench.harness import Effort

DRIFTS = st.lists(st.floats(0.5, 20.0), min_size=21, max_size=21)


class Machine:
    """A clock, and actions that take time on it: the longer, the busier the machine is."""

    def __init__(self, drifts: list[float]):
        self.now_ns = 0
        self._drifts = drifts
        self._num_calls = -2  # a call of each comes first

    def action(self, cost_ns: int) -> Callable[[], None]:
        def run() -> None:
            self.now_ns += round(cost_ns * self._drifts[self._num_calls // 3])
            self._num_calls += 1

        return run


@given(DRIFTS, st.integers(10_000, 100_000), st.integers(10_000, 100_000))
def test_a_ratio_does_not_see_what_slows_both(
    drifts: list[float], ours_ns: int, peer_ns: int
) -> None:
    """However busy the machine is in each pair, the ratio is that of the two costs."""
    machine = Machine(drifts)
    effort = Effort(clock_ns=lambda: machine.now_ns)
    found = effort.compare(machine.action(ours_ns), machine.action(peer_ns), num_pairs=21)
    assert abs(found.ratio / (ours_ns / peer_ns) - 1) < 0.001
    assert max(found.band) - min(found.band) < 0.001


def test_the_band_is_the_peer_over_itself() -> None:
    """A peer that is a tenth slower the second time of each pair has a band of 1.1."""
    turns = iter([1_000] + [1_000, 1_100] * 50)
    now_ns = 0

    def peer() -> None:
        nonlocal now_ns
        now_ns += next(turns)

    found = Effort(clock_ns=lambda: now_ns).compare(lambda: None, peer, num_pairs=21)
    assert found.band == (1.1, 1.1)
    assert found.ours_us.p50 == 0.0
    assert found.peer_us.p99 == 1.05


@given(st.integers(1, 1_000))
def test_a_quick_look_does_a_third(full: int) -> None:
    """Never more than the full bench, and never fewer than five where there are five."""
    quick = Effort(is_quick=True).num(full)
    assert quick <= Effort().num(full) == full
    assert quick == max(min(full, 5), full // 3)
