"""Chunk seeds: many at one site, one kernel, and each still a seed of its own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kasmina.blueprints import catalogue
from kasmina.sites.shape import SiteShape
from kasmina.slots.chunked import ChunkSeed, Group, graft
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.side_by_side import recipe_of
from kasmina.slots.slot import attach_seed, attached_seeds, detach_seed, slot_of
from tests.kasmina.growing import Returns, bits, wake

NUM_CHUNKS = 4
WHOLES = [
    SiteShape((3, 16), -1),
    SiteShape((3, 5, 16), -1),
    SiteShape((3, 16, 9), 1),
    SiteShape((2, 16, 5, 4), 1),
    SiteShape((2, 16, 3, 4, 3), 1),
]
CASES = [
    pytest.param(whole, name, id=f"{name}-{len(whole)}-{whole.channel_axis}")
    for whole in WHOLES
    for name, blueprint in catalogue.by_name.items()
    if blueprint.accepts(whole.chunk(NUM_CHUNKS))
]
BATCHED = {"low_rank", "bottleneck_mlp", "pointwise_conv", "depthwise_conv", "conv", "norm"}


def seed_on(
    whole: SiteShape, number: int, blueprint: str = "low_rank", body: nn.Module | None = None
) -> GraftedSeed:
    shape = whole.chunk(NUM_CHUNKS)
    body = body or wake(catalogue[blueprint].build(shape, number), number)
    chunk = number % NUM_CHUNKS, NUM_CHUNKS
    return graft(body, seed=f"site/{number}", blueprint=blueprint, shape=shape, chunk=chunk)


def site_with(whole: SiteShape, numbers: Sequence[int], blueprint: str = "low_rank") -> nn.Module:
    """An identity with a seed of each number, alphas all different."""
    module = nn.Identity()
    for number in numbers:
        seed = seed_on(whole, number, blueprint)
        attach_seed("site", module, seed)
        seed.blend(0.3 + 0.1 * number)
    return module


def example(whole: SiteShape) -> Tensor:
    return torch.randn(whole, generator=torch.Generator().manual_seed(1)).requires_grad_()


def one_by_one(module: nn.Module, host: Tensor) -> Tensor:
    """What the kernel must equal: each seed by itself, written out."""
    for _, _, seed in attached_seeds(module).values():
        axis, width = seed.shape.channel_axis, seed.shape.channels
        start = seed.chunk[0] * width
        part = host.narrow(axis, start, width)
        grown = part + seed.alpha * seed.body(part)
        host = torch.cat(
            [
                host.narrow(axis, 0, start),
                grown,
                host.narrow(axis, start + width, host.shape[axis] - start - width),
            ],
            axis,
        )
    return host


def turns(module: nn.Module) -> list[type]:
    slot = slot_of(module)
    assert slot is not None
    return [type(turn) for turn in slot.roster.turns]


@pytest.mark.parametrize(("whole", "blueprint"), CASES)
def test_one_kernel_gives_what_the_seeds_give_one_by_one(whole: SiteShape, blueprint: str) -> None:
    """Outputs and the gradients of host and seeds agree to rounding."""
    assert differs_from_one_by_one(whole, blueprint, range(NUM_CHUNKS)) == []


@pytest.mark.parametrize("numbers", [(2, 0), (1, 5, 3), (7, 3)], ids=str)
@pytest.mark.parametrize(("whole", "blueprint"), [(WHOLES[1], "low_rank"), (WHOLES[3], "conv")])
def test_some_chunks_and_two_seeds_on_one(
    whole: SiteShape, blueprint: str, numbers: tuple[int, ...]
) -> None:
    """They agree where not every chunk has a seed, and where one chunk has two."""
    assert differs_from_one_by_one(whole, blueprint, numbers) == []


def differs_from_one_by_one(
    whole: SiteShape, blueprint: str, numbers: Sequence[int]
) -> list[tuple[str, float]]:
    """What the kernel and the seeds one by one do not agree on to rounding, and by how much."""
    module, x = site_with(whole, numbers, blueprint), example(whole)
    found: list[dict[str, Tensor]] = []
    for run in (module, lambda host: one_by_one(module, host)):
        x.grad = None
        module.zero_grad()
        y = run(x)
        y.square().sum().backward()
        assert x.grad is not None
        grads = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        found.append({"output": y.detach(), "input": x.grad.clone(), **grads})
    ours, wanted = found
    assert ours.keys() == wanted.keys()
    return [
        (name, float((ours[name] - wanted[name]).abs().max()))
        for name in wanted
        if not torch.allclose(ours[name], wanted[name], rtol=1e-4, atol=1e-5)
    ]


@pytest.mark.parametrize(("whole", "blueprint"), CASES)
def test_which_blueprints_run_in_one_kernel(whole: SiteShape, blueprint: str) -> None:
    """The plain ones run in one turn; those that look across channels or positions run alone."""
    seeds = turns(site_with(whole, range(NUM_CHUNKS), blueprint))
    if blueprint in BATCHED:
        assert seeds == [Group]
    assert seeds in ([Group], [ChunkSeed] * NUM_CHUNKS)


def test_channels_of_no_seed_and_of_sleeping_seeds_keep_every_bit() -> None:
    """Only the chunks of awake seeds change; -0.0 stays -0.0 elsewhere."""
    whole = WHOLES[0]
    module = site_with(whole, (0, 1, 2))
    attached_seeds(module)["site/1"][2].blend(0.0)
    x = torch.full(whole, -0.0)
    y = module(x)
    same = [bits(y[:, i * 4 : i * 4 + 4]) == bits(x[:, :4]) for i in range(NUM_CHUNKS)]
    assert same == [False, True, False, True]


def test_who_runs_is_worked_out_when_something_changes() -> None:
    """Waking, sleeping, leaving and faulting regroup the seeds; a forward pass does not."""
    whole = WHOLES[0]
    module = site_with(whole, (0, 1, 2))
    slot = slot_of(module)
    assert slot is not None
    assert turns(module) == [Group]
    before = list(slot.roster.turns)
    module(example(whole))
    assert slot.roster.turns == before
    seeds = [seed for _, _, seed in attached_seeds(module).values()]
    seeds[0].blend(0.0)
    assert turns(module) == [Group]
    detach_seed(module, seeds[1])
    assert turns(module) == [ChunkSeed]
    seeds[1].blend(0.5)
    assert turns(module) == [ChunkSeed]
    seeds[2].blend(0.0)
    assert turns(module) == []


@pytest.mark.parametrize("mode", ["raises", "nan"])
def test_one_bad_seed_of_a_group_goes_alone(mode: str) -> None:
    """The others give what they give without it, and it is out with its fault named."""
    whole = WHOLES[0]
    module, without = site_with(whole, (0, 1, 2)), site_with(whole, (0, 2))
    bad = attached_seeds(module)["site/1"][2]
    if mode == "nan":
        last = list(bad.body.parameters())[-1]
        last.data.fill_(torch.nan)
    else:
        bad.body[1].weight = nn.Parameter(torch.zeros(3, 3))
    x = example(whole)
    torch.testing.assert_close(module(x), without(x))
    assert bad.fault is not None
    assert not bad.active
    assert [seed.fault for _, _, seed in attached_seeds(module).values()].count(None) == 2
    torch.testing.assert_close(module(x), without(x))


@pytest.mark.parametrize(("whole", "blueprint"), [(WHOLES[0], "low_rank"), (WHOLES[3], "conv")])
def test_a_gradient_that_overflows_stays_behind_the_gate(whole: SiteShape, blueprint: str) -> None:
    """The host gets what it gets without that seed, the others' gradients are their own, and the
    seed is named and out; a gradient that came in spoilt is nobody's fault."""
    module, without = site_with(whole, (0, 1, 2), blueprint), site_with(whole, (0, 2), blueprint)
    bad = attached_seeds(module)["site/1"][2]
    with torch.no_grad():
        list(bad.body.children())[-1].weight.mul_(1e10)
    huge = 1e30
    x, twin = example(whole), example(whole)
    (module(x).sum() * huge).backward()
    (without(twin).sum() * huge).backward()
    torch.testing.assert_close(x.grad, twin.grad)
    faults = {name: seed.fault for name, (_, _, seed) in attached_seeds(module).items()}
    assert faults == {"site/0": None, "site/1": "its gradient is not finite", "site/2": None}
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    for name, parameter in without.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, msg=name)
    assert all(torch.isfinite(p.grad).all() for p in bad.parameters() if p.grad is not None)

    host = site_with(whole, (0, 1), blueprint)
    (host(example(whole)).sum() * torch.nan).backward()
    assert {seed.fault for _, _, seed in attached_seeds(host).values()} == {None}


