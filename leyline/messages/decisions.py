"""What Tamiyo decides, and why, for Kasmina to carry out."""

from __future__ import annotations

import math

from leyline.messages.base import Message, Name


class Germinate(Message, frozen=True, tag="germinate"):
    """Build a blueprint for a seed, prove that it fits and put it on trial."""

    seed: Name
    site: Name
    blueprint: Name
    cause: str


class Advance(Message, frozen=True, tag="advance"):
    """Move a seed to its next stage; `to` is the number of a Stage."""

    seed: Name
    to: int
    cause: str


class Cull(Message, frozen=True, tag="cull"):
    """Remove a seed and keep its place empty for some epochs."""

    seed: Name
    cause: str
    embargo_epochs: int


Command = Germinate | Advance | Cull
"""What a policy may ask for."""


class Score(Message, frozen=True, tag="score"):
    """One candidate that a decision considered: what it brought, what was asked of it."""

    seed: Name
    site: Name
    blueprint: Name
    parameters: int
    gain: float
    """Held-out loss without the seed minus with it."""
    gain_error: float
    """Standard error of the gain, over held-out batches."""
    threshold: float
    """The gain it had to exceed."""
    steps: int
    """Trial steps it was trained for."""
    chosen: bool
    flops: int = 0
    """Forward FLOPs per example that it adds; 0 if not known."""
    step_cost: float = 0.0
    """Work that it adds to a training step, as a share of the host's own; 0 if not known."""
    value: float = math.nan
    """What candidates were compared by: the gain less its costs; NaN if it was not measured."""


class Decision(Message, frozen=True, tag="decision"):
    """What a policy wants done at one boundary, and why. No commands means "hold"."""

    epoch: int
    policy: Name
    cause: str
    commands: tuple[Command, ...] = ()
    scores: tuple[Score, ...] = ()
    late: bool = False
    """The policy's answer came too late and was discarded; a resumed run holds here too."""
    undone: Name = ""
    """The stage that failed, "gather", "decide" or "apply", if the boundary did not count for
    that; a resumed run does without it too. Empty if it counted."""
    risk_level: int = 0
    """The RiskLevel that it was made at; what that forbids was left out, whoever asked for it."""
    risk_causes: tuple[str, ...] = ()
    """What brought the level about, the worst first."""
    risk_by_chance: int = 0
    """The RiskLevel that time, memory and disks alone came to; a resumed run goes by it again."""
    next_step: str = ""
    """What comes next if nothing else happens."""
