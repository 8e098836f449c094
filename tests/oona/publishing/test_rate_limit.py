"""The rate limit."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from leyline import Priority
from oona.outbox import file as outbox_file
from oona.outbox.outbox import Outbox
from oona.publishing.publisher import Publisher
from oona.publishing.rate_limit import RateLimit
from oona.streams.memory import MemoryTransport


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.integers(0, 5_000), st.floats(0, 3)), min_size=1, max_size=50),
)
def test_no_more_is_sent_than_the_limit_and_one_second_of_it(
    bytes_per_s: int, sends: list[tuple[int, float]]
) -> None:
    """Whoever waits as told sends at most the limit times the time, one bucket and the last."""
    now = 0.0
    limit = RateLimit(bytes_per_s, lambda: now)
    total_bytes = 0
    for size_bytes, idle_s in sends:
        now += idle_s
        total_bytes += size_bytes
        assert total_bytes <= bytes_per_s * (now + 1) + size_bytes + 1e-6
        now += limit.note(size_bytes)


def test_without_a_limit_nothing_waits() -> None:
    """None lets everything through at once."""
    assert RateLimit(None).note(10**12) == 0.0


def test_the_publisher_keeps_to_it(tmp_path: Path) -> None:
    """A backlog of three seconds' bytes is not sent at once, and the end does not wait for it."""
    outbox = Outbox(tmp_path / outbox_file.FILE_NAME, ring_size_bytes=1024 * 1024)
    for _ in range(900):
        assert outbox.append(Priority.METRIC, "StepMetrics", bytes(1000))
    transport = MemoryTransport()
    publisher = Publisher(outbox, transport, bytes_per_s=100_000)
    assert not publisher.flush(0.3)
    num_sent = len(transport.entries)
    assert num_sent >= 1
    publisher.stop(5.0)
    assert len(transport.entries) <= num_sent + 8
    assert outbox.count().queued > 0
