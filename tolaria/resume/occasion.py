"""When and why a checkpoint is written, and so how long it is worth keeping."""

from __future__ import annotations

import math
from collections.abc import Mapping

from leyline import Stage
from tolaria.disk.manifest import Occasion, Priority
from tolaria.disk.store import Groups
from tolaria.live_run import LiveRun
from tolaria.monitor import better_sign


def occasion_of(esper: LiveRun) -> Occasion:
    """Best by the monitor so far: high; a graft begins: normal; else an epoch's end: low."""
    metrics = esper.session.recorder.view.metrics
    reasons: list[str] = []
    priority: Priority = "low"
    if begun := _grafts_that_begin(esper):
        # At alpha 0 the network still computes what it did before them.
        reasons.append(f"before the graft of {', '.join(begun)}")
        priority = "normal"
    monitor = esper.config.monitor
    if is_best(metrics, monitor, esper.epoch, esper.config.monitor_mode):
        reasons.append(f"best {monitor}")
        priority = "high"
    now = metrics.get(esper.epoch, {})
    return Occasion(
        epoch=esper.epoch,
        reason=", ".join(reasons) or "end of an epoch",
        priority=priority,
        metrics={name: float(value) for name, value in now.items() if math.isfinite(value)},
    )


def is_best(
    metrics: Mapping[int, Mapping[str, float]], monitor: str, epoch: int, mode: str
) -> bool:
    """Whether an epoch's metric is better than that of every earlier one.

    Args:
        metrics: by epoch.
        mode: "min", "max", or "auto" to tell by the name; of a name that tells nothing no epoch is
            the best.
    """
    sign = better_sign(monitor, mode)
    now = metrics.get(epoch, {}).get(monitor, math.nan)
    if not sign or not math.isfinite(now):
        return False
    earlier = [known[monitor] for at, known in metrics.items() if at < epoch and monitor in known]
    return all(sign * now > sign * value for value in earlier if math.isfinite(value))


def group_names(esper: LiveRun) -> Groups:
    """Names of the parameters of each group of each optimizer; "" for one the model has not."""
    names = {id(parameter): name for name, parameter in esper.model.named_parameters()}
    return tuple(
        tuple(tuple(names.get(id(p), "") for p in group["params"]) for group in o.param_groups)
        for o in esper.rates.optimizers
    )


def _grafts_that_begin(esper: LiveRun) -> list[str]:
    table = esper.executor.table
    return [s for s in table.in_stage(Stage.GRAFTING) if not table.get(s, "epochs_in_stage")]
