"""The zoo: bodies that do what no blueprint should, each from its call number STRIKE on."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

WIDTH = 8
STRIKE = 3


class Hostile(nn.Module):
    """Behaves, as one linear layer, until it strikes.

    Made tame it never does. With `detached_at`, its output of that call carries no gradient.
    """

    fault: ClassVar[str] = ""
    """What the seed is to report, as a pattern; empty where there is nothing to report."""
    in_backward: ClassVar[bool] = False
    strike_at: ClassVar[int] = STRIKE

    def __init__(self, *, tame: bool = False, detached_at: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.linear = nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.tame = tame
        self.detached_at = detached_at
        self.num_calls = 0

    def forward(self, x: Tensor) -> Any:
        self.num_calls += 1
        if self.num_calls == self.detached_at:
            return self.linear(x).detach()
        if self.num_calls < self.strike_at:
            return self.linear(x)
        return self.behave(x) if self.tame else self.strike(x)

    def strike(self, x: Tensor) -> Any:
        raise NotImplementedError

    def behave(self, x: Tensor) -> Tensor:
        """What `strike` returns where it does no harm, without what it does besides."""
        return self.linear(x)


class Backward(torch.autograd.Function):
    """The identity, whose backward is a function of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Any]) -> Tensor:
        ctx.function = function
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return ctx.function(grad), None


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Strange(Tensor):
    pass


def raises(error: type[BaseException]) -> Callable[..., Any]:
    def strike(*_: Any) -> Any:
        raise error("no luck today\nsecond line")

    return strike


def returns(function: Callable[[Tensor], Any]) -> Callable[..., Any]:
    return lambda self, x: function(self.linear(x))


def first(action: Callable[[], object]) -> Callable[..., Any]:
    """Do something, then behave."""

    def strike(self: Hostile, x: Tensor) -> Tensor:
        action()
        return self.linear(x)

    return strike


def backward(function: Callable[[Tensor], Any]) -> Callable[..., Any]:
    return lambda self, x: Backward.apply(self.linear(x), function)


def at_input(function: Callable[[Tensor], Any]) -> Callable[..., Any]:
    return lambda self, x: self.linear(Backward.apply(x, function))


def draw() -> None:
    torch.rand(3)
    torch.randn(1)
    np.random.rand(3)
    np.random.randn()
    random.random()  # noqa: S311 -- no secret


def drawing(grad: Tensor) -> Tensor:
    draw()
    return grad.clone()


def in_place(self: Hostile, x: Tensor) -> Tensor:
    return self.linear(x.mul_(2))


def in_place_under_no_grad(self: Hostile, x: Tensor) -> Tensor:
    with torch.no_grad():
        x.zero_()
    return self.linear(x)


def through_data(self: Hostile, x: Tensor) -> Tensor:
    y = self.linear(x.clone())
    x.data.zero_()
    return y


def keep_and_spoil_later(self: Any, x: Tensor) -> Tensor:
    if hasattr(self, "kept"):
        self.kept.data.fill_(torch.nan)
    self.kept = x
    return self.linear(x)


def hoard(self: Any, x: Tensor) -> Tensor:
    self.__dict__.setdefault("hoarded", []).append(torch.empty(2**21))
    return self.linear(x)


def hoard_in_closure() -> Callable[..., Any]:
    held: list[Any] = []

    def keep(x: Tensor) -> Tensor:
        held.append({"x": (x, torch.empty(2**21))})
        return x

    def strike(self: Any, x: Tensor) -> Tensor:
        self.keep = keep
        return self.linear(keep(x))

    return strike


def hoard_numbers(self: Any, x: Tensor) -> Tensor:
    self.__dict__.setdefault("hoarded", []).extend(map(float, range(3000)))
    return self.linear(x)


def hook_everything() -> None:
    register_module_forward_hook(lambda module, args, output: output * 2)


