"""A site: a submodule whose output a seed may extend; and the choice of those a run may use."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from kasmina.blueprints import catalogue
from kasmina.sites.shape import SiteShape
from leyline import SiteError


@dataclass(frozen=True)
class Site:
    """A submodule whose output a seed may extend."""

    name: str
    """Dotted name of the submodule."""
    shape: SiteShape
    """Shape of its output in the dry run, batch axis first."""
    dtype: torch.dtype

    num_chunks: int = 1
    """Equal parts of the channels, each a place of its own; 1 is no division."""

    @property
    def seed_shape(self) -> SiteShape:
        """The shape that one seed sees: that of the site, or of one chunk of it."""
        return self.shape if self.num_chunks == 1 else self.shape.chunk(self.num_chunks)

    def accepts(self, blueprint: str) -> bool:
        """Whether a blueprint fits here; an unknown name is a BlueprintError."""
        return bool(catalogue[blueprint].accepts(self.seed_shape))

    def num_parameters(self, blueprint: str) -> int:
        """Parameters that a blueprint would add here."""
        return catalogue[blueprint].num_parameters(self.seed_shape)

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
        dtype = getattr(torch, values["dtype"].removeprefix("torch."))
        shape = SiteShape.from_dict(values["shape"])
        return cls(values["name"], shape, dtype, values["num_chunks"])


def choose(sites: Sequence[Site], wanted: str | Sequence[str]) -> list[Site]:
    """Keep the sites a config asks for: "auto" keeps all, else glob patterns on their names.

    Raises:
        SiteError: a pattern matches no site.
    """
    if wanted == "auto":
        return list(sites)
    patterns = [wanted] if isinstance(wanted, str) else list(wanted)
    names = [site.name for site in sites]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise SiteError(
                f"sites: {pattern!r} matches none of this model's sites; "
                f"they are {', '.join(names) or 'none'}"
            )
    return [s for s in sites if any(fnmatch.fnmatchcase(s.name, p) for p in patterns)]
