"""`esper replay`: what it shows, what it ends with, and what it says to mistakes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec import structs
from rich.cells import cell_len

from leyline import VERSION, ConfigError, Decision, Event, RunError, RunStarted, encode
from tamiyo import State
from tests.tolaria.commands.test_looking_back import FAILED, run_with
from tests.tolaria.show.events import Run, schema, started
from tolaria.commands.cli import esper
from tolaria.config import load_config
from tolaria.disk.journal import read
from tolaria.disk.run import RunDirectory
from tolaria.growth.policies import build_policy


def replay(*arguments: object, width: int = 80) -> Result:
    environment = {"COLUMNS": str(width), "NO_COLOR": "1"}
    return CliRunner(env=environment).invoke(esper, ["replay", *map(str, arguments)])


def changed(path: Path, to: Path, change: Callable[[Event], Event]) -> Path:
    """A copy of a run whose journal holds other events."""
    shutil.copytree(path, to)
    records = [encode(change(event)) for event in read(path / "journal.bin")]
    journal = b"".join(len(data).to_bytes(4, "little") + data for data in records)
    (to / "journal.bin").write_bytes(journal)
    return to


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_real_run_is_all_the_same(grown_run: Path, width: int) -> None:
    """One line says so, within the terminal and without colours; exit code 0, nothing written."""
    before = {path: path.stat().st_mtime_ns for path in grown_run.rglob("*")}
    result = replay(grown_run, width=width)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "8 boundaries, all the same"
    assert max(map(cell_len, lines)) <= width
    assert "\x1b" not in result.stdout
    assert {path: path.stat().st_mtime_ns for path in grown_run.rglob("*")} == before


def test_a_decision_that_its_policy_would_not_make_ends_with_1(
    grown_run: Path, tmp_path: Path
) -> None:
    """A journal whose decision of epoch 5 is another is found out there, and there alone."""

    def tampered(event: Event) -> Event:
        if isinstance(event, Decision) and event.epoch == 5:
            return Decision(epoch=5, policy=event.policy, cause="made up")
        return event

    result = replay(changed(grown_run, tmp_path / "run", tampered))
    assert result.exit_code == 1
    assert "8 boundaries, 1 different, 7 the same" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "different:" in line]
    assert line.split()[:2] == ["5", "hold"]
    assert "not a pure function of the state" in result.stdout


def test_another_threshold_is_tried_without_blame(grown_run: Path) -> None:
    """With a threshold that nothing passes the grafts differ; exit code 0, and it is said once
    that what would have followed is not known."""
    result = replay(grown_run, "--set", "min_gain=1e9")
    assert result.exit_code == 0
    grafts = [
        event.epoch
        for event in read(grown_run / "journal.bin")
        if isinstance(event, Decision) and any(score.chosen for score in event.scores)
    ]
    assert f"8 boundaries, {len(grafts)} different, {8 - len(grafts)} the same" in result.stdout
    assert result.stdout.count("what would have followed is not known") == 1
    assert f"after epoch {grafts[0]} the states are" in result.stdout


def test_another_policy_is_asked(grown_run: Path) -> None:
    """One that holds differs wherever the run did something, and nowhere else."""
    lines = replay(grown_run, "--policy", "hold", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    for row in rows:
        assert row["verdict"] == ("different" if row["was"]["commands"] else "same")
        assert row["now"]["policy"] == "hold"


def test_a_run_that_no_esper_train_started_has_its_settings_too(
    grown_run: Path, tmp_path: Path
) -> None:
    """They are in the journal: nothing differs where the file of `esper train` is not there."""
    own = run_with(tmp_path / "own", read(grown_run / "journal.bin"))
    assert not (own / "spec.json").exists()
    started = next(e for e in read(own / "journal.bin") if isinstance(e, RunStarted))
    assert started.settings == {"max_candidates": "6", "veto": "false"}
    result = replay(own)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "8 boundaries, all the same")


@pytest.mark.parametrize("command", ["replay", "explain"])
def test_a_journal_that_was_emptied_is_no_young_run(
    grown_run: Path, tmp_path: Path, command: str
) -> None:
    """Its report is there, so it is an error that names what to look at."""
    copy = changed(grown_run, tmp_path / "run", lambda event: event)
    (copy / "journal.bin").write_bytes(b"")
    error = CliRunner().invoke(esper, [command, str(copy)]).exception
    assert isinstance(error, RunError)
    assert "holds no event, though the run has left others" in str(error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "min_gain"], "'min_gain' is not NAME=VALUE"),
        (["--set", "min_gain=abc"], "'abc' is not a value as TOML has them"),
        (["--set", "min_gain=1\nveto=true"], "is not a value as TOML has them"),
        (["--set", "min_gian=1"], "did you mean 'min_gain'?"),
        (["--set", "veto=3"], "setting 'veto' is 3"),
        (["--policy", "none"], "setting 'policy' is 'none'"),
    ],
)
def test_a_mistake_is_named(grown_run: Path, arguments: list[str], said: str) -> None:
    """It is a user's error, and says what was meant or allowed."""
    error = replay(grown_run, *arguments).exception
    assert isinstance(error, ConfigError)
    assert said in str(error)


def test_a_run_of_another_version_is_refused(grown_run: Path, tmp_path: Path) -> None:
    """Both versions are named, by `replay` and by `explain`."""
    copy = changed(grown_run, tmp_path / "run", lambda event: event)
    journal = bytearray((copy / "journal.bin").read_bytes())
    journal[8] += 1  # behind the record's length and the magic
    (copy / "journal.bin").write_bytes(journal)
    for command in ("replay", "explain"):
        error = CliRunner().invoke(esper, [command, str(copy)]).exception
        assert isinstance(error, RunError)
        assert f"version {VERSION + 1} refused: this is version {VERSION}" in str(error)


def test_a_run_without_a_boundary_says_so(tmp_path: Path) -> None:
    """One that failed at once, and one that is held by a live process."""
    assert replay(run_with(tmp_path / "lost", FAILED)).stdout == "no boundary has been passed\n"
    live = run_with(tmp_path / "live", [started()])
    with RunDirectory.open(live):
        assert replay(live).stdout == "no boundary has been passed yet\n"


def test_a_live_run_is_replayed_so_far(grown_run: Path) -> None:
    """While a process holds it, the boundaries are those so far."""
    with RunDirectory.open(grown_run):
        assert "8 boundaries so far, all the same" in replay(grown_run).stdout


@pytest.mark.slow
def test_two_thousand_boundaries_take_seconds(tmp_path: Path) -> None:
    """A journal of 2,000 boundaries is decided again within five seconds."""
    policy, maker, events = build_policy(load_config({})), Run(), [started(), schema()]
    for epoch in range(1, 2001):
        packet = maker.packet(epoch)
        events += [packet, policy.decide(State(packet, schema()))]
    path = run_with(tmp_path / "run", events)
    start_s = time.perf_counter()
    result = replay(path)
    took_s = time.perf_counter() - start_s
    assert "2,000 boundaries, all the same" in result.stdout
    assert took_s < 5.0


def test_a_run_whose_own_policy_is_not_here(grown_run: Path, tmp_path: Path) -> None:
    """The error says that it is the run's own, and another one may be asked."""

    def foreign(event: Event) -> Event:
        if isinstance(event, RunStarted):
            return structs.replace(event, settings={"policy": '"theirs"'})
        return event

    other = changed(grown_run, tmp_path / "run", foreign)
    error = replay(other).exception
    assert isinstance(error, ConfigError)
    assert "the run's own policy 'theirs' is not installed here" in str(error)
    assert replay(other, "--policy", "hold").exit_code == 0
