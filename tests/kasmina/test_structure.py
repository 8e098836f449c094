"""Structure: a state dict grows a fresh host to what it describes, from every kind of file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kasmina import detach, grow_on_load, load, register, save_seeds
from kasmina.blueprints import Factory, catalogue
from kasmina.slots.slot import attached_seeds
from kasmina.stored_seeds import described_seeds
from kasmina.structure import MODEL_FILE, match_structure
from leyline import BlueprintError, CheckpointError, EsperError, SiteError
from tests.kasmina.growing import bits, everything, grow, state_bits, wake
from tests.kasmina.hosts import HOSTS, Conv1dNet, Host, conv_net

every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
X = HOSTS["conv_net"].example()
Write = Callable[[nn.Module, Path], Path]


def safetensors_file(model: nn.Module, folder: Path) -> Path:
    file = folder / "grown.safetensors"
    safetensors.torch.save_file(model.state_dict(), file)
    return file


def checkpoint_directory(model: nn.Module, folder: Path) -> Path:
    safetensors.torch.save_file(model.state_dict(), folder / MODEL_FILE)
    return folder


def lightning_checkpoint(model: nn.Module, folder: Path) -> Path:
    file = folder / "last.ckpt"
    state = {f"net.{name}": tensor for name, tensor in model.state_dict().items()}
    state["loss.weight"] = torch.ones(3)
    torch.save({"epoch": 3, "state_dict": state, "loops": {"fit": [1, None]}}, file)
    return file


def torch_file(model: nn.Module, folder: Path) -> Path:
    file = folder / "weights.pt"
    torch.save(model.state_dict(), file)
    return file


KINDS: list[Write] = [safetensors_file, checkpoint_directory, lightning_checkpoint, torch_file]


def grown_conv_net() -> nn.Module:
    """Seeds on leaves and on a Sequential, two at one site, one of them frozen, one inactive."""
    model = conv_net()
    grow(model, "stem", X, alpha=1.0, blueprint="conv")
    grow(model, "stem", X, alpha=0.3, blueprint="norm", number=12)
    grow(model, "block", X, alpha=1.0, blueprint="depthwise_conv", number=3).requires_grad_(False)
    grow(model, "head", X, alpha=0.0)
    return model


@every_host
@pytest.mark.parametrize("write", KINDS)
def test_a_file_grows_a_fresh_host(host: Host, write: Write, tmp_path: Path) -> None:
    """Equal outputs and state dicts, from a host with other weights and no seeds."""
    x = host.example()
    model = host.build().eval()
    grow(model, host.site, x, alpha=0.3)
    grow(model, host.site, x, alpha=1.0, blueprint="norm", number=1)
    torch.manual_seed(99)
    fresh = host.build().eval()
    assert load(fresh, write(model, tmp_path)) is fresh
    assert bits(fresh(x)) == bits(model(x))
    assert state_bits(fresh.state_dict()) == state_bits(model.state_dict())
    assert list(attached_seeds(fresh)) == list(attached_seeds(model))


@pytest.mark.parametrize("write", KINDS)
def test_everything_about_the_seeds_is_restored(write: Write, tmp_path: Path) -> None:
    """Names, blueprints, order, activity and what is trainable, over a host grown otherwise."""
    model = grown_conv_net()
    other = conv_net()
    grow(other, "stem", X, alpha=1.0, blueprint="norm", number=0)
    grow(other, "stem", X, alpha=1.0, blueprint="norm", number=12)
    grow(other, "block.0", X, alpha=1.0)
    load(other, str(write(model, tmp_path)))
    assert [
        (name, site, seed.blueprint, seed.shape, float(seed.alpha), seed.active)
        for name, (site, _, seed) in attached_seeds(other).items()
    ] == [
        (name, site, seed.blueprint, seed.shape, float(seed.alpha), seed.active)
        for name, (site, _, seed) in attached_seeds(model).items()
    ]
    theirs = {n: p.requires_grad for n, p in model.named_parameters()}
    assert {n: p.requires_grad for n, p in other.named_parameters()} == theirs
    assert bits(other(X)) == bits(model(X))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("held", [(), (0,), (1,), (0, 1), (1, 0)])
def test_seeds_of_a_site_keep_their_order(order: tuple[int, ...], held: tuple[int, ...]) -> None:
    """One extends what the other made: whatever the model held before, the order is the saved."""
    model, other = conv_net(), conv_net()
    kinds = {0: "conv", 1: "norm"}
    for number in order:
        grow(model, "stem", X, alpha=1.0, blueprint=kinds[number], number=number)
    for number in held:
        grow(other, "stem", X, alpha=0.5, blueprint=kinds[number], number=number)
    kept = {name: seed for name, (_, _, seed) in attached_seeds(other).items()}
    match_structure(other, model.state_dict())
    other.load_state_dict(model.state_dict())
    assert bits(other(X)) == bits(model(X))
    after = {name: seed for name, (_, _, seed) in attached_seeds(other).items()}
    assert all(after[name] is seed for name, seed in kept.items())


def test_a_hook_grows_on_load_state_dict_until_it_is_removed() -> None:
    """Also below a wrapper, also back to fewer seeds; afterwards torch's own strictness is back."""
    model = grown_conv_net()
    state = model.state_dict()
    wrapper = nn.ModuleDict({"net": conv_net()})
    handle = grow_on_load(wrapper.net)
    wrapper.load_state_dict({f"net.{name}": value for name, value in state.items()})
    assert bits(wrapper.net(X)) == bits(model(X))
    wrapper.net.load_state_dict(detach(model).state_dict())
    assert attached_seeds(wrapper) == {}
    handle.remove()
    with pytest.raises(RuntimeError, match="Unexpected key"):
        wrapper.net.load_state_dict(state)


