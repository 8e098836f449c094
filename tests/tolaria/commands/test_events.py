"""`esper events`, `esper collect` and the audit trail's part of `esper verify`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

import leyline
from leyline import ConfigError, RunError
from oona import Bus
from oona.audit import AuditTrail, read_trail
from oona.audit.query import Query
from tests.tolaria.commands.processes import environment, start, wait_until
from tests.tolaria.show.events import a_run
from tolaria.commands.cli import esper
from tolaria.disk.run import RunDirectory

ROOT = Path(__file__).parents[3]
EVENTS = a_run()
"""A made-up run of thirty epochs: see `tests.tolaria.show.events`."""
SEED = next(event.seed for event in EVENTS if isinstance(event, leyline.FieldReport))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose events are in its outbox and, as yet, in no audit trail."""
    path = tmp_path_factory.mktemp("recorded") / "run"
    with (
        RunDirectory.create(path, now=datetime.now(tz=UTC)) as run,
        Bus.open(path, run.run_id, "memory", ring_size_bytes=256 * 1024) as bus,
    ):
        assert all(bus.offer(event) for event in EVENTS)
    return path


@pytest.fixture
def run_dir(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it that may be written to."""
    shutil.copytree(recorded, tmp_path / "run")
    return tmp_path / "run"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(esper, [str(argument) for argument in arguments])


def shown(*arguments: object) -> list[dict[str, object]]:
    """What `esper events ... --json` prints."""
    result = call("events", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_table_has_a_line_for_every_event(run_dir: Path) -> None:
    """When, which epoch, what kind and what, in order; the trail is made where there was none."""
    result = call("events", run_dir)
    assert result.exit_code == 0, result.output
    assert (run_dir / "audit.db").is_file()
    day, *lines = result.stdout.splitlines()
    assert re.fullmatch(r"--- \d{4}-\d\d-\d\d", day)
    assert len(lines) == len(EVENTS)
    for line, event in zip(lines, EVENTS, strict=True):
        epoch = f"epoch {event.epoch}" if hasattr(event, "epoch") else ""
        when, rest = line[:12], line[14:]
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", when)
        assert rest[:9].rstrip() == epoch
        assert rest[11:25].rstrip() == type(event).__struct_config__.tag
        assert rest[27:]
    assert not result.stderr


def test_decisions_about_a_seed_in_the_last_minutes_as_json(run_dir: Path) -> None:
    """The issue's own question: every decision that names the seed, and no other event."""
    found = shown(run_dir, "--kind", "decision", "--seed", SEED, "--since", "10m")
    wanted = [
        event
        for event in EVENTS
        if isinstance(event, leyline.Decision)
        and SEED in {part.seed for part in (*event.commands, *event.scores)}
    ]
    assert [event["epoch"] for event in found] == [event.epoch for event in wanted]
    assert found[0]["cause"] == wanted[0].cause
    assert found[0]["commands"][0]["kind"] == "germinate"  # type: ignore[index]
    assert not shown(run_dir, "--since", "2099-01-01T00:00")


def test_field_reports_can_be_read_from_the_trail(run_dir: Path) -> None:
    """Whoever learns from them finds all of their fields there."""
    found = shown(run_dir, "--kind", "field_report")
    reports = [event for event in EVENTS if isinstance(event, leyline.FieldReport)]
    assert len(found) == len(reports) >= 2
    for line, report in zip(found, reports, strict=True):
        assert set(leyline.FieldReport.__struct_fields__) <= line.keys()
        assert (line["seed"], line["verdict"]) == (report.seed, report.verdict)
        assert line["expected_gain"] == report.expected_gain


def test_epoch_limit_and_several_kinds(run_dir: Path) -> None:
    """Conditions hold together; the limit keeps the newest, still in order."""
    epochs = shown(run_dir, "--kind", "epoch", "--kind", "run_ended", "--limit", 3)
    assert [event["kind"] for event in epochs] == ["epoch", "epoch", "run_ended"]
    assert {event["epoch"] for event in shown(run_dir, "--epoch", 4)} == {4}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--kind", "decisions"),
            "there is no kind 'decisions'; did you mean 'decision'? allowed: boundary, breaker",
        ),
        (("--kind", "Decision"), "did you mean 'decision'?"),
        (("--since", "yesterday"), "10m, 2h or 7d, or a time such as 2026-11-21T10:00"),
        (("--since", "2026-13-01"), "is not understood"),
        (("--limit", "0"), "limit is 0; it must be 1 or more"),
        (("--epoch", str(2**63)), "epoch is 9223372036854775808"),
        (("--export", "events.csv"), "must end in .jsonl or .parquet"),
    ],
)
def test_a_bad_option_says_what_is_allowed(
    run_dir: Path, options: tuple[str, str], words: str
) -> None:
    """Before anything is written."""
    result = call("events", run_dir, *options)
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
    assert not (run_dir / "audit.db").exists()


