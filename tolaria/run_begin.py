"""How a run begins: seeds that are not its own are refused, its start is announced."""

from __future__ import annotations

import logging

from kasmina.slots.slot import attached_seeds
from leyline import RunStarted
from tolaria.growth.policies import policy_settings
from tolaria.live_run import LiveRun
from tolaria.plain_loop import handover

_LOG = logging.getLogger("esper")


def refuse_strange(esper: LiveRun) -> None:
    """Refuse seeds of the model that this run knows nothing of; nothing is written.

    Raises:
        ConfigError: there are some.
    """
    strange = [s for s in attached_seeds(esper.model) if s not in esper.executor.table]
    if esper.config.grows:
        handover.refuse_seeds(strange, type(esper.model).__name__)


def begin(esper: LiveRun, *, resumed: bool) -> None:
    """Announce the run and remember the state it starts from.

    Raises:
        ConfigError: the model carries seeds that this run knows nothing of.
    """
    esper.executor.table.adopt()
    refuse_strange(esper)
    if (flaw := esper.config.schedule_flaw(esper.num_epochs)) is not None:
        _LOG.warning("%s", flaw)
    # An optimizer may still have the groups of seeds that were taken off since.
    esper.rates.reconcile(esper.executor.live_seeds(), esper.executor.take_moments)
    esper.session.record(
        RunStarted(
            run_id=esper.session.run.run_id,
            epoch=esper.epoch,
            num_epochs=esper.num_epochs,
            host_parameters=esper.host_parameters(),
            model=type(esper.model).__name__,
            resumed=resumed,
            settings=policy_settings(esper.config),
        )
    )
    esper.recovery.take_first(esper.epoch, esper.step)
