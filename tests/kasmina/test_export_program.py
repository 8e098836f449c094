"""Exports of whatever a site returns, through torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import register_pytree_node

from kasmina import discover, export, tensors_in
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed
from tests.kasmina.growing import Returns, bits, grow
from tests.kasmina.sites.zoo import ZOO, Output, Plain


def _flat(output: Output) -> tuple[list[Any], Any]:
    return list(output.values()), list(output)


def _unflat(values: Any, keys: Any) -> Output:
    return Output(**dict(zip(keys, values, strict=True)))


@pytest.fixture(scope="module")
def _known_to_torch() -> None:
    """Outputs of one's own are made known to torch, as Hugging Face does for its own."""
    torch.export.register_dataclass(Plain, serialized_type_name="tests.Plain")
    register_pytree_node(Output, _flat, _unflat, serialized_type_name="tests.Output")


@pytest.mark.usefixtures("_known_to_torch")
@pytest.mark.parametrize("name", ZOO)
def test_whatever_a_site_returns_an_export_returns_too(name: str, tmp_path: Path) -> None:
    """With a seed at every site of hosts that return tuples, mappings and dataclasses: the very
    outputs, also after a trip through a file."""
    build, example, _ = ZOO[name]
    model = build().eval()
    for site in discover(model, example):
        body = Returns(torch.sin)
        seed = GraftedSeed(body, seed=f"{site.name}/0", blueprint="low_rank", shape=site.shape)
        attach_seed(site.name, model.get_submodule(site.name), seed)
        seed.blend(0.5)
    plain = export(model)
    torch.save(plain, tmp_path / "plain.pt")
    read = torch.load(tmp_path / "plain.pt", weights_only=False)
    with torch.no_grad():
        expected = tensors_in(model(*example))
        for each in (plain, read):
            found = tensors_in(each(*example))
            assert [bits(t) for t in found] == [bits(t) for t in expected]


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights:UserWarning")
def test_a_recurrent_network_goes_through_torch_export() -> None:
    """With a seed at the LSTM itself, whose state the host does not drop, and any batch size."""
    build, example, _ = ZOO["lstm"]
    model = build().eval()
    grow(model, "memory", example[0], alpha=0.5)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(export(model), example, dynamic_shapes=({0: batch},))
    other = torch.cat([example[0], example[0]])
    torch.testing.assert_close(program.module()(other), model(other))
