"""The walk through a module's tree, beside torch's own."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kasmina.walk import modules_of, parameters_of


@st.composite
def trees(draw: st.DrawFn) -> nn.Module:
    """A module whose parts may be shared, absent or tied, some levels deep."""
    made: list[nn.Module] = [nn.Linear(2, 2, bias=draw(st.booleans()))]
    for _ in range(draw(st.integers(1, 6))):
        parent = nn.Module()
        if draw(st.booleans()):
            parent.own = nn.Parameter(torch.zeros(1))
        for number, child in enumerate(draw(st.lists(st.sampled_from(made), max_size=3))):
            parent.add_module(f"child{number}", child)
        parent.register_module("absent", None)
        parent.register_parameter("none", None)
        if draw(st.booleans()):
            parent.tied = next(made[0].parameters())
        made.append(parent)
    return made[-1]


@given(trees())
def test_it_is_torchs_own_order(root: nn.Module) -> None:
    """Every module and parameter, each once, as `modules()` and `parameters()` give them."""
    assert [*map(id, modules_of(root))] == [*map(id, root.modules())]
    assert [*map(id, parameters_of(root))] == [*map(id, root.parameters())]