def test_a_directory_without_events_is_refused(tmp_path: Path) -> None:
    """No trail is made where there is no run, or one whose telemetry was off."""
    result = call("events", tmp_path)
    assert isinstance(result.exception, RunError)
    RunDirectory.create(tmp_path / "off", now=datetime.now(tz=UTC)).close()
    result = call("events", tmp_path / "off")
    assert "its telemetry was off" in str(result.exception)
    assert not (tmp_path / "off" / "audit.db").exists()


def test_exports_hold_the_same_events(run_dir: Path, tmp_path: Path) -> None:
    """JSON lines as `--json` prints them; Parquet with the trail's columns and the event in JSON;
    a file that was there is replaced."""
    import pyarrow.parquet

    lines, table_file = tmp_path / "events.jsonl", tmp_path / "events.parquet"
    lines.write_text("old")
    for file in (lines, table_file):
        result = call("events", run_dir, "--export", file)
        assert result.output == f"{file}: {len(EVENTS)} events\n"
    parsed = [json.loads(line) for line in lines.read_text().splitlines()]
    assert parsed == shown(run_dir)
    table = pyarrow.parquet.read_table(table_file).to_pylist()
    assert [row["sequence"] for row in table] == [event["sequence"] for event in parsed]
    for row, event in zip(table, parsed, strict=True):
        assert json.loads(row["event"]).items() <= event.items()
        assert row["time"].isoformat() == event["time"]
        assert row["wall_ns"] == event["wall_ns"]
        assert row["seeds"] == [] or event["kind"] in (
            *("decision", "seed_report", "field_report", "learning_rates"),
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.jsonl", "events.parquet", "run"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_stops_reading_ends_it_quietly(
    run_dir: Path, options: tuple[str, ...]
) -> None:
    """As with `| head`: no traceback, on standard error nothing at all."""
    readable, writable = os.pipe()
    os.close(readable)
    done = subprocess.run(
        [sys.executable, "-m", "tolaria", "events", str(run_dir), *options],
        env=environment(),
        stdout=writable,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=60,
    )
    os.close(writable)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_trail_goes_on_with_the_run(run_dir: Path) -> None:
    """Asked again after more has happened, it has the new events too, each once."""
    assert call("events", run_dir).exit_code == 0
    ended = leyline.RunEnded(run_id="run", epoch=31, status="failed", parameters=1, metrics={})
    with Bus.open(run_dir, RunDirectory.open(run_dir, lock=False).run_id, "memory") as bus:
        bus.offer(ended)
    found = shown(run_dir)
    assert len(found) == len(EVENTS) + 1
    assert found[-1]["status"] == "failed"


def test_missing_events_are_named_with_the_reasons(run_dir: Path) -> None:
    """Exactly those whose numbers nobody has an event of; said beside the table, not in it."""
    assert shown(run_dir, "--since", "99999999d", "--limit", 1)[0]["sequence"] == len(EVENTS)
    with AuditTrail.open(run_dir / "audit.db") as trail:
        (last,) = read_trail(trail.path, Query(limit=1))
        late = msgspec.structs.replace(last, sequence=last.sequence + 5)
        assert trail.append([late]) == 1
    result = call("events", run_dir, "--limit", 1)
    first = len(EVENTS) + 1
    assert f"not in the trail: 4 events missing (number {first}-{first + 3})" in result.stderr
    assert "dropped at the source" in result.stderr
    assert "not in the trail" not in result.stdout


def test_a_seed_that_there_is_not_is_named_with_those_there_are(run_dir: Path) -> None:
    """A wrong name is no error, and is not left at "no event fits"."""
    result = call("events", run_dir, "--seed", "nope")
    assert result.exit_code == 0
    assert "no seed is named 'nope'; there is " in result.stderr
    known = result.stderr.rpartition("there is ")[2].split(",")[0].strip()
    assert shown(run_dir, "--seed", known)


def test_a_server_is_no_trail(run_dir: Path) -> None:
    """The error says how to make one of what a server holds."""
    result = call("events", "redis://localhost:6379/0")
    assert isinstance(result.exception, leyline.RunError)
    assert "`esper collect URL --store sqlite:events.db` fills one" in str(result.exception)


