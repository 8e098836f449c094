"""What a seed can become. `catalogue` holds code, not state of a run, so it is one per process."""

from __future__ import annotations

from typing import Final

from kasmina.blueprints.built_in import BUILT_IN
from kasmina.blueprints.registry import Blueprint as Blueprint
from kasmina.blueprints.registry import Catalogue as Catalogue
from kasmina.blueprints.registry import Factory, ShapePredicate, accept_all

catalogue: Final = Catalogue()
for _blueprint in BUILT_IN:
    catalogue.register(_blueprint)


def register(name: str, factory: Factory, *, accepts: ShapePredicate = accept_all) -> None:
    """Add a blueprint of your own under a name that configs and schedules can use.

    Args:
        name: an identifier that is not a built-in blueprint's.
        factory: called with a SiteShape (a tuple of sizes, batch first, with `.channels`,
            `.channel_axis` and `.num_spatial`); returns a module that maps a tensor of that shape,
            with any batch size, to one of the same shape and dtype. Its output should be 0 at
            birth, as a zero last layer gives.
        accepts: answers whether it fits a SiteShape.

    Raises:
        BlueprintError: the name is a built-in one or not an identifier.
    """
    catalogue.register(Blueprint(name, factory, accepts))
