"""Plug-ins: blueprints that other installed packages offer through an entry point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from kasmina.blueprints.definition import Blueprint
from kasmina.guard import attempt_foreign, describe
from kasmina.rng import isolated_rng


@dataclass(frozen=True)
class PlugIn:
    """What one entry point gave."""

    name: str
    origin: str
    """The entry point and its package, in words."""
    found: Any
    """A Blueprint, a factory, or the module in which decorators have registered their own."""
    fault: str = ""
    """Why it gave nothing; empty if it did."""

    def as_blueprint(self) -> Blueprint | None:
        """Its blueprint under the entry point's name; None for a module, which needs nothing."""
        if isinstance(self.found, ModuleType):
            return None
        return self.found if isinstance(self.found, Blueprint) else Blueprint(self.name, self.found)


def plug_ins(group: str) -> Iterator[PlugIn]:
    """Import what is behind every entry point of a group, in order of names.

    Whatever an import draws at random comes from a stream of its own.
    """
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        package = point.dist.name if point.dist is not None else "an unknown package"
        origin = f"entry point {point.name!r} ({point.value}) of package {package!r}"
        with isolated_rng(0):
            found = attempt_foreign(point.load)
        fault = _fault(point, found)
        yield PlugIn(point.name, origin, None if fault else found, fault)


def _fault(point: EntryPoint, found: Any) -> str:
    if isinstance(found, Exception):
        return f"it cannot be imported: {describe(found)}"
    if isinstance(found, Blueprint | ModuleType) or callable(found):
        return ""
    return f"{point.value} is a {type(found).__name__}, not a factory, a Blueprint or a module"
