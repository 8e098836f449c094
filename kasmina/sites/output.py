"""The main tensor of what a module returns: a tensor, a tuple's first, a dataclass's only one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def main_tensor(output: Any) -> Tensor | None:
    """The tensor that a seed may extend in a module's output, or None if there is no one such.

    That is the output itself, the first element of a tuple (LSTM, attention, most Hugging Face
    blocks), or the first field of a mapping or dataclass (`ModelOutput` is both).
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
    key = _key(output)
    if isinstance(output, tuple):
        rest = (tensor, *output[1:])
        return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)
    if isinstance(output, list):
        return [tensor, *output[1:]]
    if isinstance(output, Mapping):
        return type(output)(**{**output, key: tensor})
    return dataclasses.replace(output, **{key: tensor})


def _key(output: Any) -> Any:
    """Where the main tensor is kept: the first place, whatever it is called."""
    if isinstance(output, tuple | list):
        return 0 if output else None
    if isinstance(output, Mapping):
        return next(iter(output), None)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return next((field.name for field in dataclasses.fields(output)), None)
    return None


def _get(output: Any, key: Any) -> Any:
    return output[key] if isinstance(output, tuple | list | Mapping) else getattr(output, key)
