"""Plain values: what a policy may save is what a checkpoint gives back."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import PolicyError
from tamiyo.plain_values import plain_state

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=4))
def test_what_is_taken_survives_a_file(state: dict[str, Any]) -> None:
    """Every value that is taken comes back from JSON as it was, and is a copy."""
    copied = plain_state(state)
    assert copied == state
    assert json.loads(json.dumps(copied)) == state
    assert copied is not state


def test_a_copy_shares_nothing() -> None:
    """What the policy changes later does not change what was saved; tuples are lists there."""
    inner = [1, (2, 3)]
    copied = plain_state({"a": inner})
    inner.append(9)
    assert copied == {"a": [1, [2, 3]]}


class Odd(float):
    """A number with a type of its own."""


def test_a_number_is_kept_as_a_number() -> None:
    """A subclass is saved as what a file would give back."""
    assert type(plain_state({"x": Odd(0.5)})["x"]) is float


def _ring() -> dict[str, Any]:
    ring: dict[str, Any] = {}
    ring["self"] = ring
    return ring


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "gave a NoneType; it must give a dict"),
        ([1], "gave a list"),
        ({"a": math.nan}, r"state_dict\(\)\['a'\] is nan"),
        ({"a": [1, math.inf]}, r"\['a'\]\[1\] is inf"),
        ({"a": 2**63}, r"\['a'\] is 9223372036854775808"),
        ({"a": {1: 2}}, r"\['a'\] is a dict"),
        ({"a": {1, 2}}, r"\['a'\] is a set"),
        ({"a": b"x"}, "is a bytes"),
        ({"a": object()}, "is a object"),
        ({"a": "\ud800"}, "is a str"),
        ({"\ud800": 1}, r"state_dict\(\) is a dict"),
        ({"a": 1j}, "is a complex"),
        (_ring(), "is too large"),
        ({"a": [0] * 200_000}, "is too large: at most 100,000 values"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_what_no_file_gives_back_is_refused_by_its_place(state: Any, said: str) -> None:
    """The error says where it is and what it is, and what may be there."""
    with pytest.raises(PolicyError, match=said):
        plain_state(state)
