"""Hostile words in a run: no command, and no line of the log, hands them to a terminal as they are.

The records are well-formed and the digests fit: only what is said of them stands in between.
"""

from __future__ import annotations

import logging
import math
import shutil
import unicodedata
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from leyline import (
    BreakerChange,
    Decision,
    EpochMetrics,
    EsperError,
    Fault,
    Germinate,
    LearningRates,
    LifecycleMetrics,
    RiskChanged,
    RunEnded,
    RunStarted,
    SeedReport,
    SitesFound,
)
from tests.reliability.hostile_runs import finished as finished
from tests.reliability.hostile_runs import resume
from tests.reliability.plugin import Faults
from tests.reliability.resealing import WORDS, manifest, reseal
from tests.tolaria.commands.test_cli import esper as run_esper
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.commands.cli import esper
from tolaria.disk.journal import Journal

SEED: Final = f"{WORDS}/0"
HUGE: Final = 2**63
COUNTS: Final = {"transitions": HUGE, "seed_checkpoints": 1, "faults": HUGE, "refusals": 1}
PLACE: Final = {"seed": SEED, "site": WORDS, "blueprint": WORDS}
EVENTS: Final = (
    RunStarted(run_id=WORDS, epoch=1, num_epochs=3, host_parameters=7, model=WORDS, resumed=False),
    SitesFound(
        epoch=1,
        grows=(WORDS,),
        control=(WORDS,),
        rollout_percentage=50,
        num_refused=1,
        refused={WORDS: WORDS},
    ),
    Decision(epoch=1, policy=WORDS, cause=WORDS, commands=(Germinate(**PLACE, cause=WORDS),)),
    *(
        SeedReport(
            epoch=1, **PLACE, was=was, now=was + 1, parameters=HUGE, alpha=math.nan, cause=WORDS
        )
        for was in range(4)
    ),
    SeedReport(
        epoch=1, **PLACE, was=99, now=-3, parameters=1, alpha=1.0, cause=WORDS, refused=WORDS
    ),
    EpochMetrics(
        epoch=1, num_epochs=3, step=4, metrics={WORDS: math.nan}, parameters=9, stages={WORDS: 1}
    ),
    LifecycleMetrics(epoch=1, stages={WORDS: 1}, mean_alpha=math.inf, **COUNTS),
    LearningRates(epoch=1, step=4, host=(math.nan,), seeds={SEED: math.inf}),
    RiskChanged(epoch=1, step=4, was=0, now=99, causes=(WORDS,)),
    BreakerChange(
        epoch=1, step=4, name=WORDS, was=WORDS, now=WORDS, why=WORDS, hold=math.nan, unit=WORDS
    ),
    Fault(epoch=1, step=4, where=WORDS, what=WORDS, action=WORDS),
    RunEnded(run_id=WORDS, epoch=1, status=WORDS, parameters=9, metrics={WORDS: -math.inf}),
)
LATER: Final = (
    *EVENTS,
    Decision(epoch=HUGE, policy=WORDS, cause=WORDS, late=True, risk_by_chance=HUGE),
    Decision(epoch=-HUGE, policy=WORDS, cause=WORDS, undone=WORDS, risk_by_chance=-1),
    Fault(epoch=HUGE, step=HUGE, where="memory", what=WORDS, action=WORDS),
)
COMMANDS: Final = (
    ("inspect",),
    ("inspect", "--json"),
    ("explain",),
    ("explain", SEED),
    ("explain", "no such seed"),
    ("verify",),
    ("report",),
    ("replay",),
    ("compare", ""),
)


def steering(text: str) -> set[str]:
    """The characters of a text that steer a terminal; lines are ended by what prints them."""
    kinds = ("Cc", "Cf", "Zl", "Zp")
    return {char for char in text if unicodedata.category(char) in kinds and char != "\n"}


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """A run whose journal holds such events, and whose manifests have a field of such a name."""
    place = tmp_path_factory.mktemp("worded") / "run"
    shutil.copytree(finished, place)
    (place / "journal.bin").unlink()
    journal = Journal.open(place / "journal.bin")
    for event in EVENTS:
        journal.append(event)
    journal.close()
    reseal(place, manifest(lambda m: m.update({WORDS: 1})))
    return place


@pytest.mark.fault(22)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_what_steers_a_terminal(
    command: tuple[str, ...], worded: Path, faults: Faults
) -> None:
    """Nor a line that a name has begun: what a run calls its seeds stays within a line."""
    arguments = [command[0], str(worded), *(given or str(worded) for given in command[1:])]
    result = CliRunner().invoke(esper, arguments)
    assert result.exception is None or isinstance(result.exception, EsperError | SystemExit)
    assert result.output or result.exception
    assert not steering(result.output)
    assert not any(line.startswith("fault at step 1") for line in result.output.splitlines())
    faults.injected()


@pytest.mark.fault(22)
@pytest.mark.parametrize("command", ["verify", "explain", "train"])
def test_no_error_says_what_steers_a_terminal(
    command: str,
    worded: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    faults: Faults,
) -> None:
    """What a file says is quoted on the one line of the error, and in the log, without it."""
    arguments = {
        "verify": ["verify", str(worded)],
        "explain": ["explain", str(worded), "no such seed"],
        "train": ["train", "--resume", "--run-dir", str(worded)],
    }
    assert run_esper(monkeypatch, *arguments[command]) in (1, 2)
    said = "".join(capfd.readouterr())
    assert "fault at step 1" in said
    assert not steering(said)
    assert not any(line.startswith("fault at step 1") for line in said.splitlines())
    faults.injected()


@pytest.mark.fault(22)
def test_the_log_holds_no_line_that_a_file_has_begun(
    worded: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, faults: Faults
) -> None:
    """Why a checkpoint was passed over is one line, whatever its manifest says."""
    place = tmp_path / "run"
    shutil.copytree(worded, place)
    with caplog.at_level(logging.INFO, "esper"):
        assert resume(place, tmp_path / "canary")
    said = [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()]
    assert len(said) == 3
    assert all("fault at step 1" in line and line.isprintable() for line in said)
    faults.injected()


@pytest.mark.slow
@pytest.mark.fault(22)
@pytest.mark.parametrize("number", range(len(LATER)))
def test_hostile_events_after_a_checkpoint_are_cut_off(
    number: int, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """A resume goes on without them, or is refused by name: they never reach the training run."""
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    journal = Journal.open(place / "journal.bin")
    journal.append(LATER[number])
    journal.close()
    refusal = resume(place, tmp_path / "canary")
    assert not refusal or str(place) in refusal
    faults.injected()
