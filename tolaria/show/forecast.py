"""What a run would do, in lines: the end of a dry run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from kasmina import RaceRules
from leyline import Candidate, Decision, SiteInfo, SitesFound, limits
from oona.servers.url import redact
from tolaria.config import EsperConfig
from tolaria.disk.usage import size_words
from tolaria.show.phrases import cause_words, clean, counted, headline
from tolaria.show.sites import sites_lines

_NUM_SITES: Final = 12
"""Sites that are listed; the rest are counted."""


class Forecast(NamedTuple):
    """What there is when the first step is about to begin; sizes are of what lies in memory."""

    config: EsperConfig
    data: str
    model: str
    parameters: int
    num_epochs: int
    """0 if the run has no end."""
    num_steps: int | None
    """Steps of an epoch; None if its data does not say."""
    validates: bool
    optimizers: tuple[str, ...]
    sites: SitesFound | None
    no_sites: str
    """Why there are none, if there are none."""
    places: tuple[SiteInfo, ...]
    candidates: tuple[Candidate, ...]
    first: Decision | None
    """The first that changes something; None if none does."""
    causes: tuple[str, ...]
    """Why those before it do not, in their order."""
    model_size_bytes: int
    optimizer_size_bytes: int
    batch_size_bytes: int


def forecast_lines(told: Forecast) -> Iterator[str]:
    """Everything worth knowing before a run begins."""
    config = told.config
    yield "dry run: nothing was trained, nothing was written"
    yield ""
    optimizers = ", ".join(told.optimizers) or "no optimizer"
    yield f"model: {told.model}, {counted(told.parameters, 'parameter')}; {optimizers}"
    steps = "an unknown number of steps" if told.num_steps is None else f"{told.num_steps:,} steps"
    epochs = f"{told.num_epochs:,} epochs" if told.num_epochs else "epochs without end"
    held_out = "validation data decides" if told.validates else "no validation data to decide by"
    yield f"data: {told.data}; {epochs} of {steps}; {held_out}"
    yield from _growth_lines(told)
    yield from _memory_lines(told)
    yield (
        f"boundary: at most {limits.BOUNDARY_MS:g} ms at p95 (gather {limits.GATHER_MS:g}, decide "
        f"{limits.DECIDE_MS:g}, apply {limits.APPLY_MS:g})"
    )
    yield f"run: {config.run_dir or 'a new dated directory in runs/'}"
    yield f"telemetry: {redact(config.telemetry)}"


def _growth_lines(told: Forecast) -> Iterator[str]:
    config = told.config
    if told.sites is None:
        yield f"sites: none: {clean(told.no_sites)}"
        return
    yield from sites_lines(told.sites)
    if told.sites.control:
        yield "  every run draws its control arm anew, by its own name"
    for place in told.places[:_NUM_SITES]:
        chunks = f" in {place.num_chunks} chunks" if place.num_chunks > 1 else ""
        kinds = counted(len(place.accepts), "blueprint")
        yield f"  {clean(place.name)}: shape {place.shape}{chunks}, {kinds} fit"
    if len(told.places) > _NUM_SITES:
        yield f"  and {len(told.places) - _NUM_SITES:,} more"
    if told.candidates:
        sizes = [candidate.parameters for candidate in told.candidates]
        yield (
            f"candidates: {len(sizes):,}, of {min(sizes):,} to "
            f"{counted(max(sizes), 'parameter')} each"
        )
    first = told.first
    if first is None:
        yield f"growth: none: {'; then '.join(map(clean, told.causes))}"
        return
    unit = "epoch" if config.boundary_every_steps is None else "boundary"
    yield f"growth: first after {unit} {first.epoch}: {headline(first)}: {cause_words(first)}"
    if config.policy == "heuristic" and told.validates:
        fewest, *later = config.trial_steps
        rules, num = RaceRules(config.trial_steps, config.trial_keep), config.max_candidates
        rungs = []
        for rung, steps in enumerate(later):
            num = rules.num_going_on(rung, num)
            rungs.append(f"the best {num} to {steps:,}")
        on = f"; {', '.join(rungs)}" if rungs else ""
        yield (
            f"race: at most {counted(config.max_candidates, 'candidate')}, trained for {fewest:,} "
            f"steps{on}"
        )


def _memory_lines(told: Forecast) -> Iterator[str]:
    config = told.config
    state = told.model_size_bytes + told.optimizer_size_bytes
    batches = min(config.max_kept_batches * told.batch_size_bytes, config.max_kept_size_bytes)
    yield (
        f"memory: the run about {size_words(state + told.model_size_bytes)} for weights, gradients "
        "and optimizer, and its activations"
    )
    saves = config.checkpoint and config.async_checkpoints
    parts = {
        "two snapshots": 2 * state,
        "the checkpoint being written": state if saves else 0,
        "batches for trials": 2 * batches if config.grows else 0,
        "a trial's copy of the model": told.model_size_bytes if config.grows else 0,
    }
    said = ", ".join(f"{what} {size_words(size)}" for what, size in parts.items() if size)
    yield f"  Esper about {size_words(sum(parts.values()))} more: {said}"
    if config.grows and config.max_shared_size_bytes:
        yield f"  a race at most {size_words(2 * config.max_shared_size_bytes)} of activations"
