"""Held seeds: whatever happens to them, they hang again as they hung, and are what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from kasmina import detach
from kasmina.slots.held_seeds import HeldSeeds, all_or_nothing
from kasmina.slots.slot import detach_seed, every_seed
from tests.kasmina.growing import everything, grow
from tests.kasmina.hosts import HOSTS, conv_net

X = HOSTS["conv_net"].example()


def grown() -> nn.Module:
    """Two seeds on one leaf, one frozen and one shielded, and one on a Sequential."""
    model = conv_net()
    grow(model, "stem", X, alpha=1.0, blueprint="conv").requires_grad_(False)
    grow(model, "stem", X, alpha=0.3, number=1, body=nn.Conv2d(8, 8, 1))
    grow(model, "block", X, alpha=0.5, blueprint="norm")
    return model


def picture(model: nn.Module) -> Any:
    """Everything of a model and what its seeds have beside tensors; random streams left out."""
    held = [(h.site, id(h.module), id(h.seed), h.seed.active) for h in every_seed(model)]
    return {**everything(model), "rng": None}, held


def _take_all(model: nn.Module) -> None:
    detach(model)


def _turn_around(model: nn.Module) -> None:
    first, second = (h.seed for h in every_seed(model) if h.site == "stem")
    detach_seed(model.get_submodule("stem"), first)
    model.get_submodule("stem").esper.add_module("0", first)
    assert [h.seed for h in every_seed(model)][:2] == [second, first]


def _add_one(model: nn.Module) -> None:
    grow(model, "head", X, alpha=1.0)


def _freeze_and_thaw(model: nn.Module) -> None:
    for held in every_seed(model):
        held.seed.requires_grad_(not next(held.seed.parameters()).requires_grad)


def _fail(model: nn.Module) -> None:
    for held in every_seed(model):
        held.seed.fail("it broke")
        held.seed.is_fault_told = True


def _move_on(model: nn.Module) -> None:
    """A step of the stream of a shielded body, and another mode."""
    model(X)
    every_seed(model)[1].seed.eval()


DEEDS = [_take_all, _turn_around, _add_one, _freeze_and_thaw, _fail, _move_on]


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__.strip("_"))
def test_seeds_are_put_back(deed: Callable[[nn.Module], None]) -> None:
    """The same objects in the same order at the same places, trained, faulted and drawing as
    before; the host too."""
    model = grown()
    before, held = picture(model), HeldSeeds(model)
    deed(model)
    assert picture(model) != before
    held.restore()
    assert picture(model) == before


def test_named_tensors_are_put_back_and_no_others() -> None:
    """Of the host and of seeds, in the same memory."""
    model = grown()
    names = ["stem.weight", "stem.esper.0.alpha"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    held = HeldSeeds(model, names)
    with torch.no_grad():
        for parameter in (*model.parameters(), every_seed(model)[0].seed.alpha):
            parameter.mul_(0.5)
    held.restore()
    after = model.state_dict()
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == places
    assert all(torch.equal(after[name], before[name]) for name in names)
    assert not torch.equal(after["head.weight"], before["head.weight"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_does_not_end_changes_nothing(error: type[BaseException]) -> None:
    """Whatever ends it early goes on as it is; a block that comes to its end stands."""
    model = grown()
    before = picture(model)

    def break_off() -> None:
        with all_or_nothing(model, ["stem.weight"]):
            detach(model)
            nn.init.zeros_(model.get_submodule("stem").weight)
            raise error

    with pytest.raises(error):
        break_off()
    assert picture(model) == before
    with all_or_nothing(model, ["stem.weight"]):
        detach(model)
        nn.init.zeros_(model.get_submodule("stem").weight)
    assert every_seed(model) == []
    assert not model.get_submodule("stem").weight.any()
