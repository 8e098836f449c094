"""What every policy does with a seed once it is grafted: let it settle, measure it, judge it."""

from __future__ import annotations

from dataclasses import dataclass

from leyline import Advance, Command, Cull, Stage
from tamiyo.removals import Removals
from tamiyo.state import SeedRow, State
from tamiyo.timing import Amount, Count


@dataclass(frozen=True, kw_only=True)
class SettlingRules:
    """How a grafted seed is judged."""

    veto: bool = True
    """Whether the counterfactual may cull."""
    veto_errors: Amount = 2.0
    """A seed is culled if its counterfactual gain is at most this many standard errors."""
    embargo_epochs: Count = 15
    """How long the place and blueprint of a seed that was taken out stay empty, the first time."""


def settle(state: State, rules: SettlingRules, removals: Removals | None = None) -> list[Command]:
    """Move every grafted seed on by one stage where it is due.

    Args:
        removals: what was taken out before, which makes an embargo longer; None: nothing counts.
    """
    known = removals if removals is not None else Removals()
    spared = _spared(state, rules)
    rows = [row for row in state.rows if row.epochs_in_stage >= 1 and row.seed not in spared]
    commands = [_next(state, row, rules, known) for row in rows]
    return [command for command in commands if command is not None]


def _spared(state: State, rules: SettlingRules) -> set[str]:
    """Of several that the counterfactual speaks against, all but the worst, to be measured again.

    Each was measured with the others on. Of two that do the same each seems to be of no use, though
    without both the host would be worse: once one is gone, the other shows what it is worth.
    """
    failing = {
        row.seed: row.counterfactual_gain
        for row in state.in_stage(Stage.EVALUATING)
        if row.epochs_in_stage >= 1 and row.counterfactual_gain is not None and _fails(row, rules)
    }
    return set(failing) - {min(failing, key=failing.__getitem__)} if failing else set()


def _fails(row: SeedRow, rules: SettlingRules) -> bool:
    """Whether the counterfactual culls it, as far as it is measured."""
    gain, error = row.counterfactual_gain, row.counterfactual_error
    return (
        rules.veto and gain is not None and error is not None and gain <= rules.veto_errors * error
    )


def _next(state: State, row: SeedRow, rules: SettlingRules, removals: Removals) -> Command | None:
    if row.stage is Stage.GRAFTING and row.error_count:
        # Too early for a cull: the executor rolls it back.
        return _cull(state, row, rules, removals, f"its graft failed at alpha {row.alpha:.3g}")
    if row.stage is Stage.GRAFTING and row.alpha == 1.0:
        return _advance(row, Stage.STABILIZATION, "alpha has reached 1")
    if row.stage is Stage.STABILIZATION:
        return _advance(row, Stage.EVALUATING, "the host has settled around it for an epoch")
    if row.stage is Stage.EVALUATING:
        return _verdict(state, row, rules, removals)
    if row.stage is Stage.FINE_TUNING:
        return _advance(row, Stage.FOSSILIZED, "it has trained on with the host for an epoch")
    return None


def _verdict(
    state: State, row: SeedRow, rules: SettlingRules, removals: Removals
) -> Command | None:
    gain, error = row.counterfactual_gain, row.counterfactual_error
    if gain is None or error is None:
        return None  # kept, unproven: a missing measurement moves nothing
    measured = f"counterfactual gain {gain:.4f} +- {error:.4f}"
    if _fails(row, rules):
        cause = f"{measured} is not above {rules.veto_errors:g} standard errors: without it the "
        return _cull(state, row, rules, removals, cause + "held-out loss is no worse")
    return _advance(row, Stage.FINE_TUNING, measured)


def _cull(state: State, row: SeedRow, rules: SettlingRules, removals: Removals, cause: str) -> Cull:
    epochs = removals.embargo_epochs(state, row, rules.embargo_epochs)
    if epochs > rules.embargo_epochs:
        cause += f"; taken out of this place before, so its embargo is {epochs:,} epochs"
    return Cull(seed=row.seed, cause=cause, embargo_epochs=epochs)


def _advance(row: SeedRow, to: Stage, cause: str) -> Advance:
    return Advance(seed=row.seed, to=int(to), cause=cause)


def unsettled(state: State, commands: list[Command]) -> list[SeedRow]:
    """Seeds that a new race would disturb, once these commands are carried out."""
    moving = {
        command.seed
        for command in commands
        if isinstance(command, Cull)
        or (isinstance(command, Advance) and command.to >= Stage.FINE_TUNING)
    }
    # A failed graft is waited for while it goes: this state does not know its embargo yet.
    moving -= {row.seed for row in state.in_stage(Stage.GRAFTING)}
    busy = (Stage.GERMINATED, Stage.TRAINING, Stage.GRAFTING, Stage.STABILIZATION)
    return [
        row
        for row in state.rows
        if row.seed not in moving
        and (row.stage in busy or (row.stage is Stage.EVALUATING and _is_to_be_judged(row)))
    ]


def _is_to_be_judged(row: SeedRow) -> bool:
    """Whether a seed in EVALUATING has its verdict before it: unmeasured ones are kept unproven."""
    return row.epochs_in_stage < 1 or row.counterfactual_gain is not None
