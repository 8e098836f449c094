"""A grafted seed: one blueprint's module, blended into its site by alpha."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from kasmina.guard import contain, fault_of
from kasmina.rng import derive_rng_seed
from kasmina.sites.shape import SiteShape
from kasmina.slots.description import read_seed_state, to_tensor
from kasmina.slots.finite_check import FiniteCheck
from kasmina.slots.shield import Shield
from kasmina.slots.wall import extend, pass_by


class GraftedSeed(nn.Module):
    """One blueprint's module blended into its site: h + alpha * body(h).

    While inactive (alpha 0) the body is not run at all: 0 * Inf is NaN, and adding 0 * y would
    turn -0.0 into +0.0. Alpha is a 0-dim float32 buffer, so changing it recompiles nothing.

    A body that faults is out from that call on. A forward fault gives the host's output of that
    very call: the run goes on as if alpha had been 0 from there. A backward fault gives the plain
    gradient of that call: its forward has used the seed, so the run goes on as if the seed's part
    of that call had been detached, and alpha 0 from the next. On a device a value that is not
    finite is put aside in the same call and becomes a fault in the next; there the seed's own
    gradients are then zeros rather than None. While the module is traced or compiled there is no
    wall, and under functorch, forward-mode differentiation or tensor subclasses faults are
    contained in the forward pass alone. Float16 gradients are left to the gradient scaler.

    Args:
        body: maps a tensor of `shape` (any batch size) to one of the same shape.
        shape: what the body sees: the site's output, or one chunk of its channels.
        chunk: which of how many equal parts of the site's channels, from 0; (0, 1) is all.
        shielded: whether the body is one that is not trusted. It then gets a copy of its input and
            random streams of its own, and is watched for what it leaves changed. Without, a body
            that changes its input in place under `no_grad` is found, but has changed the host's.
        rng_seed: what a shielded body's random streams come from.
    """

    alpha: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        seed: str,
        blueprint: str,
        shape: SiteShape,
        chunk: tuple[int, int] = (0, 1),
        shielded: bool = True,
        rng_seed: int = 0,
    ):
        super().__init__()
        self.body = body
        self.seed = seed
        self.blueprint = blueprint
        self.shape = shape
        self.chunk = chunk
        self.active = False
        self.fault: str | None = None
        self.is_fault_told = False
        """Whether an event has said why."""
        self.check = FiniteCheck()
        self.shield = Shield(derive_rng_seed(rng_seed, seed, blueprint)) if shielded else None
        self.register_buffer("alpha", torch.zeros(()))

    def describe(self) -> dict[str, Any]:
        """Plain values, for JSON: what a SeedDescription holds, its key apart."""
        return {
            "seed": self.seed,
            "blueprint": self.blueprint,
            "shape": self.shape.to_dict(),
            "chunk": list(self.chunk),
            "active": self.active,
            "trainable": any(p.requires_grad for p in self.parameters()),
        }

    def get_extra_state(self) -> Tensor:
        """Fault and random stream as JSON in a uint8 tensor."""
        shield = self.shield
        state = {
            "fault": self.fault,
            "is_fault_told": self.is_fault_told,
            "stream": None if shield is None else [shield.rng_seed, shield.num_calls],
        }
        return to_tensor(state)

    def set_extra_state(self, state: Any) -> None:
        """Go on from a saved fault and random stream; a fault that is here already stays.

        Raises:
            CheckpointError: the state is damaged; nothing was changed.
        """
        stored = read_seed_state(state, f"seed {self.seed!r}")
        if stored.fault is not None:
            self.fail(stored.fault)
            self.is_fault_told = stored.is_fault_told
        if self.shield is not None and stored.stream is not None:
            self.shield.rng_seed, self.shield.num_calls = stored.stream

    def blend(self, alpha: float) -> None:
        """Set alpha, 0 to 1. A seed that has faulted stays out of the forward pass."""
        self.alpha.fill_(alpha)
        self.active = alpha > 0.0 and self.fault is None

    def fail(self, fault: str) -> None:
        """Take the seed out of every later call; the first fault is the one that is told."""
        self.fault = self.fault or fault
        self.active = False

    def look(self) -> None:
        """Read what a device has found out since the last call."""
        if self.check.seen():
            self.fail("its output or gradient is not finite")

    def forward(self, host: Tensor) -> Tensor:
        """Extend the host's output; a body that faults is out from this call on."""
        if not self.active:
            idle = self.fault is None or torch.compiler.is_compiling()
            return host if idle else pass_by(self, host)
        if torch.compiler.is_compiling() or _is_traced(host):
            return self._plain(host)
        self.look()
        if self.fault is not None:
            return pass_by(self, host)
        grown = extend(self, host) if _is_ordinary(host) else self._guarded(host)
        if isinstance(grown, str):
            self.fail(grown)
            return pass_by(self, host)
        return grown

    def _plain(self, host: Tensor) -> Tensor:
        grown: Tensor = host + (self.alpha * self.body(host)).to(host.dtype)
        return grown

    def _guarded(self, host: Tensor) -> Tensor | str:
        grown = fault_of(self.body, host)
        if isinstance(grown, str):
            return grown
        return contain(lambda: host + (self.alpha * grown).to(host.dtype))


def _is_traced(host: Any) -> bool:
    """Whether the call is recorded rather than run: by jit, by fx, or on fake tensors."""
    keys = torch._C._TorchDispatchModeKey
    return (
        not isinstance(host, Tensor)
        or torch._C._is_tracing()
        or torch._C._get_dispatch_mode(keys.PROXY) is not None
        or torch._C._get_dispatch_mode(keys.FAKE) is not None
        or (host.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def _is_ordinary(host: Tensor) -> bool:
    """Whether an autograd function can stand behind this tensor and values be read from it."""
    return (
        type(host) is Tensor
        and not host.is_nested
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )
