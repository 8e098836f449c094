"""The wall: what a sound body gives is what the plain expression gives, wherever it is used."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import _StopRecomputationError, checkpoint

from kasmina.slots.finite_check import FiniteCheck
from tests.kasmina.growing import Raises, Returns, bits
from tests.kasmina.towers import WIDTH, Noisy, Tower, TwoUses, example, low_rank, make, pair

CHECKS = {"now": FiniteCheck, "late": lambda: FiniteCheck(always_late=True)}
both = pytest.mark.parametrize("shielded", [False, True], ids=["bare", "shielded"])
every_check = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)


BODIES = {"one_use": low_rank, "two_uses": TwoUses}
every_body = pytest.mark.parametrize("build", BODIES.values(), ids=BODIES)


def gradients(model: nn.Module) -> list[Any]:
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def assert_same(ours: list[Any], theirs: list[Any], *, exact: bool = True) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None and exact:
            assert bits(mine) == bits(other)
        elif mine is not None:
            torch.testing.assert_close(mine, other)


def exact(build: Callable[[], nn.Module]) -> bool:
    """Sums over several uses of the input are in another order."""
    return build is low_rank


@both
@every_check
@every_body
@pytest.mark.parametrize("frozen", ["", "guest", "stem"])
def test_gradients_are_those_of_the_plain_expression(
    build: Callable[[], nn.Module], check: Any, shielded: bool, frozen: str
) -> None:
    """Bit for bit for a body that uses its input once; a frozen seed passes gradients on."""
    ours, theirs = pair(build, shielded=shielded)
    ours.guest.check = check()
    outputs = []
    for model in (ours, theirs):
        if frozen:
            model.get_submodule(frozen).requires_grad_(False)
        outputs.append(model(example()))
        torch.autograd.backward(outputs[-1].square().sum())
    assert bits(outputs[0]) == bits(outputs[1])
    assert_same(gradients(ours), gradients(theirs), exact=exact(build))
    assert ours.guest.fault is None


@both
@every_body
def test_second_derivatives_are_those_of_the_plain_expression(
    build: Callable[[], nn.Module], shielded: bool
) -> None:
    """A gradient penalty, through the input and through the parameters."""
    ours, theirs = pair(build, shielded=shielded)
    results = []
    for model in (ours, theirs):
        x = example(requires_grad=True)
        loss = model(x).square().sum()
        of = [x, *model.parameters()]
        first = torch.autograd.grad(loss, of, create_graph=True)
        penalty = sum(grad.square().sum() for grad in first)
        torch.autograd.backward(loss + penalty)
        results.append([*first, x.grad, *gradients(model)])
    assert_same(*results, exact=False)
    assert ours.guest.fault is None


def test_a_second_derivative_of_a_body_with_substituted_parameters() -> None:
    """`functional_call` is over when the body runs anew; its tensors are used all the same."""
    ours, theirs = pair()
    results = []
    for model in (ours, theirs):
        scale = torch.tensor(1.5, requires_grad=True)
        values = {n: p * scale for n, p in model.named_parameters()}
        out = torch.func.functional_call(model, values, (example(),))
        (first,) = torch.autograd.grad(out.square().sum(), scale, create_graph=True)
        results.append([first, *torch.autograd.grad(first, [scale, *model.parameters()])])
    assert_same(*results, exact=False)


@both
def test_autocast(shielded: bool) -> None:
    """In bfloat16 outputs and gradients are those of the plain expression, the second time too."""
    ours, theirs = pair(shielded=shielded)
    results = []
    for model in (ours, theirs):
        x = example(requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        (first,) = torch.autograd.grad(out.float().square().sum(), x, create_graph=True)
        torch.autograd.backward(first.square().sum())
        results.append([out.float(), first, *gradients(model)])
    assert bits(results[0][0]) == bits(results[1][0])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-3)
    assert ours.guest.fault is None


@both
@pytest.mark.parametrize("build", [low_rank, Noisy])
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(
    build: Callable[[], nn.Module], shielded: bool, reentrant: bool
) -> None:
    """A recomputed seed gives the same gradients, dropout included, and is not blamed."""
    results = []
    for checkpointed in (False, True):
        model = pair(build, shielded=shielded)[0]
        for _ in range(2):
            x = example(requires_grad=True)
            out = checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
            torch.autograd.backward(out.square().sum())
        results.append(gradients(model))
        assert model.guest.fault is None
    assert_same(*results)


class FaultsAt(nn.Module):
    def __init__(self, call: int) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.left = call

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise ValueError
        return self.linear(x)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_fault_between_a_call_and_its_recomputation_ends_nothing(call: int) -> None:
    """Two checkpointed calls before one backward: a fault in any call or recomputation."""
    model = Tower(make(FaultsAt(call)))
    outs = [checkpoint(model, example(), use_reentrant=False) for _ in range(2)]
    torch.autograd.backward(torch.stack(outs).sum())
    assert model.guest.fault == "ValueError"
    assert all(p.grad is not None for p in model.stem.parameters())


def test_the_end_of_a_recomputation_is_no_fault() -> None:
    """What torch raises to end a recomputation early goes through."""
    seed = make(Raises(_StopRecomputationError))
    with pytest.raises(_StopRecomputationError):
        seed(torch.randn(4, WIDTH))
    assert seed.fault is None


@both
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Any, shielded: bool) -> None:
    """Under no_grad and in inference mode the output is the plain one and carries no graph."""
    ours, theirs = pair(shielded=shielded)
    with mode():
        out = ours(example())
        assert bits(out) == bits(theirs(example()))
    assert not out.requires_grad
    assert ours.guest.fault is None


def add_one(parameter: Tensor) -> None:
    parameter.grad.add_(1)


@both
def test_hooks_of_parameters_run_once(shielded: bool) -> None:
    """A user's hook on a seed's parameter acts as on any other."""
    ours, theirs = pair(shielded=shielded)
    for model in (ours, theirs):
        weight = model.guest.body[1].weight
        weight.register_hook(lambda grad: grad * 2)
        weight.register_post_accumulate_grad_hook(add_one)
        torch.autograd.backward(model(example()).sum())
        torch.autograd.backward(model(example()).sum())
    assert_same(gradients(ours), gradients(theirs))


def test_a_graph_that_is_kept_can_be_run_again() -> None:
    """retain_graph acts as without the wall, and without it torch's own error is raised."""
    ours, theirs = pair()
    for model in (ours, theirs):
        loss = model(example()).sum()
        torch.autograd.backward(loss, retain_graph=True)
        torch.autograd.backward(loss)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            torch.autograd.backward(loss)
    assert_same(gradients(ours), gradients(theirs))
    assert ours.guest.fault is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_transforms_of_functions() -> None:
    """vmap, per-sample gradients, forward mode and batched gradients pass as without the wall."""
    ours, theirs = pair()
    results = []
    for model in (ours, theirs):
        values = dict(model.named_parameters())

        def loss(values: Any, x: Tensor, model: Tower = model) -> Tensor:
            return torch.func.functional_call(model, values, (x,)).square().sum()

        per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(values, example())
        _, tangent = torch.func.jvp(model, (example(),), (torch.ones(4, 5),))
        jacobian = torch.autograd.functional.jacobian(model, example(), vectorize=True)
        results.append([*per_sample.values(), tangent, jacobian])
    assert_same([r.detach() for r in results[0]], [r.detach() for r in results[1]], exact=False)
    assert ours.guest.fault is None


