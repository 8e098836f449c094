"""Attaching: what a hand-written loop hands over becomes a running orchestrator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from kasmina import FunctionTask, LossFunction
from tolaria.growth import rollout
from tolaria.growth.batch_source import GivenBatches
from tolaria.live_run import LiveRun
from tolaria.plain_loop import handover, resuming
from tolaria.rollback.regained import regain
from tolaria.run_begin import begin
from tolaria.session import Session

_Run = TypeVar("_Run", bound=LiveRun)


def attached(
    kind: type[_Run],
    model: nn.Module,
    optimizer: Optimizer,
    config: Any,
    overrides: Mapping[str, Any],
    example: Any,
    loss_fn: LossFunction | None,
    data: Any,
    schedulers: Sequence[Any],
    scaler: Any,
    resume: bool,
) -> _Run:
    """Build and start one; `Orchestrator.attach` says what the arguments are and what is raised."""
    resolved, site_filter = rollout.resolve(config, overrides)
    handover.check(model, optimizer, grows=resolved.grows)
    source = GivenBatches(data, resolved.max_kept_batches, resolved.max_kept_size_bytes)
    arguments = handover.arguments_of(example)
    goes_on = resume and resuming.has_run(resolved)
    session = Session.open(resolved, resume=goes_on)
    try:
        saved = resuming.load_model(session, model) if goes_on else None
        esper = kind(
            model,
            [optimizer],
            resolved,
            session=session,
            task=FunctionTask(model, loss_fn),
            source=source,
            schedulers=schedulers,
            num_epochs=resolved.num_epochs or 0,
            example=arguments,
        )
        esper.executor.trials_waived = handover.what_trials_lack(loss_fn, data)
        esper.growth.search.site_filter = site_filter
        esper.in_plain_loop = True
        esper.recovery.parts.scaler = scaler
        if goes_on:
            resuming.restore(esper, saved)
        begin(esper, resumed=saved is not None)
        regain(esper)
    except BaseException:
        session.abandon()
        raise
    return esper