def hook_input(self: Hostile, x: Tensor) -> Tensor:
    x.register_hook(raises(ValueError))
    return self.linear(x)


def hook_own_parameter(self: Hostile, x: Tensor) -> Tensor:
    self.linear.weight.register_hook(raises(ValueError))
    return self.linear(x)


def hook_after_accumulation(self: Hostile, x: Tensor) -> Tensor:
    self.linear.weight.register_post_accumulate_grad_hook(raises(ValueError))
    return self.linear(x)


def hook_saved_tensors() -> None:
    torch.autograd.graph.saved_tensors_hooks(lambda x: x, raises(ValueError)).__enter__()


def freeze(self: Hostile, x: Tensor) -> Tensor:
    self.linear.weight.requires_grad_(False)
    return self.linear(x)


def resize(self: Hostile, x: Tensor) -> Tensor:
    y = self.linear(x)
    self.linear.weight.data = torch.zeros(3, 3)
    return y


def delete(self: Hostile, x: Tensor) -> Tensor:
    y = self.linear(x)
    del self.linear.weight
    return y


def add_module(self: Hostile, x: Tensor) -> Tensor:
    self.more = nn.Linear(2, 2)
    return self.linear(x)


def noisy() -> None:
    warnings.warn("noisy", UserWarning, stacklevel=1)


def own_gradients(self: Hostile, x: Tensor) -> Tensor:
    torch.autograd.backward(self.linear(x).sum())
    self.linear.zero_grad()
    return self.linear(x)


