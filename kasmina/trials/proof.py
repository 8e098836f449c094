"""Proof: for which sites a replayed pass gives the same bits as one through the whole host.

Nothing is assumed of the model. For the first batches, and the first of every kind, the bare loss
must be the one that was recorded, and with a random change at the site the loss and its gradient
must be those of a whole pass. A pass that draws random numbers or changes buffers is refused. What
is left is code whose flow turns on values: a recorded output that no proof pass looked at is NaN,
so a later use shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from kasmina.guard import attempt, describe
from kasmina.rng import isolated_rng
from kasmina.sites.output import main_tensor
from kasmina.trials.batches import tensors_in
from kasmina.trials.calls import Call, Span, done_before, watch
from kasmina.trials.recording import Recording, rng_streams
from kasmina.trials.replay import Plan, Replay
from kasmina.trials.shadow import HELD_OUT_RNG_SEED

_MAX_LOOKS: Final = 16
"""Passes that find out which recorded values a site needs."""
_NUDGE: Final = 0.1
"""Size of the random change in a proof, in standard deviations of the site's output."""


def prove(replay: Replay, sites: Sequence[str]) -> None:
    """Plan what is replayed for each site; a site for which it is not the same is refused by name.

    Args:
        sites: in order of use; where recordings do not fit, the last go without.
    """
    shadow = replay.shadow
    shadow.mode(training=replay.training)
    shadow.restore_buffers()
    with isolated_rng(HELD_OUT_RNG_SEED):
        streams = rng_streams()
        outcome = attempt(lambda: _prove(replay, sites))
        reason = describe(outcome) if isinstance(outcome, Exception) else None
        if rng_streams() != streams:
            reason = "its pass draws random numbers"
    if shadow.buffers_moved():
        reason = reason or "its pass changes buffers"
    shadow.restore_buffers()
    if reason is not None:
        for site in sites:
            replay.refuse(site, reason)
        replay.keep_only(())


def _prove(replay: Replay, sites: Sequence[str]) -> None:
    spans = _watched(replay)
    size_bytes = {span.call: span.size_bytes for span in spans}
    for site in sites:
        calls = done_before(spans, site)
        if isinstance(calls, str):
            replay.refuse(site, calls)
        else:
            _plan(replay, _planned(spans, calls, calls[-1:]), size_bytes)
    replay.calls = frozenset(call for plan in replay.plans.values() for call in plan.calls)
    if not replay.plans:
        return
    recording = replay.record(replay.batches[0])
    replay.order = recording.order
    for site, plan in list(replay.plans.items()):
        # What this site needs alone: values that others need may go when those leave the race.
        if not _loss_is(replay, site, recording.only(plan.needed)):
            _plan(replay, _planned(spans, plan.calls, plan.calls), size_bytes)
            if site in replay.plans:
                needed = _looked_at(replay, site)
                _plan(replay, _planned(spans, plan.calls, needed), size_bytes)
    for site in list(replay.plans):
        outcome = attempt(partial(_flaw, replay, site))
        flaw = describe(outcome) if isinstance(outcome, Exception) else outcome
        if flaw is not None:
            replay.refuse(site, flaw)


def _watched(replay: Replay) -> list[Span]:
    shadow, batch = replay.shadow, replay.batches[0]
    with torch.set_grad_enabled(replay.training):
        return replay.ledger.run(
            ("bare", replay.training), lambda: watch(shadow.model, lambda: shadow.loss(batch))
        )


def _planned(spans: Sequence[Span], calls: Sequence[Call], needed: Collection[Call]) -> Plan:
    end = next(span.end for span in spans if span.call == calls[-1])
    return Plan(
        calls=tuple(calls),
        needed=frozenset(needed),
        tail_size_bytes=sum(span.size_bytes for span in spans if span.start > end),
        precision=max(span.precision for span in spans),
    )


def _plan(replay: Replay, plan: Plan, size_bytes: dict[Call, int]) -> None:
    """Take a plan if what it needs fits beside that of the others."""
    site = plan.own.module
    replay.plans[site] = plan
    needs_bytes = sum(size_bytes[call] for call in replay.needed())
    if needs_bytes > replay.max_size_bytes:
        most = replay.max_size_bytes
        replay.refuse(site, f"one batch's recording takes {needs_bytes} bytes of {most}")