def test_detach_leaves_the_trained_host() -> None:
    """Every seed goes, the host's own weights stay."""
    model = grown_conv_net()
    own = {n: v for n, v in state_bits(model.state_dict()).items() if ".esper." not in n}
    assert detach(model) is model
    assert state_bits(model.state_dict()) == own


@every_host
def test_seeds_alone_go_onto_any_host_of_the_kind(host: Host, tmp_path: Path) -> None:
    """Only seeds are in the file; the host that takes them keeps its own weights, loses the seeds
    it had, and with equal weights is the same network."""
    x = host.example()
    model = host.build().eval()
    grow(model, host.site, x, alpha=0.3)
    grow(model, host.site, x, alpha=1.0, blueprint="norm", number=1)
    file = tmp_path / "adapters.safetensors"
    save_seeds(model, file)
    assert all(f"{host.site}.esper." in name for name in safetensors.torch.load_file(file))
    torch.manual_seed(99)
    fresh = host.build().eval()
    own = state_bits(fresh.state_dict())
    grow(fresh, host.site, x, alpha=1.0, blueprint="norm", number=7)
    load(fresh, file)
    assert list(attached_seeds(fresh)) == list(attached_seeds(model))
    assert state_bits(detach(load(fresh, file)).state_dict()) == own
    twin = host.build().eval()
    twin.load_state_dict(detach(copy.deepcopy(model)).state_dict())
    assert bits(load(twin, file)(x)) == bits(model(x))


def test_seeds_alone_may_have_a_prefix_and_must_be_whole(tmp_path: Path) -> None:
    """A LightningModule's attribute goes; a tensor that is missing, or that fits no module here,
    is named."""
    model = grown_conv_net()
    file = tmp_path / "adapters.safetensors"
    save_seeds(nn.ModuleDict({"net": model}), file)
    fresh = load(conv_net(), file)
    assert list(attached_seeds(fresh)) == list(attached_seeds(model))
    seeds = safetensors.torch.load_file(file)
    gone = next(name for name in seeds if name.endswith("weight"))
    safetensors.torch.save_file({n: t for n, t in seeds.items() if n != gone}, file)
    with pytest.raises(CheckpointError, match=gone.removeprefix("net.")):
        load(conv_net(), file)
    save_seeds(model, file)
    with pytest.raises(CheckpointError, match="which Conv1dNet does not have"):
        load(Conv1dNet(), file)


def test_a_load_that_is_broken_off_changes_nothing(tmp_path: Path) -> None:
    """Ctrl-C while the last weights are written is no CheckpointError; seeds and weights are those
    of before."""
    file = safetensors_file(grown_conv_net(), tmp_path)
    model = conv_net()
    seed = grow(model, "head", X, alpha=0.7, number=3)
    before = everything(model)

    def break_off(module: nn.Module, keys: object) -> None:
        assert list(attached_seeds(model)) != ["head/3"]
        raise KeyboardInterrupt

    model.head.register_load_state_dict_post_hook(break_off)
    with pytest.raises(KeyboardInterrupt):
        load(model, file)
    assert everything(model) == before
    assert attached_seeds(model)["head/3"].seed is seed


class Sealed(nn.Linear):
    """Allows no subclass, as some compiled classes do not."""

    def __init_subclass__(cls) -> None:
        raise TypeError("Sealed is final")


def test_a_site_that_refuses_its_seed_at_the_last_moment_changes_nothing() -> None:
    """Seeds that were moved before it are at their places again."""
    model, other = conv_net(), conv_net()
    for site in ("stem", "head"):
        grow(model, site, X, alpha=0.5)
    other.head = Sealed(8, 4)
    grow(other, "stem", X, alpha=0.7, number=4)
    before = everything(other)
    with pytest.raises(SiteError, match=r"'head' cannot carry a seed.*Sealed is final"):
        match_structure(other, model.state_dict())
    assert everything(other) == before


@pytest.fixture
def own_blueprint() -> Iterator[Callable[[Factory], None]]:
    """Registers a blueprint "own" for the length of a test."""
    held = dict(catalogue.by_name)
    yield partial(register, "own")
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


