"""Late numbers: read from a GPU one step after they were made, so that no step waits for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class LateNumbers:
    """Takes one step's numbers and gives the newest that can be read without waiting.

    On the CPU these are the same step's, elsewhere always the step before's: which step is read
    never depends on timing, so a resumed run reads the same.
    """

    def __init__(self) -> None:
        self._values: dict[str, float] | None = None
        self._copies: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def exchange(self, newest: Mapping[str, Tensor]) -> dict[str, float]:
        """Hand in 0-dim tensors by name; empty before there is anything to be read."""
        if all(number.device.type == "cpu" for number in newest.values()):
            return {name: float(number) for name, number in newest.items()}
        ready = self.wait()
        self._values = None
        self._copies = {}
        for name, number in newest.items():
            pinned = torch.empty((), dtype=number.dtype, pin_memory=True)
            self._copies[name] = pinned.copy_(number, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch's own
        self._copied.record()
        return ready

    def wait(self) -> dict[str, float]:
        """The numbers handed in last: by now, a step later, their copies have long arrived."""
        if self._values is None:
            if self._copied is not None:
                self._copied.synchronize()
            self._values = {name: float(copy) for name, copy in self._copies.items()}
        return self._values

    def load(self, values: Mapping[str, float]) -> None:
        """Let these be the numbers handed in last."""
        self._values, self._copies, self._copied = dict(values), {}, None
