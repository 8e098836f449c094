"""Where a model may grow, where not, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from leyline import SitesFound
from tolaria.show.phrases import clean, counted

_NUM_NAMES: Final = 8


def sites_words(found: SitesFound) -> tuple[str, str]:
    """How many sites may grow, and a note on the rest."""
    arm = f"rollout {found.rollout_percentage} %, {len(found.control)} in the control arm; "
    refused = f"{counted(found.num_refused, 'module')} cannot carry a seed"
    return str(len(found.grows)), (arm if found.rollout_percentage < 100 else "") + refused


def sites_lines(found: SitesFound) -> list[str]:
    """The sites, the control arm, and the modules that are no sites by the reason."""
    number, note = sites_words(found)
    lines = [f"sites: {number} may grow, {note}"]
    if found.control:
        lines.append(f"  control arm: {_names(found.control)}")
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.refused.items():
        by_reason.setdefault(reason, []).append(name)
    lines += [f"  {clean(reason)}: {_names(names)}" for reason, names in by_reason.items()]
    return lines


def _names(names: Sequence[str]) -> str:
    said = ", ".join(clean(name) for name in names[:_NUM_NAMES])
    return said + (f" and {len(names) - _NUM_NAMES} more" if len(names) > _NUM_NAMES else "")
