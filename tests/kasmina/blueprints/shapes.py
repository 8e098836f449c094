"""Shapes of sites, every kind and the smallest of each, and which built-in blueprint fits where."""

from __future__ import annotations

import pytest

from kasmina.blueprints import Blueprint
from kasmina.blueprints.built_in import BUILT_IN
from kasmina.sites.shape import SiteShape

SHAPES = [
    SiteShape((3, 12, 7), 1),
    SiteShape((3, 12, 6, 5), 1),
    SiteShape((3, 12, 4, 3, 2), 1),
    SiteShape((3, 12), -1),
    SiteShape((3, 7, 12), -1),
    SiteShape((3, 5, 7, 12), -1),
    SiteShape((7, 3, 12), -1, batch_axis=1),
    SiteShape((3, 2), -1),
    SiteShape((3, 1), -1),
    SiteShape((3, 1, 6, 5), 1),
    SiteShape((3, 2, 2, 1), 1),
    SiteShape((3, 3, 1, 1), 1),
    SiteShape((3, 5, 4), 1),
    SiteShape((2, 4, 2, 2, 2, 2), 1),
]
CAUSAL = [
    SiteShape((3, 12, 7), 1, causal=True),
    SiteShape((3, 2, 7), 1, causal=True),
    SiteShape((3, 7, 12), -1, causal=True),
    SiteShape((7, 3, 12), -1, batch_axis=1, causal=True),
    SiteShape((3, 12, 5, 6), 1, causal=True),
]
every_blueprint = pytest.mark.parametrize("blueprint", BUILT_IN, ids=lambda b: b.name)


def fitting(blueprint: Blueprint) -> list[SiteShape]:
    """Every shape above that a blueprint accepts; there are always some."""
    shapes = [shape for shape in (*SHAPES, *CAUSAL) if blueprint.accepts(shape)]
    assert shapes
    return shapes
