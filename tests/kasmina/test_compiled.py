"""Compiled hosts: a graph for each structure, none for a value, none at all once prewarmed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kasmina import FunctionTask, discover
from kasmina.compiled import compiled_modules
from kasmina.prewarm import prewarm
from kasmina.sites.shape import SiteShape
from kasmina.slots.chunked import graft
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, detach_seed
from tests.kasmina.growing import bits, catalogue, wake

WIDTH = 8
X = torch.linspace(-1.0, 1.0, 4 * WIDTH).reshape(4, WIDTH)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).relu()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x))


class Outer(nn.Module):
    """What a LightningModule is to its network: code that runs eagerly around a compiled part."""

    def __init__(self) -> None:
        super().__init__()
        self.net: Any = Net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


Compiler = Callable[..., None]


def by_wrapping(outer: Outer, **how: Any) -> None:
    outer.net = torch.compile(outer.net, **how)


def in_place(outer: Outer, **how: Any) -> None:
    outer.net.compile(**how)


def by_region(outer: Outer, **how: Any) -> None:
    outer.net.block.compile(**how)


every_way = pytest.mark.parametrize(
    "compiler",
    [by_wrapping, *(pytest.param(w, marks=pytest.mark.slow) for w in (in_place, by_region))],
)


class Compiled:
    """A compiled model that counts its graphs."""

    def __init__(self, compiler: Compiler) -> None:
        self.num_graphs = 0
        torch.manual_seed(0)
        self.model = Outer()
        self.eager = copy.deepcopy(self.model)
        compiler(self.model, backend=self._backend, fullgraph=True)
        self.path = next(n for n, m in self.model.named_modules() if isinstance(m, Block))
        self.step()

    def _backend(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        self.num_graphs += 1
        return graph.forward

    @property
    def site(self) -> nn.Module:
        return self.model.get_submodule(self.path)

    def seed(self, number: int, blueprint: str = "low_rank") -> GraftedSeed:
        shape = SiteShape(X.shape, -1)
        body = wake(catalogue[blueprint].build(shape, number), number)
        return graft(body, seed=f"{self.path}/{number}", blueprint=blueprint, shape=shape)

    def attach(self, number: int = 0, blueprint: str = "low_rank") -> GraftedSeed:
        seed = self.seed(number, blueprint)
        attach_seed(self.path, self.site, seed)
        return seed

    def step(self) -> int:
        """Train and evaluate once; returns the graphs that this took, each mode's counted."""
        before = self.num_graphs
        self.model.train().zero_grad()
        loss(self.model, X).backward()
        with torch.no_grad():
            loss(self.model.eval(), X)
        return self.num_graphs - before


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().sum()


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@every_way
def test_values_take_no_graph_and_structures_one_for_each_mode(compiler: Compiler) -> None:
    """Attached, awake and frozen take one graph in each mode; alphas, a return to the host's own
    class and another instance take none."""
    host = Compiled(compiler)
    seed = host.attach()
    assert host.step() == 2
    seed.blend(0.1)
    assert host.step() == 2
    for alpha in (0.2, 0.7, 1.0):
        seed.blend(alpha)
        assert host.step() == 0
    seed.requires_grad_(False)
    assert host.step() == 2
    seed.requires_grad_(True)
    detach_seed(host.site, seed)
    assert host.step() == 0
    host.attach(1).blend(0.5)
    assert host.step() == 0


@every_way
@pytest.mark.parametrize("blueprint", ["low_rank", "bottleneck_mlp"])
def test_a_prewarmed_seed_lives_its_life_without_a_graph(
    compiler: Compiler, blueprint: str
) -> None:
    """From the graft to the fossil and to the cull nothing is compiled, and prewarming moved no
    weight, buffer, gradient or random number of the live model."""
    host = Compiled(compiler)
    before = {name: bits(p) for name, p in host.model.state_dict().items()}
    grads = [bits(p.grad) for p in host.model.parameters() if p.grad is not None]
    stream = torch.get_rng_state()
    task = FunctionTask(host.model, loss)
    prewarm(host.model, task, X, host.path, host.seed(7, blueprint))
    assert {name: bits(p) for name, p in host.model.state_dict().items()} == before
    assert [bits(p.grad) for p in host.model.parameters() if p.grad is not None] == grads
    assert torch.equal(torch.get_rng_state(), stream)
    seed = host.attach(0, blueprint)
    graphs = [host.step()]
    for alpha in torch.linspace(0.1, 1.0, 5).tolist():
        seed.blend(alpha)
        graphs.append(host.step())
    for trainable in (False, True):
        seed.requires_grad_(trainable)
        graphs.append(host.step())
    detach_seed(host.site, seed)
    graphs.append(host.step())
    assert graphs == [0] * len(graphs)


@every_way
def test_compiled_equals_eager_after_every_transition(compiler: Compiler) -> None:
    """Outputs and gradients of the compiled model are those of the same model run eagerly."""
    host = Compiled(compiler)
    eager_site = host.eager.net.block
    seed, twin = host.seed(0), host.seed(0)
    states = [
        lambda s, m: attach_seed("block", m, s),
        lambda s, m: s.blend(0.3),
        lambda s, m: s.blend(1.0),
        lambda s, m: s.requires_grad_(False),
        lambda s, m: s.requires_grad_(True),
        lambda s, m: detach_seed(m, s),
    ]
    for state in states:
        state(seed, host.site)
        state(twin, eager_site)
        host.step()
        host.eager.train().zero_grad()
        loss(host.eager, X).backward()
        found = [p.grad for p in host.model.parameters()]
        wanted = [p.grad for p in host.eager.parameters()]
        assert [g is None for g in found] == [g is None for g in wanted]
        for ours, theirs in zip(found, wanted, strict=True):
            if ours is not None and theirs is not None:
                torch.testing.assert_close(ours, theirs)


@every_way
def test_copies_run_eagerly(compiler: Compiler) -> None:
    """Neither the dry run that finds sites nor a trial's copy compiles anything."""
    host = Compiled(compiler)
    before = host.num_graphs
    sites = discover(host.model, (X,))
    copied = FunctionTask(host.model, loss).copy()
    attach_seed(host.path, copied.get_submodule(host.path), host.seed(0))
    loss(copied, X).backward()
    assert host.path in [site.name for site in sites]
    assert host.num_graphs == before


@every_way
def test_what_is_compiled_is_known_without_importing_the_compiler(compiler: Compiler) -> None:
    """Compiled modules are told apart; an ordinary model has none."""
    host = Compiled(compiler)
    assert len(list(compiled_modules(host.model))) == 1
    assert not list(compiled_modules(host.eager))