def _loss_is(replay: Replay, site: str, recording: Recording, index: int = 0) -> bool:
    """Whether a bare pass that replays a recording has the loss that was recorded."""
    batch = replay.batches[index]
    tail = partial(replay.loss, site, recording, batch, None)
    found = attempt(lambda: replay.ledger.run_bare(("tail", site, replay.training), tail))
    return isinstance(found, Tensor) and torch.equal(found, recording.loss)


def _looked_at(replay: Replay, site: str) -> set[Call]:
    """The recorded calls without whose values the loss is another; halved until found.

    In a deep residual network that is nearly all of them, and looking for each would cost more
    passes than the race: after some all are kept.
    """
    num_looks = 0
    plan = replay.plans[site]
    full = replay.record(replay.batches[0])
    empty = replay.record(replay.batches[0], hollow=True)

    def among(some: Sequence[Call]) -> set[Call]:
        """Those of some calls that are looked at."""
        nonlocal num_looks
        num_looks += 1
        if num_looks > _MAX_LOOKS:
            return set(some)
        outputs = {**full.outputs, **{call: empty.outputs[call] for call in some}}
        if not some or _loss_is(replay, site, Recording(outputs, full.order, full.loss, 0)):
            return set()
        if len(some) == 1:
            return set(some)
        half = len(some) // 2
        return among(some[:half]) | among(some[half:])

    return among(plan.calls[:-1]) | {plan.own}


def _flaw(replay: Replay, site: str) -> str | None:
    """Why replay does not give the bits of a whole pass, bare or with a change at the site."""
    indices = proof_indices(replay.batches)
    for index in indices:
        # All first: what a module keeps of its last pass is then another batch's.
        replay.recording(index)
    for index in indices:
        recording, batch = replay.recording(index), replay.batches[index]
        if recording is None:
            continue
        recording = recording.only(replay.plans[site].needed)
        if not _loss_is(replay, site, recording, index):
            return "a replayed pass has another loss"
        act = nudge(recording.outputs[replay.plans[site].own], index)
        whole = loss_and_gradient(replay, act, partial(replay.whole_loss, site, batch, act))
        replayed = loss_and_gradient(replay, act, partial(replay.loss, site, recording, batch, act))
        replay.ledger.total += replay.bare_flops() + 3 * replay.tail_flops(site)
        if not all(map(torch.equal, whole, replayed)):
            return "a replayed pass has another loss or gradient"
    return None


def proof_indices(batches: Sequence[Any]) -> list[int]:
    """The batches of a proof: the first two, and the first of every other kind."""
    first_of: dict[Hashable, int] = {}
    for index, batch in enumerate(batches):
        kind = tuple((t.ndim, t.dtype, t.ndim and t.shape[0] == 1) for t in tensors_in(batch))
        first_of.setdefault(kind, index)
    return sorted({*first_of.values(), *range(min(2, len(batches)))})


@dataclass(frozen=True)
class Nudge:
    """A small random change of a site's output, as a candidate makes one."""

    change: Tensor

    def __call__(self, host: Tensor) -> Tensor:
        """The changed output."""
        return host + self.change


def nudge(output: Any, rng_seed: int) -> Nudge:
    """A change drawn from a stream of its own."""
    main = main_tensor(output)
    assert main is not None, "the survey takes no site that returns no tensor"
    generator = torch.Generator().manual_seed(rng_seed)
    size = float(main.detach().double().std()) if main.numel() > 1 else 1.0
    drawn = torch.randn(main.shape, generator=generator) * (_NUDGE * (size or 1.0))
    return Nudge(drawn.to(device=main.device, dtype=main.dtype).requires_grad_())


def loss_and_gradient(
    replay: Replay, act: Nudge, loss: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    """A loss and, in train mode, its gradient with respect to the change at the site; else 0."""
    value = loss()
    if not replay.training:
        return value, torch.zeros(())
    (gradient,) = torch.autograd.grad(value, act.change)
    return value.detach(), gradient
