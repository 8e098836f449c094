from __future__ import annotations

import enum
import json
import math
import re
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from leyline import CheckpointError
from tolaria.disk.tree import pack, unpack

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.complex64, torch.complex128, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e8m0fnu),
]


class Color(enum.IntEnum):
    RED = 1


Point = namedtuple("Point", "x y")


def round_trip(tree):
    """Through JSON text, and through bytes that know nothing of strides."""
    skeleton, tensors = pack(tree)
    held = {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    read = safetensors.torch.load(safetensors.torch.save(held))
    return unpack(json.loads(json.dumps(skeleton, allow_nan=False)), read)


def same(a, b):
    """Equal in type and in every bit; NaN equals NaN, and dicts keep their order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(*bits)
    if isinstance(a, dict):
        if isinstance(a, defaultdict) and a.default_factory is not b.default_factory:
            return False
        pairs = zip(a.items(), b.items(), strict=True) if len(a) == len(b) else [((0, 0), (1, 1))]
        return all(same(ka, kb) and same(va, vb) for (ka, va), (kb, vb) in pairs)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set):
        return sorted(map(repr, a)) == sorted(map(repr, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or a.hex() == b.hex()
    return a == b


@st.composite
def dense_tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    size_bytes = math.prod(shape) * dtype.itemsize
    data = bytearray(draw(st.binary(min_size=size_bytes, max_size=size_bytes)))
    if not size_bytes:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:
        data = bytearray(b & 1 for b in data)
    tensor = torch.frombuffer(data, dtype=dtype).reshape(shape)
    return tensor.permute(draw(st.permutations(range(len(shape)))))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**52).map(lambda i: i**9),
    st.floats(),
    st.text(st.characters()),  # lone surrogates too
    st.binary(),
    st.sampled_from(DTYPES),
    st.timedeltas(),
)
keys = st.recursive(scalars, lambda k: st.lists(k, max_size=2).map(tuple), max_leaves=3)
leaves = st.one_of(
    scalars,
    dense_tensors(),
    st.lists(st.integers(0, 9), max_size=3).map(torch.Size),
    st.sets(keys, max_size=3),
    st.dictionaries(st.text(), st.integers()).map(Counter),
)
trees = st.recursive(
    leaves,
    lambda t: st.one_of(
        st.lists(t, max_size=3),
        st.lists(t, max_size=3).map(tuple),
        st.dictionaries(keys, t, max_size=3),
        st.dictionaries(keys, t, max_size=3).map(OrderedDict),
        st.tuples(
            st.sampled_from([None, dict, list, int]), st.dictionaries(keys, t, max_size=3)
        ).map(lambda pair: defaultdict(*pair)),
    ),
    max_leaves=8,
)


@given(trees)
@settings(max_examples=300, deadline=None)
def test_every_tree_comes_back_exactly(tree):
    """Types, order, key types and every bit survive, through JSON text."""
    assert same(round_trip(tree), tree)


def test_integers_have_no_limit():
    """An integer of 6,000 digits, which Python refuses to read as decimal, comes back."""
    assert round_trip([-(10**6000), 2**53, -(2**53) + 1]) == [-(10**6000), 2**53, -(2**53) + 1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_of_tensor_comes_back(dtype):
    """Full, 0-dim, empty and strided tensors of each type come back bit for bit."""
    data = bytearray(b"\1\0" * 12 * dtype.itemsize)
    full = torch.frombuffer(data, dtype=dtype).reshape(2, 3, -1)
    tree = [full, full[0, 0, 0].clone(), full[:0], full.transpose(0, 2), full[:, ::2]]
    assert same(round_trip(tree), tree)


def test_views_of_complex_numbers_come_back_as_their_values():
    """Conjugate and negated views, which are lazy, are stored as what they show."""
    z = torch.tensor([1 + 2j, 3 - 4j])
    (stored,) = pack(z.conj())[1].values()
    assert not stored.is_conj()
    assert torch.equal(round_trip(z.conj()), torch.tensor([1 - 2j, 3 + 4j]))
    assert torch.equal(round_trip(z.conj().imag), torch.tensor([-2.0, 4.0]))


def test_memory_order_survives():
    """A channels_last tensor comes back channels_last: other strides are other kernels."""
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    back = round_trip(weight)
    assert back.stride() == weight.stride()
    assert torch.equal(back, weight)


def test_tied_tensors_stay_tied():
    """One object stored twice is one object again, a tied weight too; equal ones stay apart."""
    tied = torch.ones(2)
    first, second, third = round_trip({"a": tied, "b": [tied], "c": torch.ones(2)}).values()
    assert first is second[0]
    assert third is not first
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    skeleton, tensors = pack(model.state_dict())
    assert set(tensors) == {"a.weight", "a.bias", "b.bias"}
    back = unpack(skeleton, tensors)
    assert back["a.weight"] is back["b.weight"]
    image = torch.randn(1, 2, 3, 4).to(memory_format=torch.channels_last)
    first, second = round_trip([image, image])
    assert first is second


def test_parts_of_one_memory_are_not_confused():
    """Views that begin at one address but differ in type, shape or stride are kept apart."""
    arena = torch.arange(12, dtype=torch.int32)
    square = arena[:9].view(3, 3)
    tree = [arena, arena[:6], square, square.t(), square[1:], arena.view(torch.float32)]
    assert same(round_trip(tree), tree)


def test_a_parameter_comes_back_as_a_plain_tensor():
    """What returns has the values, and no gradient of its own."""
    back = round_trip(torch.nn.Parameter(torch.ones(2)))
    assert type(back) is torch.Tensor
    assert not back.requires_grad


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"states": [{"state": {3: {"foo": object()}}}]}, r"states\[0\].state.3.foo is a object"),
        ([Color.RED], r"\[0\] is a Color"),
        (Point(1, 2), "the state is a Point"),
        ({"a": frozenset()}, "a is a frozenset"),
        ({"a": np.float64(1)}, "a is a float64"),
        ({"a": np.zeros(1)}, "a is a ndarray"),
        ({"a": 1j}, "a is a complex"),
        ({"a": {Color.RED: 1}}, "a key in a is a Color"),
        ({"a": defaultdict(lambda: 1)}, "a is a defaultdict of <function"),
        ({"a": torch.nn.UninitializedParameter()}, "a is a UninitializedParameter"),
        ({"a": torch.zeros(2).to_sparse()}, "a is a tensor of torch.float32 and torch.sparse_coo"),
        ({"a": torch.zeros(2, device="meta")}, "a is a tensor of .* on meta"),
        ({"a": print}, "a is a builtin_function_or_method"),
        ({"a": int}, "a is a type"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_its_place(tree, words):
    """What a checkpoint cannot hold is named with its path in the tree and what is allowed."""
    with pytest.raises(
        CheckpointError, match=f"{words}.*which a checkpoint cannot hold: .*allowed"
    ):
        pack(tree)


def test_a_tree_that_holds_itself_is_refused():
    """A loop ends in an error, not in a crash; 90 levels are fine."""
    loop = {}
    loop["again"] = [loop]
    with pytest.raises(CheckpointError, match=r"again.*deeper than 100 levels, or loops"):
        pack(loop)
    deep = 1
    for _ in range(90):
        deep = {"x": deep} if isinstance(deep, list) else [deep]
    assert same(round_trip(deep), deep)


MALFORMED = [
    {},
    {"a": 1, "b": 2},
    {"pickle": "gASVAAAA"},
    {"tuple": 3},
    {"tuple": {"int": "0x1"}},
    {"set": [[1]]},
    {"dict": [[1]]},
    {"dict": [[[1], 2]]},
    {"defaultdict": ["eval", []]},
    {"defaultdict": [["dict"], []]},
    {"int": "seven"},
    {"int": 7},
    {"float": "many"},
    {"bytes": "=="},
    {"bytes": "\u00e9"},
    {"dtype": "nn"},
    {"dtype": "__name__"},
    {"dtype": "no_such"},
    {"dtype": 3},
    {"timedelta": ["a"]},
    {"timedelta": [10**12]},
    {"Size": ["a"]},
    {"tensor": {"name": "missing"}},
    {"tensor": {"name": ["t"]}},
    {"tensor": {"name": "t", "extra": 1}},
    {"tensor": {"name": "t", "dtype": "float64", "shape": [99]}},
    {"tensor": {"name": "t", "dtype": "float64", "shape": [2**70]}},
    {"tensor": {"name": "t", "dtype": "float64", "shape": "a"}},
    {"tensor": {"name": "t", "order": [0, 0, 0]}},
    {"tensor": {"name": "t", "order": 3}},
    {"tensor": []},
]


@pytest.mark.parametrize("skeleton", MALFORMED, ids=str)
def test_a_malformed_skeleton_is_refused(skeleton):
    """Whatever a skeleton says, only CheckpointError comes out and nothing is looked up by name."""
    with pytest.raises(CheckpointError):
        unpack(skeleton, {"t": torch.zeros(4, 4, dtype=torch.uint8)})


TAGS = [
    "tuple",
    "set",
    "dict",
    "Counter",
    "defaultdict",
    "tensor",
    "int",
    "float",
    "bytes",
    "dtype",
    "timedelta",
    "Size",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda j: (
        st.lists(j, max_size=3)
        | st.dictionaries(
            st.sampled_from(TAGS),
            j,
            min_size=1,
            max_size=2,
        )
    ),
    max_leaves=12,
)


@given(json_values)
@settings(max_examples=400, deadline=None)
def test_no_skeleton_escapes_with_another_error(skeleton):
    """Any JSON is either a tree or a CheckpointError."""
    try:
        tree = unpack(skeleton, {"": torch.zeros(3)})
    except CheckpointError:
        return
    assert pack(tree) is not None


def test_the_states_of_torch_optimizers_and_schedulers_come_back():
    """What the common optimizers and schedulers hold is held: Counter, infinities and all."""
    model = torch.nn.Linear(3, 2)
    for make in (torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad):
        optimizer = make(model.parameters(), lr=0.1)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert same(round_trip(optimizer.state_dict()), optimizer.state_dict())
    for scheduler in (
        lr_scheduler.MultiStepLR(optimizer, [1, 2]),
        lr_scheduler.ReduceLROnPlateau(optimizer),
        lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9, cycle_momentum=False),
        lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
        lr_scheduler.SequentialLR(
            optimizer,
            [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)],
            [2],
        ),
    ):
        assert same(round_trip(scheduler.state_dict()), scheduler.state_dict())


def test_nothing_that_runs_code_is_used():
    """None of the modules of durable files names pickle, torch.load or eval."""
    folder = Path(__file__).parents[3] / "tolaria" / "disk"
    for name in ("files", "run", "tree", "checkpoint", "journal"):
        source = (folder / f"{name}.py").read_text()
        found = re.findall(r"import pickle|(?<!safetensors\.)torch\.load|\beval\(|\bexec\(", source)
        assert not found, name
