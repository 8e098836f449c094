"""Linear grafting: from above 0 to exactly 1, one step at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kasmina.grafting.strategy import LinearGrafting


@given(st.integers(-3, 5000), st.integers(0, 5000))
def test_the_ramp_rises_to_exactly_one_and_can_be_resumed(num_steps: int, saved_at: int) -> None:
    """It never falls, ends at 1.0 after its steps and stays, also through a save at any step."""
    ramp = LinearGrafting(num_steps)
    length = max(1, num_steps)
    alphas = []
    for step in range(length + 2):
        if step == saved_at:
            other = LinearGrafting(1)
            other.load_state_dict(ramp.state_dict())
            ramp = other
        alphas.append(ramp.next_alpha())
    assert alphas == sorted(alphas)
    assert alphas[0] > 0.0
    assert alphas[length - 1 :] == [1.0] * 3
    assert all(alpha < 1.0 for alpha in alphas[: length - 1])
