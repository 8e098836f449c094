"""The choice: which of the sites that were found a run may use."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kasmina.sites.site import Site
from leyline import SiteError

SiteFilter = Callable[[list[Site]], Sequence[Site]]
"""Takes the sites that were found and returns those to use."""


def choose(
    sites: Sequence[Site],
    wanted: str | Sequence[str] | SiteFilter = "auto",
    *,
    exclude: Sequence[str] = (),
    max_sites: int | None = None,
    refused: Mapping[str, str] | None = None,
) -> list[Site]:
    """Keep the sites that a config asks for, in the order of the model's submodules.

    Args:
        sites: all that were found.
        wanted: "auto" keeps all; else glob patterns on their names, or a function that takes the
            list of sites and returns those to keep.
        exclude: glob patterns on names of sites that are left out of those.
        max_sites: of more than so many, the middle one of each of `max_sites` equal parts is kept.
        refused: modules that are no sites, with the reason, for what an error says.

    Raises:
        SiteError: a pattern matches no site, or the function returns something else than sites it
            was given.
    """
    names = [site.name for site in sites]
    if callable(wanted):
        kept = _asked(wanted, sites)
    elif wanted == "auto":
        kept = set(names)
    else:
        patterns = [wanted] if isinstance(wanted, str) else list(wanted)
        kept = _matching("sites", patterns, names, refused or {})
    kept -= _matching("exclude_sites", exclude, names, refused or {})
    chosen = [site for site in sites if site.name in kept]
    if max_sites is None or len(chosen) <= max_sites:
        return chosen
    return [chosen[(2 * part + 1) * len(chosen) // (2 * max_sites)] for part in range(max_sites)]


def _matching(
    setting: str, patterns: Sequence[str], names: Sequence[str], refused: Mapping[str, str]
) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            raise SiteError(f"{setting}: {pattern!r} matches {_none(pattern, names, refused)}")
        found |= matching
    return found


def _none(pattern: str, names: Sequence[str], refused: Mapping[str, str]) -> str:
    known = f"none of this model's sites; they are {', '.join(names) or 'none'}"
    for name, reason in refused.items():
        if fnmatch.fnmatchcase(name, pattern):
            return f"{name!r}, which is no site: {reason}; sites are {', '.join(names) or 'none'}"
    return known


def _asked(function: SiteFilter, sites: Sequence[Site]) -> set[str]:
    answer: Any = function(list(sites))
    if not isinstance(answer, list | tuple | set | frozenset) or not all(
        site in sites for site in answer
    ):
        raise SiteError(
            f"sites: the function returned {answer!r}; it must return those of the list of sites "
            "it was given that are to be used"
        )
    return {site.name for site in answer}
