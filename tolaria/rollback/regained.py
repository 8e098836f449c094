"""Regained: the state from before a graft, in a run that was resumed while the graft is open."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from leyline import EsperError
from tolaria.live_run import LiveRun
from tolaria.rollback.full import put_back
from tolaria.rollback.state import Moment, RunState

_LOG = logging.getLogger("esper")


def regain(esper: LiveRun) -> None:
    """Take the state from before an open graft from the checkpoint of that boundary.

    It was in memory only when the run stopped. Call it when all that is saved has been restored:
    the run is afterwards as it was. Where it cannot be had the log says so, and a fault that comes
    before the graft has settled goes back to here.
    """
    recovery, now = esper.recovery, esper.recovery.newest
    saved, recovery.saved_moments = recovery.saved_moments, {}
    for moment in dict.fromkeys(saved.values()):
        seeds = [s for s, its in saved.items() if its == moment and s in recovery.before_grafts]
        if now is not None and seeds and moment.step != now.step:
            _regain_one(esper, now, moment, seeds)


def _regain_one(esper: LiveRun, now: RunState, moment: Moment, seeds: Sequence[str]) -> None:
    recovery, parts = esper.recovery, esper.recovery.parts
    path = esper.session.checkpoint_at(moment.step)
    if path is None:
        _say(moment.step, "no whole checkpoint of it is left")
    elif parts.others or (parts.scaler is not None and not esper.in_plain_loop):
        _say(moment.step, "averaged weights and Lightning's scaler do not go back from disk")
    else:
        try:
            put_back(parts, path)
            recovery.hold_before_grafts(moment, seeds)
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
