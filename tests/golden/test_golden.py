"""Checkpoints that each released format has left: this version loads those very bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kasmina.slots.slot import attached_seeds
from tests.golden import make
from tests.reliability.plugin import Faults
from tests.tolaria.plain_loops import TRAIN, adam, assert_tracked, attach, make_host, train_epoch
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.boundary.breakers import Breakers
from tolaria.disk.checkpoint import load, verify
from tolaria.disk.manifest import read_manifest
from tolaria.disk.migrations import FORMAT, growth_up_to_date
from tolaria.disk.surroundings import Surroundings

HERE = Path(__file__).parent
FORMATS = sorted(HERE.glob("format-*"))


def content(folder: Path) -> tuple[Path, dict[str, Any]]:
    (checkpoint,) = folder.glob("step-*")
    return checkpoint, json.loads((folder / "expected.json").read_text())


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_format_has_its_bytes() -> None:
    """There is one directory for each format that there ever was."""
    assert [path.name for path in FORMATS] == [f"format-{n}" for n in range(1, FORMAT + 1)]


@pytest.mark.fault(21)
@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_its_bytes_load_as_what_was_saved(folder: Path, faults: Faults) -> None:
    """Every tensor of model and optimizer has the digest noted when it was written; the manifest
    says the format, and what it was written on as far as it ever said."""
    checkpoint, expected = content(folder)
    assert verify(checkpoint) == []
    state = load(checkpoint)
    found = {f"model.{name}": tensor for name, tensor in state["state_dict"].items()}
    for index, held in state["optimizer_states"][0]["state"].items():
        found |= {f"optimizer.{index}.{key}": value for key, value in held.items()}
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    assert {name: make.digest(tensor) for name, tensor in tensors.items()} == expected["tensors"]
    manifest = read_manifest(checkpoint)
    assert f"format-{manifest.format}" == folder.name
    assert manifest.surroundings.torch.startswith("2.")
    assert manifest.surroundings == Surroundings(**state["esper"]["surroundings"])
    if manifest.format > 1:
        assert manifest.occasion.epoch == expected["epoch"]
        assert [seed.seed for seed in manifest.structure.seeds] == list(expected["stages"])
        assert "conv.esper.0.body.0.weight" in manifest.structure.groups[0][1]
    faults.injected()


@pytest.mark.fault(21)
@pytest.mark.parametrize("is_open", [False, True])
def test_the_one_breaker_of_format_1_becomes_that_of_the_executor(
    is_open: bool, faults: Faults
) -> None:
    """It goes on to wait for as many boundaries as it would have; the others begin closed."""
    state = load(content(HERE / "format-2")[0])
    growth = {name: state["esper"][name] for name in ("executor", "controller")}
    growth["boundary"] = {"open": is_open, "faults": 2, "num_held": 7}
    growth_up_to_date(growth, {})
    assert growth["format"] == FORMAT
    breakers = Breakers(lambda: 0, lambda: 0.0, lambda _: None)
    breakers.load_state_dict(growth["breakers"])
    assert breakers.executor.state == ("open" if is_open else "closed")
    assert breakers.policy.state == breakers.learning_rates.state == "closed"
    assert growth["breakers"]["executor"] | {"state": ""} == {
        "state": "",
        "failures": 2,
        "waited": 7,
        "hold": 10,
    }
    faults.injected()


@pytest.mark.fault(21)
@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_run_goes_on_from_its_bytes(folder: Path, tmp_path: Path, faults: Faults) -> None:
    """Put where format 1 kept checkpoints, in a new run's directory, it is resumed: the seeds are
    in their stages, the optimizer tracks them, steps are trained, and not a byte of it changes."""
    checkpoint, expected = content(folder)
    settings = {"schedule": make.SCHEDULE, "checkpoint": False}
    attach(model := make_host(), adam(model), tmp_path / "other", **settings).close()
    there = tmp_path / "other" / "checkpoints" / checkpoint.name
    shutil.copytree(checkpoint, there)
    before = bytes_of(there)
    torch.manual_seed(99)
    model = make_host(3)
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "other", resume=True, **settings) as esper:
        assert (esper.epoch, esper.step) == (expected["epoch"], expected["step"])
        table = esper.executor.table
        stages = {name: table.stage(name).name for name in table.names}
        assert stages == expected["stages"] == make.STAGES
        assert make.digests(model, optimizer) == expected["tensors"]
        train_epoch(model, optimizer, esper, TRAIN[:2])
        assert_tracked(model, optimizer)
        assert list(attached_seeds(model)) == list(make.STAGES)
    assert bytes_of(there) == before
    faults.injected()
