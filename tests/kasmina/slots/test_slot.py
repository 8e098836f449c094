"""Slots: a seed at alpha 0 moves nothing of the host, and taking it off gives the host back."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kasmina import detach, summary
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, attached_seeds, detach_seed, every_seed, slot_of
from leyline import SiteError
from tests.kasmina.growing import Returns, bits, grow
from tests.kasmina.hosts import HOSTS, Host, conv_net

every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)


@every_host
@pytest.mark.parametrize("training", [True, False])
def test_a_seed_at_alpha_0_changes_no_output_bit(host: Host, training: bool) -> None:
    """Outputs, gradients and random numbers drawn are those of the bare host, bit for bit."""
    model, x = host.build().train(training), host.example()
    twin = copy.deepcopy(model)
    grow(model, host.site, x, alpha=0.0)
    outputs = []
    for net in (twin, model):
        torch.manual_seed(1)
        y = net(x)
        y.square().sum().backward()
        outputs.append((bits(y), bits(torch.rand(1))))
    assert outputs[0] == outputs[1]
    grads = dict(model.named_parameters())
    for name, parameter in twin.named_parameters():
        assert torch.equal(parameter.grad, grads[name].grad), name


@every_host
def test_attaching_moves_no_name(host: Host) -> None:
    """State-dict keys and their order, classes, children, parameters of the host all stay."""
    model, x = host.build(), host.example()
    site = model.get_submodule(host.site)
    kind, keys = type(site), list(model.state_dict())
    children = list(model.named_children()), list(site.named_children())
    grow(model, host.site, x, alpha=0.5)
    grown = list(model.state_dict())
    assert [key for key in grown if ".esper." not in key] == keys
    assert all(key.startswith(f"{host.site}.esper.") for key in set(grown) - set(keys))
    assert f"{host.site}.esper.0.alpha" in grown
    assert isinstance(site, kind)
    assert type(site).__name__ == kind.__name__
    assert (list(model.named_children()), list(site.named_children())) == children
    assert list(site.children()) == [child for _, child in children[1]]


def test_a_sequential_does_not_take_the_slot_for_a_member() -> None:
    """Length, iteration, indexing and slicing of a Sequential that is a site are unchanged."""
    model = conv_net()
    block, x = model.block, HOSTS["conv_net"].example()
    members = list(block)
    grow(model, "block", x, alpha=1.0)
    assert len(block) == 2
    assert list(block) == members
    assert [block[0], block[1], block[-1]] == [*members, members[1]]
    assert list(block[:1]) == members[:1]
    assert list(model) == [*model.children()]
    assert len(model) == 6
    with pytest.raises(IndexError):
        block[2]


def test_a_slice_of_a_sequential_subclass_keeps_its_class() -> None:
    """Slicing a grown container gives the host's own class, without seeds."""
    model = nn.Sequential(Tower(nn.Linear(4, 4), nn.Linear(4, 4)), nn.ReLU())
    grow_at = GraftedSeed(nn.Linear(4, 4), seed="0/0", blueprint="x", shape=(1, 4))  # type: ignore[arg-type] # the shape is not looked at
    attach_seed("0", model[0], grow_at)
    assert type(model[0][:1]) is Tower


class Tower(nn.Sequential):
    """A user's own container."""


class Several(nn.Sequential):
    """Members may take and give several values: a forward that many write."""

    def forward(self, *inputs: Tensor) -> Any:
        for module in self._modules.values():
            inputs = module(*inputs) if type(inputs) is tuple else module(inputs)
        return inputs


def test_a_host_that_runs_all_of_its_modules_runs_its_seeds_once() -> None:
    """The slot is among its `_modules` and passes on what it is given, one value or several."""
    model = nn.Sequential(Several(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2))
    x = torch.randn(3, 4)
    h = model[0](x)
    seed = grow(model, "0", x, alpha=0.5)
    assert torch.equal(model[0](x), h + seed.alpha * seed.body(h))
    slot = slot_of(model[0])
    assert slot is not None
    assert slot(x, h) == (x, h)


@pytest.mark.parametrize("order", [("net", "best"), ("best", "net")])
def test_seeds_of_one_name_are_all_found_and_told_apart(order: tuple[str, ...]) -> None:
    """In a model that keeps a copy of a part of itself, before or behind it, the name is that of
    the seed at its own place; every seed is listed, and all are taken off."""
    net, x = conv_net(), HOSTS["conv_net"].example()
    seed = grow(net, "stem", x, alpha=1.0)
    seed.seed = "net.stem/0"
    parts = {"net": net, "best": copy.deepcopy(net)}
    model = nn.ModuleDict({name: parts[name] for name in order})
    sites = [f"{name}.stem" for name in order]
    assert attached_seeds(model) == {"net.stem/0": ("net.stem", net.stem, seed)}
    assert [held.site for held in every_seed(model)] == sites
    assert [line.site for line in summary(model).seeds] == sites
    assert not [key for key in detach(model).state_dict() if "esper" in key]


