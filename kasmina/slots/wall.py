"""The wall: one call of a seed's body, of which the host sees its own output or a sound sum.

The body runs on a leaf of its own, with an inner graph that the host's graph does not see. The
host's graph holds one function, whose backward runs the inner one. So an exception or a value that
is not finite, forward or backward, ends at the wall.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from kasmina.guard import contain, fault_of
from kasmina.slots.finite_check import either

if TYPE_CHECKING:
    from kasmina.slots.grafted_seed import GraftedSeed

Grads = list[Tensor | None]


def extend(seed: GraftedSeed, host: Tensor) -> Tensor | str:
    """Run a seed on the host's output.

    Returns:
        host + alpha * body(host), or in words what the body did wrong. A fault in backward is told
        to `seed.fail`; the host's gradient is then what it is without the seed.

    Gradients equal those of the plain expression, bit for bit where the body uses its input once;
    otherwise the sums over its uses are in another order. The seed's own activations are kept
    under activation checkpointing, and a second derivative runs the body anew.
    """
    call = _Call(seed, host)
    out = contain(lambda: call.forward(host))
    if isinstance(out, str) or not call.has_graph:
        return out
    if call.is_empty and not host.requires_grad:
        return out
    call.out = out
    grown: Tensor = _Wall.apply(call, host, *call.parameters)  # type: ignore[no-untyped-call]
    return grown


def pass_by(seed: GraftedSeed, host: Tensor) -> Tensor:
    """The host's output, for a seed that has faulted.

    Activation checkpointing counts what a call saves. It must find the same number when it runs
    the call anew, whether the seed faulted before the call or between the two.
    """
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return host
    call = _Call(seed, host)
    if not call.has_graph:
        return host
    call.out = host.detach().clone()
    out: Tensor = _Wall.apply(call, host, *call.parameters)  # type: ignore[no-untyped-call]
    return out


class _Wall(torch.autograd.Function):
    """The function in the host's graph. Its inputs are the host's output and the parameters."""

    @staticmethod
    def forward(ctx: Any, call: _Call, host: Tensor, *parameters: Tensor) -> Tensor:
        """Put the call's sum into the host's graph."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(host, *parameters)
        # Made outside and no input here: an output that is a view must not be changed in place,
        # as the host's next layer may. Let go of, since it will hold this context.
        out, call.out, ctx.call = call.out, None, call
        assert out is not None
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        """Run the call's own backward."""
        if grad is None:
            return (None,) * (2 + len(ctx.call.parameters))
        if ctx.call.is_empty:
            grads = [grad, *[None] * len(ctx.call.parameters)]
        elif torch.is_grad_enabled():
            grads = ctx.call.backward_again(grad, *ctx.saved_tensors)
        elif ctx.call.is_spent:
            grads = list(ctx.saved_tensors)  # gone too: torch's own error says so
        else:
            grads = ctx.call.backward(grad)
        return None, *grads


