"""Blueprints by name: a factory that builds a module for a site, and a predicate for its shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from kasmina.guard import attempt, describe
from kasmina.rng import isolated_rng
from kasmina.sites.shape import SiteShape
from leyline import BlueprintError

Factory = Callable[[SiteShape], nn.Module]
ShapePredicate = Callable[[SiteShape], bool]


@dataclass(frozen=True)
class Blueprint:
    """A kind of module that a seed can become."""

    name: str
    factory: Factory
    """Builds a module that maps a tensor of the site's shape to one of the same shape."""
    accepts: ShapePredicate
    built_in: bool = False

    def build(self, shape: SiteShape, rng_seed: int) -> nn.Module:
        """Build on the CPU with its own random stream; the global one does not move."""
        with isolated_rng(rng_seed):
            return self.factory(shape)

    def num_parameters(self, shape: SiteShape) -> int:
        """Parameters it would add at a site of this shape, counted without allocating them.

        Raises:
            BlueprintError: the factory fails.
        """
        module = attempt(lambda: self._build_on_meta(shape))
        if isinstance(module, Exception):  # some initialisers need real tensors
            module = attempt(lambda: self.build(shape, rng_seed=0))
        if isinstance(module, Exception):
            raise BlueprintError(
                f"blueprint {self.name!r} cannot be built for a site of shape {tuple(shape)}: "
                f"{describe(module)}; mend its factory, or let accepts= refuse this shape"
            ) from module
        return sum(parameter.numel() for parameter in module.parameters())

    def _build_on_meta(self, shape: SiteShape) -> nn.Module:
        with isolated_rng(0), torch.device("meta"):
            return self.factory(shape)


class Catalogue:
    """The blueprints a run may use, in order of registration."""

    def __init__(self) -> None:
        self._blueprints: dict[str, Blueprint] = {}

    def register(self, blueprint: Blueprint) -> None:
        """Add a blueprint; a user's own may be replaced, a built-in one may not."""
        held = self._blueprints.get(blueprint.name)
        if held is not None and held.built_in:
            raise BlueprintError(
                f"blueprint {blueprint.name!r} is built in and cannot be replaced; "
                "register yours under another name"
            )
        if not blueprint.name.isidentifier():
            raise BlueprintError(
                f"blueprint name {blueprint.name!r} is not allowed; "
                "use letters, digits and underscores, starting with a letter"
            )
        self._blueprints[blueprint.name] = blueprint

    def __getitem__(self, name: str) -> Blueprint:
        try:
            return self._blueprints[name]
        except KeyError:
            known = ", ".join(self._blueprints)
            raise BlueprintError(
                f"blueprint {name!r} is not registered; known are {known}; "
                "add your own with kasmina.register(name, factory)"
            ) from None

    @property
    def by_name(self) -> Mapping[str, Blueprint]:
        """All blueprints, in order of registration."""
        return dict(self._blueprints)


def accept_all(shape: SiteShape) -> bool:
    """The predicate of a blueprint that fits every floating site."""
    return True
