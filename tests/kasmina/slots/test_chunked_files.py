"""A host with seeds on chunks is exported, saved and grown again like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import kasmina
from kasmina.blueprints import catalogue
from kasmina.sites.shape import SiteShape
from kasmina.slots.chunked import Group, graft
from kasmina.slots.slot import attach_seed, attached_seeds, slot_of
from kasmina.structure import match_structure
from tests.kasmina.growing import wake
from tests.kasmina.hosts import HOSTS, conv_net

HOST = HOSTS["conv_net"]
NUM_CHUNKS = 4


def grown(numbers: tuple[int, ...] = (0, 1, 2, 3)) -> nn.Module:
    model = HOST.build()
    shape = SiteShape((4, 8, 6, 6), 1).chunk(NUM_CHUNKS)
    for number in numbers:
        body = wake(catalogue["conv"].build(shape, number), number)
        chunk = number % NUM_CHUNKS, NUM_CHUNKS
        seed = graft(
            body, seed=f"stem/{number}", blueprint="conv", shape=shape, chunk=chunk, shielded=False
        )
        attach_seed("stem", model.get_submodule("stem"), seed)
        seed.blend(0.4 + 0.1 * number)
    return model


@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (2,), (3, 1, 7)], ids=str)
def test_an_export_does_what_the_grown_model_does(numbers: tuple[int, ...]) -> None:
    """To rounding, also through torch.export, and each seed on its own chunk."""
    model, x = grown(numbers), HOST.example()
    plain = kasmina.export(model)
    assert not attached_seeds(plain)
    torch.testing.assert_close(plain(x), model(x))
    torch.testing.assert_close(torch.export.export(plain, (x,)).module()(x), model(x))


def test_a_fresh_host_grows_the_same_chunks(tmp_path: Path) -> None:
    """Loading a state or a file of seeds gives seeds on the same chunks, in one kernel again."""
    model, x = grown(), HOST.example()
    host = conv_net()
    kasmina.grow_on_load(host)
    host.load_state_dict(model.state_dict())
    assert torch.equal(host(x), model(x))
    slot = slot_of(host.stem)
    assert slot is not None
    assert [type(turn) for turn in slot.roster.turns] == [Group]
    kasmina.save_seeds(model, tmp_path / "seeds.safetensors")
    kasmina.detach(host)
    kasmina.load(host, tmp_path / "seeds.safetensors")
    assert torch.equal(host(x), model(x))


def test_a_seed_on_another_chunk_is_another_seed() -> None:
    """A state whose seed of the same name hangs on another chunk is not taken for the one held."""
    model, state = grown((1,)), grown((1,)).state_dict()
    held = attached_seeds(model)["stem/1"][2]
    match_structure(model, state)
    assert attached_seeds(model)["stem/1"][2] is held
    held.chunk = 2, NUM_CHUNKS
    match_structure(model, state)
    assert attached_seeds(model)["stem/1"][2] is not held
    assert attached_seeds(model)["stem/1"][2].chunk == (1, NUM_CHUNKS)
