"""Says in a Lightning user's own log what Esper does: the run, every decision, the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from leyline import Decision, Event, Fault, RunEnded, RunStarted
from tolaria.show.phrases import cause_words, clean, headline


def announce(
    event: Event, *, report: Path, metrics_url: str | None, num_parameters: Callable[[], int]
) -> None:
    """Log one line for an event that a user should know of, through Lightning's own logger.

    Args:
        report: where the run's report will be.
        metrics_url: where Prometheus may scrape; None if it may not.
        num_parameters: counts the model's, with what has grown.
    """
    match event:
        case RunStarted():
            goes_on = f" goes on after epoch {event.epoch}" if event.resumed else ""
            rank_zero_info(f"Esper: run {event.run_id}{goes_on}, {num_parameters():,} parameters")
            if metrics_url is not None:
                rank_zero_info(f"Esper: metrics at {metrics_url}")
        case Decision() if event.commands:
            what, why = headline(event), cause_words(event)
            rank_zero_info(f"Esper: epoch {event.epoch}: {what}: {why}")
        case Fault():
            what = f"{clean(event.what)} -> {clean(event.action)}"
            rank_zero_info(f"Esper: epoch {event.epoch}: fault in {clean(event.where)}: {what}")
        case RunEnded():
            rank_zero_info(
                f"Esper: {event.status} after epoch {event.epoch} with {event.parameters:,} "
                f"parameters; report: {report}"
            )
