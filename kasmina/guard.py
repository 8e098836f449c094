"""The wall around blueprints: whatever a candidate does wrong becomes a value, never a crash.

This is one of the three places that may catch Exception. What it caught is named in the value,
counted in the seed's error count and reported as an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def attempt(action: Callable[[], Result]) -> Result | Exception:
    """Run what may fail in any way; the exception is the answer."""
    try:
        return action()
    except Exception as error:
        return error


def describe(error: Exception) -> str:
    """One line for a fault: the exception's class and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def fault_of(body: nn.Module, host: Tensor) -> Tensor | str:
    """Run a blueprint's module on the host's output.

    Returns:
        Its output if that has the host's shape and device and a floating dtype, else the fault in
        words. Finiteness is not looked at here: that would be a device synchronisation per call.
    """
    if host.is_nested:
        return "the host's output is a nested tensor, which has no one shape to extend"
    try:
        grown = body(host)
    except Exception as error:
        return describe(error)
    if not isinstance(grown, Tensor):
        return f"it returned a {type(grown).__name__}, not a tensor"
    if grown.shape != host.shape:
        return f"it returned shape {tuple(grown.shape)} for {tuple(host.shape)}"
    if not grown.is_floating_point() or grown.device != host.device:
        return f"it returned {grown.dtype} on {grown.device} for {host.dtype} on {host.device}"
    return grown


def proof_fault(body: nn.Module, host: Tensor) -> str | None:
    """Prove that a blueprint fits before it goes anywhere: trainable, shape, dtype, finiteness.

    Args:
        body: the freshly built module, on the site's device.
        host: a stand-in for the site's output, of its real shape and dtype.
    """
    if not any(parameter.requires_grad for parameter in body.parameters()):
        return "it has no parameter that can be trained"
    before = host.clone()
    with torch.no_grad():
        grown = fault_of(body, host)
    if isinstance(grown, str):
        return grown
    if not torch.equal(before, host):
        return "it changes its input in place"
    if not bool(torch.isfinite(grown).all()):
        return "its output is not finite at birth"
    return None
