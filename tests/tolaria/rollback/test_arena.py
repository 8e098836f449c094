"""The arena: whole copies in flat memory that is asked for once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tolaria.rollback.arena import Arena, Side


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Two threads take another way than one."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(num_threads)


def tensors_of_all_kinds() -> dict[str, Tensor]:
    large = torch.randn(300, 200)
    return {
        "large": large,
        "large half": torch.randn(200, 300).to(torch.bfloat16),
        "large double": torch.randn(40_000, dtype=torch.float64),
        "complex": torch.randn(40_000, dtype=torch.complex128),
        "channels last": torch.randn(4, 16, 32, 32).to(memory_format=torch.channels_last),
        "transposed": torch.randn(200, 300).t(),
        "every other": torch.randn(90_000)[::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "bool": torch.tensor([True, False, True]),
        "float8": torch.randn(7).to(torch.float8_e4m3fn),
        "parameter": nn.Parameter(torch.randn(5)),
        "sparse": torch.eye(3).to_sparse(),
    }


def bits(tensor: Tensor) -> bytes:
    plain = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    return plain.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_every_kind_of_tensor_comes_back_bit_for_bit(threads: int) -> None:
    """Any dtype and layout, contiguous or not, plain or sparse, on one thread and on two; strides
    and addresses stay."""
    tensors = tensors_of_all_kinds()
    before = {name: bits(tensor) for name, tensor in tensors.items()}
    places = {n: (t.data_ptr(), t.stride()) for n, t in tensors.items() if not t.is_sparse}
    side = Arena().take(tensors)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.zero_()
            assert bits(tensor) != before[name] or name == "empty"
    side.pour(tensors)
    assert {name: bits(tensor) for name, tensor in tensors.items()} == before
    assert places == {n: (t.data_ptr(), t.stride()) for n, t in tensors.items() if not t.is_sparse}


def test_a_copy_shares_no_memory_with_what_it_is_of(threads: int) -> None:
    """Whatever is written later, on either side, does not reach the other."""
    tensors = {n: t for n, t in tensors_of_all_kinds().items() if n != "sparse"}
    side = Arena().take(tensors)
    held = {name: bits(side[name]) for name in side}
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.fill_(1)
    assert {name: bits(side[name]) for name in side} == held


def test_writing_back_is_seen_by_autograd(threads: int) -> None:
    """A graph that was built before a restore refuses to go backward through changed weights."""
    weight = torch.randn(200, 200, requires_grad=True)
    side = Arena().take({"weight": weight})
    loss = (weight * weight.detach().exp() * weight).sum()
    side.pour({"weight": weight})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_two_sides_take_turns_in_the_same_memory() -> None:
    """Of an unchanged structure no copy after the second asks for memory, and the newest whole copy
    is never the one that is written to."""
    weight = torch.zeros(1000)
    arena, places = Arena(), []
    newest = arena.take({"weight": weight})
    for value in range(1, 8):
        weight.fill_(value)
        taken = arena.take({"weight": weight})
        assert newest["weight"][0] == value - 1
        assert taken["weight"][0] == value
        arena.release(newest)
        newest = taken
        places.append(taken["weight"].data_ptr())
    assert len(set(places)) == 2


def test_memory_is_asked_for_again_only_when_the_structure_has_grown() -> None:
    """A graft asks for more; without it again the memory that there is serves."""
    small = {"host": torch.ones(100)}
    large = {**small, "seed": torch.ones(100)}
    side = Side()
    side.fill(small)
    place, size_bytes = side["host"].data_ptr(), side.size_bytes
    side.fill(large)
    assert side.size_bytes > size_bytes
    place, size_bytes = side["host"].data_ptr(), side.size_bytes
    side.fill(small)
    assert list(side) == ["host"]
    assert (side["host"].data_ptr(), side.size_bytes) == (place, size_bytes)


class _Stop(BaseException):
    """Such as Ctrl-C."""


class _Interrupted(dict[str, Tensor]):
    """Tensors of which the second cannot be read."""

    def __getitem__(self, name: str) -> Tensor:
        if name == "b":
            raise _Stop
        return super().__getitem__(name)


def test_a_copy_that_is_cut_short_leaves_the_last_one_whole() -> None:
    """The error goes through, the last good copy is as it was, and the next copy is whole."""
    tensors = {"a": torch.ones(10), "b": torch.ones(10)}
    arena = Arena()
    good = arena.take(tensors)
    for tensor in tensors.values():
        tensor.fill_(2)
    with pytest.raises(_Stop):
        arena.take(_Interrupted(tensors))
    assert all(bool((good[name] == 1).all()) for name in "ab")
    after = arena.take(tensors)
    assert after is not good
    assert all(bool((after[name] == 2).all()) for name in "ab")


@pytest.mark.gpu
def test_a_devices_tensors_stay_on_the_device() -> None:
    """The copy is on the device that the tensor is on, and comes back in place."""
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    tensors = {"gpu": torch.randn(1000, device="cuda"), "cpu": torch.randn(1000)}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    side = Arena().take(tensors)
    assert side["gpu"].is_cuda
    for tensor in tensors.values():
        tensor.zero_()
    side.pour(tensors)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())
