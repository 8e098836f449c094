"""The command that a sceptic runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import RESULTS, main
from bench.catalogue import BENCHES, ONLY_FULL
from leyline import ConfigError
from tolaria.commands.bench import measure
from tolaria.commands.cli import esper

ROOT = Path(__file__).parents[3]


def test_esper_bench_is_the_same_command(tmp_path: Path) -> None:
    """It measures, prints its table, and writes results that the next run is compared with."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    done = CliRunner().invoke(esper, ["bench", "--quick", "breaker", "--json", str(first)])
    assert done.exit_code == 0, done.output
    assert "a guarded call" in done.output
    goals = json.loads(first.read_text())["goals"]
    assert [goal["id"] for goal in goals] == ["breaker/call"]

    arguments = ["breaker", "--quick", "--json", str(second), "--against", str(first)]
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0, again.output
    assert "by ratios" in again.output
    assert "breaker/call" in again.output


def test_some_benches_leave_the_results_of_all_alone(tmp_path: Path) -> None:
    """Only a full run of everything writes bench/results.json by itself."""
    before = RESULTS.read_bytes() if RESULTS.exists() else None
    assert CliRunner().invoke(main, ["--quick", "breaker"]).exit_code == 0
    assert (RESULTS.read_bytes() if RESULTS.exists() else None) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["nothing"], "nothing"), (["--against", "nowhere.json"], "nowhere.json")],
)
def test_mistakes_are_named(arguments: list[str], named: str) -> None:
    """Before anything is measured."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert named in done.output


def test_results_that_are_none_end_the_command(tmp_path: Path) -> None:
    """One line, exit code 2, nothing measured."""
    (tmp_path / "old.json").write_text("{}")
    command = [sys.executable, "-m", "bench", "breaker", "--against", str(tmp_path / "old.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: ")
    assert done.stderr.count("\n") == 1
    assert "guarded" not in done.stdout


def test_without_a_checkout_it_says_where_benches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Esper as a package has none: the error says so, and what to do."""
    monkeypatch.setattr("tolaria.commands.bench.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"come with the repository.*make bench"):
        measure(["breaker"])


def test_every_bench_has_a_title_and_a_quick_run_is_told_what_it_leaves() -> None:
    """The catalogue holds modules that measure; what only a full run does is in it."""
    assert all(bench.TITLE and callable(bench.rows) for bench in BENCHES.values())
    assert set(ONLY_FULL) < set(BENCHES)
