"""The catalogue: policies by name, those of installed plug-ins among them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from functools import partial

from leyline import ConfigError, PolicyError
from tamiyo.policies.definition import PolicyKind
from tamiyo.policies.plug_ins import Contain, PlugIn, plug_ins

_LOG = logging.getLogger("esper")


class PolicyCatalogue:
    """The policies a run may use, in order of registration.

    Args:
        entry_point_group: where plug-ins are looked for.
    """

    def __init__(self, entry_point_group: str | None = None) -> None:
        self._kinds: dict[str, PolicyKind] = {}
        self._group = entry_point_group
        self._broken: dict[str, str] = {}

    def register(self, kind: PolicyKind) -> None:
        """Add a policy; a user's own may be replaced, a built-in one may not.

        Raises:
            PolicyError: the name is a built-in one's.
        """
        held = self._kinds.get(kind.name)
        if held is not None and held.built_in:
            raise PolicyError(
                f"policy {kind.name!r} is built in and cannot be replaced; "
                "register yours under another name"
            )
        self._kinds[kind.name] = kind

    def load_plug_ins(self, contain: Contain) -> None:
        """Import the plug-ins, once; one that cannot be used is named in the log and left out."""
        # Cleared first: a plug-in may ask for a policy while it is imported.
        group, self._group = self._group, None
        for plug_in in plug_ins(group, contain) if group is not None else ():
            fault = plug_in.fault or contain(partial(self._refusal, plug_in))
            if fault:
                self._broken[plug_in.name] = f"{plug_in.origin}: {fault}; mend or uninstall it"
                _LOG.warning("policy left out: %s", self._broken[plug_in.name])

    def __contains__(self, name: str) -> bool:
        return name in self._kinds

    def __getitem__(self, name: str) -> PolicyKind:
        if name in self._kinds:
            return self._kinds[name]
        if name in self._broken:
            raise ConfigError(f"policy {name!r} is not to be had: {self._broken[name]}")
        close = difflib.get_close_matches(name, self._kinds, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        broken = "".join(f"; left out: {why}" for why in self._broken.values())
        raise ConfigError(
            f"setting 'policy' is {name!r}{hint}; it must be one of {', '.join(self._kinds)}, or "
            f"one of your own, added by tamiyo.register_policy or an entry point{broken}"
        )

    @property
    def by_name(self) -> Mapping[str, PolicyKind]:
        """All that are known, in order of registration."""
        return dict(self._kinds)

    def _refusal(self, plug_in: PlugIn) -> str:
        """Register what a plug-in gave; why not, or nothing."""
        try:
            kind = plug_in.as_kind()
            held = None if kind is None else self._kinds.get(kind.name)
            if kind is None or (held is not None and held.factory is kind.factory):
                return ""  # its module has registered it
            if held is not None:
                return f"the name {held.name!r} is taken"
            self.register(kind)
        except PolicyError as error:
            return str(error)
        return ""
