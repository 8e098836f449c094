"""Batches of any nesting: copied, measured, cut, and no more of them kept than allowed."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from kasmina import BatchBuffer, is_finite
from kasmina.trials.batches import keep, map_tensors, pieces, size_bytes, tensors_in

Pair = namedtuple("Pair", "x y")

leaves = st.one_of(st.integers(1, 4).map(lambda n: torch.full((n, 2), float(n))), st.just("text"))
batches = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=6,
)


@given(batches)
def test_a_kept_batch_is_equal_and_shares_nothing(batch: Any) -> None:
    """Same nesting, types and values; overwriting the original leaves the copy alone."""
    copied = keep(batch)
    originals, copies = tensors_in(batch), tensors_in(copied)
    assert type(copied) is type(batch)
    assert [t.tolist() for t in copies] == [t.tolist() for t in originals]
    assert size_bytes(batch) == sum(t.numel() * t.element_size() for t in originals)
    values = [t.tolist() for t in copies]
    for tensor in originals:
        tensor.fill_(-1.0)
    assert [t.tolist() for t in copies] == values


class Encoding(UserDict[str, Any]):
    """As tokenizers return: a mapping that is read by attributes."""

    def __getattr__(self, name: str) -> Any:
        if name == "data":
            raise AttributeError(name)
        return self.data[name]


class Output(OrderedDict[str, Any]):
    """As many models return: it may not be updated as a whole."""

    def update(self, *_: Any, **__: Any) -> None:
        raise TypeError("no update")


@pytest.mark.parametrize("kind", [Encoding, Output])
def test_a_mapping_of_ones_own_class_keeps_it(kind: type[Any]) -> None:
    """Copied and cut; the original keeps its own tensors."""
    batch = kind()
    original = batch["x"] = torch.ones(4, 2)
    copied = keep(batch)
    half = pieces(batch, 2)[0]
    assert type(copied) is type(half) is kind
    assert torch.equal(copied["x"], original)
    assert copied["x"] is not original
    assert half["x"].shape == (2, 2)
    assert batch["x"] is original
    if kind is Encoding:
        assert torch.equal(copied.x, original)


def test_packed_sequences_are_batches_too() -> None:
    """A packed sequence is measured, copied and checked like any other tuple."""
    packed = pack_sequence([torch.randn(3, 2), torch.randn(1, 2)])
    assert size_bytes(packed) == packed.data.nbytes + packed.batch_sizes.nbytes
    assert is_finite(packed)
    copied = keep(packed)
    assert type(copied) is type(packed)
    assert torch.equal(copied.data, packed.data)
    assert copied.data.data_ptr() != packed.data.data_ptr()


@given(st.integers(1, 20), st.integers(1, 8))
def test_pieces_are_equal_and_cover_the_front(length: int, num_pieces: int) -> None:
    """Together they are the batch without its remainder; a batch too short stays whole."""
    batch = {"x": torch.arange(length), "y": [torch.arange(length) * 2]}
    cut = pieces(batch, num_pieces)
    if length < num_pieces:
        assert cut == [batch]
        return
    each = length // num_pieces
    assert len(cut) == num_pieces
    assert torch.equal(torch.cat([p["x"] for p in cut]), batch["x"][: each * num_pieces])
    assert all(torch.equal(p["y"][0], 2 * p["x"]) for p in cut)


@pytest.mark.parametrize("batch", [(torch.ones(4), torch.ones(3)), torch.tensor(1.0), [], "text"])
def test_a_batch_without_one_first_size_stays_whole(batch: Any) -> None:
    """Nothing is cut that might belong together."""
    assert pieces(batch, 2) == [batch]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_not_finite_is_found(bad: float) -> None:
    """In any floating tensor of any nesting; integers are always finite."""
    good = {"x": [torch.ones(3), torch.tensor([1])], "y": "text"}
    assert is_finite(good)
    assert not is_finite({**good, "z": (torch.tensor([0.0, bad]),)})


def test_the_buffer_keeps_the_first_that_fit() -> None:
    """At most so many, at most so many bytes, copies, in order; clear makes room again."""

    def batch(number: float, size: int = 2) -> Tensor:
        return torch.full((size,), float(number))

    buffer = BatchBuffer(max_batches=3, max_size_bytes=40)
    offered = [batch(0), batch(1, size=9), batch(2), batch(3), batch(4)]
    for tensor in offered:
        buffer.offer(tensor)
    offered[0].fill_(9.0)
    assert [float(b[0]) for b in buffer.batches()] == [0.0, 2.0, 3.0]
    buffer.clear()
    assert buffer.batches() == []
    buffer.offer(batch(5, size=10))
    assert len(buffer.batches()) == 1


def test_mapping_keeps_the_rest() -> None:
    """What is no tensor goes through unchanged."""
    marker = object()
    assert map_tensors(lambda t: t + 1, [marker, 3, None]) == [marker, 3, None]
