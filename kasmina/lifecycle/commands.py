"""Commands: what a policy asks for, one by one, as requests to the lifecycle manager."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from torch import nn

from kasmina.lifecycle.manager import LifecycleManager
from kasmina.lifecycle.seed_table import SeedTable
from kasmina.sites.grounds import Grounds
from kasmina.slots.slot import seed_at_its_site
from leyline import (
    LIFECYCLE,
    Advance,
    Command,
    Cull,
    Evidence,
    Germinate,
    LifecycleError,
    SeedReport,
    SiteError,
    Stage,
)

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}")
"""Of a place at a site, as a seed's name ends with it."""
_UNBORN: Final = {
    "alpha": 0.0,
    "error_count": 0,
    "trial_steps": 0,
    "trial_gain": math.nan,
    "trial_error": math.nan,
    "counterfactual_gain": math.nan,
    "counterfactual_error": math.nan,
}
"""What a place knows of the seed that is planted in it."""


class Commands:
    """Carries out commands; each is done whole or, with an error, not at all.

    Args:
        evidence: what is known of a seed, for the guards.
    """

    def __init__(
        self,
        model: nn.Module,
        table: SeedTable,
        grounds: Grounds,
        lifecycle: LifecycleManager,
        evidence: Callable[[str], Evidence],
    ):
        self._model = model
        self._table = table
        self._grounds = grounds
        self._lifecycle = lifecycle
        self._evidence = evidence

    def execute(self, command: Command, epoch: int) -> SeedReport:
        """Carry out one command.

        Raises:
            LifecycleError, SiteError, BlueprintError: it cannot be done; nothing was changed.
        """
        if isinstance(command, Germinate):
            return self._germinate(command, epoch)
        if command.seed not in self._table:
            raise SiteError(f"there is no seed {command.seed!r}; nothing was changed")
        if isinstance(command, Advance):
            return self._advance_as_asked(command, epoch)
        return self._cull(command, epoch)

    def advance(self, seed: str, to: Stage, epoch: int, cause: str, **cells: float) -> SeedReport:
        """Request a transition on what the table knows of the seed."""
        evidence = self._evidence(seed)
        return self._lifecycle.request(seed, to, evidence, epoch=epoch, cause=cause, **cells)

    def withdraw(
        self, seed: str, to: Stage, epoch: int, cause: str, embargo_epochs: int
    ) -> SeedReport:
        """Take a seed out and keep its place empty for some epochs."""
        return self.advance(seed, to, epoch, cause, alpha=0.0, embargo_epochs_left=embargo_epochs)

    def release(self, epoch: int) -> list[SeedReport]:
        """Make places free again: the cancelled at once, the others after their embargo."""
        return [
            self.advance(seed, Stage.DORMANT, epoch, "its place is free again")
            for seed in self._table.in_stage(Stage.CANCELLED, Stage.CULLED, Stage.ROLLED_BACK)
            if self._table.get(seed, "embargo_epochs_left") <= 0
        ]

    def _germinate(self, command: Germinate, epoch: int) -> SeedReport:
        size = self._grounds.size(command.site, command.blueprint)
        site, _, number = command.seed.rpartition("/")
        is_new = command.seed not in self._table
        left_over = is_new and seed_at_its_site(self._model, command.seed) is not None
        if site != command.site or not _NUMBER.fullmatch(number) or left_over:
            raise SiteError(
                f"seed {command.seed!r} cannot be planted at {command.site!r}; name it "
                f"{command.site + '/'!r} and a number that no seed of an earlier run has"
            )
        if is_new:
            self._table.add(command.seed, self._grounds.site_index(command.site))
        return self.advance(
            command.seed,
            Stage.GERMINATED,
            epoch,
            command.cause,
            blueprint=self._grounds.blueprint_index(command.blueprint),
            parameters=size,
            birth_epoch=epoch,
            **_UNBORN,
        )

    def _advance_as_asked(self, command: Advance, epoch: int) -> SeedReport:
        """Advance, where the number may be any and the stage may have a way of its own."""
        if command.to in (Stage.CULLED, Stage.ROLLED_BACK):
            return self.withdraw(command.seed, Stage(command.to), epoch, command.cause, 0)
        if command.to == Stage.GERMINATED or command.to not in set(Stage):
            was = self._table.stage(command.seed)
            raise LifecycleError(
                command.seed,
                was.name,
                f"stage {command.to}",
                tuple(stage.name for stage in LIFECYCLE[was].leaves_to),
                "there is no such stage, or it takes a germinate command",
            )
        return self.advance(command.seed, Stage(command.to), epoch, command.cause)

    def _cull(self, command: Cull, epoch: int) -> SeedReport:
        """Take a seed out by the way that its stage allows."""
        allowed = LIFECYCLE[self._table.stage(command.seed)].leaves_to
        to = Stage.CULLED if Stage.CULLED in allowed else Stage.ROLLED_BACK
        return self.withdraw(command.seed, to, epoch, command.cause, command.embargo_epochs)
