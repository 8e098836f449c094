"""`esper explain`: a seed's life from its run's directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from leyline import Decision, RunError, Schema
from tests.tolaria.commands.test_looking_back import FAILED, run_with
from tests.tolaria.show.events import a_run
from tolaria.commands.cli import esper
from tolaria.commands.explain import explain_run
from tolaria.disk.journal import read
from tolaria.disk.run import RunDirectory
from tolaria.show.lives import Gain
from tolaria.show.phrases import gain_words


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a made-up run of thirty epochs: see `tests.tolaria.show.events`."""
    return run_with(tmp_path_factory.mktemp("explained") / "run", a_run())


def explain(*arguments: object, width: int = 80) -> Result:
    environment = {"COLUMNS": str(width), "NO_COLOR": "1"}
    return CliRunner(env=environment).invoke(esper, ["explain", *map(str, arguments)])


def test_without_a_seed_each_that_was_grafted_has_a_line(run_dir: Path) -> None:
    """Three lines, then how to ask for more, and that losers can be asked for."""
    lines = explain(run_dir).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [
        "block2/2",
        "block1/0 (life 2)",
        "block3/3",
    ]
    assert "low_rank, culled, grafted after epoch 18, trial gain +0.0254 +- 0.0026" in lines[2]
    assert lines[3].startswith(f"esper explain {run_dir} block3/3 tells all of it; 40 candidates")
    assert len(lines) == 4


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_life_of_a_seed_is_told_within_the_terminal(run_dir: Path, width: int) -> None:
    """Both lives of a place, oldest first, with the race's table between the sentences; no line
    is wider than the terminal, and none has a colour where none is wanted."""
    said = explain(run_dir, "block1/0", width=width).stdout
    assert max(map(cell_len, said.splitlines())) <= width
    assert "\x1b" not in said
    first, second = said.split("block1/0 (life 2)")
    assert "before it touched the" in first
    assert "needed" in first
    assert ">" in first
    assert "part of the" in second


def test_the_same_is_there_for_programs(run_dir: Path) -> None:
    """`--json` is a list with an object for each life: figures, race, sentences."""
    lives = json.loads(explain(run_dir, "block1/0", "--json").stdout)
    assert [life["life"] for life in lives] == [1, 2]
    assert lives[1]["race"]["rank"] == 1
    assert len(lives[1]["race"]["scores"]) == 14
    assert lives[1]["grafted_epoch"] == 11
    assert lives[1]["field_reports"][0]["verdict"] == "kept"
    assert list(lives[1]["told"]) == ["what", "race", "graft", "verdict", "outcome", "now"]
    assert [life["seed"] for life in json.loads(explain(run_dir, "--json").stdout)] == [
        "block2/2",
        "block1/0",
        "block3/3",
    ]


def test_an_unknown_seed_is_an_error_with_the_nearest_names(run_dir: Path) -> None:
    """Also in a run that has planted none."""
    with pytest.raises(RunError, match=r"no seed is named 'blok2/2'; there is block2/2, block\d/"):
        explain_run(run_dir, "blok2/2")
    with pytest.raises(RunError, match="has planted none"):
        explain_run(run_with(run_dir.parent / "lost", FAILED), "a/0")
    assert explain(run_dir.parent / "lost").stdout == "no seed was grafted\n"


def test_a_run_without_a_journal_is_an_error(tmp_path: Path) -> None:
    """It is named with what to do, and nothing is written."""
    RunDirectory.create(tmp_path / "run", now=datetime.now(tz=UTC)).close()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=r"has no journal\.bin.*copy that too"):
        explain_run(tmp_path / "run", None)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_real_run_s_seeds_are_told_with_what_they_cost(grown_run: Path) -> None:
    """Every candidate of a real race has its gain, what was needed, parameters and FLOPs."""
    journal = list(read(grown_run / "journal.bin"))
    decision = next(e for e in journal if isinstance(e, Decision) and len(e.scores) > 1)
    (schema, *_) = [event for event in journal if isinstance(event, Schema)]
    flops = {(c.site, c.blueprint): c.flops for c in schema.candidates}
    for score in decision.scores:
        told = json.loads(explain(grown_run, score.seed, "--json").stdout)[0]["told"]
        assert f"{flops[score.site, score.blueprint]:,} FLOP" in " ".join(told["what"])
        assert f"{score.parameters:,} parameter" in " ".join(told["what"])
        assert gain_words(Gain(score.gain, score.gain_error)) in " ".join(told["race"])
        assert gain_words(Gain(score.threshold)) in " ".join(told["race"])


def test_a_terminal_of_plain_ascii_is_enough(tmp_path: Path) -> None:
    """What it cannot show is replaced; nothing is raised."""
    path = run_with(tmp_path / "caf\u00e9", a_run())
    result = subprocess.run(
        [sys.executable, "-m", "tolaria", "explain", str(path)],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "50"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.isascii()
    assert b"?" in result.stdout
    assert not result.stderr


def test_a_name_with_its_life_tells_that_life_alone(run_dir: Path) -> None:
    """Tables name the second life of a place so; without it both are told."""
    second = json.loads(explain(run_dir, "block1/0 (life 2)", "--json").stdout)
    both = json.loads(explain(run_dir, "block1/0", "--json").stdout)
    assert len(both) == 2
    assert second == both[1:]
    with pytest.raises(RunError, match=r"no seed is named 'block1/0 \(life 9\)'"):
        explain_run(run_dir, "block1/0 (life 9)")


def test_a_site_is_told_from_a_seed(run_dir: Path) -> None:
    """Whoever asks for a site hears which seeds it had."""
    with pytest.raises(
        RunError, match=r"'block1' is a site, which had \d+ seeds: block1/0, "
    ) as no:
        explain_run(run_dir, "block1")
    assert "block2/" not in str(no.value)
