"""A run with `audit = true`: a process beside it keeps every event."""

from __future__ import annotations

from pathlib import Path

import pytest

from leyline import ConfigError, RunEnded, StepMetrics
from oona.audit import read_trail, verify_trail
from tolaria.config import EsperConfig, load_config
from tolaria.session import Session

ENDED = RunEnded(run_id="run", epoch=1, status="finished", parameters=1, metrics={})


def config(run_dir: Path, telemetry: str = "embedded") -> EsperConfig:
    return EsperConfig(run_dir=str(run_dir), telemetry=telemetry, audit=True)


@pytest.mark.parametrize("telemetry", ["embedded", "memory"])
def test_the_trail_is_whole_when_the_session_has_closed(
    tmp_path: Path, telemetry: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every event up to the run's end, whether there is a server to read from or not; so also
    after a second session has gone on with the run."""
    for number in (1, 2) if telemetry == "embedded" else (1,):
        session = Session.open(config(tmp_path / "run", telemetry), resume=number == 2)
        for step in range(100):
            session.record(StepMetrics(step=step, loss=1.0))
        session.close(ENDED)
        kept = list(read_trail(tmp_path / "run" / "audit.db"))
        assert [envelope.sequence for envelope in kept] == list(range(1, 101 * number + 1))
        assert isinstance(kept[-1].event, RunEnded)
    assert verify_trail(tmp_path / "run" / "audit.db") == []
    assert not caplog.records


def test_a_session_that_never_began_leaves_no_process(tmp_path: Path) -> None:
    """Its collector ends with it, although the run has no end."""
    session = Session.open(config(tmp_path / "run"))
    collector = session._collector
    assert collector is not None
    session.abandon()
    assert collector.wait(0.0) is None


def test_audit_without_telemetry_is_refused() -> None:
    """There would be nothing to keep; the error names both settings."""
    with pytest.raises(ConfigError, match="'audit' is True; it must be false when telemetry is"):
        load_config({"audit": True, "telemetry": "off"})
