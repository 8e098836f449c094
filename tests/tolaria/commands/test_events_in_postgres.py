"""`esper collect`, `events` and `verify` with a PostgreSQL store: a real server, if installed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from oona import Bus
from tests.oona.audit.conftest import PASSWORD
from tests.oona.audit.conftest import postgres_server as postgres_server
from tests.oona.audit.conftest import postgres_url as postgres_url
from tests.tolaria.show.events import a_run
from tolaria.commands.cli import esper
from tolaria.disk.run import RunDirectory


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(esper, [str(argument) for argument in arguments])
    assert PASSWORD not in result.output
    return result


@pytest.mark.slow
def test_a_run_collected_asked_for_and_checked(tmp_path: Path, postgres_url: str) -> None:
    """All its events go there once; a question is answered as from a run's own trail; a row that
    was altered is found, exit code 1; the password is never shown."""
    path, events = tmp_path / "run", a_run()
    with (
        RunDirectory.create(path, now=datetime.now(tz=UTC)) as run,
        Bus.open(path, run.run_id, "memory") as bus,
    ):
        assert all(bus.offer(event) for event in events)
    for num_new in (len(events), 0):
        collected = call("collect", path, "--store", postgres_url)
        assert collected.output.endswith(f": {num_new} new events\n")
    asked = ("--kind", "decision", "--limit", 3, "--json")
    here, there = call("events", path, *asked), call("events", postgres_url, *asked)
    assert here.output == there.output
    assert len([json.loads(line) for line in there.output.splitlines()]) == 3
    assert call("events", postgres_url).output.count("\n") == len(events) + 1
    sound = call("verify", postgres_url)
    assert f"is sound, {len(events):,} rows, the last with the hash " in sound.output
    assert sound.output.split()[-1] == json.loads((path / "audit.head").read_text())["last_hash"]
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE esper_audit.events SET kind = 'fault' WHERE position = 7")
    altered = call("verify", postgres_url)
    assert altered.exit_code == 1
    assert ": row 7 (event 7 of run" in altered.output
