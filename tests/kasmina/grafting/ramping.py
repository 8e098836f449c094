"""Help for driving strategies through signals of every kind."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from kasmina.grafting.signals import Signals
from kasmina.grafting.strategies import STRATEGIES, GraftingRecipe
from kasmina.grafting.strategy import GraftingStrategy

OPTIONS: dict[str, dict[str, float]] = {
    "linear": {},
    "drift_controlled": {"pause_steps": 3, "smoothing": 0.5, "max_stretch": 3},
    "momentum": {"momentum": 0.5, "min_velocity": 0.3, "max_velocity": 3},
    "adaptive": {"pause_steps": 2, "gain_limit": 0.001},
    "stability": {"check_steps": 2, "max_failures": 2, "max_retreats": 2},
}
"""Options with which everything happens within a few steps."""

recipes = st.sampled_from(
    [GraftingRecipe(name) for name in STRATEGIES]
    + [GraftingRecipe(name, options) for name, options in OPTIONS.items()]
)
signals = st.builds(
    Signals,
    loss=st.none() | st.floats(-1e3, 1e6),
    weight_drift=st.none() | st.floats(0, 0.1),
    gradient_norm=st.none() | st.floats(0, 100),
)
"""Anything that a sound run may measure."""
courses = st.lists(signals, min_size=1, max_size=8)
"""Signals that are repeated for as long as it takes."""


def calm(loss: float = 1.0) -> Signals:
    return Signals(loss=loss, weight_drift=0.001, gradient_norm=1.0)


def alphas(strategy: GraftingStrategy, course: Iterable[Signals]) -> list[float]:
    return [strategy.step(signal) for signal in course]
