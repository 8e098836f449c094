"""Running `esper` as a user does: in a process of its own, with one thread and no leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def environment() -> dict[str, str]:
    """This process's environment without settings of Esper, one thread, plain output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ESPER_")}
    return kept | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "100"}


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Start `esper ARGUMENTS` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tolaria", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell's background job, as CI may be, ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments: str | Path, cwd: Path, timeout_s: float = 110.0) -> tuple[int, str]:
    """Run `esper ARGUMENTS` to its end: exit code and everything it printed."""
    process = start(*arguments, cwd=cwd)
    try:
        printed, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, printed


def wait_until(condition: Callable[[], bool], timeout_s: float = 100.0) -> None:
    """Poll until a condition holds; fail loudly if it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        os.sched_yield()


def checkpoint(run_dir: Path, epochs: int, steps_per_epoch: int = 37) -> Path:
    """Where a digits run commits the end of an epoch."""
    return run_dir / "checkpoints" / "active" / f"step-{epochs * steps_per_epoch:08d}"
