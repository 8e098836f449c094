"""A site: a submodule whose output a seed may extend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from kasmina.blueprints import Cost, catalogue
from kasmina.sites.shape import SiteShape
from leyline import CheckpointError


@dataclass(frozen=True)
class Site:
    """A submodule whose output a seed may extend."""

    name: str
    """Dotted name of the submodule."""
    shape: SiteShape
    """Shape of its main output in the dry run."""
    dtype: torch.dtype

    num_chunks: int = 1
    """Equal parts of the channels, each a place of its own; 1 is no division."""

    @property
    def seed_shape(self) -> SiteShape:
        """The shape that one seed sees: that of the site, or of one chunk of it."""
        return self.shape if self.num_chunks == 1 else self.shape.chunk(self.num_chunks)

    def divided(self, num_chunks: int) -> Self:
        """The site cut into equal chunks of two channels or more, or as it is where it cannot."""
        fits = self.shape.channels % num_chunks == 0 and self.shape.channels >= 2 * num_chunks
        return replace(self, num_chunks=num_chunks) if fits else self

    def accepts(self, blueprint: str) -> bool:
        """Whether a blueprint fits here.

        Raises:
            BlueprintError: there is no such blueprint, or its predicate fails.
        """
        return catalogue[blueprint].fits(self.seed_shape)

    def cost(self, blueprint: str) -> Cost:
        """What a blueprint would add here; errors are those of `Blueprint.cost`."""
        return catalogue[blueprint].cost(self.seed_shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` reads them."""
        return {
            "name": self.name,
            "shape": self.shape.to_dict(),
            "dtype": str(self.dtype),
            "num_chunks": self.num_chunks,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A site from its plain values."""
        # Not getattr, which would import what a name from a file asks for.
        dtype = vars(torch).get(str(values["dtype"]).removeprefix("torch."))
        if not isinstance(dtype, torch.dtype):
            raise CheckpointError(f"a site has {values['dtype']!r:.80} as its type of tensor")
        shape = SiteShape.from_dict(values["shape"])
        return cls(values["name"], shape, dtype, values["num_chunks"])
