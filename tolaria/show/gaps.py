"""Events that are missing, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tolaria.show.phrases import counted

if TYPE_CHECKING:
    from oona import Gap

_NUM_NAMED: Final = 5


def gap_words(gaps: Sequence[Gap]) -> str:
    """How many events are missing and which, as in "3 events missing (number 4, 7-8)"."""
    known = [gap for gap in gaps if not gap.is_loss]
    spans = [
        str(gap.first) if gap.first == gap.last else f"{gap.first}-{gap.last}"
        for gap in known[:_NUM_NAMED]
    ]
    more = f" and {counted(len(known) - len(spans), 'more gap')}" if len(known) > len(spans) else ""
    num_events = sum(gap.num_events for gap in known)
    words = [f"{counted(num_events, 'event')} missing (number {', '.join(spans)}{more})"]
    if len(known) < len(gaps):
        loss = "an unknown number of events is missing that an outbox had which is gone"
        words = [*(words if known else []), loss]
    return ", and ".join(words)
