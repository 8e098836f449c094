"""The guard: whatever a body does wrong becomes a fault in words, and the host's output stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kasmina
from kasmina import discover
from kasmina.blueprints import catalogue
from kasmina.guard import proof_fault
from kasmina.settings import read_settings
from kasmina.slots.slot import attached_seeds
from kasmina.trials.nursery import Nursery
from leyline import Stage
from tests.kasmina.grower import SEED, Grower, X
from tests.kasmina.growing import Raises, Returns, Xor, bits, everything, grow
from tests.kasmina.hosts import HOSTS, conv_net
from tests.kasmina.zoo import WIDTH, ZOO, Hostile, hook_everything

HOSTILE = {
    "raises": (Raises(), "ValueError: no luck today"),
    "memory": (Raises(MemoryError), "MemoryError: no luck today"),
    "device_memory": (Raises(torch.OutOfMemoryError), "OutOfMemoryError: no luck today"),
    "wrong_shape": (
        Returns(lambda x: x[:, :1]),
        r"returned shape \(4, 1, 6, 6\) for \(4, 8, 6, 6\)",
    ),
    "would_broadcast": (Returns(lambda x: x.sum()), r"returned shape \(\)"),
    "wrong_dtype": (Returns(lambda x: x.long()), "returned torch.int64"),
    "wrong_device": (Returns(lambda x: x.to("meta")), "on meta"),
    "no_tensor": (Returns(lambda x: (x,)), "returned a tuple, not a tensor"),
    "nothing": (Returns(lambda x: None), "returned a NoneType"),
}
every_fault = pytest.mark.parametrize(("body", "fault"), HOSTILE.values(), ids=HOSTILE)


@every_fault
def test_a_fault_leaves_the_hosts_output(body: nn.Module, fault: str) -> None:
    """The very call that fails returns the host's bits, and the body is not run again."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    bare = bits(model(x))
    seed = grow(model, "stem", x, alpha=0.5, body=body)
    assert bits(model(x)) == bare
    assert seed.fault is not None
    assert not seed.active
    assert re.search(fault, seed.fault)
    seed.body = Returns(lambda h: pytest.fail("it was run again"))
    seed.blend(1.0)
    assert bits(model(x)) == bare


def test_a_fault_of_one_seed_leaves_its_neighbours_alone() -> None:
    """With a faulted seed between them, two good ones give what they give without it."""
    x = HOSTS["conv_net"].example()
    outputs = []
    for numbers in ([0, 1, 2], [0, 2]):
        torch.manual_seed(0)
        model = conv_net()
        for number in numbers:
            body = Raises() if number == 1 else None
            grow(model, "stem", x, alpha=0.5, number=number, body=body)
        outputs.append(bits(model(x)))
        faults = {name: seed.fault for name, (_, _, seed) in attached_seeds(model).items()}
        assert [name for name, fault in faults.items() if fault] == ["stem/1"] * (1 in numbers)
    assert outputs[0] == outputs[1]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_nested_host_output_is_a_fault_of_the_seed() -> None:
    """A padding mask seen first in eval takes the seed out and does not break validation."""
    host = HOSTS["transformer"]
    model, x = host.build().eval(), host.example()
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[0, 3:] = True
    with torch.no_grad():
        bare = model(x, src_key_padding_mask=mask)
        seed = grow(model, "layers.0", x, alpha=1.0)
        assert bits(model(x, src_key_padding_mask=mask)) == bits(bare)
    assert seed.fault is not None
    assert "nested" in seed.fault


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (Returns(lambda x: x.mul_(2)), "it changes its input in place"),
        (Returns(lambda x: x * torch.nan), "its output is not finite at birth"),
        (Returns(lambda x: x / 0), "its output is not finite at birth"),
        (nn.Identity(), "it has no parameter that can be trained"),
        (nn.Linear(3, 3).requires_grad_(False), "it has no parameter that can be trained"),
        (nn.Linear(3, 4), "it returned shape (2, 4) for (2, 3)"),
        (Raises(), "ValueError: no luck today"),
        (nn.Linear(3, 3), None),
    ],
)
def test_the_proof_finds_what_would_do_harm(body: nn.Module, fault: Any) -> None:
    """In-place change, NaN, infinity, nothing to train, shape and exceptions are told apart."""
    assert proof_fault(body, torch.randn(2, 3)) == fault


# --- at birth ---------------------------------------------------------------------------------


