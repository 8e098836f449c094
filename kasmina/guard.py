"""The wall around blueprints: whatever a candidate does wrong becomes a value, never a crash.

This is one of the three places that may catch Exception. What it caught is named in the value,
counted in the seed's error count and reported as an event. KeyboardInterrupt and SystemExit go
through: they are the user's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import _StopRecomputationError

from kasmina.rng import isolated_rng
from kasmina.settings import kept_settings

Result = TypeVar("Result")
_MOST_CONTEXTS: Final = 100
"""Errors that are looked through: a chain of them may be endless."""
_PLAIN: Final = (Tensor, nn.Parameter)


def attempt(action: Callable[[], Result]) -> Result | Exception:
    """Run what may fail in any way; the exception is the answer."""
    try:
        return action()
    except _StopRecomputationError:  # how activation checkpointing ends a recomputation early
        raise
    except Exception as error:
        pass_interrupt(error)
        return error


def pass_interrupt(error: BaseException | None) -> None:
    """Raise the KeyboardInterrupt that an error was raised in the course of, if there is one.

    Python's own locks turn one that comes while they are waited for into a RuntimeError, and the
    user's signal must not end at a wall.
    """
    for _ in range(_MOST_CONTEXTS):
        if isinstance(error, KeyboardInterrupt):
            raise error
        error = None if error is None else error.__context__


def describe(error: Exception) -> str:
    """One line for a fault: the exception's class and the first line of its message."""
    text = attempt(lambda: str(error).strip().splitlines())
    if isinstance(text, Exception) or not text:
        return type(error).__name__
    return f"{type(error).__name__}: {text[0]}"


def attempt_foreign(action: Callable[[], Result]) -> Result | Exception:
    """Run the code of another package, which may even end the process: that is an error too."""
    try:
        return attempt(action)
    except SystemExit as error:
        return RuntimeError(f"it calls sys.exit({error.code!r})")


def contain(action: Callable[[], Result]) -> Result | str:
    """Run a body's code; an exception becomes the fault in words.

    The exception itself is let go: its traceback would keep the body's tensors.
    """
    outcome = attempt(action)
    return describe(outcome) if isinstance(outcome, Exception) else outcome


def fault_of(body: nn.Module, host: Tensor) -> Tensor | str:
    """Run a blueprint's module on the host's output.

    Returns:
        Its output if that has the host's shape, layout and device and a floating dtype, not wider
        than the host's or float32, else the fault in words. Finiteness is not looked at here.
    """
    if host.is_nested:
        return "the host's output is a nested tensor, which has no one shape to extend"
    grown = attempt(lambda: body(readable(host)))
    if isinstance(grown, Exception):
        return describe(grown)
    if not isinstance(grown, Tensor):
        return f"it returned a {type(grown).__name__}, not a tensor"
    if type(host) in _PLAIN and type(grown) not in _PLAIN:
        return f"it returned a {type(grown).__name__}, not a plain tensor"
    if grown.shape != host.shape:
        return f"it returned shape {tuple(grown.shape)} for {tuple(host.shape)}"
    wider = grown.dtype.itemsize > max(host.dtype.itemsize, torch.float32.itemsize)
    if not grown.is_floating_point() or wider or grown.device != host.device:
        return f"it returned {grown.dtype} on {grown.device} for {host.dtype} on {host.device}"
    if grown.layout != host.layout:
        return f"it returned {grown.layout} for {host.layout}"
    return grown


def readable(host: Tensor) -> Tensor:
    """What a body is given: the tensor, or a copy in the ordinary layout where torch would crash.

    The backward pass of torch 2.13's group norm over a channels-last tensor that takes no gradient
    ends the process, as below a frozen part of the host and in every trial.
    """
    if host.requires_grad or host.ndim < 4 or not torch.is_grad_enabled():
        return host
    return host.contiguous()


def proof_fault(body: nn.Module, host: Tensor) -> str | None:
    """Prove that a blueprint fits before it goes anywhere.

    Looked at are shape, dtype and device; finiteness, forward and backward; parameters; what it
    leaves changed; and that it can be copied and saved, as trials and checkpoints do. A body that
    breaks later meets the wall around its seed.

    Args:
        body: the freshly built module, on the site's device.
        host: a stand-in for the site's output, of its real shape and dtype.
    """
    if not any(parameter.requires_grad for parameter in body.parameters()):
        return "it has no parameter that can be trained"
    if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in body.parameters()):
        return "it hooks its own parameters, and such hooks run outside the guard"
    with kept_settings() as changed, isolated_rng(0):
        fault = contain(lambda: _dry_run(body, host))
    if fault is None and changed:
        return f"it changes {' and '.join(changed)} and leaves it so"
    return fault


def _dry_run(body: nn.Module, host: Tensor) -> str | None:
    kept = copy.deepcopy(body)
    kept.load_state_dict(body.state_dict())
    leaf = host.clone()
    before = leaf._version
    with torch.no_grad():
        grown = fault_of(kept, leaf)
    if isinstance(grown, str):
        return grown
    if leaf._version != before or not torch.equal(leaf, host):
        return "it changes its input in place"
    if not bool(torch.isfinite(grown).all()):
        return "its output is not finite at birth"
    fault = _backward_fault(kept, host)
    if fault is None and _state_shapes(kept) != _state_shapes(body):
        return "running it changes the shape of its own state, which no checkpoint could restore"
    return fault


def _state_shapes(body: nn.Module) -> dict[str, Any]:
    """Shape and dtype of everything that a checkpoint holds of a module."""
    state = body.state_dict()
    return {n: (t.shape, t.dtype) for n, t in state.items() if isinstance(t, Tensor)}


def _backward_fault(body: nn.Module, host: Tensor) -> str | None:
    leaf = host.clone().requires_grad_()
    inputs = [leaf, *(p for p in body.parameters() if p.requires_grad)]
    with torch.enable_grad():
        grown = fault_of(body, leaf)
        if isinstance(grown, str):
            return grown
        if not grown.requires_grad:
            return "no gradient reaches its parameters"
        grads = torch.autograd.grad(grown.sum(), inputs, allow_unused=True)
    if not all(bool(torch.isfinite(grad).all()) for grad in grads if grad is not None):
        return "its gradient is not finite at birth"
    return None
