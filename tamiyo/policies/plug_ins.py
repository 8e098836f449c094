"""Plug-ins: policies that other installed packages offer through an entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from tamiyo.policies.definition import NoRules, PolicyKind

Contain = Callable[[Callable[[], Any]], Any]
"""Runs what may fail in any way; a failure comes back as a text that says what it was."""


@dataclass(frozen=True)
class PlugIn:
    """What one entry point gave."""

    name: str
    origin: str
    """The entry point and its package, in words."""
    found: Any
    """A PolicyKind, a factory, or the module that has registered its own."""
    fault: str = ""
    """Why it gave nothing; empty if it did."""

    def as_kind(self) -> PolicyKind | None:
        """Its policy under the entry point's name; None for a module, which needs nothing.

        Raises:
            PolicyError: it breaks what a kind of policy promises.
        """
        if isinstance(self.found, ModuleType):
            return None
        if isinstance(self.found, PolicyKind):
            return self.found
        return PolicyKind(self.name, self.found, getattr(self.found, "Rules", NoRules))


def plug_ins(group: str, contain: Contain) -> Iterator[PlugIn]:
    """Import what is behind every entry point of a group, in order of names."""
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        package = point.dist.name if point.dist is not None else "an unknown package"
        origin = f"entry point {point.name!r} ({point.value}) of package {package!r}"
        found = contain(point.load)
        fault = _fault(point, found)
        yield PlugIn(point.name, origin, None if fault else found, fault)


def _fault(point: EntryPoint, found: Any) -> str:
    if isinstance(found, str):
        return f"it cannot be imported: {found}"
    if isinstance(found, PolicyKind | ModuleType) or callable(found):
        return ""
    return f"{point.value} is a {type(found).__name__}, not a factory, a PolicyKind or a module"
