"""Hostile states: whatever a file says of seeds, it loads or is one CheckpointError."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kasmina import grow_on_load, load, save_seeds
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attached_seeds
from kasmina.structure import match_structure
from leyline import CheckpointError
from tests.kasmina.growing import everything, grow, wake
from tests.kasmina.hosts import HOSTS, conv_net

X = HOSTS["conv_net"].example()
STEM, HEAD = "stem.esper._extra_state", "head.esper._extra_state"
BLOCK = "block.esper._extra_state"
STATE = "head.esper.0._extra_state"
Values = dict[str, Any]


def grown() -> nn.Module:
    model = conv_net()
    grow(model, "stem", X, alpha=1.0, blueprint="conv")
    grow(model, "stem", X, alpha=0.3, blueprint="norm", number=1)
    grow(model, "block", X, alpha=0.5, blueprint="norm")
    grow(model, "head", X, alpha=0.5)
    return model


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    file = tmp_path_factory.mktemp("good") / "seeds.safetensors"
    save_seeds(grown(), file)
    return safetensors.torch.load_file(file)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "seeds.safetensors"


def held_host() -> nn.Module:
    """One with two seeds already, one of which the file has too."""
    model = conv_net()
    grow(model, "stem", X, alpha=0.7, blueprint="norm", number=1)
    grow(model, "stem", X, alpha=0.7, blueprint="low_rank", number=5).eval()
    return model


def picture(model: nn.Module) -> Any:
    held = attached_seeds(model).values()
    return everything(model), [(site, id(m), id(s), s.active, s.fault) for site, m, s in held]


def packed(values: Any) -> Tensor:
    return torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)


def plain(tensor: Tensor) -> Any:
    return json.loads(bytes(tensor.tolist()))


def refused(path: Path, state: dict[str, Tensor], host: nn.Module | None = None) -> str:
    """The error of loading a state; the host is as it was."""
    safetensors.torch.save_file(state, path)
    model = held_host() if host is None else host
    before = picture(model)
    with pytest.raises(CheckpointError) as caught:
        load(model, path)
    assert picture(model) == before
    return str(caught.value)


def what_comes_of(path: Path, state: dict[str, Tensor]) -> str:
    """In one word what loading a state does to a model that has seeds already."""
    safetensors.torch.save_file(state, path)
    model = held_host()
    before = picture(model)
    try:
        load(model, path)
    except CheckpointError:
        return "refused" if picture(model) == before else "half loaded"
    return "loaded" if model(X).shape == (len(X), 4) else "broken"


def places(values: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside plain values."""
    yield ()
    listed = dict(enumerate(values)) if isinstance(values, list) else values
    for key, value in listed.items() if isinstance(listed, dict) else ():
        yield from ((key, *way) for way in places(value))


def put(values: Any, way: tuple[Any, ...], value: Any) -> Any:
    if not way:
        return value
    changed = copy.copy(values)
    changed[way[0]] = put(values[way[0]], way[1:], value)
    return changed


def dropped(values: Any, way: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(values)
    inner = changed
    for key in way[:-1]:
        inner = inner[key]
    del inner[way[-1]]
    return changed


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([10**9, 2**62, 2**63, 10**30, 0.5, 1.0, math.nan, math.inf, "\ud800"])
    | st.sampled_from(["", ".", "0", "a.b", "training", "stem/0", "head/1", "conv", "attention"])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_value_at_any_place_loads_or_is_refused(
    seeds: dict[str, Tensor], file: Path, data: st.DataObject
) -> None:
    """Of a description or a seed's state: CheckpointError, and the model as before, bit for bit;
    or it loads and a forward pass goes through."""
    name = data.draw(st.sampled_from([STEM, HEAD, BLOCK, STATE]))
    good = plain(seeds[name])
    way = data.draw(st.sampled_from(list(places(good))))
    if way and data.draw(st.integers(0, 5)) == 0:
        bad = dropped(good, way)
    else:
        bad = put(good, way, data.draw(json_values))
    assert what_comes_of(file, {**seeds, name: packed(bad)}) in ("loaded", "refused")


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([STEM, STATE]),
    content=st.binary(max_size=40) | st.sampled_from([b"[" * 9999, b"\xff", b"9" * 5000, b"[]"]),
    rows=st.sampled_from([None, 1]),
    dtype=st.sampled_from([torch.uint8, torch.int8, torch.float32, torch.bool]),
)
def test_any_bytes_as_extra_state_load_or_are_refused(
    seeds: dict[str, Tensor],
    file: Path,
    name: str,
    content: bytes,
    rows: int | None,
    dtype: torch.dtype,
) -> None:
    """As the bytes of a row or a matrix, or as numbers of another dtype."""
    row = torch.tensor(list(content), dtype=torch.uint8)
    value = (row if rows is None else row.reshape(rows, -1 if content else 0)).to(dtype)
    assert what_comes_of(file, {**seeds, name: value}) in ("loaded", "refused")


