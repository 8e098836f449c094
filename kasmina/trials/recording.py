"""Recordings: what the modules of a frozen host that are done before a site put out for a batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kasmina.trials.batches import map_tensors, size_bytes
from kasmina.trials.calls import Call, Forward, standing_in


@dataclass(frozen=True)
class Recording:
    """One bare pass: what each call put out, hollow where its value is never looked at."""

    outputs: dict[Call, Any]
    order: tuple[Call, ...]
    """Every call of the recorded modules, in the order in which they ended."""
    loss: Tensor
    size_bytes: int

    def only(self, needed: Collection[Call]) -> Recording:
        """The same, hollow but for some calls."""
        outputs = {
            call: output if call in needed else map_tensors(hollow, output)
            for call, output in self.outputs.items()
        }
        return replace(self, outputs=outputs, size_bytes=_kept_bytes(outputs, needed))


def hollow(tensor: Tensor) -> Tensor:
    """A stand-in of the same shape that takes one element of memory: NaN, so a use of it shows.

    Integers have no NaN and are kept.
    """
    if not tensor.is_floating_point():
        return tensor.detach().clone()
    return tensor.new_full((), torch.nan).expand(tensor.shape)


def is_hollow(tensor: Tensor) -> bool:
    """Whether all elements of a tensor are one and the same in memory."""
    return tensor.numel() > 1 and tensor.untyped_storage().nbytes() == tensor.element_size()


def fresh(output: Any) -> Any:
    """A copy of a recorded output, so that a pass which changes it in place changes its own."""
    return map_tensors(lambda tensor: tensor if is_hollow(tensor) else tensor.clone(), output)


def record(
    model: nn.Module,
    run: Callable[[], Tensor],
    calls: Collection[Call],
    needed: Collection[Call],
) -> Recording:
    """Run a pass and keep what some calls put out.

    Args:
        calls: what is recorded.
        needed: those of them whose value is kept, not only its shape.
    """
    outputs: dict[Call, Any] = {}
    order: list[Call] = []
    numbers = Counter[str]()

    def recorded(name: str, forward: Forward) -> Forward:
        """A forward that keeps what its calls put out."""

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            call = Call(name, numbers[name])
            numbers[name] += 1
            output = forward(*args, **kwargs)
            order.append(call)
            if call in needed:
                outputs[call] = map_tensors(lambda tensor: tensor.detach().clone(), output)
            elif call in calls:
                outputs[call] = map_tensors(hollow, output)
            return output

        return stand_in

    modules = {name: model.get_submodule(name) for name in {call.module for call in calls}}
    with standing_in({m: recorded(name, m.forward) for name, m in modules.items()}):
        loss = run().detach()
    return Recording(outputs, tuple(order), loss, _kept_bytes(outputs, needed))


def _kept_bytes(outputs: dict[Call, Any], needed: Collection[Call]) -> int:
    return sum(size_bytes(outputs[call]) for call in needed if call in outputs)


def played(
    model: nn.Module, calls: Collection[Call], hand: Callable[[Call], Any]
) -> dict[nn.Module, Forward]:
    """Stand-ins that hand out recorded outputs, for `standing_in`.

    Args:
        hand: gives what a call returns; a module's later calls, after the site, are its own.
    """

    def player(name: str, num_recorded: int, forward: Forward) -> Forward:
        """A forward whose first calls are handed out."""
        number = 0

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            nonlocal number
            number += 1
            if number <= num_recorded:
                return hand(Call(name, number - 1))
            return forward(*args, **kwargs)

        return stand_in

    forwards = {}
    for name, num_recorded in Counter(call.module for call in calls).items():
        module = model.get_submodule(name)
        forwards[module] = player(name, num_recorded, module.forward)
    return forwards


def rng_streams() -> list[Any]:
    """The state of every random stream, in values that compare."""
    name, keys, *rest = np.random.get_state()
    streams = [torch.get_rng_state()]
    if torch.cuda.is_available():
        streams += torch.cuda.get_rng_state_all()
    devices = [bytes(state.numpy()) for state in streams]
    return [random.getstate(), name, np.asarray(keys).tobytes(), rest, devices]
