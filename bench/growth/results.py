"""What a run leaves behind: one small JSON file's worth."""

from __future__ import annotations

from typing import Any

import msgspec


class Point(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The state of a run at a validation; sums since its start."""

    flops: int
    """Training, search and rejected candidates together."""
    cpu_s: float
    val_loss: float
    val_metric: float


class Graft(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A seed that was blended in, whatever became of it."""

    span: int
    """At whose end it was planted."""
    site: str
    blueprint: str
    num_parameters: int
    trial_gain: float | None
    """Held-out loss that its trial saved; None if it had none."""


class Growing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only a run that grows has."""

    grafts: list[Graft]
    structure: list[tuple[str, str]]
    """(site, blueprint) of what is in the final network, in order of grafting."""
    worst_rise: float
    """Of the validation loss by a graft itself: at any quarter of alpha / before - 1, without a
    step of training in between."""
    worst_rise_of_cull: float
    """The same by taking a graft out, which happens where it is not surely of use."""
    worst_rise_in_ramp: float
    """The same over the spans in which an alpha rose; training goes on meanwhile."""
    num_rollbacks: int
    num_untracked: int
    """Parameters that no optimizer held at some boundary, at most."""
    boundary_ms: dict[str, float]
    """What boundaries took in all, by stage."""
    overhead: float
    """Time in Esper outside races, as a share of that of training and validation. To a race belong
    its trials and that its candidates are planted and proven harmless."""
    causes: list[str]
    """Of every decision that did something."""


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network that was trained, and what that took."""

    val_loss: float
    val_metric: float
    test_loss: float
    test_metric: float
    """On examples that no decision has seen, once, at the end."""
    num_parameters: int
    forward_flops: int
    """Of one example."""
    training_flops: int
    search_flops: int
    """Of trials, counterfactuals and networks that were not chosen."""
    cpu_s: float
    """CPU seconds of the process, evaluation on the test split apart."""
    wall_s: float
    history: list[Point]
    growing: Growing | None = None
    notes: dict[str, Any] = {}

    @property
    def flops(self) -> int:
        """All of them."""
        return self.training_flops + self.search_flops
