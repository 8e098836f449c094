"""The password of a bus: in no file, in nothing that is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tolaria.commands import processes

URL = "redis://me:s3cr3tPW@127.0.0.1:9/0"


@pytest.mark.slow
def test_it_is_neither_stored_nor_printed(tmp_path: Path) -> None:
    """A run whose URL has it leaves it in no file of its directory, and prints it nowhere; nor do
    the commands that show settings, plans or the run."""
    train = ("train", "--epochs", "1", "--run-dir", "run", "--telemetry", URL)
    commands = [
        train,
        (*train[:3], "--dry-run", "--telemetry", URL),
        ("config", "show", "--telemetry", URL),
        ("config", "show", "--json", "--telemetry", URL),
        ("inspect", "run"),
        ("events", "run"),
        ("train", "--resume", "--epochs", "2", "--run-dir", "run"),
    ]
    for command in commands:
        code, printed = processes.run(*command, cwd=tmp_path)
        assert code == 0, printed
        assert "s3cr3t" not in printed, command
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "spec.json" for path in files)
    assert not [path for path in files if b"s3cr3t" in path.read_bytes()]
