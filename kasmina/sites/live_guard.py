"""The live model must not notice a dry run: find what would reach it from a copy, and prove it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, Final

import torch
from torch import nn

from kasmina.closures import held_by_function
from kasmina.equality import is_same
from leyline import TrialError

_COMPILED: Final = frozenset({"_compiled_call_impl", "forward", "_torchdynamo_orig_callable"})
"""What torch.compile leaves on a module; a copy has its own or none."""


def way_to_live(model: nn.Module) -> str | None:
    """Name a function in the model that would run the live model from a copy of it, if any.

    Deepcopy takes plain functions as they are, so a lambda or a closure hook that holds a module
    of the model still holds the live one in the copy. Bound methods and partials are copied well.
    """
    live = {id(module) for module in model.modules()}
    for name, module in model.named_modules():
        for where, function in _functions_of(module):
            if any(id(held) in live for held in _held_by(function)):
                return f"{name or type(module).__name__}.{where}"
    return None


def _functions_of(module: nn.Module) -> Iterator[tuple[str, FunctionType]]:
    is_compiled = type(module).__module__.startswith("torch._dynamo.")
    own = _COMPILED if is_compiled else {"_compiled_call_impl"}
    for where, value in module.__dict__.items():
        if where in own:
            continue
        values = value.values() if where.endswith("_hooks") and isinstance(value, dict) else [value]
        for each in values:
            if isinstance(each, FunctionType):
                yield where, each


def _held_by(function: FunctionType, depth: int = 3) -> Iterator[Any]:
    """What a function holds in its closure and defaults, functions among them looked into."""
    for each in held_by_function(function):
        yield getattr(each, "__self__", each)
        if isinstance(each, FunctionType) and depth:
            yield from _held_by(each, depth - 1)


@contextmanager
def live_untouched(model: nn.Module) -> Iterator[None]:
    """Refuse what changes the live model's tensors while a copy runs, and put its buffers back.

    Raises:
        TrialError: the copy reaches the live model, through a closure or a global name.
    """
    way = way_to_live(model)
    if way is not None:
        raise TrialError(
            f"no trial: {way} is a function that holds the live model, so a copy would run it; "
            "make it a method"
        )
    kept = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    yield
    # Buffers by value: a batch norm moves its statistics without counting a version.
    changed = [n for n, b in model.named_buffers() if not is_same(b, kept[n])]
    changed += [n for n, p in model.named_parameters() if p._version != versions[n]]
    if changed:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(kept[name])
        raise TrialError(
            f"no trial: running a copy changes {changed[0]!r} of the live model; its code must "
            "use the module it is given, not one from outside"
        )
