"""The session: one run, opened by one process, and free again whatever happens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from leyline import BusError, CheckpointError, RunEnded, RunError, RunLockedError
from oona import read
from tests.tolaria.plain_loops import adam, attach, make_host
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.config import EsperConfig, load_config
from tolaria.disk.run import RunDirectory
from tolaria.session import Session

ENDED = RunEnded(run_id="run", epoch=1, status="finished", parameters=3, metrics={})


def _config(path: Path, **settings: Any) -> EsperConfig:
    return load_config({"run_dir": path, "telemetry": "off", **settings})


def _is_free(path: Path) -> bool:
    with RunDirectory.open(path):
        return True


def test_two_runs_in_one_directory_are_refused_while_the_first_lives(tmp_path: Path) -> None:
    """The second is told that the run is in use, not that it is finished; afterwards it is told
    that the directory holds a run, which is left as it was."""
    first = attach(make_host(), model_adam(), tmp_path / "run", policy="hold")
    with pytest.raises(RunLockedError, match="already open in this process"):
        attach(make_host(), model_adam(), tmp_path / "run", policy="hold")
    first.close()
    with pytest.raises(RunError, match="already holds a run") as refused:
        attach(make_host(), model_adam(), tmp_path / "run", policy="hold")
    assert not isinstance(refused.value, RunLockedError)
    assert _is_free(tmp_path / "run")


def model_adam() -> torch.optim.Optimizer:
    return adam(make_host())


def test_a_url_that_is_malformed_leaves_nothing_behind(tmp_path: Path) -> None:
    """The directory is neither made nor locked."""
    with pytest.raises(BusError):
        Session.open(_config(tmp_path / "run", telemetry="http://nowhere"))
    assert not (tmp_path / "run").exists()


def test_a_run_that_anybody_may_write_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line that says what to do, and the run goes on; there is none where only others of the
    group may."""
    place = tmp_path / "a run"
    Session.open(_config(place)).close(ENDED)
    said = []
    for mode in (0o777, 0o775):
        place.chmod(mode)
        caplog.clear()
        Session.open(_config(place), resume=True).close(ENDED)
        said.append([r.getMessage() for r in caplog.records if r.name == "esper"])
    assert said == [
        [
            f"{place} can be written by every user of this machine, who may so change what the "
            f"run resumes from: chmod o-w '{place}'"
        ],
        [],
    ]


def test_a_session_that_cannot_be_opened_lets_go_of_all_it_had(tmp_path: Path) -> None:
    """A damaged journal stops a resume after the bus was opened; the directory is free again and
    the bus is closed."""
    Session.open(_config(tmp_path / "run")).close(ENDED)
    (tmp_path / "run" / "journal.bin").write_bytes(b"\xff" * 64)
    with pytest.raises(RunError, match="damaged"):
        Session.open(_config(tmp_path / "run", telemetry="memory"), resume=True)
    assert _is_free(tmp_path / "run")

    (tmp_path / "run" / "journal.bin").write_bytes(b"")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "checkpoints").write_bytes(b"")
    with pytest.raises(CheckpointError):
        Session.open(_config(tmp_path / "run"), resume=True)
    assert _is_free(tmp_path / "run")


def test_closing_writes_the_end_and_the_report_once(tmp_path: Path) -> None:
    """A second close changes neither the end nor the directory, and gives the same statistics."""
    session = Session.open(_config(tmp_path / "run", telemetry="memory"))
    last = session.close(ENDED)
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000
    assert _is_free(tmp_path / "run")
    assert session.close(RunEnded(**_fields(status="failed"))) == last
    assert session.recorder.view.status == "finished"
    assert (last.offered, last.delivered) == (1, 1)
    assert [envelope.event for envelope in read(tmp_path / "run")] == [ENDED]


def _fields(**changes: Any) -> dict[str, Any]:
    return {"run_id": "run", "epoch": 1, "status": "", "parameters": 3, "metrics": {}} | changes


def test_a_report_that_cannot_be_written_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the report's place is taken by a directory the run still ends and is let go."""
    session = Session.open(_config(tmp_path / "run"))
    session.run.report.mkdir()
    session.close(ENDED)
    assert "report could not be written" in caplog.text
    assert _is_free(tmp_path / "run")


def test_whatever_fails_at_the_end_the_directory_is_free(tmp_path: Path) -> None:
    """An error on the way out is raised, and nothing is held any more."""
    session = Session.open(_config(tmp_path / "run", telemetry="memory"))

    def burst(event: object) -> None:
        raise ZeroDivisionError

    session.recorder.listeners.append(burst)
    with pytest.raises(ZeroDivisionError):
        session.close(ENDED)
    assert _is_free(tmp_path / "run")
    assert session.bus.statistics().state == "closed"


def test_an_abandoned_session_leaves_no_word(tmp_path: Path) -> None:
    """A run that never began has no end, and its directory is free."""
    session = Session.open(_config(tmp_path / "run"))
    session.abandon()
    session.close(ENDED)
    assert (tmp_path / "run" / "journal.bin").stat().st_size == 0
    assert _is_free(tmp_path / "run")


def test_a_checkpoint_that_cannot_be_written_is_an_answer_not_an_error(tmp_path: Path) -> None:
    """The reason is returned; the last checkpoint stays the newest."""
    session = Session.open(_config(tmp_path / "run"))
    state = {"state_dict": {"a": torch.ones(2)}, "n": 1}
    assert session.commit(1, state) is None
    reason = session.commit(2, {**state, "n": object()})
    assert reason is not None
    assert "object" in reason
    newest = session.newest_checkpoint()
    assert newest is not None
    assert newest.name == "step-00000001"
    session.close(ENDED)


def test_checkpoints_that_are_off_are_not_written(tmp_path: Path) -> None:
    """With checkpoint=False nothing is committed."""
    session = Session.open(_config(tmp_path / "run", checkpoint=False))
    assert session.commit(1, {"state_dict": {}}) is None
    assert session.newest_checkpoint() is None
    session.close(ENDED)
