"""Recovery: keeps the last good states, goes back to one when the run breaks, names who did it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from kasmina import is_finite
from kasmina.guard import attempt, describe
from leyline import LIFECYCLE, EsperError, NonFiniteError, SeedReport, Stage
from leyline.lifecycle import WITHDRAWALS
from tolaria.rollback.arena import Arena
from tolaria.rollback.state import Moment, Parts, RunState

_LOG = logging.getLogger("esper")
MAX_UNEXPLAINED: Final = 3
"""Rollbacks without a seed to blame, no whole epoch between them, after which the run stops."""
GRAFTED: Final = (Stage.GRAFTING, Stage.STABILIZATION, Stage.EVALUATING)
TRUSTED_AFTER: Final = 3
"""Epochs in EVALUATING after which a fault is no longer laid to a graft: one whose gain cannot be
measured stays there for good, and all that was learnt since would be undone with it."""
"""Stages for which the state from before the graft is kept."""

FromDisk = Callable[[], tuple[int, int]]
"""Puts the newest valid checkpoint back; returns its epoch and step, or raises an EsperError."""


@dataclass(frozen=True)
class Restored:
    """What came of a rollback."""

    reports: list[SeedReport]
    """What happened to the seeds that were taken out; empty if there was none to blame."""
    epoch: int
    """The last epoch that counts."""
    step: int
    """The last step that counts."""
    source: str
    """Where the state came from, in words."""
    state: RunState | None = None
    """The state itself; None if it is from disk."""


class Recovery:
    """The fast tier, and the way to the full one.

    Kept are the newest state, taken after every boundary, and, from a graft until its seed is in
    FINE_TUNING, that of the boundary which grafted it: alpha is 0 there, so with the seed taken out
    it is the host as it was before. Policies that graft one seed after the other need two states.

    Args:
        from_disk: the full tier.
        embargo_epochs: for how long the place of a seed that was taken out stays empty.
        guards_steps: whether the newest state is that after every single step.
    """

    def __init__(
        self,
        parts: Parts,
        from_disk: FromDisk,
        *,
        embargo_epochs: int,
        guards_steps: bool = False,
    ):
        self.parts = parts
        self.guards_steps = guards_steps
        self.newest: RunState | None = None
        """The last good state; None before there was one."""
        self.before_grafts: dict[str, RunState] = {}
        """For each seed whose graft has not settled, the state of the boundary that began it."""
        self.saved_moments: dict[str, Moment] = {}
        """When those were taken, in a resumed run that has not got them back."""
        self.num_unexplained = 0
        """Rollbacks without a seed to blame, since the last epoch that had none."""
        self.has_unsettled = False
        """Whether a seed could be blamed now."""
        self._from_disk = from_disk
        self._embargo_epochs = embargo_epochs
        self._arena = Arena()
        self._undisturbed = True
        self._num_bad_steps = 0
        self._stale_rates: set[int] = set()
        self._has_looked = False
        self._hooks = [
            optimizer.register_step_pre_hook(partial(self._before_step, number))
            for number, optimizer in enumerate(parts.optimizers)
        ]

    # --- keeping -----------------------------------------------------------------------------

    def take(self, epoch: int, step: int) -> None:
        """Remember the state at an epoch's end as good, unless a parameter is not finite."""
        if not self._take(epoch, step):
            return
        self._num_bad_steps = 0
        if self._undisturbed:
            self.num_unexplained = 0
        self._undisturbed = True

    def take_step(self, epoch: int, step: int) -> bool:
        """Remember the state after one step; False if a parameter is not finite."""
        taken = self._take(epoch, step)
        if taken:
            self._num_bad_steps = 0
        return taken

    def release(self) -> None:
        """Let go of the optimizers and of all memory."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._arena = [], Arena()
        self.newest, self.before_grafts = None, {}

    @property
    def before_graft(self) -> RunState | None:
        """The state to which a fault goes back while a graft has not settled."""
        return min(self.before_grafts.values(), key=lambda state: state.step, default=None)

    def _take(self, epoch: int, step: int) -> bool:
        if not all_finite(self.parts.model):
            return False
        table = self.parts.executor.table
        open_grafts = self._open_grafts()
        self.has_unsettled = bool(open_grafts or table.in_stage(Stage.FINE_TUNING))
        try:
            taken = RunState(self._arena, self.parts, self._moment(epoch, step))
        except (MemoryError, torch.OutOfMemoryError) as error:
            _LOG.warning("no memory to keep the state of step %d; an earlier one stays", step)
            _LOG.debug("it was: %s", error)
            return True
        # Only now: had it failed, the one before would still be whole.
        last, self.newest = self.newest, taken
        held = self.before_grafts
        self.before_grafts = {seed: held.get(seed, taken) for seed in open_grafts}
        self._drop(last, *held.values())
        self._stale_rates = set(range(len(self.parts.optimizers)))
        return True

    def _moment(self, epoch: int, step: int) -> Moment:
        loader = self.parts.loader
        return Moment(epoch, step, None if loader is None else loader.next_batch)

    def take_first(self, epoch: int, step: int) -> None:
        """Remember the state that a run starts from, or goes on from after a resume.

        Nothing was trained before it, so it says nothing for an end of what has gone wrong.
        """
        self._begin_anew(epoch, step)

    def hold_before_grafts(self, moment: Moment, seeds: Sequence[str]) -> None:
        """Remember the state as it is now as that from before the open grafts of these seeds."""
        held = self.before_grafts
        state = RunState(self._arena, self.parts, moment)
        self.before_grafts = {**held, **dict.fromkeys(seeds, state)}
        self._drop(*held.values())

    def _drop(self, *states: RunState | None) -> None:
        """Give the memory of states back, except of those that are kept for another reason too."""
        kept = [id(state) for state in (None, self.newest, *self.before_grafts.values())]
        for state in {id(state): state for state in states if id(state) not in kept}.values():
            if state is not None:
                state.release()

    def _before_step(self, number: int, *_: Any) -> None:
        """Take the rates again: a scheduler may step after the boundary, for the epoch to come."""
        if number not in self._stale_rates:
            return
        self._stale_rates.discard(number)
        if not self._has_looked:
            self._has_looked = True
            self.parts.rates.find_schedulers()
        if self.newest is not None:
            self.newest.renew_rates(number)

    def state_dict(self) -> dict[str, Any]:
        """What decides whether the run stops at the next rollback, and where it would go back to;
        the states themselves stay in memory."""
        return {
            "before_grafts": {seed: list(s.moment) for seed, s in self.before_grafts.items()},
            "num_unexplained": self.num_unexplained,
            "num_bad_steps": self._num_bad_steps,
            "undisturbed": self._undisturbed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; from an older one that says nothing, as at the beginning."""
        moments = state.get("before_grafts")
        if moments is None:  # one for all, in an older state
            held = state.get("before_graft")
            moments = {} if held is None else dict.fromkeys(self._open_grafts(), held)
        self.saved_moments = {seed: Moment(*moment) for seed, moment in moments.items()}
        self.num_unexplained = state.get("num_unexplained", 0)
        self._num_bad_steps = state.get("num_bad_steps", 0)
        self._undisturbed = state.get("undisturbed", True)

    # --- going back --------------------------------------------------------------------------

    def recover(
        self,
        fault: str,
        batch: Any,
        *,
        epoch: int,
        step: int,
        where: str,
        in_one_step: bool = True,
    ) -> Restored:
        """Go back to the last good state and take out the seeds that have not settled.

        The newest of them are blamed: those whose graft is open, else those in FINE_TUNING.
        Where single steps are guarded nobody is, unless it is the third bad step in a row.

        Args:
            fault: what a trigger said.
            batch: the batch it came from, or None.
            epoch: the running epoch, from 1.
            step: the running step, from 1.
            where: the place in words, with the batch as far as it is known.
            in_one_step: whether it is the last step that did it.

        Raises:
            NonFiniteError: the batch itself is not finite, there is nothing to go back to, or it
                happened too often without a seed to blame. The weights are the last good ones.
        """
        what = f"{fault} at {where}"
        if self.newest is None:
            raise NonFiniteError(
                f"{what}, before there was a good state to go back to; lower the learning rate "
                "or check the loss"
            )
        self._undisturbed = False
        self.parts.rates.find_schedulers()
        guarded = self.guards_steps and in_one_step
        self._num_bad_steps += in_one_step
        if guarded and self._num_bad_steps < MAX_UNEXPLAINED:
            return self._go_back(self.newest, what)
        back, blamed = self._go_back_and_blame(self.newest, what)
        if not guarded and batch is not None and not is_finite(batch):
            raise NonFiniteError(
                f"{what}: the training batch itself holds NaN or infinity; clean the data "
                "(the weights are those of the last epoch's end)"
            )
        cause = f"{what}; the run was restored to the end of epoch {back.epoch}"
        reports = [
            self.parts.executor.roll_back(seed, epoch, cause, self._embargo_epochs)
            for seed in blamed
            if self._can_go(seed)
        ]
        if reports:
            if back.state is not None:
                back.state.restore_data(self.parts)
            self._settle_without(back.epoch, step)
        else:
            self._count_unexplained(what, is_third=guarded)
        return replace(back, reports=reports)

    def _go_back_and_blame(self, newest: RunState, what: str) -> tuple[Restored, list[str]]:
        """Go back as far as those to blame have led, and say who is to be taken out there."""
        blamed, gone = self._blamed(), self.parts.executor.table.in_stage(*WITHDRAWALS)
        target = self.before_graft if blamed and self.before_graft is not None else newest
        back = self._go_back(target, what)
        if back.state is None:
            # The checkpoint may be from before a rollback that took them out.
            blamed += [seed for seed in gone if seed not in blamed]
        return back, blamed

    def _count_unexplained(self, what: str, *, is_third: bool) -> None:
        self.num_unexplained += 1
        if self.num_unexplained >= MAX_UNEXPLAINED or is_third:
            raise NonFiniteError(
                f"{what}: {MAX_UNEXPLAINED} times in a row without a seed to blame; lower the "
                "learning rate or check the loss and that batch (the weights are the last good "
                "ones)"
            )

    def _settle_without(self, epoch: int, step: int) -> None:
        """The blamed seeds are out: what led to them is explained, and cannot be gone back to."""
        self.num_unexplained = self._num_bad_steps = 0
        executor = self.parts.executor
        self.parts.rates.reconcile(executor.live_seeds(), executor.take_moments)
        self._begin_anew(epoch, step)

    def _blamed(self) -> list[str]:
        return self._open_grafts() or self.parts.executor.table.in_stage(Stage.FINE_TUNING)

    def _open_grafts(self) -> list[str]:
        """Seeds whose graft has not settled, and which may still be what does harm."""
        table = self.parts.executor.table
        return [
            seed
            for seed in table.in_stage(*GRAFTED)
            if table.stage(seed) is not Stage.EVALUATING
            or table.get(seed, "epochs_in_stage") < TRUSTED_AFTER
        ]

    def _can_go(self, seed: str) -> bool:
        """Whether a seed that was blamed is still to be taken out in the state gone back to."""
        table = self.parts.executor.table
        ends = (Stage.ROLLED_BACK, Stage.CULLED, Stage.CANCELLED)
        return seed in table and any(e in LIFECYCLE[table.stage(seed)].leaves_to for e in ends)

    def _go_back(self, state: RunState, what: str) -> Restored:
        """Restore a state from memory or, where that fails, the newest checkpoint."""
        failure = attempt(lambda: state.restore(self.parts))
        if not isinstance(failure, Exception):
            return Restored([], state.epoch, state.step, "from memory", state)
        why = describe(failure)
        _LOG.warning("the state in memory cannot be restored (%s); trying the disk", why)
        try:
            epoch, step = self._from_disk()
        except EsperError as error:
            raise NonFiniteError(
                f"{what}; the run cannot go back: not from memory ({why}), and not from disk "
                f"({error}); start again from an earlier checkpoint"
            ) from error
        self._begin_anew(epoch, step)
        return Restored([], epoch, step, f"from disk ({why})")

    def _begin_anew(self, epoch: int, step: int) -> None:
        """Forget a future that was undone: the state as it is now is the one to go back to."""
        held, self.before_grafts = self.before_grafts, {}
        self._drop(*held.values())
        self._take(epoch, step)


def all_finite(model: nn.Module) -> bool:
    """Whether every parameter is free of NaN and infinity, in one read from the device."""
    floating = [p.detach() for p in model.parameters() if p.is_floating_point()]
    # A half-precision sum would overflow where no parameter does.
    sums = [p.sum(dtype=torch.promote_types(p.dtype, torch.float32)) for p in floating]
    return not sums or bool(torch.stack([torch.isfinite(total) for total in sums]).all())
