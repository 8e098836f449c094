"""The loss watch: a number of every step, such as its loss, without making a GPU wait."""

from __future__ import annotations

from typing import SupportsFloat

from torch import Tensor

from leyline import ConfigError


class LossWatch:
    """Reads losses; that of a device is read when the next one arrives.

    Args:
        what: the number's name.
        at_once: wait for a device instead.
    """

    def __init__(self, what: str = "loss", *, at_once: bool = False) -> None:
        self._what = what
        self._at_once = at_once
        self._pending: Tensor | None = None

    def observe(self, loss: Tensor | float | None) -> float | None:
        """Take this step's loss; returns the newest one that can be read, None if there is none.

        Raises:
            ConfigError: it is not one number.
        """
        if loss is None:
            return None
        if isinstance(loss, Tensor) and loss.numel() == 1 and not loss.is_complex():
            if self._at_once or loss.is_cpu:
                return float(loss.item())
            ready, self._pending = self._pending, loss.detach().clone()
            return None if ready is None else float(ready)
        if isinstance(loss, Tensor) or not isinstance(loss, SupportsFloat):
            what = type(loss).__name__
            if isinstance(loss, Tensor):
                kind = "complex tensor" if loss.is_complex() else "tensor"
                what = f"{kind} of shape {tuple(loss.shape)}"
            raise ConfigError(f"{self._what} is a {what}; give one number, such as its mean")
        return float(loss)

    @property
    def has_pending(self) -> bool:
        """Whether the newest loss is still to be read."""
        return self._pending is not None

    def last(self) -> float | None:
        """The loss that is still to be read, if any: waits for the device."""
        ready, self._pending = self._pending, None
        return None if ready is None else float(ready)
