"""What became of seeds and sites, from Kasmina and Tolaria."""

from __future__ import annotations

import math

import msgspec

from leyline.messages.base import Message, Name


class SeedReport(Message, frozen=True, tag="seed_report"):
    """One transition of one seed, made or refused."""

    epoch: int
    seed: Name
    site: Name
    blueprint: Name
    was: int
    now: int
    parameters: int
    alpha: float
    cause: str
    refused: str = ""
    """Why the transition was refused; empty when it was made."""


class FieldReport(Message, frozen=True, tag="field_report"):
    """What was done with a graft, what was expected of it, and what came of it when it was judged.

    It is judged when its counterfactual has been measured, and again if it is taken out: so every
    graft leaves at least one report, also one that broke before anything was measured.
    """

    epoch: int
    """The boundary at which it was judged."""
    seed: Name
    site: Name
    blueprint: Name
    parameters: int
    expected_gain: float
    """Held-out loss that its trial saved; NaN if there was no trial."""
    expected_error: float
    """Standard error of that."""
    counterfactual_gain: float
    """Held-out loss that it saves in the live network; NaN if that was not measured."""
    counterfactual_error: float
    verdict: str
    """The stage it went to."""
    cause: str = ""
    """Why it went there."""
    trial_steps: int = 0
    grafted_epoch: int = 0
    """The boundary at which the observation began: alpha rises from it on. 0 if not known."""
    settled_epoch: int = 0
    """The boundary at which alpha was found at 1; 0 if it was not, or is not known."""
    steps: int = 0
    """Training steps from the graft to the verdict."""
    alpha: float = math.nan
    """As the last state packet before the verdict told it; NaN if none did."""
    metrics_before: dict[str, float] = msgspec.field(default_factory=dict)
    """The run's metrics at the boundary of the graft, before it."""
    metrics_after: dict[str, float] = msgspec.field(default_factory=dict)
    """Those at the verdict. What lies between is also what the host has learnt meanwhile."""


class SitesFound(Message, frozen=True, tag="sites_found"):
    """What a survey of the model found: where it may grow in this run, and where not, and why."""

    epoch: int
    grows: tuple[Name, ...]
    """Sites that may grow."""
    control: tuple[Name, ...]
    """Sites that never grow in this run: the control arm of a rollout."""
    rollout_percentage: int
    """The share of sites that may grow, as it was asked for."""
    num_refused: int
    """Submodules that are no sites."""
    refused: dict[str, str]
    """The reason for each of those, of a thousand at most."""
