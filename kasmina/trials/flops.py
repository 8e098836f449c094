"""FLOPs of matrix products and convolutions, counted by torch; elementwise work is not counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode


def count_flops(action: Callable[[], Any]) -> int:
    """Run an action once and count its FLOPs, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())
