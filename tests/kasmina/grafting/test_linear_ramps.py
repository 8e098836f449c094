"""Linear ramps as columns: the same alphas as one ramp at a time, exact at both ends."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kasmina.grafting.linear_ramps import LinearRamps

moves = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 11), st.integers(-1, 6)),
        st.tuples(st.just("end"), st.integers(0, 11), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=100)
@given(moves)
def test_many_ramps_are_as_many_single_ones(actions: list[tuple[str, int, int]]) -> None:
    """Begun, ended and begun again in any order: each row has its own quotient, others stay."""
    ramps, alpha = LinearRamps(), np.full(12, -1.0, dtype=np.float32)
    model: dict[int, list[int]] = {}
    expected = alpha.copy()
    for action, row, num_steps in actions:
        if action == "begin":
            ramps.begin(f"a/{row}", row, num_steps)
            model[row] = [0, max(1, num_steps)]
        elif action == "end":
            ramps.end(f"a/{row}")
            model.pop(row, None)
        else:
            ramps.step(alpha)
            for at, ramp in model.items():
                ramp[0] = min(ramp[0] + 1, ramp[1])
                expected[at] = ramp[0] / ramp[1]
        assert alpha.tobytes() == expected.tobytes()
        assert {seed: ramps.position(seed) for seed in ramps} == {
            f"a/{at}": tuple(ramp) for at, ramp in model.items()
        }
        assert len(ramps) == len(model)


@given(st.integers(1, 2**31 - 1))
def test_the_end_is_exactly_one_and_nothing_before_it_is_after_it(num_steps: int) -> None:
    """However long the ramp, alpha is 1.0 at its last step and stays."""
    ramps, alpha = LinearRamps(), np.zeros(1, dtype=np.float32)
    ramps.begin("a/0", 0, num_steps, steps_done=num_steps - 1)
    for _ in range(2):
        ramps.step(alpha)
        assert alpha[0] == 1.0
        assert ramps.position("a/0") == (num_steps, num_steps)