def test_verify_checks_the_trail(run_dir: Path) -> None:
    """Sound after `esper events`; an altered row is found and named, exit code 1."""
    call("events", run_dir)
    before = call("verify", run_dir)
    with closing(sqlite3.connect(run_dir / "audit.db")) as connection, connection:
        connection.execute("UPDATE events SET epoch = 7 WHERE kind = 'fault' OR position = 5")
    after = call("verify", run_dir)
    assert "audit.db" not in before.output
    assert after.exit_code == 1
    assert "bad: audit.db: row 5 (event 5 of run" in after.output
    (run_dir / "audit.db").unlink()
    assert "bad: audit.db: there is no audit trail" in call("verify", run_dir).output


def test_collect_writes_a_run_that_has_ended_to_any_store(run_dir: Path, tmp_path: Path) -> None:
    """It ends by itself, at once; what it has written can be asked and checked by name."""
    other = tmp_path / "other.db"
    result = call("collect", run_dir, "--store", f"sqlite:{other}")
    assert result.output == f"sqlite:{other}: {len(EVENTS)} new events\n"
    assert len(shown(f"sqlite:{other}")) == len(EVENTS)
    assert call("verify", f"sqlite:{other}").output.endswith("the audit trail is sound\n")
    other.with_suffix(".head").unlink()
    missing = call("verify", f"sqlite:{other}")
    assert (missing.exit_code, missing.output.count("bad: ")) == (1, 1)
    assert call("collect", run_dir).output.endswith(f"audit.db: {len(EVENTS)} new events\n")
    assert call("collect", run_dir).output.endswith("audit.db: 0 new events\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("RUN", "--store", "mysql://me:secret@host/db"), "'mysql://me:***@host/db'"),
        (("RUN", "--store", "sqlite:"), "give sqlite:PATH"),
        (("redis://localhost:1",), "give --store, such as sqlite:audit.db"),
        (("redis://me:secret@localhost:1x", "--store", "sqlite:a.db"), "redis://"),
        (("RUN", "--store", "postgresql://me:secret@localhost:1/db"), "me:***@localhost:1/db"),
    ],
)
def test_a_bad_store_is_refused_without_its_password(
    run_dir: Path, arguments: tuple[str, ...], words: str
) -> None:
    """The error names what was asked and what is allowed, never a secret."""
    result = call("collect", *[str(run_dir) if word == "RUN" else word for word in arguments])
    assert isinstance(result.exception, leyline.EsperError)
    assert words in str(result.exception)
    assert "secret" not in str(result.exception)


def test_collect_follows_a_live_run_and_serves_metrics(tmp_path: Path) -> None:
    """Of a run that its trainer still holds: /metrics tells of it, Ctrl-C ends it, all is kept."""
    path = tmp_path / "run"
    with (
        RunDirectory.create(path, now=datetime.now(tz=UTC)) as run,
        Bus.open(path, run.run_id, "embedded") as bus,
    ):
        bus.offer(leyline.StepMetrics(step=41, loss=0.5))
        assert bus.flush(5.0)
        process = start("collect", path, "--metrics-port", "0", cwd=ROOT)
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        wait_until(lambda: f'esper_step{{run="{run.run_id}"}} 41.0' in read(url), 20)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=10)
        assert printed.endswith("audit.db: 1 new event\n")
        assert process.returncode == 0
        assert len(shown(path)) == 1


def read(url: str) -> str:
    with urllib.request.urlopen(url) as page:  # noqa: S310 -- ours
        text: str = page.read().decode()
    return text


def test_a_trail_that_somebody_writes_is_read_as_it_is(run_dir: Path) -> None:
    """While a collector holds it, `esper events` shows what is there and writes nothing."""
    call("events", run_dir)
    with AuditTrail.open(run_dir / "audit.db"):
        assert len(shown(run_dir)) == len(EVENTS)


def test_a_server_that_was_not_read_is_told_of(tmp_path: Path) -> None:
    """What the outbox holds is shown; that there may be more is said beside it."""
    with (
        RunDirectory.create(tmp_path / "run", now=datetime.now(tz=UTC)) as made,
        Bus.open(made.path, made.run_id, "redis://127.0.0.1:9/0") as bus,
    ):
        assert bus.offer(EVENTS[0])
    result = call("events", tmp_path / "run")
    assert "the run's server was not read: redis://127.0.0.1:9/0" in result.stderr
    assert "was not read" not in result.stdout
