"""The strategies by name, and the recipe that a run grafts by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from kasmina.grafting.adaptive import AdaptiveGrafting
from kasmina.grafting.drift_controlled import DriftControlledGrafting
from kasmina.grafting.linear import LinearGrafting
from kasmina.grafting.momentum import MomentumGrafting
from kasmina.grafting.options import read_options
from kasmina.grafting.stability import StabilityGrafting
from kasmina.grafting.strategy import GraftingStrategy
from leyline import ConfigError

STRATEGIES: Final[Mapping[str, type[GraftingStrategy]]] = MappingProxyType(
    {
        "linear": LinearGrafting,
        "drift_controlled": DriftControlledGrafting,
        "momentum": MomentumGrafting,
        "adaptive": AdaptiveGrafting,
        "stability": StabilityGrafting,
    }
)
"""In the order of the numbers in the state table's column `grafting_strategy`."""


@dataclass(frozen=True)
class GraftingRecipe:
    """Which strategy grafts, with which options.

    Args:
        strategy: a name in STRATEGIES.
        options: some of that strategy's options, by name.

    Raises:
        ConfigError: there is no such strategy or option, or an option is out of bounds.
    """

    strategy: str = "linear"
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.build(1)

    @property
    def number(self) -> int:
        """The strategy's number in the state table."""
        return list(STRATEGIES).index(self.strategy)

    def build(self, num_steps: int) -> GraftingStrategy:
        """A strategy at alpha 0, whose linear ramp would take this many training steps."""
        if self.strategy not in STRATEGIES:
            raise ConfigError(
                f"setting 'grafting' is {self.strategy!r}; it must be one of "
                f"{', '.join(STRATEGIES)}"
            )
        kind = STRATEGIES[self.strategy]
        return kind(num_steps, read_options(kind.Options, self.options, self.strategy))
