"""What a run must do when it breaks: to which state it goes back, and which seeds it takes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from leyline import Stage
from tests.reliability.grown_loops import Trace
from tests.reliability.pictures import Picture, stages

MAX_UNEXPLAINED = 3
"""Rollbacks in a row, without a seed to blame, at which the run stops."""
TRUSTED_AFTER = 3
"""Epochs in EVALUATING after which a seed is not blamed any more."""
_OPEN = (Stage.GRAFTING, Stage.STABILIZATION, Stage.EVALUATING)
_GONE = (Stage.CULLED, Stage.CANCELLED, Stage.ROLLED_BACK)
_CAN_GO = (*_OPEN, Stage.GERMINATED, Stage.TRAINING, Stage.FINE_TUNING)


class Kept(NamedTuple):
    """A good state."""

    epoch: int
    step: int
    picture: Picture
    trace: Trace


class Verdict(NamedTuple):
    """What must come of a fault."""

    target: Kept
    out: tuple[str, ...]
    stops: bool


@dataclass
class Model:
    """The rules of docs/decisions/rollback.md, written out again."""

    newest: Kept
    guarded: bool = False
    before: dict[str, Kept] = field(default_factory=dict)
    """Of each open graft, the state that it began with."""
    num_unexplained: int = 0
    num_bad_steps: int = 0
    undisturbed: bool = True
    saved: list[tuple[Kept, dict[str, Kept], int]] = field(default_factory=list)
    """What was on the disk after each boundary: state, states before grafts, unexplained."""

    def good(self, state: Kept) -> None:
        """A state that was found good."""
        self.num_bad_steps = 0
        self.newest = state
        self.before = {s: self.before.get(s, state) for s in _open_in(state.picture)}

    def passed(self, state: Kept) -> None:
        """A boundary was passed, and a checkpoint committed."""
        self.good(state)
        if self.undisturbed:
            self.num_unexplained = 0
        self.undisturbed = True
        self.saved.append((self.newest, self.before, self.num_unexplained))

    def blames(self, now: Picture) -> list[str]:
        """The newest seeds that have not settled."""
        tuning = [s for s, (stage, _) in stages(now).items() if stage is Stage.FINE_TUNING]
        return _open_in(now) or tuning

    def broken(self, now: Picture, *, in_one_step: bool, from_disk: bool) -> Verdict:
        """What comes of a fault; say `went_back` when the run has.

        Args:
            now: the run as it is.
            in_one_step: whether the last step did it.
            from_disk: whether what was in memory is lost.
        """
        self.undisturbed = False
        guarded = self.guarded and in_one_step
        self.num_bad_steps += in_one_step
        if guarded and self.num_bad_steps < MAX_UNEXPLAINED:
            return Verdict(self.newest, (), stops=False)
        blamed = self.blames(now)
        target = self.newest
        if blamed and self.before:
            target = min(self.before.values(), key=lambda state: state.step)
        if from_disk:
            target = self.saved[-1][0]
            blamed += [s for s, (at, _) in stages(now).items() if at in _GONE and s not in blamed]
        then = stages(target.picture)
        out = tuple(s for s in blamed if s in then and then[s][0] in _CAN_GO)
        if not out:
            self.num_unexplained += 1
        return Verdict(
            target, out, stops=not out and (self.num_unexplained >= MAX_UNEXPLAINED or guarded)
        )

    def went_back(self, verdict: Verdict, state: Kept, *, from_disk: bool) -> None:
        """The run is in this state now."""
        if verdict.out:
            self.num_unexplained = self.num_bad_steps = 0
        if verdict.out or from_disk:
            self.newest, self.before = state, dict.fromkeys(_open_in(state.picture), state)

    def resumed(self) -> None:
        """The run was closed, and goes on from its last checkpoint."""
        self.newest, self.before, self.num_unexplained = self.saved[-1]
        on_disk = {state.step for state, *_ in self.saved}
        self.before = {
            # One of this very step is what was just gone back to, in the same boundary.
            seed: state if state.step in on_disk - {self.newest.step} else self.newest
            for seed, state in self.before.items()
        }
        self.undisturbed, self.num_bad_steps = True, 0


def _open_in(whole: Picture) -> list[str]:
    """The seeds whose graft has not settled."""
    return [
        seed
        for seed, (stage, stay) in stages(whole).items()
        if stage in _OPEN and (stage is not Stage.EVALUATING or stay < TRUSTED_AFTER)
    ]