def test_an_inactive_body_can_do_no_harm() -> None:
    """-0.0 stays -0.0, and Inf and NaN of a body do not leak; it is run at alpha > 0 alone."""
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    calls: list[Tensor] = []

    def spoil(x: Tensor) -> Tensor:
        calls.append(x)
        return torch.full_like(x, torch.inf)

    seed = GraftedSeed(Returns(spoil), seed="0/0", blueprint="x", shape=(1, 2))  # type: ignore[arg-type] # the shape is not looked at
    attach_seed("0", model[0], seed)
    x = torch.tensor([[-0.0, 1.0]])
    seed.blend(0.0)
    assert bits(model[0](x)) == bits(x)
    assert not calls
    seed.blend(0.5)
    assert bits(model[0](x)) == bits(x)
    assert calls
    assert seed.fault is not None


@every_host
def test_detaching_gives_the_host_back(host: Host) -> None:
    """The very class, keys, modules and output bits are there again after several seeds."""
    model, x = host.build().eval(), host.example()
    site = model.get_submodule(host.site)
    kind, keys, y = type(site), list(model.state_dict()), model(x)
    members = dict(model.named_modules())
    seeds = [grow(model, host.site, x, alpha=1.0, number=n) for n in range(2)]
    assert not torch.equal(model(x), y)
    detach_seed(site, seeds[0])
    assert type(site) is not kind
    detach_seed(site, seeds[1])
    assert type(site) is kind
    assert "esper" not in site.__dict__
    assert slot_of(site) is None
    assert list(model.state_dict()) == keys
    assert dict(model.named_modules()) == members
    assert bits(model(x)) == bits(y)
    with pytest.raises(SiteError, match="not attached here"):
        detach_seed(site, seeds[1])


@every_host
def test_whole_model_calls_reach_the_seed(host: Host) -> None:
    """train, eval, to, requires_grad_ and zero_grad of the model act on seeds as on the host."""
    model, x = host.build(), host.example()
    seed = grow(model, host.site, x, alpha=0.5)
    assert not model.eval().training
    assert not any(module.training for module in seed.modules())
    model.train()
    assert all(module.training for module in seed.modules())
    model.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in seed.parameters())
    model.requires_grad_(True)
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in seed.parameters())
    model.zero_grad()
    assert all(parameter.grad is None for parameter in seed.parameters())
    model.to(torch.float64)
    assert {parameter.dtype for parameter in seed.parameters()} == {torch.float64}
    assert model(x.double()).dtype is torch.float64
    assert seed.fault is None


@every_host
def test_a_grown_model_can_be_copied_and_pickled(host: Host) -> None:
    """deepcopy, pickle and torch.save give models with equal outputs and seeds of their own."""
    model, x = host.build().eval(), host.example()
    seed = grow(model, host.site, x, alpha=0.3)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),  # noqa: S301 -- our own bytes
        torch.load(buffer, weights_only=False),
    ]
    for other in copies:
        assert bits(other(x)) == bits(model(x))
        assert type(other.get_submodule(host.site)) is type(model.get_submodule(host.site))
        held = attached_seeds(other)[seed.seed][2]
        assert held is not seed
        assert held.shape == seed.shape
        assert held.shape.channel_axis == seed.shape.channel_axis
        detach(other)
        assert host.site + ".esper._extra_state" not in other.state_dict()
    assert attached_seeds(model)


class Taken(nn.Linear):
    esper = "mine"


def _patched() -> nn.Module:
    module = nn.Linear(2, 2)
    module.forward = lambda x: x  # type: ignore[method-assign] # what is refused
    return module


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Taken(2, 2), "already has an attribute 'esper'"),
        (_patched, "patched on the instance"),
        (lambda: torch.jit.script(nn.Linear(2, 2)), "script module"),
    ],
)
def test_a_module_that_cannot_carry_a_slot_is_refused_by_name(build: Any, reason: str) -> None:
    """The error names site and reason, and the module is as it was."""
    module = build()
    kind, names = type(module), [name for name, _ in module.named_modules()]
    seed = GraftedSeed(nn.Linear(2, 2), seed="body.fc/0", blueprint="x", shape=(1, 2))  # type: ignore[arg-type] # the shape is not looked at
    with pytest.raises(SiteError, match=rf"'body\.fc'.*{reason}"):
        attach_seed("body.fc", module, seed)
    assert type(module) is kind
    assert [name for name, _ in module.named_modules()] == names


