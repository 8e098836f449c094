"""The main tensor of what a module returns: a tensor, a tuple's first, a dataclass's only one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from kasmina.guard import attempt, describe


def main_tensor(output: Any) -> Tensor | None:
    """The tensor that a seed may extend in a module's output, or None if there is no one such.

    That is the output itself, the first element of a tuple or list (LSTM, attention, most Hugging
    Face blocks), or the first that is set of a mapping's or dataclass's entries (`ModelOutput` is
    both).
    """
    if isinstance(output, Tensor):
        return output
    key = _key(output)
    held = None if key is None else _get(output, key)
    return held if isinstance(held, Tensor) else None


def with_main(output: Any, tensor: Tensor) -> Any:
    """The same output with another main tensor; what was returned before is not changed."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, tuple):
        rest = (tensor, *output[1:])
        return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)
    key = _key(output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return dataclasses.replace(output, **{key: tensor})
    if type(output) is dict:
        return {**output, key: tensor}
    if type(output) is list:
        return [tensor, *output[1:]]
    changed = copy.copy(output)
    changed[key] = tensor
    return changed


def output_flaw(output: Any) -> str | None:
    """Say why a seed could not extend such an output, or None if it could."""
    main = main_tensor(output)
    if isinstance(output, PackedSequence) or (
        isinstance(output, tuple) and output and isinstance(output[0], PackedSequence)
    ):
        return "it returns a packed sequence, which has no one shape to extend"
    if main is None:
        return f"it returns {_called(output)}, in which no main tensor comes first"
    if main.is_nested:
        return "it returns a nested tensor, which has no one shape to extend"
    if main.layout is not torch.strided:
        return f"it returns a tensor of layout {main.layout}, which a seed cannot extend"
    if not main.is_floating_point() or main.ndim < 2:
        return f"its output is {main.dtype} of {main.ndim} axes, without a batch axis and channels"
    if main is not output:
        rebuilt = attempt(lambda: with_main(output, main))
        if isinstance(rebuilt, Exception):
            return f"its {type(output).__name__} cannot be built anew ({describe(rebuilt)})"
        if type(rebuilt) is not type(output) or main_tensor(rebuilt) is not main:
            return f"its {type(output).__name__} built anew is another one"
    return None


def _called(output: Any) -> str:
    return "None" if output is None else f"a {type(output).__name__}"


def _key(output: Any) -> Any:
    """Where the main tensor is kept: the first place that is set, whatever it is called."""
    if isinstance(output, PackedSequence):
        return None
    if isinstance(output, tuple | list):
        return 0 if output else None
    if isinstance(output, Mapping):
        return next((key for key, value in output.items() if value is not None), None)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = (field.name for field in dataclasses.fields(output))
        return next((name for name in names if getattr(output, name) is not None), None)
    return None


def _get(output: Any, key: Any) -> Any:
    return output[key] if isinstance(output, tuple | list | Mapping) else getattr(output, key)
