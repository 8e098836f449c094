"""Adaptive grafting: at every step the strategy that suits what is going on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kasmina.grafting.drift_controlled import DriftControlledGrafting, DriftOptions
from kasmina.grafting.momentum import MomentumGrafting
from kasmina.grafting.options import option
from kasmina.grafting.signals import Signals
from kasmina.grafting.strategy import GraftingStrategy
from kasmina.grafting.trend import gain_of


@dataclass(frozen=True)
class AdaptiveOptions:
    """When to switch; everything else is as the strategies switched among have it."""

    drift_limit: float = option(0.01, low=0.0)
    """As in drift-controlled grafting, which takes over above half of it."""
    pause_steps: int = option(10, low=1)
    """As in drift-controlled grafting."""
    gain_limit: float = option(0.01, low=0.0)
    """Relative fall of the loss above which momentum grafting takes over: about what a loss that
    falls by a thousandth each step shows."""


class AdaptiveGrafting(GraftingStrategy):
    """Drift-controlled above half the drift limit, else momentum on gains, else linear.

    There is one alpha, and a strategy only says how far it moves: at a switch it does not jump.
    """

    Options = AdaptiveOptions
    asks_for = DriftControlledGrafting.asks_for | MomentumGrafting.asks_for

    def __init__(self, num_steps: int, options: AdaptiveOptions | None = None):
        super().__init__(num_steps, options)
        limits = DriftOptions(self.options.drift_limit, self.options.pause_steps)
        self._drift_controlled = DriftControlledGrafting(num_steps, limits)
        self._momentum = MomentumGrafting(num_steps)

    @property
    def mode(self) -> str:
        """The strategy of the newest step: "drift_controlled", "momentum" or "linear"."""
        drift = self._drift_controlled.drift
        if drift is not None and drift > self.options.drift_limit / 2:
            return "drift_controlled"
        gains = gain_of(self._momentum.averages) > self.options.gain_limit
        return "momentum" if gains else "linear"

    @property
    def max_steps(self) -> int:
        """A ramp at the slowest rise and the longest holds."""
        held = self._drift_controlled.max_steps - self.num_steps
        return self._momentum.max_steps + held

    @property
    def max_rise(self) -> float:
        """As of momentum grafting."""
        return self._momentum.max_rise

    def observe(self, signals: Signals) -> None:
        """Keep every strategy ready to take over."""
        self._drift_controlled.observe(signals)
        self._momentum.observe(signals)

    def progress(self) -> float:
        """As the strategy of this step moves."""
        mode = self.mode
        if mode == "drift_controlled":
            return self._drift_controlled.progress()
        return self._momentum.progress() if mode == "momentum" else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Its own position and the state of the strategies it switches among."""
        return {
            "position": self.position,
            "drift_controlled": self._drift_controlled.state_dict(),
            "momentum": self._momentum.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.position = state["position"]
        self._drift_controlled.load_state_dict(state["drift_controlled"])
        self._momentum.load_state_dict(state["momentum"])
