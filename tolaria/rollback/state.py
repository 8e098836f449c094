"""The state of a run at one moment: all that the next steps depend on, back together or not at all.

What belongs to it: parameters, buffers, extra state of modules, optimizer state, the options and
order of parameter groups, schedulers, the gradient scaler, the random streams of every device, the
seeds in the model, their table, ramps and plain state, the policy's own state. What does not: what
the user has frozen, the modes of the host's modules, plain attributes, breakers and counters, which
tell what has really happened.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from kasmina.slots.held_seeds import HeldSeeds
from kasmina.slots.slot import every_seed
from kasmina.structure import is_seed_key
from leyline import RollbackError
from tolaria.resume import rng_state
from tolaria.rollback.arena import Arena
from tolaria.rollback.rates_state import RatesState
from tolaria.rollback.tensors import bring_back, mismatch, state_of, weights_of

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from kasmina import Executor
    from tamiyo import Controller
    from tolaria.rates.controller import UnifiedLRController


@runtime_checkable
class Rewindable(Protocol):
    """A training loader whose data can go back; that of `esper train` is one."""

    @property
    def next_batch(self) -> int:
        """The number, over all epochs, of the batch that comes next."""

    def go_back(self, next_batch: int) -> None:
        """Let the batch of this number come next, also from an iterator that is in use."""


@dataclass
class Parts:
    """What goes back together."""

    model: nn.Module
    executor: Executor
    rates: UnifiedLRController
    controller: Controller
    scaler: Any = None
    """The gradient scaler of the loop, if it has one."""
    loader: Rewindable | None = None
    """The training loader, if it can go back as Esper's own can."""
    others: list[Any] = field(default_factory=list)
    """Whatever else has a `state_dict` and a `load_state_dict`, such as averaged weights."""

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """The run's optimizers."""
        return self.rates.optimizers

    @property
    def scalers(self) -> list[Any]:
        """The scaler, if there is one."""
        return [] if self.scaler is None else [self.scaler]


class Moment(NamedTuple):
    """When a state was taken."""

    epoch: int
    step: int
    next_batch: int | None
    """The number of the training batch that came next, if the loader is ours."""


class RunState:
    """One moment of a run. Take it between two steps: no gradients are kept.

    Args:
        arena: whose memory the tensors are copied into; `release` gives it back.
        moment: how many epochs and steps had passed, and which batch came next.
    """

    def __init__(self, arena: Arena, parts: Parts, moment: Moment):
        self.moment = moment
        self.epoch = moment.epoch
        self.step = moment.step
        self._plain = _Plain(parts)
        weights = weights_of(parts.model, parts.optimizers)
        tensors, self._kept = state_of(weights, parts.optimizers)
        self._arena = arena
        # Last: whatever fails before this leaves no side in use.
        self._side = arena.take({**weights, **tensors})

    @property
    def size_bytes(self) -> int:
        """Memory of the tensors that are kept."""
        return self._side.size_bytes

    def renew_rates(self, optimizer: int) -> None:
        """Take the rates of one optimizer again; see RatesState.renew."""
        self._plain.rates.renew(optimizer)

    def restore(self, parts: Parts) -> None:
        """Put everything back in place; gradients become None. It can be done again and again.

        Raises:
            RollbackError: the user's own parameters, buffers or groups are not those of then.
                Whatever the error, nothing is other than before.
        """
        with ExitStack() as undo:
            undo.callback(_Plain(parts).restore, parts)
            undo.callback(parts.rates.go_back, parts.rates.mark())
            self._refuse_other(weights_of(parts.model, parts.optimizers), without_seeds=True)
            self._plain.restore(parts)
            weights = weights_of(parts.model, parts.optimizers)
            self._refuse_other(weights, without_seeds=False)
            undo.pop_all()
        bring_back(self._side, self._kept, weights, parts.optimizers)
        for weight in weights.values():
            weight.grad = None
        for held in every_seed(parts.model):
            held.seed.train(held.module.training)  # as the host is now
            # A device may still hold a flag of what was just undone.
            held.seed.check = copy.copy(held.seed.check)

    def restore_data(self, parts: Parts) -> None:
        """Let the data go on from where they were, if the loader is ours.

        Apart from `restore`, because with nothing else changed the same batches break a run again.
        """
        if parts.loader is not None and self.moment.next_batch is not None:
            parts.loader.go_back(self.moment.next_batch)

    def _refuse_other(self, weights: Mapping[str, Tensor], *, without_seeds: bool) -> None:
        flaw = mismatch(self._side, weights, without_seeds)
        if flaw is not None:
            raise RollbackError(
                f"the state of step {self.step} does not fit the model any more: {flaw}"
            )

    def release(self) -> None:
        """Give the memory back; this state can no longer be restored."""
        self._arena.release(self._side)


class _Plain:
    """Everything that is no tensor of the model or its optimizers."""

    def __init__(self, parts: Parts):
        self._seeds = HeldSeeds(parts.model)
        self._extra = [(m, copy.deepcopy(m.get_extra_state())) for m in _with_extra(parts.model)]
        executor = parts.executor.state_dict()
        # A copy already, and copied again when it is loaded; a deep one of tensors is slow.
        self._table = executor.pop("table")
        self._executor = copy.deepcopy(executor)
        self._controller = copy.deepcopy(parts.controller.state_dict())
        self._stateful = [
            (part, copy.deepcopy(part.state_dict())) for part in (*parts.scalers, *parts.others)
        ]
        self._rng = rng_state.capture()
        self.rates = RatesState(parts.rates)

    def restore(self, parts: Parts) -> None:
        self._seeds.restore()
        for module, state in self._extra:
            module.set_extra_state(copy.deepcopy(state))
        parts.executor.load_state_dict({**copy.deepcopy(self._executor), "table": self._table})
        parts.controller.load_state_dict(copy.deepcopy(self._controller))
        self.rates.restore(parts.executor)
        for part, state in self._stateful:
            part.load_state_dict(copy.deepcopy(state))
        rng_state.restore(self._rng)


def _with_extra(model: nn.Module) -> Iterator[nn.Module]:
    """The modules, without seeds, that have state besides tensors."""
    for name, module in model.named_modules():
        has = type(module).get_extra_state is not nn.Module.get_extra_state
        if has and not is_seed_key(name):
            yield module