def test_copies_keep_their_own_roster() -> None:
    """A deep copy regroups its own seeds and not those of the original."""
    whole = WHOLES[0]
    module = site_with(whole, (0, 1, 2))
    twin = copy.deepcopy(module)
    x = example(whole)
    y = module(x)
    assert torch.equal(twin(x), y)
    for _, _, seed in attached_seeds(twin).values():
        seed.blend(0.0)
    assert bits(twin(x)) == bits(x)
    assert torch.equal(module(x), y)


def test_replaced_weights_are_the_ones_used() -> None:
    """functional_call and `load_state_dict(assign=True)` replace parameters, and the kernel runs
    with the new ones."""
    whole = WHOLES[0]
    module, other, x = site_with(whole, (0, 1)), site_with(whole, (0, 1)), example(whole)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    wanted = other(x)
    state = {k: v for k, v in other.state_dict().items() if not k.endswith("_extra_state")}
    assert not torch.equal(module(x), wanted)
    assert torch.equal(torch.func.functional_call(module, state, (x,)), wanted)
    module.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(module(x), wanted)


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0.0, 0.25, 1.0])), max_size=12)
)
def test_any_order_of_waking_gives_the_same_as_one_by_one(events: list[tuple[int, float]]) -> None:
    """Whatever wakes or sleeps: the site does what its awake seeds do, in order."""
    whole = WHOLES[0]
    module = site_with(whole, range(8))
    for number, alpha in events:
        attached_seeds(module)[f"site/{number}"][2].blend(alpha)
    x = example(whole)
    torch.testing.assert_close(module(x), one_by_one(module, x), rtol=1e-4, atol=1e-5)


def test_what_has_no_recipe() -> None:
    """A module with a hook, a forward of its own or a foreign layer runs alone."""
    shape = SiteShape((3, 4), -1)
    plain = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4))
    assert recipe_of(plain, shape) is not None
    hooked, patched = copy.deepcopy(plain), copy.deepcopy(plain)
    hooked[1].register_forward_hook(lambda *_: None)
    patched[0].forward = lambda x: x  # type: ignore[method-assign] # as a user may
    foreign = nn.Sequential(Returns(torch.sin), nn.Linear(4, 4))
    open_end = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    dropping = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 4))
    refused = [hooked, patched, foreign, open_end, dropping, nn.Sequential()]
    assert [recipe_of(body, shape) for body in refused] == [None] * len(refused)


def test_a_seed_reads_and_writes_its_own_chunk_alone() -> None:
    """Changing other channels of the input changes nothing of the seed's own."""
    whole = WHOLES[1]
    module, x = site_with(whole, (2,)), example(whole).detach()
    y = module(x)
    for start in itertools.chain(range(8), range(12, 16)):
        moved = x.clone()
        moved[..., start] += 1.0
        assert torch.equal(module(moved)[..., 8:12], y[..., 8:12])