def grown_of_own(number: int = 1) -> nn.Module:
    """Seeds of the blueprint "own", with weights of their own."""
    model = conv_net()
    for n in range(number):
        grow(model, "head", X, alpha=0.5, number=n, body=wake(nn.Linear(4, 4), n)).blueprint = "own"
    return model


def test_a_factory_that_returns_one_module_again_and_again(
    own_blueprint: Callable[[Factory], None],
) -> None:
    """Each seed that is loaded has weights of its own all the same."""
    only = nn.Linear(4, 4)
    own_blueprint(lambda shape: only)
    model, fresh = grown_of_own(2), conv_net()
    grow_on_load(fresh)
    fresh.load_state_dict(model.state_dict())
    assert state_bits(fresh.state_dict()) == state_bits(model.state_dict())
    assert bits(fresh(X)) == bits(model(X))


def test_a_factory_that_changes_settings_is_refused_on_loading(
    own_blueprint: Callable[[Factory], None],
) -> None:
    """By name, and they are put back, as at germination."""

    def factory(shape: Any) -> nn.Module:
        torch.set_default_dtype(torch.float64)
        return nn.Linear(4, 4)

    own_blueprint(factory)
    model = conv_net()
    with pytest.raises(CheckpointError, match=r"'head/0' .*'own' changes the default dtype"):
        match_structure(model, grown_of_own().state_dict())
    assert torch.get_default_dtype() is torch.float32
    assert attached_seeds(model) == {}


def test_a_predicate_that_fails_is_named_on_loading(
    own_blueprint: Callable[..., None],
) -> None:
    """It is a user's code: an error of it is no crash."""
    own_blueprint(lambda shape: nn.Linear(4, 4), accepts=lambda shape: shape[7] > 3)
    with pytest.raises(CheckpointError, match=r"'head/0' .*IndexError: tuple index out of range"):
        match_structure(conv_net(), grown_of_own().state_dict())


def _other_class(model: nn.Module) -> nn.Module:
    return Conv1dNet()


def _wider_head(model: nn.Module) -> nn.Module:
    model.head = nn.Linear(8, 5)
    return model


@pytest.mark.parametrize("spoil", [_other_class, _wider_head])
@pytest.mark.parametrize("write", KINDS)
def test_a_file_of_another_model_is_one_clear_error(
    write: Write, spoil: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    """CheckpointError names the file and the model; another class is left without seeds."""
    path = write(grown_conv_net(), tmp_path)
    wrong = spoil(conv_net())
    with pytest.raises(
        CheckpointError, match=rf"{path.name}.* does not fit {type(wrong).__name__}"
    ):
        load(wrong, path)
    if spoil is _other_class:
        assert attached_seeds(wrong) == {}


def description(*seeds: Any) -> dict[str, Tensor]:
    text = json.dumps(list(seeds)).encode()
    return {"stem.esper._extra_state": torch.tensor(list(text), dtype=torch.uint8)}


SHAPE = {"sizes": [4, 8, 6, 6], "channel_axis": 1, "batch_axis": 0, "causal": False}
GOOD = {"key": "0", "seed": "stem/0", "blueprint": "norm", "shape": SHAPE, "chunk": [0, 1]}
GOOD |= {"active": True, "trainable": True}


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in GOOD.items() if k != key}


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"stem.esper._extra_state": torch.ones(4)}, CheckpointError),
        ({"stem.esper._extra_state": torch.full((4,), 200, dtype=torch.uint8)}, CheckpointError),
        (description(1, 2), CheckpointError),
        *((description(without(key)), CheckpointError) for key in GOOD),
        (description({**GOOD, "shape": "wide"}), CheckpointError),
        (description({**GOOD, "shape": {**SHAPE, "channel_axis": "x"}}), CheckpointError),
        (description({**GOOD, "chunk": [2, 2]}), CheckpointError),
        (description({**GOOD, "chunk": 1}), CheckpointError),
        (description({**GOOD, "blueprint": "os.system"}), BlueprintError),
        (
            {"neck.esper._extra_state": description(GOOD)["stem.esper._extra_state"]},
            SiteError,
        ),
    ],
)
def test_a_description_that_is_not_to_be_had_changes_nothing(
    state: dict[str, Tensor], error: type[EsperError]
) -> None:
    """Damaged, incomplete, of an unknown blueprint or site: refused before a seed is moved."""
    model = conv_net()
    grow(model, "stem", X, alpha=1.0, number=5)
    before = everything(model)
    with pytest.raises(error):
        match_structure(model, {**state, **description()} if error is SiteError else state)
    assert everything(model) == before


def test_a_state_describes_its_seeds() -> None:
    """By site and key, in order, with what is needed to build them again."""
    found = described_seeds(grown_conv_net().state_dict())
    assert list(found) == [("stem", "0"), ("stem", "12"), ("block", "3"), ("head", "0")]
    assert found["block", "3"].blueprint == "depthwise_conv"
    assert found["block", "3"].shape == (4, 8, 6, 6)
    assert found["block", "3"].shape.channel_axis == 1
    assert described_seeds(conv_net().state_dict()) == {}