FORWARD = {
    "raises": (raises(ValueError), "ValueError: no luck today$"),
    "raises_what_cannot_be_printed": (raises(Unprintable), "^Unprintable$"),
    "memory_error": (raises(MemoryError), "MemoryError: no luck"),
    "device_memory_error": (raises(torch.OutOfMemoryError), "OutOfMemoryError: no luck"),
    "asks_for_too_much_memory": (first(lambda: torch.empty(2**58)), "RuntimeError: "),
    "nothing": (returns(lambda y: None), "returned a NoneType"),
    "tuple": (returns(lambda y: (y,)), "returned a tuple"),
    "text": (returns(lambda y: "all is well"), "returned a str"),
    "strange_tensor": (returns(lambda y: y.as_subclass(Strange)), "returned a Strange"),
    "wrong_shape": (returns(lambda y: y[:, :3]), r"returned shape \(16, 3\) for \(16, 8\)"),
    "would_broadcast": (returns(torch.sum), r"returned shape \(\)"),
    "sparse": (returns(lambda y: y.to_sparse()), "torch.sparse_coo for torch.strided"),
    "double": (returns(lambda y: y.double()), "returned torch.float64"),
    "integers": (returns(lambda y: y.long()), "returned torch.int64"),
    "complex": (returns(lambda y: y.cfloat()), "returned torch.complex64"),
    "wrong_device": (returns(lambda y: y.to("meta")), "on meta"),
    "nan": (returns(lambda y: y * torch.nan), "output is not finite"),
    "one_nan": (returns(lambda y: y.index_fill(0, torch.tensor([3]), torch.nan)), "not finite"),
    "infinity": (returns(lambda y: y / 0), "output is not finite"),
    "overflows_once_blended": (returns(lambda y: y * 0 + 3.4e38), "not once it is blended"),
    "in_place": (in_place, "RuntimeError: a leaf Variable that requires grad"),
    "in_place_under_no_grad": (in_place_under_no_grad, "changes its input in place"),
    "hooks_every_module": (first(hook_everything), "changed the hooks of every module"),
    "hooks_own_parameter": (hook_own_parameter, "changed the hooks of its parameters"),
    "hooks_accumulation": (hook_after_accumulation, "changed the hooks of its parameters"),
    "hooks_saved_tensors": (first(hook_saved_tensors), "changed the hooks of saved tensors"),
    "gradient_mode": (first(lambda: torch._C._set_grad_enabled(False)), "the gradient mode"),
    "default_dtype": (first(lambda: torch.set_default_dtype(torch.float64)), "default dtype"),
    "default_device": (first(lambda: torch.set_default_device("meta")), "default device"),
    "autocast": (first(lambda: torch.set_autocast_enabled("cpu", True)), "changed autocast"),
    "determinism": (first(lambda: torch.use_deterministic_algorithms(True)), "deterministic"),
    "threads": (first(lambda: torch.set_num_threads(2)), "changed the number of threads"),
    "freezes_itself": (freeze, "changed its own parameters"),
    "resizes_itself": (resize, "changed its own parameters"),
    "deletes_its_parameter": (delete, "changed its own parameters"),
    "adds_a_module": (add_module, "changed its own parameters"),
}
HOARDS = {
    "hoards_tensors": (hoard, "keeps .* MiB more than at its first call; 64 MiB are allowed"),
    "hoards_in_a_closure": (hoard_in_closure(), "keeps .* MiB more than at its first call"),
    "hoards_numbers": (hoard_numbers, "keeps over 20000 objects more"),
}
BACKWARD = {
    "raises_in_backward": (backward(raises(ValueError)), "in backward: ValueError: no luck today"),
    "no_memory_in_backward": (backward(raises(MemoryError)), "in backward: MemoryError"),
    "hooks_its_input": (hook_input, "in backward: ValueError"),
    "wrong_shape_in_backward": (backward(lambda g: g[:1, :2]), "in backward: RuntimeError"),
    "nan_gradient": (backward(lambda g: g * torch.nan), "gradient is not finite"),
    "nan_gradient_for_the_host": (at_input(lambda g: g * torch.nan), "gradient is not finite"),
    "huge_gradient": (at_input(lambda g: g * 0 + 1e30), "gradient is not finite"),
    "hooks_modules_in_backward": (
        backward(lambda g: (hook_everything(), g)[1]),
        "changed the hooks of every module",
    ),
    "default_dtype_in_backward": (
        backward(lambda g: (torch.set_default_dtype(torch.float64), g)[1]),
        "changed the default dtype",
    ),
}
HARMLESS = {
    "draws_numbers": first(draw),
    "draws_numbers_in_backward": backward(drawing),
    "sets_the_rng_seed": first(lambda: torch.manual_seed(0)),
    "through_data": through_data,
    "keeps_the_host_and_spoils_it": keep_and_spoil_later,
    "returns_its_input": lambda self, x: x,
    "returns_a_view_of_its_input": lambda self, x: x.t().t(),
    "returns_its_parameter": lambda self, x: self.linear.weight.repeat(2, 1)[: len(x)],
    "spoils_the_gradient_it_is_given": backward(lambda g: g.clone().div_(1)),
    "runs_a_backward_of_its_own": own_gradients,
    "warns": first(noisy),
}
_BEHAVES = {
    "returns_its_input": lambda self, x: x.clone(),
    "returns_a_view_of_its_input": lambda self, x: x.clone(),
    "returns_its_parameter": lambda self, x: torch.cat([self.linear.weight] * 2),
}


def _kinds() -> Iterator[type[Hostile]]:
    for name, (strike, fault) in FORWARD.items():
        yield type(name, (Hostile,), {"strike": strike, "fault": fault})
    for name, (strike, fault) in HOARDS.items():
        yield type(name, (Hostile,), {"strike": strike, "fault": fault, "strike_at": 1})
    for name, (strike, fault) in BACKWARD.items():
        yield type(name, (Hostile,), {"strike": strike, "fault": fault, "in_backward": True})
    for name, strike in HARMLESS.items():
        behave = _BEHAVES.get(name, Hostile.behave)
        yield type(name, (Hostile,), {"strike": strike, "behave": behave})


ZOO = {kind.__name__: kind for kind in _kinds()}
