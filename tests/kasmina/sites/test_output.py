"""The main tensor of an output: which one it is, and that nothing else is touched."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from kasmina.sites.output import main_tensor, output_flaw, with_main
from tests.kasmina.sites.zoo import MAKERS, Output, cache_of, hidden_of

every_kind = pytest.mark.parametrize("kind", MAKERS)


@every_kind
def test_another_main_tensor_and_the_rest_as_it_was(kind: str) -> None:
    """The new output has the old one's class, the new tensor and the very same rest; the old one
    keeps its own."""
    old, new, cache = torch.ones(2, 3), torch.zeros(2, 3), object()
    output = MAKERS[kind](old, cache)
    changed = with_main(output, new)
    assert type(changed) is type(output)
    assert main_tensor(changed) is hidden_of(changed) is new
    assert cache_of(changed) is cache
    assert main_tensor(output) is hidden_of(output) is old
    assert output_flaw(output) is None


def test_a_model_output_may_leave_its_first_field_out() -> None:
    """What is set first is the main one, as the mapping says; it has no entry more afterwards."""
    scores = torch.ones(2, 3)
    changed = with_main(Output(scores=scores), scores * 2)
    assert list(changed) == ["scores"]
    assert changed.hidden is None
    assert torch.equal(changed[0], scores * 2)


class ReadOnly(dict[str, Tensor]):
    def __setitem__(self, key: str, value: Tensor) -> None:
        raise TypeError("read only")


class Forgetful(tuple[Tensor, ...]):
    """Builds something else than it was given."""

    def __new__(cls, tensors: Any) -> Any:
        return super().__new__(cls, [t.clone() for t in tensors])


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (None, "returns None"),
        ("text", "returns a str"),
        ((), "returns a tuple, in which no main tensor comes first"),
        ((1, X), "returns a tuple, in which no main tensor comes first"),
        ({}, "returns a dict"),
        (Output(), "returns a Output"),
        (pack_sequence([X[0], X[1]]), "packed sequence"),
        ((pack_sequence([X[0], X[1]]), X), "packed sequence"),
        (X.to_sparse(), "layout torch.sparse_coo"),
        (X.long(), r"torch.int64 of 2 axes"),
        (X.to(torch.complex64), r"torch.complex64"),
        (X[0], r"torch.float32 of 1 axes"),
        ((X.sum(), X), r"torch.float32 of 0 axes"),
        (ReadOnly(x=X), "ReadOnly cannot be built anew .*read only"),
        (Forgetful([X]), "Forgetful built anew is another one"),
    ],
)
def test_what_no_seed_can_extend_is_named(output: Any, reason: str) -> None:
    """Outputs without one floating tensor in front, or that cannot be rebuilt around another."""
    flaw = output_flaw(output)
    assert flaw is not None
    assert re.search(reason, flaw), flaw


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_nested_tensor_is_named() -> None:
    """Alone or first in a tuple."""
    nested = torch.nested.nested_tensor([X[0], X[1, :2]])
    for output in (nested, (nested, X)):
        assert "nested tensor" in str(output_flaw(output))