class NoCopy(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise NotImplementedError("there is but one of me")


class NoState(nn.Linear):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError("my weights are mine")


def hooked() -> nn.Module:
    body = nn.Linear(WIDTH, WIDTH)
    body.weight.register_hook(lambda grad: grad * 2)
    return body


class Growing(nn.Linear):
    """Its buffer is longer after every call."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH)
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, torch.zeros(1)])
        return super().forward(x)


def leaving(action: Callable[[], object]) -> nn.Module:
    action()
    return nn.Linear(WIDTH, WIDTH)


def newborn(name: str) -> Hostile:
    """A member of the zoo that strikes at its first call."""
    body = ZOO[name]()
    body.num_calls = body.strike_at
    return body


AT_BIRTH = {
    "init": (lambda: 1 / 0, "ZeroDivisionError"),
    "init_memory": (lambda: torch.empty(2**58), "RuntimeError"),
    "no_module": (lambda: None, "AttributeError"),
    "init_dtype": (
        lambda: leaving(lambda: torch.set_default_dtype(torch.float64)),
        "changes the default dtype",
    ),
    "init_gradient_mode": (
        lambda: leaving(lambda: torch._C._set_grad_enabled(False)),
        "changes the gradient mode",
    ),
    "init_hooks": (lambda: leaving(hook_everything), "changes the hooks of every module"),
    "copy": (lambda: NoCopy(WIDTH, WIDTH), "NotImplementedError: there is but one of me"),
    "state": (lambda: NoState(WIDTH, WIDTH), "PermissionError: my weights are mine"),
    "lazy": (lambda: nn.LazyLinear(WIDTH), "lazy parameters"),
    "growing": (Growing, "changes the shape of its own state"),
    "own_hooks": (hooked, "hooks its own parameters"),
    "forward": (lambda: newborn("raises"), "ValueError: no luck today"),
    "backward": (lambda: newborn("raises_in_backward"), "ValueError: no luck today"),
    "nan_gradient": (lambda: newborn("nan_gradient"), "gradient is not finite at birth"),
    "dtype": (lambda: newborn("default_dtype"), "changes the default dtype and leaves it so"),
    "hooks": (lambda: newborn("hooks_every_module"), "changes the hooks of every module"),
}


@pytest.fixture
def own_blueprint() -> Iterator[Callable[[Any], None]]:
    """Register a factory as "own" for one test."""
    held = dict(catalogue._blueprints)
    yield lambda factory: kasmina.register("own", lambda shape: factory()) and None
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


@pytest.mark.parametrize(("factory", "fault"), AT_BIRTH.values(), ids=AT_BIRTH)
def test_what_can_be_found_at_birth_never_meets_the_host(
    own_blueprint: Any, factory: Any, fault: str
) -> None:
    """The proof gives the reason; model, streams and settings are as they were."""
    model = Xor()
    (site,) = (site for site in discover(model, (X,)) if site.name == "body")
    own_blueprint(factory)
    before, settings = everything(model), read_settings()
    found = Nursery(model, rng_seed=1).proof_fault("body/0", site, "own", 1)
    assert found is not None
    assert re.search(fault, found)
    assert everything(model) == before
    assert read_settings() == settings


def test_counting_a_blueprint_leaves_no_setting_changed() -> None:
    """A factory and a forward that change settings are run to count them, and undone."""
    settings = read_settings()
    shape = kasmina.SiteShape((4, WIDTH), -1)

    def factory(shape: Any) -> nn.Module:
        torch.set_default_dtype(torch.float64)
        return newborn("gradient_mode")

    kasmina.blueprints.Blueprint("own", factory).cost(shape)
    assert read_settings() == settings


# --- in the live model ------------------------------------------------------------------------


class Breaks(nn.Linear):
    """A body that is sound in its trial and breaks when told."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        if self.broken:
            raise ValueError("worn out")
        return super().forward(x)


@pytest.mark.parametrize("rolled_back", [False, True])
def test_a_live_fault_is_told_once(own_blueprint: Any, rolled_back: bool) -> None:
    """With its reason, whether the seed is withdrawn or goes because the run is restored."""
    grower = Grower()
    own_blueprint(lambda: Breaks(WIDTH, WIDTH))
    grower.executor.grounds.open(grower.executor.grounds.sites)
    grower.to(Stage.GRAFTING, blueprint="own")
    grower.ramp()
    assert grower.executor.take_faults() == {}
    grower.held().body.broken = True
    grower.model(torch.rand(3, 2))
    if rolled_back:
        grower.executor.roll_back(SEED, 1, "test", 2)
    assert grower.executor.take_faults() == {SEED: "ValueError: worn out"}
    assert grower.executor.take_faults() == {}
    if not rolled_back:
        (report,) = grower.executor.withdraw_faulted(1, 2)
        assert report.cause == "blueprint fault: ValueError: worn out"
    assert grower.executor.take_faults() == {}


def test_a_fossil_that_breaks_is_told_of_too(own_blueprint: Any) -> None:
    """It is permanent, so it stays where it is; it is out, and one fault says why."""
    grower = Grower()
    own_blueprint(lambda: Breaks(WIDTH, WIDTH))
    grower.executor.grounds.open(grower.executor.grounds.sites)
    grower.to(Stage.FOSSILIZED, blueprint="own")
    grower.held().body.broken = True
    x = torch.rand(3, 2)
    body = grower.model.body
    bare = grower.model.head(nn.functional.linear(x, body.weight, body.bias))
    assert grower.executor.take_faults() == {}
    assert bits(grower.model(x)) == bits(bare)
    assert grower.executor.take_faults() == {SEED: "ValueError: worn out"}
    assert grower.executor.withdraw_faulted(1, 2) == []
    assert grower.executor.take_faults() == {}
