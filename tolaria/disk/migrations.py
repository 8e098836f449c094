"""Older formats of checkpoints, brought up to date in memory; what is on disk stays as it is.

A format is a number that goes up when a reader of the one before could not go on from what is
written. Each step takes a checkpoint from one format to the next: its manifest as decoded JSON,
then its state as plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from leyline import CheckpointError

FORMAT: Final = 2
Values = dict[str, Any]


def up_to_date(manifest: Values) -> Values:
    """A manifest in this version's shape; its "format" still says what the files are.

    Raises:
        CheckpointError: the format is one that this version does not know.
        ValueError, TypeError, KeyError: it is not what its format says.
    """
    written = manifest.get("format")
    if type(written) is not int or not 1 <= written <= FORMAT:
        raise CheckpointError(
            f"it is of format {written!r:.20} and this version reads 1 to {FORMAT}: "
            "read it with the version that wrote it"
        )
    for number in range(written, FORMAT):
        manifest = _MANIFESTS[number](manifest)
    return manifest


def bring_up_to_date(state: Mapping[str, Any], surroundings: Values) -> None:
    """Change what a checkpoint of an older format says of growth, in place.

    Args:
        state: as it was loaded.
        surroundings: what it was written on, as the manifest says.
    """
    for growth in growth_states(state):
        growth_up_to_date(growth, surroundings)


def growth_up_to_date(growth: Values, surroundings: Values) -> None:
    """Change a growth state of an older format in place; it may come from Lightning's own file.

    Raises:
        CheckpointError: the format is one that this version does not know.
    """
    written = growth.get("format", 1)
    if type(written) is not int or not 1 <= written <= FORMAT:
        raise CheckpointError(
            f"its state of growth is of format {written!r:.20} and this version reads 1 to "
            f"{FORMAT}: read it with the version that wrote it"
        )
    for number in range(written, FORMAT):
        _GROWTH[number](growth, surroundings)
    growth["format"] = FORMAT


def growth_states(state: Mapping[str, Any]) -> Iterator[Values]:
    """The growth state within a checkpoint: a plain loop's own, or that of Lightning's callback."""
    callbacks = state.get("callbacks")
    held = [state.get("esper"), *(callbacks.values() if isinstance(callbacks, dict) else ())]
    for growth in held:
        if isinstance(growth, dict) and "executor" in growth and "controller" in growth:
            yield growth


def _manifest_2(manifest: Values) -> Values:
    """Format 1 said nothing of occasion and structure, and little of the surroundings."""
    known = ("torch", "num_threads", "cpu_capability")
    kept = {name: value for name, value in manifest.items() if name not in known}
    return kept | {
        "occasion": {},
        "surroundings": {name: manifest[name] for name in known if name in manifest},
        "structure": {},
    }


def _growth_2(growth: Values, surroundings: Values) -> None:
    """Format 1 had one breaker, around the whole boundary, that was always open for ten; a seed's
    rate was a fixed multiple."""
    growth |= {"surroundings": surroundings, "metrics": {}, "rates": {"seeds": {}}}
    old = growth.pop("boundary")
    closed = {"state": "closed", "failures": 0, "waited": 0, "hold": 10}
    state = "open" if old["open"] else "closed"
    executor = {"state": state, "failures": old["faults"], "waited": old["num_held"], "hold": 10}
    growth["breakers"] = {"policy": closed, "executor": executor, "learning rates": closed}


_MANIFESTS: Final[Mapping[int, Callable[[Values], Values]]] = MappingProxyType({1: _manifest_2})
_GROWTH: Final[Mapping[int, Callable[[Values, Values], None]]] = MappingProxyType({1: _growth_2})
