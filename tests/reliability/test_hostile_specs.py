"""Hostile spec.json in the run of `esper train`: refused by name, before anything is built."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.reliability.hostile_runs import finished as finished
from tests.reliability.plugin import Faults
from tests.reliability.resealing import WORDS
from tests.tolaria.commands.test_cli import esper
from tests.tolaria.disk.test_run import tree_of
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.commands.runs import StoredSpec
from tolaria.commands.spec import TrainSpec
from tolaria.disk.sealed import seal

SOUND: Final = msgspec.to_builtins(StoredSpec(spec=TrainSpec(), rng_seed=0, epochs=9))


def _spec(**values: Any) -> bytes:
    return seal({**SOUND, "spec": {**SOUND["spec"], **values}})


SPECS: Final[dict[str, tuple[bytes, str]]] = {
    "a function": (_spec(model="os:system", data="digits"), "os:system is not a LightningModule"),
    "a class of ours": (
        _spec(model="tolaria.disk.files:FileOps", data="digits"),
        "FileOps is not a LightningModule",
    ),
    "data that is a function": (
        _spec(model="lightning.pytorch.demos.boring_classes:BoringModel", data="shutil:rmtree"),
        "shutil:rmtree is not a LightningDataModule",
    ),
    "no module": (_spec(model="no.such.thing:At", data="digits"), "there is no module 'no'"),
    "a path": (_spec(model="../../x:Y", data="digits"), "is not of the form"),
    "no name": (_spec(model=":", data="digits"), "is not of the form package.module:Name"),
    "an escape": (_spec(model=f"{WORDS}:X", data="digits"), "is not of the form"),
    "NUL": (_spec(model="a\0b:X", data="digits"), "is not of the form"),
    "relative": (_spec(model=".x:Y", data="digits"), "is not of the form"),
    "unknown data": (_spec(data="../../etc"), "no built-in task is called"),
    "unknown field": (seal({**SOUND, WORDS: 1}), "spec.json is damaged: .*unknown field"),
    "unknown field within": (_spec(call="x"), "spec.json is damaged: .*unknown field `call`"),
    "unknown setting": (_spec(esper={"cmd": "x"}), "there is no setting 'cmd'"),
    "wrong type": (_spec(model=["os", "system"]), "spec.json is damaged: Expected"),
    "wrong arguments": (_spec(model_args=[1]), "spec.json is damaged: Expected"),
    "epochs of 2**63": (seal({**SOUND, "epochs": -(2**63)}), "spec.json is damaged: .*epochs"),
    "a list": (b"[]", "spec.json is damaged"),
    "deep": (b'{"spec": ' + b"[" * 200_000, "spec.json is damaged"),
    "400 digits": (b'{"epochs": 1' + b"0" * 400 + b"}", "spec.json is damaged"),
    "empty": (b"", "spec.json is damaged"),
    "encoding": (b"\xff\xfe{\x00", "spec.json is damaged"),
}


@pytest.mark.timeout(60)
@pytest.mark.fault(22)
@pytest.mark.parametrize("name", SPECS)
def test_a_hostile_spec_is_refused(
    name: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    faults: Faults,
) -> None:
    """What names no model, no data or no setting ends in one line, and the run is as it was."""
    content, refusal = SPECS[name]
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    (place / "spec.json").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    before = tree_of(tmp_path)
    code = esper(monkeypatch, "train", "--resume", "--run-dir", str(place), "--telemetry", "off")
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(refusal, line)
    assert line.isprintable()
    after = tree_of(tmp_path)
    before[place / "lock"] = after[place / "lock"]  # its holder's number
    assert code == 2
    assert after == before
    faults.injected()
