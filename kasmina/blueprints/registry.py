"""The catalogue: blueprints by name, those of installed plug-ins among them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping

from kasmina.blueprints.definition import Blueprint
from kasmina.blueprints.plug_ins import PlugIn, plug_ins
from leyline import BlueprintError

_LOG = logging.getLogger("esper")


class Catalogue:
    """The blueprints a run may use, in order of registration.

    Args:
        entry_point_group: where plug-ins are looked for, once, when a name that is not there or
            the whole list is first asked for. One that cannot be used is named in the log and left
            out.
    """

    def __init__(self, entry_point_group: str | None = None) -> None:
        self._blueprints: dict[str, Blueprint] = {}
        self._group = entry_point_group
        self._broken: dict[str, str] = {}

    def register(self, blueprint: Blueprint) -> None:
        """Add a blueprint; a user's own may be replaced, a built-in one may not."""
        held = self._blueprints.get(blueprint.name)
        if held is not None and held.built_in:
            raise BlueprintError(
                f"blueprint {blueprint.name!r} is built in and cannot be replaced; "
                "register yours under another name"
            )
        self._blueprints[blueprint.name] = blueprint

    def __getitem__(self, name: str) -> Blueprint:
        if name not in self._blueprints:
            self._load_plug_ins()
        if name in self._blueprints:
            return self._blueprints[name]
        if name in self._broken:
            raise BlueprintError(f"blueprint {name!r} is not to be had: {self._broken[name]}")
        close = difflib.get_close_matches(name, self._blueprints, n=1)
        hint = f"did you mean {close[0]!r}? Known are" if close else "known are"
        raise BlueprintError(
            f"blueprint {name!r} is not registered; {hint} {', '.join(self._blueprints)}; one of "
            "your own is added by kasmina.register(name, factory) before the run begins"
        )

    def require(self, names: Iterable[str]) -> None:
        """Refuse names of blueprints that are not to be had.

        Raises:
            BlueprintError: the first of them, and what there is.
        """
        for name in names:
            self[name]

    @property
    def by_name(self) -> Mapping[str, Blueprint]:
        """All blueprints, in order of registration."""
        self._load_plug_ins()
        return dict(self._blueprints)

    def _load_plug_ins(self) -> None:
        # Cleared first: a plug-in may ask the catalogue for a blueprint while it is imported.
        group, self._group = self._group, None
        for plug_in in plug_ins(group) if group is not None else ():
            fault = plug_in.fault or self._refusal(plug_in)
            if fault:
                self._broken[plug_in.name] = f"{plug_in.origin}: {fault}; mend or uninstall it"
                _LOG.warning("blueprint left out: %s", self._broken[plug_in.name])

    def _refusal(self, plug_in: PlugIn) -> str:
        """Register what a plug-in gave; why not, or nothing."""
        try:
            blueprint = plug_in.as_blueprint()
            held = None if blueprint is None else self._blueprints.get(blueprint.name)
            if blueprint is None or (held is not None and held.factory is blueprint.factory):
                return ""  # a decorator in its module has registered it
            if held is not None:
                return f"the name {held.name!r} is taken"
            self.register(blueprint)
        except BlueprintError as error:
            return str(error)
        return ""
