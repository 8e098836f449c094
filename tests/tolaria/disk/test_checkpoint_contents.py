"""What a checkpoint may hold, and what other tools read of it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tolaria.disk.checkpoint import load
from tolaria.disk.manifest import read_manifest
from tolaria.disk.store import CheckpointStore
from tolaria.disk.surroundings import Surroundings


def test_other_tools_can_read_the_model(tmp_path):
    """model.safetensors has every parameter under its own name, tied ones too, and nothing else."""
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    state_dict = model.state_dict()
    state_dict["extra"] = {"note": "not a tensor"}
    store = CheckpointStore(tmp_path)
    path = store.commit(1, {"state_dict": state_dict, "other": torch.ones(2)})
    del state_dict["extra"]
    plain = load_file(path / "model.safetensors")
    assert sorted(plain) == sorted(state_dict)
    assert all(torch.equal(plain[name], tensor) for name, tensor in state_dict.items())
    assert load(path)["state_dict"]["extra"] == {"note": "not a tensor"}


def test_views_of_one_arena_are_written(tmp_path):
    """Tensors that share memory without being the same are stored apart."""
    arena = torch.arange(10.0)
    state = {
        "state_dict": {"x": arena[:5], "y": arena[3:], "all": arena},
        "again": arena.view(2, 5),
    }
    path = CheckpointStore(tmp_path).commit(1, state)
    back = load(path)
    assert all(torch.equal(back["state_dict"][name], state["state_dict"][name]) for name in "xy")
    assert torch.equal(back["again"], state["again"])


@pytest.mark.parametrize("state", [{}, {"state_dict": None}, {"state_dict": {}}, {"a": 1}])
def test_a_state_without_a_model_is_fine(tmp_path, state):
    """No key is invented and none is lost."""
    assert load(CheckpointStore(tmp_path).commit(0, state)) == state


def test_the_manifest_says_what_bits_depend_on(tmp_path):
    """Versions, threads and CPU capability are recorded; here and now nothing differs."""
    manifest = read_manifest(CheckpointStore(tmp_path).commit(3, {}))
    on = manifest.surroundings
    assert (manifest.step, on.torch) == (3, torch.__version__)
    assert on.num_threads == torch.get_num_threads()
    assert on.cpu_capability == torch.backends.cpu.get_cpu_capability()
    assert on == Surroundings.here()
    assert on.differences(Surroundings.here()) == ""
