"""`esper inspect` and `esper watch` of runs that are over, and of runs that there are not."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import leyline
import oona
from tests.tolaria.show.events import a_run, started
from tolaria.commands.inspection import inspect_run, lifecycle_line
from tolaria.commands.watch import watch_run
from tolaria.disk.journal import Journal
from tolaria.disk.run import RunDirectory

FAILED: tuple[leyline.Event, ...] = (
    started("lost"),
    leyline.Fault(epoch=0, step=3, where="loss", what="loss is nan [bad]", action="the run stops"),
    leyline.RunEnded(run_id="lost", epoch=0, status="failed", parameters=28_938, metrics={}),
)
LIVES = leyline.LifecycleMetrics(
    epoch=7,
    stages={"DORMANT": 3, "FOSSILIZED": 1},
    transitions=0,
    mean_alpha=math.nan,
    seed_checkpoints=12,
    faults=0,
    refusals=0,
)


def run_with(path: Path, events: Iterable[leyline.Event], *, bus: str = "off") -> Path:
    """A run directory whose journal and bus hold these events."""
    with RunDirectory.create(path, now=datetime.now(tz=UTC)) as run:
        journal = Journal.open(run.journal)
        with oona.Bus.open(run.path, run.run_id, bus) as telemetry:
            for event in events:
                journal.append(event)
                assert bus == "off" or telemetry.offer(event)
        journal.close()
    return path


def inspected(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    inspect_run(path, as_json=False)
    return capsys.readouterr().out


def test_a_failed_run_says_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How it ended and why, and in words that nothing grew: no table without rows."""
    lines = inspected(run_with(tmp_path / "lost", FAILED), capsys).splitlines()
    assert lines[0] == "lost failed, epoch 0 of 30"
    assert "no seed was planted" in lines
    assert "no decision was made: no epoch has ended" in lines
    assert "fault at step 3 in loss: loss is nan [bad] -> the run stops" in lines
    assert not [line for line in lines if "blueprint" in line or "cause" in line]


def test_a_finished_run_shows_its_seeds_and_how_to_read_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are explained once, and candidates that only raced are counted."""
    said = inspected(run_with(tmp_path / "run", a_run()), capsys)
    assert "block1/0 names place 0 at the site block1; (life 2): number 2 of those tried" in said
    assert "40 candidates cancelled before touching the network" in said
    assert "no decision" not in said
    assert "24-30  hold" in said


def test_a_run_whose_candidates_all_lost_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no empty table of seeds, but their number."""
    lost = [
        leyline.SeedReport(
            epoch=4,
            seed=f"block1/{number}",
            site="block1",
            blueprint="conv",
            was=leyline.Stage.TRAINING,
            now=leyline.Stage.CANCELLED,
            parameters=1,
            alpha=0.0,
            cause="lost its race",
        )
        for number in range(3)
    ]
    said = inspected(run_with(tmp_path / "run", [started(), *lost]), capsys)
    assert "\n3 candidates cancelled before touching the network\n" in said
    assert "blueprint" not in said


def test_what_did_not_happen_is_not_counted() -> None:
    """The line of the last boundary names transitions, faults and refusals that there were."""
    assert lifecycle_line(LIVES) == (
        "seeds after epoch 7: 3 DORMANT, 1 FOSSILIZED; 12 seed checkpoints so far"
    )
    busy = msgspec.structs.replace(LIVES, transitions=1, refusals=2, mean_alpha=0.5)
    assert lifecycle_line(busy) == (
        "seeds after epoch 7: 3 DORMANT, 1 FOSSILIZED, grafting at alpha 0.50; "
        "1 transition, 2 refusals at that boundary; 12 seed checkpoints so far"
    )


@pytest.mark.parametrize("look", [inspected, lambda path, _: watch_run(str(path))])
def test_a_name_that_is_no_run_lists_those_in_runs(
    look: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a path is not a run, the error names the runs in runs/, where runs are made."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for name in ("one", "two"):
        run_with(Path("runs", name), FAILED)
    assert callable(look)
    with pytest.raises(leyline.RunError, match=r"no run at nope; the runs in runs are: one, two"):
        look(Path("nope"), capsys)


def test_watching_a_run_that_has_ended_says_so_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then what its bus still holds is shown again; of a run that goes on nothing is said."""
    ended = run_with(tmp_path / "ended", FAILED, bus="unix:///nowhere/bus.sock")
    watch_run(str(ended))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{ended} has ended: failed after epoch 0; its events once more:"
    assert lines[1].startswith("run lost: DigitsNet")
    assert lines[-1] == f"{ended}: failed"


def test_watching_needs_no_whole_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged history is no matter for one who reads the bus."""
    run = run_with(tmp_path / "ended", FAILED, bus="unix:///nowhere/bus.sock")
    (run / "journal.bin").write_bytes(b"\x08\x00\x00\x00damaged.")
    watch_run(str(run))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("run lost: DigitsNet")
    assert lines[-1] == f"{run}: failed"


def test_a_run_that_no_process_holds_and_that_has_no_end_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While its directory is held it is running; after that both commands say how to go on."""
    run = run_with(tmp_path / "run", [started()], bus="unix:///nowhere/bus.sock")
    with RunDirectory.open(run):
        assert inspected(run, capsys).startswith("digits-7f3a running, epoch 0")
    first, second = inspected(run, capsys).splitlines()[:2]
    assert first.startswith("digits-7f3a killed, epoch 0")
    assert f"esper train --resume --run-dir {run}" in second
    watch_run(str(run))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run}: {second}"
    assert lines[-1] == f"{run}: killed"


def test_watching_without_telemetry_names_what_shows_the_run(tmp_path: Path) -> None:
    """There is nothing to follow where no bus was asked for."""
    run = run_with(tmp_path / "run", FAILED)
    with pytest.raises(leyline.RunError, match=f"telemetry was off; `esper inspect {run}`"):
        watch_run(str(run))


def test_looking_back_imports_no_torch() -> None:
    """Inspecting, reporting and watching answer at once: torch and lightning are not imported."""
    program = (
        "import sys\nimport tolaria.commands.inspection, tolaria.commands.watch\n"
        "sys.exit(sorted({'torch', 'numpy', 'lightning'} & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
