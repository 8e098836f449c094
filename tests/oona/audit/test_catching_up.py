"""`catch_up`: what outbox and server hold is in the trail, whatever became of the run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline import RunError
from oona import Bus
from oona.audit import AuditTrail, CaughtUp, catch_up, read_trail, verify_trail
from oona.collecting.service import collect
from oona.servers.embedded import EmbeddedServer
from tests.oona.audit.events import steps

DYING = """
import os, signal, sys
from pathlib import Path
from oona import Bus
from tests.oona.audit.events import steps
bus = Bus.open(Path(sys.argv[1]), "run", sys.argv[2])
for envelope in steps(500):
    assert bus.offer(envelope.event)
os.kill(os.getpid(), signal.SIGKILL)
"""


def kept(run_dir: Path) -> list[int]:
    return [envelope.sequence for envelope in read_trail(run_dir / "audit.db")]


@pytest.mark.parametrize(
    "server",
    [
        "embedded",
        pytest.param("live", marks=pytest.mark.slow),
        pytest.param("memory", marks=pytest.mark.slow),
        pytest.param("unix:///nowhere/bus.sock", marks=pytest.mark.slow),
    ],
)
def test_every_event_of_a_killed_trainer_is_there_once(
    tmp_path: Path, server: str, spawn: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """kill -9 right after the last offer, with its server dead, unreachable or still alive: all is
    in the trail, and catching up again adds nothing."""
    outside = EmbeddedServer(tmp_path / "server.log")
    url = outside.url if server == "live" else server
    assert spawn(DYING, str(tmp_path), url).wait(30) < 0
    caught = catch_up(tmp_path)
    assert caught[:3] == (500, 0, False)
    assert caught.problem.startswith("unix:///nowhere" if "nowhere" in server else "")
    assert bool(caught.problem) == ("nowhere" in server)
    outside.stop()
    assert kept(tmp_path) == list(range(1, 501))
    assert catch_up(tmp_path).num_new == 0
    assert verify_trail(tmp_path / "audit.db") == []


def test_a_live_run_is_caught_up_with_again_and_again(tmp_path: Path) -> None:
    """Each time what is new; the run goes on undisturbed."""
    with Bus.open(tmp_path, "run", "embedded") as bus:
        for number in range(1, 4):
            for envelope in steps(50):
                bus.offer(envelope.event)
            assert catch_up(tmp_path).num_new == 50
            assert kept(tmp_path) == list(range(1, 50 * number + 1))
        assert bus.flush(5.0)


def test_what_is_damaged_is_counted_and_the_rest_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit in the outbox costs one event, which is then a gap; nothing is made up, and a
    collector says so too."""
    with Bus.open(tmp_path, "run", "memory") as bus:
        for envelope in steps(20):
            bus.offer(envelope.event)
    outbox = tmp_path / "outbox.bin"
    content = bytearray(outbox.read_bytes())
    content[content.index(b"step") + 12] ^= 1
    outbox.write_bytes(content)
    assert catch_up(tmp_path) == CaughtUp(19, 1, has_other_writer=False)
    assert len(kept(tmp_path)) == 19
    with caplog.at_level("WARNING"):
        other = f"sqlite:{tmp_path / 'other.db'}"
        assert collect(tmp_path, other, is_live=lambda: False) == 19
    assert "1 damaged or hostile records were passed over" in caplog.text


def test_another_writer_is_left_to_write(tmp_path: Path) -> None:
    """Nothing is written beside a collector, and nothing fails."""
    with Bus.open(tmp_path, "run", "memory") as bus:
        bus.offer(steps(1)[0].event)
    with AuditTrail.open(tmp_path / "audit.db") as trail:
        assert catch_up(tmp_path) == CaughtUp(0, 0, has_other_writer=True)
        assert kept(tmp_path) == []
        trail.append(steps(1))
    assert catch_up(tmp_path).num_new == 0


def test_a_directory_without_a_bus_gets_no_trail(tmp_path: Path) -> None:
    """The error names it; nothing is written there."""
    with pytest.raises(RunError, match="not a run directory with telemetry"):
        catch_up(tmp_path)
    assert os.listdir(tmp_path) == []
