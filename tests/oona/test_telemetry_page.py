"""docs/telemetry.md: who has only the page can read the streams, and its tables are true."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import redis

import leyline
from leyline import COLUMN_FORMATS, PRIORITIES, StatePacket
from oona import Bus
from oona.audit.chain import KEY_VARIABLE
from oona.audit.postgres import SCHEMA
from oona.metrics.aggregates import RunAggregates
from oona.metrics.catalogue import METRICS
from oona.servers.credentials import VARIABLES
from oona.streams.entry import READ_SIZE_BYTES
from oona.streams.writer import NUM_ENTRIES
from tests.leyline.mutations import valid_messages
from tolaria.commands.cli import esper
from tolaria.config import EsperConfig

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
EVENTS = [
    message.event
    for message in map(leyline.decode, valid_messages())
    if isinstance(message, leyline.Envelope)
]


def table(heading: str) -> list[list[str]]:
    """The rows of the table with this first heading, cell by cell."""
    rows = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]


LANES = {tag.strip("`"): lane for tag, lane, _ in table("tag")}
FIELDS = {tag.strip("`"): fields.split() for tag, _, fields in table("tag")}


# --- a reader made from the page alone -----------------------------------------------------------


def column(name: str, data: bytes) -> list[float]:
    """A column of a state, by the page's rule for its numbers."""
    names = FIELDS["state"]
    kind = {"metrics": "d", "parameters": "q"}.get(name)
    kind = kind or ("f" if names.index(name) >= names.index("alpha") else "i")
    return [number for (number,) in struct.iter_unpack(f"<{kind}", data)]


def named(array: list[Any]) -> dict[str, Any]:
    """An event, or what it holds, with the names of its fields."""
    tag, *values = array
    fields = dict(zip(FIELDS[tag], values, strict=True))
    for name in {"commands", "scores", "sites", "candidates"} & fields.keys():
        fields[name] = [named(item) for item in fields[name]]
    if tag == "state":
        columns = FIELDS["state"][
            FIELDS["state"].index("metrics") : FIELDS["state"].index("risk_level")
        ]
        fields |= {name: column(name, fields[name]) for name in columns}
    return {"tag": tag, **fields}


def read(client: Any, run_id: str) -> dict[int, dict[str, Any]]:
    """Every event of a run by its sequence, read as the page says."""
    found = {}
    for priority, lane in enumerate(("metric", "report", "decision", "emergency")):
        for _, flat in client.execute_command("XRANGE", f"esper:{run_id}:{lane}", "-", "+"):
            entry = (
                dict(zip(flat[::2], flat[1::2], strict=True)) if isinstance(flat, list) else flat
            )
            assert set(entry) == {b"num_events", b"kinds", b"envelopes"}
            messages = msgspec.msgpack.decode(entry[b"envelopes"])
            assert len(messages) == int(entry[b"num_events"])
            for message in messages:
                magic, version, zero, size_bytes, checksum = struct.unpack("<4sHHII", message[:16])
                body = message[16:]
                assert (magic, version, zero, size_bytes) == (b"LEYL", 3, 0, len(body))
                assert checksum == zlib.crc32(body)
                tag, run, sequence, number, _, _, event = msgspec.msgpack.decode(body)
                assert (tag, run, number) == ("envelope", run_id, priority)
                assert LANES[event[0]] == lane
                found[sequence] = named(event)
    return found


# --- what it must come to ------------------------------------------------------------------------


def expected(value: Any) -> Any:
    """A message as the reader should see it, by the names that the code has for its fields."""
    if isinstance(value, StatePacket):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        columns = {name: value.column(name).tolist() for name in COLUMN_FORMATS}
        return {"tag": "state", **fields, **columns}
    if isinstance(value, leyline.Message):
        fields = {name: expected(getattr(value, name)) for name in value.__struct_fields__}
        return {"tag": value.__struct_config__.tag, **fields}
    if isinstance(value, tuple):
        return [expected(item) for item in value]
    return (
        {key: expected(item) for key, item in value.items()} if isinstance(value, dict) else value
    )


