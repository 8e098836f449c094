"""What anybody may have written into a stream: refused by name, in bounded time and memory."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import leyline
from oona.metrics.aggregates import Aggregates
from oona.metrics.operations import resident_size_bytes
from oona.metrics.prometheus import AggregatesCollector
from oona.streams import entry
from tests.leyline.mutations import hostile, mutate, valid_messages
from tests.leyline.test_codec import framed
from tests.reliability.plugin import Faults

NUM_MESSAGES = 200_000
ENTRY_MESSAGES = 4
packed = msgspec.msgpack.encode


def read(
    num_events: bytes, payload: bytes, kinds: bytes, aggregates: Aggregates, found: Counter[str]
) -> None:
    """Do what every reader does: unpack, decode, count; anything but ContractError is raised."""
    entry.kinds_of(kinds)
    try:
        bodies = entry.unpack(num_events, payload)
    except leyline.ContractError:
        found["entries refused"] += 1
        return
    for body in bodies:
        try:
            message = leyline.decode(body)
        except leyline.ContractError:
            found["messages refused"] += 1
            continue
        found["messages valid"] += 1
        if isinstance(message, leyline.Envelope):
            aggregates.run(message.run_id).apply(message.event)
            found["events counted"] += 1


def flood(num_messages: int, rng: random.Random) -> tuple[Counter[str], Aggregates]:
    """Read that many damaged messages; of their entries one in four is damaged too."""
    originals = valid_messages()
    found: Counter[str] = Counter()
    aggregates = Aggregates()
    for number in range(0, num_messages, ENTRY_MESSAGES):
        bodies = [hostile(originals, number + n, rng) for n in range(ENTRY_MESSAGES)]
        made = entry.pack(leyline.Priority.METRIC, bodies)
        payload, kinds = made.payload, made.kinds.encode()
        if rng.random() < 0.25:
            payload, kinds = mutate(payload, originals, rng), mutate(kinds, originals, rng)
        read(str(made.num_events).encode(), payload, kinds, aggregates, found)
    return found, aggregates


def scrape(aggregates: Aggregates) -> bytes:
    registry = CollectorRegistry()
    registry.register(AggregatesCollector(aggregates))
    return generate_latest(registry)


def assert_sound(found: Counter[str], aggregates: Aggregates, num_messages: int) -> None:
    """The flood has reached every place, and what it left can be scraped."""
    print(f"{num_messages:,} mutated messages: {dict(found)}")
    for place in ("entries refused", "messages refused", "messages valid", "events counted"):
        assert found[place] > num_messages // 200, place
    text = scrape(aggregates)
    assert len(text) < 3_000_000
    assert list(text_string_to_metric_families(text.decode()))


@pytest.mark.fault(18)
def test_a_flood_of_damaged_messages(faults: Faults) -> None:
    """Twenty thousand, in entries that are damaged too: only ContractError, and the numbers that
    they add up to can be scraped."""
    found, aggregates = flood(20_000, faults.random)
    assert_sound(found, aggregates, 20_000)
    faults.injected(20_000)


@pytest.mark.slow
@pytest.mark.fault(18)
def test_two_hundred_thousand_damaged_messages(faults: Faults) -> None:
    """Two hundred thousand: only ContractError, within a minute, and the memory at the end is that
    after the first tenth, within 8 MB."""
    rng = faults.random
    began = time.monotonic()
    found, aggregates = flood(NUM_MESSAGES // 10, rng)
    before = resident_size_bytes()
    for _ in range(9):
        more, aggregates = flood(NUM_MESSAGES // 10, rng)
        found += more
    after = resident_size_bytes()
    took_s = time.monotonic() - began
    assert before is not None
    assert after is not None
    print(f"{took_s:.1f} s, memory {(after - before) / 1e6:+.1f} MB")
    assert_sound(found, aggregates, NUM_MESSAGES)
    assert after - before < 8_000_000
    assert took_s < 60.0
    faults.injected(NUM_MESSAGES)


LIES = {
    "list of 2^31 - 1": b"\xdd\x7f\xff\xff\xff",
    "list of 2^32 - 1, one there": b"\xdd\xff\xff\xff\xff\xc4\x01a",
    "bytes of 2^31 in a list": b"\x91\xc6\x80\x00\x00\x00",
    "text of 2^31 in a list": b"\x91\xdb\x80\x00\x00\x00",
    "map of 2^31": b"\xdf\x80\x00\x00\x00",
    "deep": b"\x91" * 200_000,
    "text that is not UTF-8": b"\x91\xa2\xff\xfe",
    "extension": b"\x91\xc7\x01\x05a",
    "timestamp": b"\x91\xd6\xff\x00\x00\x00\x00",
    "number": packed(2**64 - 1),
    "list of text": packed(["a"]),
    "bytes twice": packed([b"a"]) * 2,
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_an_entry_that_lies_is_refused(lie: str) -> None:
    """Lengths that are not there, nesting, other types and leftovers: refused as malformed, with
    less than 64 KB of memory."""
    tracemalloc.start()
    with pytest.raises(leyline.ContractError, match="stream entry malformed"):
        entry.unpack(b"1", LIES[lie])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 65_536


@pytest.mark.parametrize("claim", [b"", b"-1", b"01", b"1 ", b"1_0", b"\xff", b"9" * 5_000, b"1.0"])
def test_a_number_that_is_none_is_refused(claim: bytes) -> None:
    """The count must be the very digits that are right, and is never turned into a number."""
    with pytest.raises(leyline.ContractError, match="claims") as refused:
        entry.unpack(claim, packed([b"a"]))
    assert len(str(refused.value)) < 200


EPOCH = ["epoch", 1, 2, 3, {}, 4, {}]
ENVELOPE = ["envelope", "r", 1, 0, 0, 0]


def twice(key: str, first: float, second: float) -> bytes:
    return b"\x82" + packed(key) + packed(first) + packed(key) + packed(second)


def test_a_key_that_comes_twice_counts_once() -> None:
    """Of a name that comes twice the last value counts, as in any reader of msgpack."""
    parts = [packed(field) for field in EPOCH]
    parts[4] = twice("val_loss", 1.0, 2.0)
    message = leyline.decode(framed(b"\x97" + b"".join(parts)))
    assert isinstance(message, leyline.EpochMetrics)
    assert message.metrics == {"val_loss": 2.0}


@pytest.mark.parametrize(
    "event",
    [
        ["step", 2**64 - 1, 1.0],
        ["step", -(2**63), 1e308],
        [
            "epoch",
            2**64 - 1,
            0,
            -(2**63),
            {"": 1e308, "\n": float("nan")},
            2**64 - 1,
            {"": 2**64 - 1},
        ],
        ["bus", -1, -1, 2**64 - 1, 0, 0, {"\x00": -(2**63)}, {"": [float("inf"), -0.0, 1.0]}],
        ["drops", {"other": 2**64 - 1, "\u202e": -1}],
        ["boundary", 1, 1e308, 1e308, 1e308, {"x": 1e308, "y": float("-inf")}],
        ["seed_report", 1, "s", "s", "b", 2**64 - 1, -1, -1, 0.0, "", ""],
        ["fault", -1, -1, "\ud7ff\U0010ffff" * 200, "", ""],
        ["learning_rates", 1, 1, [float("nan")] * 5_000, {}],
    ],
    ids=lambda event: event[0],
)
def test_extreme_values_can_be_scraped(event: list[object]) -> None:
    """What is valid and absurd is counted without an error, and what is scraped can be parsed."""
    body = framed(packed([*ENVELOPE, event]))
    found: Counter[str] = Counter()
    aggregates = Aggregates()
    for _ in range(2):
        read(b"1", packed([body]), b"", aggregates, found)
    assert found == {"messages valid": 2, "events counted": 2}
    text = scrape(aggregates).decode()
    families = list(text_string_to_metric_families(text))
    assert all(s.labels["run"] == "r" for family in families for s in family.samples)
    assert len(text) < 20_000
