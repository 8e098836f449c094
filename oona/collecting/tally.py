"""A tally: each event of each run added up once, however often it comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import leyline
from oona.metrics.aggregates import Aggregates
from oona.reading.sequences import SequenceSet

_NUM_RUNS: Final = 64
"""Runs remembered, as many as `Aggregates` keeps; a new one takes the oldest one's place."""


class Tally:
    """Folds events into aggregates, whoever else has written them to the store."""

    def __init__(self, aggregates: Aggregates):
        self._aggregates = aggregates
        self._seen: OrderedDict[str, SequenceSet] = OrderedDict()

    def take(self, envelopes: Iterable[leyline.Envelope]) -> None:
        """Add up those that were never taken before."""
        for envelope in envelopes:
            seen = self._seen.setdefault(envelope.run_id, SequenceSet())
            if len(self._seen) > _NUM_RUNS:
                self._seen.popitem(last=False)
            if seen.add(envelope.sequence):
                self._aggregates.run(envelope.run_id).apply(envelope.event)
