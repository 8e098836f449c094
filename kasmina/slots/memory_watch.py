"""Memory that a body keeps between calls, as far as it can be reached from its attributes."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from torch import Tensor, nn

from kasmina.closures import held_by_function

CALLS_BETWEEN_CHECKS: Final = 16
MAX_GROWTH_BYTES: Final = 64 * 2**20
MAX_GROWTH_OBJECTS: Final = 20_000
_CONTAINERS: Final = (list, tuple, set, frozenset, deque)


class MemoryWatch:
    """Finds a body that keeps more and more: at its first call, and at every 16th after it.

    A body may come to hold 64 MiB of tensors and 20,000 objects more than at its first check.
    Looked through are attributes, containers, closures, defaults and bound methods; not globals,
    other libraries' objects without a `__dict__`, or tensors that only an autograd graph holds.
    """

    def __init__(self) -> None:
        self._num_calls = 0
        self._start = (0, 0)

    def fault(self, body: nn.Module) -> str | None:
        """Count a call; in words what the body keeps, if that is too much."""
        first, due = self._num_calls == 0, self._num_calls % CALLS_BETWEEN_CHECKS == 0
        self._num_calls += 1
        if not due:
            return None
        size_bytes, num_objects = held_by(body, self._start[1] + MAX_GROWTH_OBJECTS)
        if first:
            self._start = size_bytes, num_objects
        elif size_bytes - self._start[0] > MAX_GROWTH_BYTES:
            grown, allowed = (n >> 20 for n in (size_bytes - self._start[0], MAX_GROWTH_BYTES))
            return f"it keeps {grown} MiB more than at its first call; {allowed} MiB are allowed"
        elif num_objects - self._start[1] > MAX_GROWTH_OBJECTS:
            return f"it keeps over {MAX_GROWTH_OBJECTS} objects more than at its first call"
        return None


def held_by(body: nn.Module, max_objects: int) -> tuple[int, int]:
    """Bytes of the distinct tensor storages and number of objects reachable from a module.

    The walk ends after `max_objects` objects.
    """
    seen: set[int] = set()
    storages: dict[int, int] = {}
    left: list[Any] = [body]
    while left and len(seen) <= max_objects:
        each = left.pop()
        if id(each) in seen or isinstance(each, type | types.ModuleType):
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            storage = each.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
        else:
            left.extend(_parts_of(each))
    return sum(storages.values()), len(seen)


def _parts_of(each: Any) -> Iterable[Any]:
    if isinstance(each, dict):
        return list(each.values())
    if isinstance(each, _CONTAINERS):
        return list(each)
    if isinstance(each, types.MethodType):
        return each.__self__, each.__func__
    if isinstance(each, functools.partial):
        return each.func, *each.args, *each.keywords.values()
    if isinstance(each, types.FunctionType):
        return [*held_by_function(each), each.__dict__]
    held = getattr(each, "__dict__", None)
    return list(held.values()) if isinstance(held, dict) else ()
