"""What became of seeds and sites, from Kasmina and Tolaria."""

from __future__ import annotations

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
    """What was expected of a graft, and what the counterfactual said once it had settled."""

    epoch: int
    seed: Name
    site: Name
    blueprint: Name
    parameters: int
    expected_gain: float
    expected_error: float
    counterfactual_gain: float
    counterfactual_error: float
    verdict: str


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
