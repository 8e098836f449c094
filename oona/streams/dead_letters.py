"""Dead letters: entries that no consumer could get done with, kept with the reason."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from oona.streams.client import ResponseError, unless_no_stream
from oona.streams.entry import KINDS_FIELD, NUM_FIELD, PAYLOAD_FIELD, StoredEntry
from oona.streams.names import dead_letters
from oona.streams.writer import MAX_AGE_S

NUM_ENTRIES: Final = 1_000
"""Dead letters kept per run, approximately; the oldest go first."""


class DeadLetters:
    """Sets aside what one consumer of a group has claimed and others could not finish.

    Args:
        client: of the server.
        group: whose entries they are.
        consumer: who claims them.
        max_deliveries: how often an entry may have been delivered before.
    """

    def __init__(self, client: Any, group: str, consumer: str, max_deliveries: int):
        self.num_buried = 0
        self._client = client
        self._group, self._consumer = group, consumer
        self._max_deliveries = max_deliveries

    def sort_out(self, run_id: str, page: list[StoredEntry]) -> list[StoredEntry]:
        """Bury those of a page, claimed just now, that were delivered too often; return the rest.

        A consumer that dies between burying and acknowledging leaves a letter that comes twice.
        Where the key for letters is somebody else's, they stay unacknowledged until it is not.
        """
        if not page:
            return []
        pending = self._client.xpending_range(
            *(page[0].stream, self._group, page[0].id, page[-1].id, len(page)),
            consumername=self._consumer,
        )
        times = {found["message_id"]: found["times_delivered"] - 1 for found in pending}
        dead = [stored for stored in page if times.get(stored.id, 0) >= self._max_deliveries]
        for stored in dead:
            with unless_no_stream():
                self._bury(run_id, stored, times[stored.id])
        return [stored for stored in page if stored not in dead]

    def _bury(self, run_id: str, stored: StoredEntry, num_deliveries: int) -> None:
        letter = {
            b"stream": stored.stream,
            b"id": stored.id,
            b"reason": f"delivered {num_deliveries} times to group {self._group} and never "
            f"acknowledged; last claimed by {self._consumer}",
            NUM_FIELD: stored.num_events or b"",
            KINDS_FIELD: stored.kinds or b"",
            PAYLOAD_FIELD: stored.payload or b"",
        }
        stream = dead_letters(run_id)
        self._client.xadd(stream, letter, maxlen=NUM_ENTRIES, approximate=True)
        let_age(self._client, stream)
        self._client.xack(stored.stream, self._group, stored.id)
        self.num_buried += 1


def let_age(client: Any, stream: bytes) -> None:
    """Have a stream go some day that no transport of a run renews, such as an empty lane."""
    with suppress(ResponseError):  # a server before Redis 7 knows no NX, or it is forbidden
        client.pexpire(stream, round(MAX_AGE_S * 1000), nx=True)
