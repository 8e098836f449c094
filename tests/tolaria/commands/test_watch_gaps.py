"""`esper watch` on a bus that has forgotten a part of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

import leyline
from oona.servers.embedded import EmbeddedServer
from tests.oona.streams.publishing import publish
from tolaria.commands.watch import watch_run


def test_what_a_trim_took_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader who comes after a trim is told how many events are missing, and which."""
    server = EmbeddedServer(tmp_path / "server.log")
    publish(server.url, *([n] for n in range(1, 1301)))
    with redis.Redis.from_url(server.url) as client:
        client.xtrim("esper:run:metric", maxlen=100, approximate=False)
    ended = leyline.RunEnded(run_id="run", epoch=1, status="finished", parameters=1, metrics={})
    publish(server.url, [1301], event=ended)
    watch_run(server.url)
    server.stop()
    told = [line for line in capsys.readouterr().out.splitlines() if "missing" in line]
    assert len(told) == 1
    assert told[0].startswith("1,200 events missing (number 1-1200): the server had trimmed")
