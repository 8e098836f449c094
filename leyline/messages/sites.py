"""What can be planted where: sites, candidates, and the schema of names that packets use."""

from __future__ import annotations

from leyline.messages.base import Message, Name


class SiteInfo(Message, frozen=True, tag="site"):
    """A submodule whose output a seed may extend."""

    name: Name
    shape: tuple[int, ...]
    """Shape of the output for the example seen, batch axis included."""
    channels: int
    accepts: tuple[Name, ...]
    """Blueprints that fit."""
    num_chunks: int = 1
    """Equal parts of the channels, each a place; seed number n hangs on part n % num_chunks."""


class Candidate(Message, frozen=True, tag="candidate"):
    """One blueprint at one site, with what it would add."""

    site: Name
    blueprint: Name
    parameters: int
    flops: int
    """Forward FLOPs per example, of matrix products, convolutions and attention."""
    step_cost: float = 0.0
    """Work that it would add to a training step, as a share of the host's own; estimated from
    counts, not from a clock."""


class Schema(Message, frozen=True, tag="schema"):
    """Names that packets refer to by index; sent once, and again whenever one is added."""

    run_id: Name
    schema_id: int
    sites: tuple[SiteInfo, ...]
    blueprints: tuple[Name, ...]
    candidates: tuple[Candidate, ...]
    metrics: tuple[Name, ...]
    seeds: tuple[Name, ...]
