"""`esper config show`: what counts in the end, and where it comes from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tolaria.commands import processes
from tests.tolaria.commands.test_cli import esper
from tolaria.commands.spec import TrainSpec
from tolaria.config import EsperConfig, load_config

FILE = """
model = "package.module:Model"
epochs = 7
[esper]
policy = "hold"
monitor = "val_acc"
rng_seed = 5
"""


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    assert esper(monkeypatch, "config", "show", "--json", *arguments) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_source_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An argument wins over a variable, that over the file, that over the default, as in a run."""
    (tmp_path / "c.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESPER_MONITOR", "val_f1")
    monkeypatch.setenv("ESPER_RNG_SEED", "6")
    monkeypatch.setenv("ESPER_CHUNKS", "4")
    found = shown(monkeypatch, capsys, "c.toml", "--rng-seed", "9", "--epochs", "3")

    def setting(name: str) -> tuple[Any, str]:
        return found[name]["value"], found[name]["from"]

    assert setting("model") == ("package.module:Model", "c.toml")
    assert setting("epochs") == (3, "argument")
    assert setting("data") == (None, "default")
    assert setting("policy") == ("hold", "c.toml")
    assert setting("monitor") == ("val_f1", "ESPER_MONITOR")
    assert setting("chunks") == (4, "ESPER_CHUNKS")
    assert setting("rng_seed") == (9, "argument")
    assert setting("veto") == (True, "default")
    names = {*TrainSpec.__struct_fields__, *EsperConfig.__struct_fields__} - {"esper"}
    assert set(found) == names


def test_what_is_shown_is_what_a_run_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shown values are a config: loaded back they are the one that a run resolves."""
    (tmp_path / "c.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    found = shown(monkeypatch, capsys, "c.toml")
    values = {n: found[n]["value"] for n in EsperConfig.__struct_fields__}
    assert load_config(values, environment={}) == load_config("c.toml")


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_table_has_a_line_for_each_setting_and_no_colours_unless_wanted(
    columns: str, tmp_path: Path
) -> None:
    """At 80 columns a long value is folded, none is cut; NO_COLOR leaves plain text; no torch."""
    program = (
        "import sys\nsys.argv = ['esper', 'config', 'show', '--telemetry', "
        "'redis://user@a-rather-long-host-name.example.org:6379/0']\n"
        "from tolaria.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n"
        "    assert not {'torch', 'numpy', 'lightning'} & set(sys.modules)\n    raise"
    )
    environment = processes.environment() | {"COLUMNS": columns}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    printed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "\x1b" not in printed
    assert all(len(line) <= int(columns) for line in printed.splitlines())
    first = [line.split()[0] for line in printed.splitlines() if line[0] != " "]
    names = [*TrainSpec.__struct_fields__, *EsperConfig.__struct_fields__]
    assert first == ["setting", *(name for name in names if name != "esper")]
    rows = {line.split()[0]: line for line in printed.splitlines() if line[0] != " "}
    url = "redis://user@a-rather-long-host-name.example.org:6379/0"
    head = rows["telemetry"].split()[1]
    assert url.startswith(head)
    assert url.removeprefix(head) in printed
    assert rows["telemetry"].split()[2] == "argument"
