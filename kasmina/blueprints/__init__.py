"""What a seed can become. `catalogue` holds code, not state of a run, so it is one per process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from kasmina.blueprints.built_in import BUILT_IN
from kasmina.blueprints.cost import Cost as Cost
from kasmina.blueprints.definition import Blueprint as Blueprint
from kasmina.blueprints.definition import Factory, ShapePredicate, accept_all
from kasmina.blueprints.registry import Catalogue as Catalogue
from kasmina.blueprints.risk import Risk as Risk

_Factory = TypeVar("_Factory", bound=Factory)

ENTRY_POINT_GROUP: Final = "esper.blueprints"
"""Where installed packages offer blueprints: `name = "package.module:factory"`."""

catalogue: Final = Catalogue(ENTRY_POINT_GROUP)
for _blueprint in BUILT_IN:
    catalogue.register(_blueprint)


def register(
    name: str,
    factory: Factory,
    *,
    accepts: ShapePredicate = accept_all,
    risk: Risk = Risk.HIGH,
) -> None:
    """Add a blueprint of your own under a name that configs and schedules can use.

    Args:
        name: an identifier that is not a built-in blueprint's.
        factory: called with a SiteShape (a tuple of sizes, batch first, with `.channels`,
            `.channel_axis` and `.num_spatial`); returns a module that maps a tensor of that shape,
            with any batch size, to one of the same shape and dtype. Its output should be 0 at
            birth, as a zero last layer gives.
        accepts: answers whether it fits a SiteShape.
        risk: how closely the guard watches it; what is declared below HIGH runs faster, and must
            then leave its input, hooks and global random streams alone.

    Raises:
        BlueprintError: the name is a built-in one or not an identifier.
    """
    catalogue.register(Blueprint(name, factory, accepts, risk))


def blueprint(
    name: str, *, accepts: ShapePredicate = accept_all, risk: Risk = Risk.HIGH
) -> Callable[[_Factory], _Factory]:
    """Register the factory below; arguments and errors are those of `register`.

    Returns:
        A decorator that gives the factory back as it was.
    """

    def decorate(factory: _Factory) -> _Factory:
        register(name, factory, accepts=accepts, risk=risk)
        return factory

    return decorate