def test_the_page_is_enough_to_read_a_stream(tmp_path: Path, oona_url: str) -> None:
    """One event of every type, published by a bus, is read back with plain XRANGE, msgpack and the
    page's tables alone: every field by its name, every column number by number."""
    with Bus.open(tmp_path, "page", oona_url) as bus:
        assert all(bus.offer(event) for event in EVENTS)
        assert bus.flush(5.0)
        client = redis.Redis.from_url(oona_url)
        found = read(client, "page")
        client.close()
    assert {event["tag"] for event in found.values()} == {
        kind.__struct_config__.tag for kind in get_args(leyline.Event)
    }
    wanted = dict(enumerate(map(expected, EVENTS), start=1))
    assert repr(dict(sorted(found.items()))) == repr(wanted)  # NaN is written alike


def test_every_message_is_in_the_table() -> None:
    """The table has the events with their lanes and what they hold, each with all its fields in
    order, and nothing else."""
    events = {kind: PRIORITIES[kind].name.lower() for kind in get_args(leyline.Event)}
    others = [kind for kind in get_args(leyline.AnyMessage) if kind not in events]
    others.remove(leyline.Envelope)
    kinds = events | dict.fromkeys(others, "")
    assert {str(kind.__struct_config__.tag): lane for kind, lane in kinds.items()} == LANES
    assert {str(kind.__struct_config__.tag): [*kind.__struct_fields__] for kind in kinds} == FIELDS


def test_every_metric_is_in_the_table() -> None:
    """Each exported metric has its row, with both names, unit, kind, labels and meaning; no row is
    without a metric."""
    rows = [tuple(row) for row in table("Prometheus")]
    assert rows == [
        (
            f"`{m.prometheus_name}{'_total' if m.kind == 'counter' else ''}`",
            f"`{m.name}`" + (f" ({m.unit})" if m.unit else ""),
            m.kind,
            ", ".join(m.labels),
            m.help,
        )
        for m in METRICS
    ]


def test_counters_begin_at_0_as_it_says() -> None:
    """Before anything has happened every counter is there, at 0 (so an alert on an increase sees
    the first one), but those that the page leaves out; drops for every type of event."""
    late = ("esper_commands", "esper_faults", "esper_outside_seconds")
    assert "those of commands, faults and time outside appear with the first" in PAGE
    samples = list(RunAggregates().samples())
    counters = {m.prometheus_name for m in METRICS if m.kind == "counter"}
    begun = [(m.prometheus_name, labels, value) for m, labels, value in samples]
    assert {name for name, _, _ in begun} & counters == counters - {*late}
    assert {value for name, _, value in begun if name in counters} == {0}
    types = {
        label for name, labels, _ in begun if name == "esper_outbox_dropped" for label in labels
    }
    assert types == {kind.__name__ for kind in get_args(leyline.Event)}


def test_what_else_it_names_is_there() -> None:
    """Commands and their options, settings, environment variables and limits are the code's."""
    for command, rest in re.findall(r"`?esper (\w+)( [^`\n]*)?", PAGE):
        assert command in esper.commands, command
        known = {opt for p in esper.commands[command].params for opt in p.opts}
        assert isinstance(esper.commands[command], click.Command)
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, command
    settings = re.findall(r"`(\w+) = ", PAGE) + re.findall(r"`(telemetry_\w+|telemetry)`", PAGE)
    assert len(settings) >= 6
    assert set(settings) <= set(EsperConfig.__struct_fields__)
    assert set(re.findall(r"`(ESPER_\w+)`", PAGE)) == {*VARIABLES, KEY_VARIABLE}
    assert f" {SCHEMA}.events" in PAGE
    lanes = [f"{priority.value} `{priority.name.lower()}`" for priority in leyline.Priority]
    assert f"is {', '.join(lanes)}, in" in " ".join(PAGE.replace(" for ", " ").split())
    for limit in (READ_SIZE_BYTES, leyline.limits.MESSAGE_SIZE_BYTES, NUM_ENTRIES):
        assert f"{limit:,}" in PAGE
    assert "float64 for `metrics`, int64 for `parameters`" in " ".join(PAGE.split())


def test_its_links_lead_somewhere() -> None:
    """Every file that the page links to is there."""
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(links) >= 3
    assert [x for x in links if not (Path(__file__).parents[2] / "docs" / x).is_file()] == []
