"""A blueprint: a factory that builds a module for a site, and a predicate for its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from kasmina.blueprints.cost import Cost, cost_of
from kasmina.blueprints.risk import Risk
from kasmina.guard import attempt, describe
from kasmina.rng import isolated_rng
from kasmina.sites.shape import SiteShape
from leyline import BlueprintError

Factory = Callable[[SiteShape], nn.Module]
ShapePredicate = Callable[[SiteShape], bool]


def accept_all(shape: SiteShape) -> bool:
    """The predicate of a blueprint that fits every floating site."""
    return True


@dataclass(frozen=True)
class Blueprint:
    """A kind of module that a seed can become."""

    name: str
    factory: Factory
    """Builds a module that maps a tensor of the site's shape to one of the same shape."""
    accepts: ShapePredicate = accept_all
    risk: Risk = Risk.HIGH
    built_in: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise BlueprintError(
                f"blueprint name {self.name!r} is not allowed; "
                "use letters, digits and underscores, starting with a letter"
            )

    def fits(self, shape: SiteShape) -> bool:
        """Whether it accepts a site of this shape.

        Raises:
            BlueprintError: its predicate fails.
        """
        fits = attempt(lambda: bool(self.accepts(shape)))
        if isinstance(fits, Exception):
            raise BlueprintError(
                f"blueprint {self.name!r} cannot tell whether it fits a site of shape "
                f"{tuple(shape)}: {describe(fits)}; mend what accepts= was given"
            ) from fits
        return fits

    def build(self, shape: SiteShape, rng_seed: int) -> nn.Module:
        """Build on the CPU with its own random stream; the global one does not move."""
        with isolated_rng(rng_seed):
            return self.factory(shape)

    def cost(self, shape: SiteShape) -> Cost:
        """What it would add at a site of this shape, counted without allocating it.

        Raises:
            BlueprintError: the factory fails.
        """
        return cost_of(self.name, self.factory, shape)
