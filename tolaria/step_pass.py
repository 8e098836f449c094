"""What follows a training step: its loss is read, a broken run goes back, alphas and rates move."""

from __future__ import annotations

import math
from typing import Any, Final

from torch import Tensor

from tamiyo.risk.allowance import moves_alpha
from tolaria.boundary.risk import stop
from tolaria.boundary.stage_timer import StageTimer
from tolaria.live_run import LiveRun
from tolaria.rollback.response import respond
from tolaria.rollback.watch import Broken

_BAD_PARAMETER: Final = "a parameter is not finite"


def pass_step(
    esper: LiveRun,
    loss: Tensor | float | None,
    batch: Any,
    grad_norm: Tensor | float | None = None,
) -> None:
    """Take one step's loss.

    Raises:
        NonFiniteError: the loss is not finite and no seed can be blamed for it.
        RiskError: the boundary before found the risk critical; the step does not count.
        ConfigError: the loss is not one number, or a setting names a site that there is not.
        SiteError: no site matches a setting's pattern.
    """
    watch, recovery = esper.watch, esper.recovery
    if watch.ends_for and esper.step == esper.epoch_end_step:
        stop(esper)
    value = watch.loss(loss)
    scaled = recovery.parts.scaler is not None
    broken = watch.after_step(value, grad_norm, blamable=recovery.has_unsettled, scaled=scaled)
    esper.step += 1
    esper.steps_since_boundary += 1
    if value is not None and math.isfinite(value):
        esper.session.recorder.record_step(esper.step, value)
        esper.mean_loss.add(value)
    if broken is None:
        if not watch.risk.pace or moves_alpha(watch.risk.pace, esper.step):
            for seed, fault in esper.executor.after_step(value).items():
                esper.fault(f"graft of {seed}", fault, "its alpha stays until it is taken out")
        esper.rates.after_step()
        if recovery.guards_steps and not recovery.take_step(esper.epoch, esper.step):
            broken = Broken("parameters", _BAD_PARAMETER, in_one_step=True, is_finite=False)
    if broken is not None:
        respond(esper, broken, epoch=esper.epoch + 1, batch=batch, lag=watch.lag)
    elif not esper.growth.is_surveyed:
        # After the first step already: a wrong name in a setting is not to cost an epoch.
        timer = StageTimer(esper.clock_s, esper.carried_ms)
        esper.growth.survey(esper.session, timer, esper.epoch + 1)
