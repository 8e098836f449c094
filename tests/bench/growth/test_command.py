"""The command itself: killed at any time, it goes on; a run that fails does not end it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.growth.store import Job, Store
from bench.growth.workers import Workers

ROOT = Path(__file__).parents[3]
FEW = ("--task", "mnist1d", "--arm", "host", "--rng-seeds", "1")
"""Three runs to choose a rate, and one: of a network that trains in two seconds."""


@pytest.mark.slow
def test_a_killed_benchmark_goes_on(tmp_path: Path) -> None:
    """What was done stays as it was, the rest is done by the same command, and then all is."""
    command = (sys.executable, "-m", "bench.growth", *FEW, "--runs", str(tmp_path))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        next(line for line in first.stdout if "mnist1d/host" in line)  # one run is done
        first.kill()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert 1 <= len(times) <= 3

    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list(tmp_path.rglob("*.json"))) == 4
    assert not list(tmp_path.rglob("*.part"))
    assert "4 runs are done, 0 are missing" in second.stdout
    assert "host alone" in second.stdout


@pytest.mark.slow
def test_a_run_that_fails_costs_itself_alone(tmp_path: Path) -> None:
    """It is told of, leaves no file, and its worker is replaced by one that takes the next job."""
    bad = Job("mnist1d", "host", 0, {"net": {"kind": "none"}, "num_spans": 1, "learning_rate": 0.1})
    good = bad._replace(settings={**bad.settings, "net": {"kind": "host"}})
    store = Store(tmp_path)
    workers = Workers(1, store, short=True)
    try:
        workers.begin(bad)
        assert workers.busy_with == [bad]
        assert workers.next_done() == (bad, None)
        assert store.get(bad) is None
        workers.begin(good)
        job, took_s = workers.next_done()
        assert job == good
        assert took_s is not None
        assert store.get(good) is not None
    finally:
        workers.stop()
