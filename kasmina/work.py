"""Work: what a forward pass asks of a processor, estimated from counts.

FLOPs alone mislead: a depthwise convolution has few of them and takes long, because what bounds it
is memory, or the calls. A clock would tell better, but no clock may choose what grows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_FLOPS_PER_BYTE: Final = 16
"""FLOPs that take as long as one byte that is read or written; `python -m bench work`."""
_CALL_SIZE_BYTES: Final = 50_000
"""Bytes that take as long as the call of a kernel does."""


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch does not annotate it
    """Counts every kernel that is called; a view moves nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.work = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not func.is_view:
            tensors = [v for v in tree_leaves((args, kwargs, output)) if isinstance(v, Tensor)]
            self.work += _CALL_SIZE_BYTES + sum(t.numel() * t.element_size() for t in tensors)
            count = flop_registry.get(func.overloadpacket)
            if count is not None:
                self.work += count(*args, **kwargs, out_val=output) // _FLOPS_PER_BYTE
        return output


def count_work(action: Callable[[], object]) -> int:
    """Run an action once and estimate its work, in bytes that take as long to move."""
    counter = _Counter()
    with counter:
        action()
    return counter.work
