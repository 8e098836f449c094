"""The shield around a body that is not trusted: what it may touch while it runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import nn

from kasmina.guard import contain
from kasmina.rng import derive_rng_seed
from kasmina.settings import read_settings, restore_settings
from kasmina.slots.memory_watch import MemoryWatch

Result = TypeVar("Result")
_HOOKS: Final = ("_backward_hooks", "_post_accumulate_grad_hooks")


class Shield:
    """Runs a body's code so that nothing outside the body is other than it was before.

    The random streams, torch's settings, the hooks of all modules and the set of the body's own
    parameters are put back, and leaving any of these but the streams changed is a fault, as is
    keeping ever more memory. Out of reach are an endless loop, a crash in C, a kill by the kernel
    for memory, and what Python itself lets any code do: globals, other threads, files, signals.

    Args:
        rng_seed: what the body's own random numbers are a pure function of, with the call.
    """

    def __init__(self, rng_seed: int):
        self.rng_seed = rng_seed
        self.num_calls = 0
        """Calls in train mode so far."""
        self._memory = MemoryWatch()

    def next_call(self, *, training: bool) -> int:
        """The number of a call, from which its random numbers come.

        Calls in eval mode share number 0, so validation shifts nothing. Within a backward pass a
        call is taken for the newest one run again, as activation checkpointing does.
        """
        if not training:
            return 0
        if torch._C._current_graph_task_id() == -1:
            self.num_calls += 1
        return self.num_calls

    def run(
        self,
        action: Callable[[], Result],
        body: nn.Module,
        device: torch.device,
        call: tuple[str, int],
    ) -> Result | str:
        """Run a part of a call, "forward" or "backward"; the answer or the fault in words."""
        settings, parameters = read_settings(), _Parameters(body)
        try:
            with _own_streams(derive_rng_seed(self.rng_seed, *call), device):
                outcome = contain(action)
        finally:
            changed = restore_settings(settings) + parameters.restore()
        if isinstance(outcome, str):
            return outcome
        if changed:
            return f"it changed {' and '.join(changed)} and left it so"
        too_much = contain(lambda: self._memory.fault(body))
        return outcome if too_much is None else too_much


@contextmanager
def _own_streams(rng_seed: int, device: torch.device) -> Iterator[None]:
    """Python's, numpy's, torch's and the device's global streams begin anew for a block."""
    generators: list[Any] = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    python, numpys = random.getstate(), np.random.get_state()
    try:
        random.seed(rng_seed)
        np.random.seed(rng_seed % 2**32)
        for generator in generators:
            generator.manual_seed(rng_seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(numpys)


class _Parameters:
    """Which parameters a body has, of what kind, and who hooks them. Values are the body's own."""

    def __init__(self, body: nn.Module):
        modules = list(body.modules())
        self._kinds = [_Kind(p) for m in modules for p in m._parameters.values() if p is not None]
        tables: list[dict[str, Any]] = [m._parameters for m in modules]
        tables += [m._modules for m in modules]
        self._tables = [(table, dict(table)) for table in tables]

    def restore(self) -> list[str]:
        """Put back what is not as it was; says in words what that is."""
        changed = False
        for now, held in self._tables:
            if len(now) != len(held) or any(now.get(name) is not held[name] for name in held):
                now.clear()
                now.update(held)
                changed = True
        others = [kind.restore() for kind in self._kinds]
        found = ["its own parameters"] if changed or any(kind for kind, _ in others) else []
        return found + ["the hooks of its parameters"] * any(hooks for _, hooks in others)


class _Kind:
    """One parameter: its shape, dtype and device, whether it is trained, and its hooks."""

    def __init__(self, parameter: torch.Tensor):
        self._parameter = parameter
        self._data = parameter.data
        self._trained = parameter.requires_grad
        self._hooks = [tuple(getattr(parameter, name, None) or ()) for name in _HOOKS]

    def restore(self) -> tuple[bool, bool]:
        """Whether the kind, and whether the hooks, had changed."""
        now, was = self._parameter, self._data
        other = (now.shape, now.dtype, now.device) != (was.shape, was.dtype, was.device)
        if other:
            now.data = was
        other_trained = now.requires_grad != self._trained
        if other_trained:
            now.requires_grad_(self._trained)
        hooked = False
        for name, held in zip(_HOOKS, self._hooks, strict=True):
            hooks = getattr(now, name, None) or {}
            for key in [key for key in hooks if key not in held]:
                del hooks[key]
                hooked = True
        return other or other_trained, hooked