SHAPE = ("shape",)


@pytest.mark.parametrize(
    ("name", "way", "value", "reason"),
    [
        (HEAD, ("trainable",), [1], "'trainable' is [1], not true or false"),
        (HEAD, ("active",), 1, "'active' is 1, not true or false"),
        (HEAD, (*SHAPE, "sizes"), [], "'sizes' is []"),
        (HEAD, (*SHAPE, "sizes"), [4, 5], "5 channels on axis -1, but the Linear there has 4"),
        (HEAD, (*SHAPE, "channel_axis"), 7, "'channel_axis' is 7; it may be 1 or -1"),
        (STEM, (*SHAPE, "channel_axis"), -1, "the Conv2d there has 8 on axis 1"),
        (HEAD, ("chunk",), [0, math.inf], "'chunk' is [0, inf]"),
        (HEAD, ("chunk",), [0, 10**9], "is for 4000000000 channels"),
        (HEAD, ("chunk",), [1, 1], "'chunk' is 1 of 1"),
        (HEAD, ("blueprint",), "conv", "is a conv, which does not fit shape (4, 4)"),
        (HEAD, ("key",), "7", "the key of seed 'head/0' is '7'"),
        (BLOCK, (*SHAPE, "sizes"), [4, 9, 6, 6], "shape (9,); the state holds (8,)"),
    ],
)
def test_a_wrong_value_is_named(
    seeds: dict[str, Tensor], file: Path, name: str, way: tuple[str, ...], value: Any, reason: str
) -> None:
    """The error tells the site, what stood there and what may."""
    error = refused(file, {**seeds, name: packed(put(plain(seeds[name]), (0, *way), value))})
    assert repr(name.split(".")[0]) in error
    assert reason in error


@pytest.mark.parametrize("key", ["active", "trainable", "key", "seed", "shape", "chunk"])
def test_a_missing_entry_is_named(seeds: dict[str, Tensor], file: Path, key: str) -> None:
    """None has a default: a file that lacks one was not written by us."""
    bad = dropped(plain(seeds[HEAD]), (0, key))
    assert f"'head' is damaged: '{key}' is missing" in refused(file, {**seeds, HEAD: packed(bad)})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (packed([1]), "an entry is [1], not an object"),
        (packed({}), "'fault' is missing"),
        (packed(None), "an entry is None"),
        (torch.tensor([255], dtype=torch.uint8), "can't decode byte 0xff"),
        (torch.zeros((2, 2), dtype=torch.uint8), "not one row of uint8"),
        (packed({"fault": 3, "is_fault_told": False, "stream": None}), "'fault' is 3, not a text"),
        (packed({"fault": None, "is_fault_told": 0, "stream": None}), "'is_fault_told' is 0"),
        (packed({"fault": None, "is_fault_told": False, "stream": ["x", "y"]}), "2 whole numbers"),
        (packed({"fault": None, "is_fault_told": False, "stream": [1]}), "2 whole numbers"),
    ],
)
def test_a_wrong_seed_state_is_named(
    seeds: dict[str, Tensor], file: Path, value: Tensor, reason: str
) -> None:
    """In a file as in the seed's own `set_extra_state`, which leaves the seed as it was."""
    error = refused(file, {**seeds, STATE: value})
    assert "seed 'head/0' at 'head' is damaged" in error
    assert reason in error
    seed = grow(conv_net(), "head", X, alpha=1.0, body=wake(nn.Linear(4, 4)))
    before = plain(seed.get_extra_state())
    with pytest.raises(CheckpointError, match="'head/0'"):
        seed.set_extra_state(value)
    assert (plain(seed.get_extra_state()), seed.active) == (before, True)


def test_a_seed_takes_up_its_stream_and_fault() -> None:
    """What one shielded seed stores another goes on from."""
    seed, other = (
        grow(conv_net(), "head", X, alpha=1.0, body=wake(nn.Linear(4, 4)), number=n) for n in (0, 1)
    )
    assert seed.shield is not None
    seed.shield.num_calls = 7
    seed.fail("it broke")
    other.set_extra_state(seed.get_extra_state())
    assert plain(other.get_extra_state()) == plain(seed.get_extra_state())
    assert not other.active


@pytest.mark.parametrize("alpha", [math.nan, 50.0, -0.1, math.inf])
def test_alpha_outside_its_range_is_refused(
    seeds: dict[str, Tensor], file: Path, alpha: float
) -> None:
    """It goes from 0 to 1."""
    error = refused(file, {**seeds, "head.esper.0.alpha": torch.tensor(alpha)})
    assert "seed 'head/0' at 'head' has alpha" in error