class _Call:
    """One call of a seed's body, and what its backward needs."""

    def __init__(self, seed: GraftedSeed, host: Tensor):
        body, shield = seed.body, seed.shield
        self._seed = seed
        self._number = 0 if shield is None else shield.next_call(training=body.training)
        named = {n: p for n, p in body.named_parameters() if p.requires_grad}
        self._names, self.parameters = list(named), list(named.values())
        self.has_graph = torch.is_grad_enabled() and (host.requires_grad or bool(named))
        self._alpha = seed.alpha.clone()  # it may move before backward
        device_type = host.device.type
        self._autocast = (
            device_type,
            torch.get_autocast_dtype(device_type),
            torch.is_autocast_enabled(device_type),
            torch.is_autocast_cache_enabled(),
        )
        self.out: Tensor | None = None
        self._leaf: Tensor | None = None
        self._grown: Tensor | None = None
        self.is_empty = True
        self.is_spent = False

    def forward(self, host: Tensor) -> Tensor | str:
        """The sum, outside every graph, or the fault."""
        seed = self._seed
        outer = host.detach()
        leaf = outer if seed.shield is None else outer.clone()
        leaf.requires_grad_(self.has_graph and host.requires_grad)
        before = _version(leaf)
        with _own_saved_tensors():
            grown = self._run("forward", lambda: fault_of(seed.body, leaf))
            if isinstance(grown, str):
                return grown
            if _version(leaf) != before:
                return "it changes its input in place"
            grown = (self._alpha * grown).to(host.dtype)
        out = outer + grown.detach()
        spoilt = seed.check.spoilt([out], outer)
        if spoilt is True:
            return "its output is not finite, or not once it is blended"
        if self.has_graph:
            self._leaf, self._grown = leaf, grown
            self.is_empty = not grown.requires_grad
        return either(spoilt, outer, out)

    def backward(self, grad: Tensor) -> Grads:
        """Gradients of the host's output and the parameters."""
        keep = torch._C._autograd._get_current_graph_task_keep_graph()
        leaf, grown = self._leaf, self._grown
        assert leaf is not None
        assert grown is not None
        if not keep:
            self._leaf = self._grown = None
            self.is_spent = True
        return self._gradients(grad, grown, [leaf, *self.parameters], keep=keep)

    def backward_again(self, grad: Tensor, host: Tensor, *parameters: Tensor) -> Grads:
        """The same, attached to the host's graph, for a derivative of it: the body runs anew."""
        device_type, dtype, enabled, cached = self._autocast
        body = self._seed.body
        given = host if self._seed.shield is None else host.clone()
        values = dict(zip(self._names, parameters, strict=True))
        autocast = torch.autocast(device_type, dtype, enabled, cached)

        def run() -> Tensor | str:
            """The blended body under the autocast of the call."""
            with autocast:
                grown = fault_of(_Substituted(body, values), given)
            return grown if isinstance(grown, str) else (self._alpha * grown).to(host.dtype)

        grown = self._run("forward", run)
        if isinstance(grown, str):
            self._seed.fail(f"in backward: {grown}")
            return self._without_seed(grad)
        if not grown.requires_grad:
            return self._without_seed(grad)
        return self._gradients(grad, grown, [host, *parameters], keep=True)

    def _gradients(self, grad: Tensor, grown: Tensor, of: Sequence[Tensor], *, keep: bool) -> Grads:
        """The host's own gradient plus the seed's; the former alone if the seed's is spoilt."""
        inputs = [tensor for tensor in of if tensor.requires_grad]
        again = torch.is_grad_enabled()
        with _hooks_aside(self.parameters):
            found = self._run(
                "backward",
                lambda: torch.autograd.grad(
                    grown, inputs, grad, retain_graph=keep, create_graph=again, allow_unused=True
                ),
            )
        if isinstance(found, str):
            self._seed.fail(f"in backward: {found}")
            return self._without_seed(grad)
        spoilt = self._spoilt([each for each in found if each is not None], grad)
        if spoilt is True:
            self._seed.fail("its gradient is not finite")
            return self._without_seed(grad)
        by_input = iter(found)
        grads: Grads = [next(by_input) if tensor.requires_grad else None for tensor in of]
        first, *others = grads
        if first is not None:
            first = either(spoilt, grad, grad + first)
        elif of[0].requires_grad:
            first = grad
        if not isinstance(spoilt, bool):
            others = [g if g is None else either(spoilt, torch.zeros_like(g), g) for g in others]
        return [first, *others]

    def _spoilt(self, values: Sequence[Tensor], grad: Tensor) -> bool | Tensor:
        # In float16 an overflow is the gradient scaler's to find, and under vmap no value is one.
        _, dtype, enabled, _ = self._autocast
        half = torch.float16 in (grad.dtype, dtype if enabled else None)
        if half or not values or _is_batched():
            return False
        return self._seed.check.spoilt(values, grad)

    def _without_seed(self, grad: Tensor) -> Grads:
        return [grad, *[None] * len(self.parameters)]

    def _run(self, part: str, action: Any) -> Any:
        seed = self._seed
        if seed.shield is None:
            return contain(action)
        return seed.shield.run(action, seed.body, self._alpha.device, (part, self._number))


class _Substituted(nn.Module):
    """A body that runs with other tensors in place of its parameters."""

    def __init__(self, body: nn.Module, values: dict[str, Tensor]):
        super().__init__()
        self.__dict__.update(body=body, values=values)

    def forward(self, host: Tensor) -> Any:
        """The body's own."""
        return torch.func.functional_call(self.__dict__["body"], self.__dict__["values"], (host,))


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _is_batched() -> bool:
    """Whether a backward pass runs for many gradients at once, under either kind of vmap."""
    old: bool = torch._C._dispatch_tls_is_dispatch_key_included("VmapMode")
    return old or torch._C._are_functorch_transforms_active()


def _own_saved_tensors() -> Any:
    """Keep the inner graph's tensors from hooks of the outer one.

    Activation checkpointing counts and drops what is saved under its hooks. A seed that faults in
    a recomputation would save another number, and an inner backward would recompute once more.
    """
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return nullcontext()
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


@contextmanager
def _hooks_aside(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Hooks of parameters run when the host's graph reaches them: not in the inner graph too."""
    hooks = [(p._backward_hooks, dict(p._backward_hooks)) for p in parameters if p._backward_hooks]
    for held, _ in hooks:
        held.clear()
    try:
        yield
    finally:
        for held, kept in hooks:
            held.update(kept)
