"""Taps: every output of some modules passes through a function on its way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

Tap = Callable[[str, Any], Any]
"""Called with a module's name and what it returns; what the tap returns goes on instead."""


@contextmanager
def tapped(modules: Mapping[str, nn.Module], tap: Tap) -> Iterator[None]:
    """Tap modules of a copy by patching `forward`: a hook would switch off fast paths.

    A module whose forward is patched already is left out; one under two names has its first.
    """

    def wrap(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: tap(name, forward(*args, **kwargs))

    patched = []
    for name, module in modules.items():
        if "forward" not in module.__dict__:
            module.__dict__["forward"] = wrap(name, module.forward)
            patched.append(module)
    try:
        yield
    finally:
        for module in patched:
            del module.__dict__["forward"]
