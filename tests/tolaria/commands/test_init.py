"""`esper init`: what it writes can be used as it is, and as it is with every line uncommented."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from leyline import ConfigError
from tests.tolaria.commands import processes
from tolaria.commands.init import init
from tolaria.commands.spec import TrainSpec, read_spec
from tolaria.commands.starter.config_file import config_text, meanings
from tolaria.config import EsperConfig, load_config


def test_every_setting_is_in_the_file_with_its_default(tmp_path: Path) -> None:
    """Uncommenting every line loads, and changes nothing but what has no default; what that is
    holds an example, and is marked as one."""
    init(tmp_path)
    text = (tmp_path / "esper.toml").read_text()
    uncommented = re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    stated = tomllib.loads(uncommented)
    examples = set(re.findall(r"^#([a-z_]+) = .*  # for example$", text, flags=re.MULTILINE))
    assert set(stated) == set(TrainSpec.__struct_fields__)
    assert set(stated["esper"]) == set(EsperConfig.__struct_fields__)

    loaded, usual = load_config(stated["esper"], environment={}), EsperConfig()
    changed = {n for n in usual.__struct_fields__ if getattr(loaded, n) != getattr(usual, n)}
    assert changed == {n for n in usual.__struct_fields__ if getattr(usual, n) is None}
    assert examples - set(TrainSpec.__struct_fields__) == changed


def test_as_written_the_file_states_no_setting_of_growth(tmp_path: Path) -> None:
    """It loads, and everything about growth is at its default."""
    init(tmp_path)
    spec = read_spec(tmp_path / "esper.toml")
    assert (spec.model, spec.data) == ("train:Model", "train:Data")
    assert spec.esper == {}
    assert load_config(tmp_path / "esper.toml", environment={}) == EsperConfig()


@pytest.mark.parametrize("kind", [TrainSpec, EsperConfig])
def test_every_field_has_its_meaning_above_it(kind: type[msgspec.Struct]) -> None:
    """The words are those of the code, with TOML's names for its values."""
    said = " ".join(config_text().replace("\n# ", " ").split())
    for name, meaning in meanings(kind).items():
        first = meaning.split(";")[0].split(" None")[0]
        if name != "esper" and "False" not in first:
            assert first in said, name
    assert "None" not in said
    assert set(meanings(kind)) == set(kind.__struct_fields__)


@pytest.mark.parametrize("there", ["esper.toml", "train.py"])
def test_nothing_is_overwritten(there: str, tmp_path: Path) -> None:
    """With one of the files there already the error names it, and neither is written."""
    (tmp_path / there).write_text("mine")
    with pytest.raises(ConfigError, match=f"{there} would be overwritten; .* esper init DIR"):
        init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in its place is a user's mistake, not a crash."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"nothing was written to .*file/sub"):
        init(tmp_path / "file" / "sub")


def test_the_script_reads_the_config_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From whatever directory it is run."""
    init(tmp_path / "a")
    with (tmp_path / "a" / "esper.toml").open("a") as file:
        file.write("chunks = -7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # the script sets it
    main = runpy.run_path("a/train.py")["main"]
    with pytest.raises(ConfigError, match="-7"):
        main()


@pytest.mark.slow
def test_the_printed_next_steps_work_as_printed(tmp_path: Path) -> None:
    """Every command that is printed ends well where it was printed, in the order of printing; the
    script and the command line grow the same network."""
    code, printed = processes.run("init", "a new dir", cwd=tmp_path)
    assert code == 0, printed
    steps = [line.partition("#")[0].strip() for line in printed.splitlines() if line[:2] == "  "]
    assert len(steps) == 5
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["/bin/sh", "-ec", "\n".join(steps)],
        cwd=tmp_path,
        env=processes.environment() | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  net.0/\d+ ", done.stdout, re.MULTILINE), "the script has grown nothing"
    assert "dry run: nothing was trained" in done.stdout
    by_script, by_command = re.findall(r"^(?:parameters +)?42 -> (\d+)", done.stdout, re.MULTILINE)
    assert by_script == by_command
    assert len(list((tmp_path / "a new dir" / "runs").iterdir())) == 2
