"""Commands whose reader leaves before they have said everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tolaria.commands import processes
from tolaria.disk.run import RunDirectory


def _left_after_a_line(*arguments: str, cwd: Path) -> tuple[int, str]:
    """Read one line of what `esper ARGUMENTS` prints and leave: its exit code and its errors."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tolaria", *arguments],
        cwd=cwd,
        env=processes.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    return process.wait(60), errors


@pytest.mark.slow
def test_a_run_goes_on_without_its_reader(tmp_path: Path) -> None:
    """`esper train | head -1` trains to the end; so do looking at it and checking it."""
    train = ("train", "--epochs", "3", "--run-dir", "run", "--policy", "hold")
    assert _left_after_a_line(*train, cwd=tmp_path) == (0, "")
    with RunDirectory.open(tmp_path / "run", lock=False) as run:
        assert run.report.is_file()
    for command in ("inspect", "watch", "events", "verify"):
        assert _left_after_a_line(command, "run", cwd=tmp_path) == (0, ""), command
    code, printed = processes.run("inspect", "run", cwd=tmp_path)
    assert code == 0
    assert "finished" in printed


@pytest.mark.slow
def test_a_run_goes_on_where_its_log_finds_no_room(tmp_path: Path) -> None:
    """`esper train > /dev/full`, as a log on a disk that is full: it trains to the end, says
    nothing of it, and so do the commands that look at it."""
    train = ("train", "--epochs", "3", "--run-dir", "run", "--policy", "hold")
    for arguments in (train, ("inspect", "run"), ("verify", "run")):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "tolaria", *arguments],
                cwd=tmp_path,
                env=processes.environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
                timeout=60,
            )
        assert (done.returncode, done.stderr) == (0, b""), arguments
    with RunDirectory.open(tmp_path / "run", lock=False) as run:
        assert run.report.is_file()