@pytest.mark.parametrize("name", ["stem/0", "stem/a.b", "stem/", "stem/forward"])
def test_a_name_that_is_taken_or_no_key_is_refused(name: str) -> None:
    """A second seed of one name cannot push out the first."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    first = grow(model, "stem", x, alpha=1.0)
    second = GraftedSeed(nn.Linear(2, 2), seed=name, blueprint="x", shape=first.shape)
    with pytest.raises(SiteError, match="<site>/<number>"):
        attach_seed("stem", model.stem, second)
    assert attached_seeds(model) == {"stem/0": ("stem", model.stem, first)}


@every_host
def test_the_gradient_below_a_grafted_seed_lives_on(host: Host) -> None:
    """At alpha 1 the host's gradient is the sum of its own path and the seed's, never cut."""
    model, x = host.build().eval(), host.example()
    seed = grow(model, host.site, x, alpha=1.0)
    site = model.get_submodule(host.site)
    seen: list[Tensor] = []
    kept = seed.forward

    def watch(h: Tensor) -> Tensor:
        h.retain_grad()
        seen.append(h)
        return kept(h)

    seed.forward = watch
    out: list[Tensor] = []
    site.register_forward_hook(lambda module, args, output: out.append(output))
    model(x)
    upstream = torch.ones_like(out[0])
    out[0].backward(upstream)
    assert torch.count_nonzero(seen[0].grad)
    h = seen[0].detach().requires_grad_()
    through_seed = torch.autograd.grad(seed.body(h), h, upstream)[0]
    torch.testing.assert_close(seen[0].grad, upstream + through_seed)
    assert all(p.grad is not None for p in site.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_a_new_seed_takes_the_mode_of_its_site(training: bool) -> None:
    """A body that was built in train mode hangs in eval on a host in eval, and back."""
    model, x = conv_net().train(training), HOSTS["conv_net"].example()
    body = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(8, 8, 1)).train(not training)
    seed = grow(model, "stem", x, alpha=1.0, body=body)
    assert all(module.training is training for module in seed.modules())
    assert model.stem.esper.training is training


def test_seeds_of_one_site_follow_one_another() -> None:
    """The second seed extends what the first made of the host's output."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    h = model.stem(x)
    first = grow(model, "stem", x, alpha=0.25)
    second = grow(model, "stem", x, alpha=1.0, number=1, blueprint="conv")
    after_first = h + first.alpha * first.body(h)
    assert torch.equal(model.stem(x), after_first + second.body(after_first))


def test_changing_alpha_recompiles_nothing() -> None:
    """One graph serves every alpha above 0."""
    torch._dynamo.reset()
    model, x = conv_net(), HOSTS["conv_net"].example()
    seed = grow(model, "stem", x, alpha=0.1)
    grow(model, "block", x, alpha=0.7)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), model(x))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for alpha in (0.2, 0.5, 1.0):
            before = model(x)
            seed.blend(alpha)
            assert torch.equal(compiled(x), model(x))
            assert not torch.equal(before, model(x))
    torch._dynamo.reset()


def test_a_state_dict_carries_activity_and_trainability() -> None:
    """Loading into a like model gives its seeds the saved alpha, activity and trainability."""
    x = HOSTS["conv_net"].example()
    saved, other = conv_net(), conv_net()
    grow(saved, "stem", x, alpha=0.3).requires_grad_(False)
    seed = grow(other, "stem", x, alpha=0.0, number=0)
    other.load_state_dict(saved.state_dict())
    assert seed.active
    assert not any(p.requires_grad for p in seed.parameters())
    assert bits(other(x)) == bits(saved(x))


def test_a_faulted_seed_stays_out_whatever_is_loaded() -> None:
    """Neither blend nor a state dict brings a faulted body back into the forward pass."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    bare = model(x)
    seed = grow(model, "stem", x, alpha=1.0)
    state = model.state_dict()
    seed.fault = "broken"
    seed.blend(1.0)
    assert bits(model(x)) == bits(bare)
    model.load_state_dict(state)
    assert bits(model(x)) == bits(bare)


def test_foreign_seeds_in_a_state_dict_are_reported_by_torch() -> None:
    """A state with more seeds than the model is torch's own error, not one of ours."""
    x = HOSTS["conv_net"].example()
    saved, other = conv_net(), conv_net()
    for number in range(2):
        grow(saved, "stem", x, alpha=1.0, number=number)
    grow(other, "stem", x, alpha=1.0)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(saved.state_dict())
