"""Regained: the state from before a graft, in a run that was resumed while the graft is open."""

from __future__ import annotations

import logging

from leyline import EsperError
from tolaria.live_run import LiveRun
from tolaria.rollback.full import put_back

_LOG = logging.getLogger("esper")


def regain(esper: LiveRun) -> None:
    """Take the state from before an open graft from the checkpoint of that boundary.

    It was in memory only when the run stopped. Call it when all that is saved has been restored:
    the run is afterwards as it was. Where it cannot be had the log says so, and a fault that comes
    before the graft has settled goes back to here.
    """
    recovery, parts = esper.recovery, esper.recovery.parts
    moment, recovery.saved_moment = recovery.saved_moment, None
    now = recovery.newest
    if moment is None or now is None or recovery.before_graft is None or moment.step == now.step:
        return
    path = esper.session.checkpoint_at(moment.step)
    if path is None:
        _say(moment.step, "no whole checkpoint of it is left")
    elif parts.others or (parts.scaler is not None and not esper.in_plain_loop):
        _say(moment.step, "averaged weights and Lightning's scaler do not go back from disk")
    else:
        try:
            put_back(parts, path)
            recovery.hold_before_graft(moment)
        except EsperError as error:
            _say(moment.step, str(error))
        finally:
            now.restore(parts)


def _say(step: int, why: str) -> None:
    _LOG.info(
        "the state of step %d, before the open graft, is not to be had (%s): a fault before it has "
        "settled goes back to here",
        step,
        why,
    )
