"""Calls: which modules of a model a pass calls, in what order, and which are done before a site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kasmina.trials.batches import tensors_in

Forward = Callable[..., Any]


class Call(NamedTuple):
    """One of the calls of a module in a pass, counted from 0."""

    module: str
    number: int


@dataclass(frozen=True)
class Span:
    """When a call began and ended, on a clock that ticks at both, and what it returned."""

    call: Call
    start: int
    end: int
    is_plain: bool
    """Whether its output is tensors without a graph, in plain tuples, lists or dicts."""
    size_bytes: int
    precision: float
    """The machine epsilon of its coarsest floating tensor."""


@contextmanager
def standing_in(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Let functions stand in for the forward of some modules, for the length of a block.

    The forward is patched on the instance, because a hook would switch off fast paths.
    """
    for module, forward in forwards.items():
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.__dict__["forward"]


def watch(model: nn.Module, run: Callable[[], Any]) -> list[Span]:
    """Run something and list the calls of a model's modules, in the order in which they ended.

    A module whose forward is patched already, or compiled to a script, is not seen.
    """
    spans: list[Span] = []
    clock, numbers = count(), Counter[str]()

    def watched(name: str, forward: Forward) -> Forward:
        """A forward that notes the span of each of its calls."""

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            call, start = Call(name, numbers[name]), next(clock)
            numbers[name] += 1
            output = forward(*args, **kwargs)
            spans.append(_span(call, start, next(clock), output))
            return output

        return stand_in

    forwards = {
        module: watched(name, module.forward)
        for name, module in model.named_modules()
        if "forward" not in module.__dict__ and not isinstance(module, torch.jit.ScriptModule)
    }
    with standing_in(forwards):
        run()
    return spans


def done_before(spans: list[Span], site: str) -> list[Call] | str:
    """The calls that end before a site's only call does, or with it; those inside others left out.

    Nothing that hangs on the site's output can change what they return.

    Returns:
        The calls in order, the site's own last; or why there is no such list.
    """
    own = [span for span in spans if span.call.module == site]
    if len(own) != 1:
        return f"it is called {len(own)} times in a pass"
    if not own[0].is_plain:
        return "its output is more than tensors without a graph"
    done = [span for span in spans if span.end <= own[0].end and span.is_plain]
    calls, last_end = [], -1
    for span in sorted(done, key=lambda span: span.start):
        if span.start > last_end:
            calls.append(span.call)
            last_end = span.end
    return calls


def _span(call: Call, start: int, end: int, output: Any) -> Span:
    tensors = tensors_in(output)
    floating = [torch.finfo(t.dtype).eps for t in tensors if t.is_floating_point()]
    is_plain = bool(tensors) and _is_plain(output)
    size_bytes = sum(t.numel() * t.element_size() for t in tensors) if is_plain else 0
    return Span(call, start, end, is_plain, size_bytes, max(floating, default=0.0))


def _is_plain(output: Any) -> bool:
    if isinstance(output, Tensor):
        is_dense = output.layout is torch.strided and not output.is_nested
        return type(output) is Tensor and is_dense and not output.requires_grad
    if type(output) in (tuple, list):
        return all(map(_is_plain, output))
    if type(output) is dict:
        return all(map(_is_plain, output.values()))
    return output is None or isinstance(output, bool | int | float | str)