def test_tracing_sees_the_plain_expression() -> None:
    """compile, export, jit and make_fx record the body itself, in one graph."""
    ours, theirs = pair()
    x = example()
    expected = theirs(x).detach()
    torch._dynamo.reset()
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x).detach(), expected)
    torch.autograd.backward(compiled(x).sum())
    exported = torch.export.export(ours, (x,)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(ours, (x,))
    recorded = torch.fx.experimental.proxy_tensor.make_fx(ours)(x)
    symbolic = torch.fx.symbolic_trace(ours)
    for other in (exported, traced, recorded, symbolic):
        torch.testing.assert_close(other(x).detach(), expected)
    torch._dynamo.reset()
    assert ours.guest.fault is None


@every_check
def test_a_host_that_is_not_finite_is_its_own_fault(check: Any) -> None:
    """Neither a NaN in the host's output nor one in its gradient is blamed on the seed."""
    model = pair()[0]
    model.guest.check = check()
    assert model(example().fill_(torch.nan)).isnan().all()
    torch.autograd.backward(model(example()).sum() * torch.inf)
    model(example())
    assert model.guest.fault is None


def test_overflow_of_half_precision_gradients_is_the_scalers() -> None:
    """In float16 a gradient scaler must see infinities, to lower its scale."""
    seed = make(low_rank().half())
    host = torch.randn(4, WIDTH, dtype=torch.float16, requires_grad=True)
    torch.autograd.backward(seed(host), torch.full((4, WIDTH), 6e4, dtype=torch.float16))
    assert seed.body[2].bias.grad.isinf().all()
    assert seed.fault is None


def test_values_may_be_large_in_half_precision() -> None:
    """float16 values whose sum and squares overflow are finite all the same."""
    seed = make(Returns(lambda x: x * 3e4), alpha=1.0)
    host = torch.ones(4, WIDTH, dtype=torch.float16)
    assert bits(seed(host)) == bits(host + 3e4)


@pytest.mark.parametrize("freeze", [False, True])
def test_the_graph_is_let_go(freeze: bool) -> None:
    """After backward nothing holds the call: no tensor is left that only a cycle keeps."""
    model = pair()[0].requires_grad_(not freeze)
    x = example(requires_grad=True)
    out = model(x)
    node = weakref.ref(out.grad_fn.next_functions[1][0].next_functions[0][0])
    assert node() is not None
    gc.disable()
    try:
        torch.autograd.backward(out.sum())
        del out
        assert node() is None
    finally:
        gc.enable()


def test_the_unshielded_wall_finds_what_it_can() -> None:
    """Exceptions, shapes, values and in-place changes are faults without the shield too."""
    for function in (lambda x: x[:1], lambda x: x / 0, lambda x: x.mul_(2), lambda x: 1 / 0):
        seed = make(Returns(function), shielded=False)
        host = torch.randn(4, WIDTH, requires_grad=True)
        assert seed(host) is host
        assert seed.fault is not None


@both
def test_a_body_without_a_graph_makes_none(shielded: bool) -> None:
    """Where nothing asks for a gradient the output has none, though parameters are trainable."""
    seed = make(Returns(lambda x: x.detach() * 2), shielded=shielded)
    assert not seed(torch.randn(4, WIDTH)).requires_grad
    host = torch.randn(4, WIDTH, requires_grad=True)
    torch.autograd.backward(seed(host).sum())
    assert torch.equal(host.grad, torch.ones(4, WIDTH))
    assert seed.body.weight.grad is None


@both
def test_what_a_call_holds_is_let_go_by_its_backward(shielded: bool) -> None:
    """As torch frees what a graph has saved, though the output itself is still held."""
    seen: list[Any] = []
    body = Returns(lambda x: (seen.append(weakref.ref(x)), x * 2)[1])
    host = torch.randn(4, WIDTH, requires_grad=True)
    out = make(body, shielded=shielded)(host)
    assert seen[0]() is not None
    torch.autograd.backward(out.sum())
    assert seen[0]() is None
    assert out.requires_grad


def test_alpha_may_move_between_forward_and_backward() -> None:
    """The gradient is that of the alpha which the call has used."""
    seed = make(Returns(torch.clone), alpha=0.25)
    host = torch.randn(4, WIDTH, requires_grad=True)
    out = seed(host)
    seed.blend(1.0)
    torch.autograd.backward(out.sum())
    assert seed.fault is None
    assert torch.equal(host.grad, torch.full((4, WIDTH), 1.25))


def test_the_first_fault_is_the_one_that_is_told() -> None:
    """What goes wrong in the wake of a fault does not hide it."""
    seed = make(Raises())
    seed(torch.randn(4, WIDTH))
    seed.fail("another")
    assert seed.fault == "ValueError: no luck today"