class LargestOnCpu(TorchDispatchMode):
    """The number of values in the largest tensor that any operation returns."""

    num_values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.device.type == "cpu":
            self.num_values = max(self.num_values, out.numel())
        return out


@pytest.mark.parametrize("name", [HEAD, BLOCK])
def test_a_giant_claim_takes_no_memory(seeds: dict[str, Tensor], name: str) -> None:
    """Refused before anything of that size is built, the site's width known or not."""
    described = plain(seeds[name])
    described[0]["shape"]["sizes"][1] = 20_000_000
    with LargestOnCpu() as largest, pytest.raises(CheckpointError, match="20000000"):
        match_structure(conv_net(), {**seeds, name: packed(described)})
    assert largest.num_values < 100_000


class Site(nn.Module):
    """A host of one layer, whose input is made to measure."""

    def __init__(self, layer: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.example = example

    def forward(self, x: Tensor) -> Any:
        return (
            self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        )


def _sequence(width: int) -> Tensor:
    return torch.randn(3, 5, width)


LAYERS: dict[str, Callable[[int], Site]] = {
    "linear": lambda n: Site(nn.Linear(4, n), _sequence(4)),
    "conv": lambda n: Site(nn.Conv2d(1, n, 3, padding=1), torch.randn(2, 1, 6, 6)),
    "transposed": lambda n: Site(nn.ConvTranspose1d(2, n, 3), torch.randn(2, 2, 6)),
    "embedding": lambda n: Site(nn.Embedding(9, n), torch.zeros(3, 5, dtype=torch.long)),
    "layer_norm": lambda n: Site(nn.LayerNorm(n), _sequence(n)),
    "batch_norm": lambda n: Site(nn.BatchNorm1d(n), torch.randn(4, n)),
    "group_norm": lambda n: Site(nn.GroupNorm(2, n), torch.randn(3, n, 4, 4)),
    "gru": lambda n: Site(nn.GRU(4, n, bidirectional=True), _sequence(4)),
    "lstm": lambda n: Site(nn.LSTM(4, n, bidirectional=True, batch_first=True), _sequence(4)),
    "attention": lambda n: Site(nn.MultiheadAttention(n, 2, batch_first=True), _sequence(n)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_host_of_another_width_is_refused(layer: str, file: Path) -> None:
    """By what the layer at the site declares; of the same width it loads and no seed faults."""
    model = LAYERS[layer](8)
    grow(model, "layer", model.example, alpha=0.5)
    save_seeds(model, file)
    same = load(LAYERS[layer](8), file)
    same(model.example)
    assert [seed.fault for _, _, seed in attached_seeds(same).values()] == [None]
    with pytest.raises(CheckpointError, match=r"'layer' is for \d+ channels .* has \d+ on axis"):
        load(LAYERS[layer](12), file)


def test_seeds_of_one_site_agree_on_its_width(seeds: dict[str, Tensor], file: Path) -> None:
    """Also where no layer says how wide it is."""
    first = plain(seeds[BLOCK])[0]
    second = {**first, "key": "1", "seed": "block/1", "chunk": [0, 2]}
    error = refused(file, {**seeds, BLOCK: packed([first, second])})
    assert "seed 'block/1' at 'block' is for 16 channels, another one there for 8" in error


def test_weights_that_were_loaded_half_way_are_put_back(file: Path) -> None:
    """Kept seeds too: their order, alphas, what is trained, and that they have not faulted."""
    model = grown()
    held = attached_seeds(model)["stem/1"][2]
    held.fail("it broke")
    held.requires_grad_(False)
    host = held_host()
    host.get_submodule("block")[0] = nn.Conv2d(8, 8, 5, padding=2)
    assert "block.0.weight" in refused(file, model.state_dict(), host)
    kept: GraftedSeed = attached_seeds(host)["stem/1"][2]
    assert kept.active


def test_the_hook_refuses_before_anything_is_loaded(seeds: dict[str, Tensor]) -> None:
    """Lightning's own way through `load_state_dict`."""
    host, good = held_host(), grown().state_dict()
    grow_on_load(host)
    before = picture(host)
    with pytest.raises(CheckpointError, match="'head/0' at 'head' is damaged"):
        host.load_state_dict({**good, STATE: packed({})})
    assert picture(host) == before
    host.load_state_dict(good)
    assert list(attached_seeds(host)) == ["stem/0", "stem/1", "block/0", "head/0"]


def test_seeds_that_cannot_be_written_are_an_os_error(tmp_path: Path) -> None:
    """A folder that is not there."""
    with pytest.raises(OSError, match=r"nodir.*cannot be written"):
        save_seeds(grown(), tmp_path / "nodir" / "x.safetensors")
