"""The watch: every trigger of a run, asked after each step and at each boundary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from tolaria.config import EsperConfig
from tolaria.resume.occasion import better_sign
from tolaria.rollback.loss_watch import LossWatch
from tolaria.rollback.triggers import MemoryLimit, NonFinite, Spike


class Broken(NamedTuple):
    """What is wrong with a run."""

    where: str
    """The trigger, in one word."""
    what: str
    in_one_step: bool = False
    """Whether it is the last step that did it, so that undoing that one step is enough."""


class Watch:
    """Looks at a run. A finite value only counts while there is a seed to blame.

    A run in which nothing has been grafted lately is the user's own: whatever its loss does, as
    long as it is a number, it is not rolled back.
    """

    def __init__(self, config: EsperConfig):
        deviations = config.spike_deviations
        at_once = config.guard_every_step
        self._monitor = config.monitor
        self._less_is_better = better_sign(config.monitor, config.monitor_mode) < 0
        self._losses = LossWatch(at_once=at_once)
        self._norms = LossWatch("grad_norm", at_once=at_once)
        self._bad_loss, self._bad_norm = NonFinite("loss"), NonFinite("the gradient's norm")
        self._bad_metric = NonFinite(config.monitor)
        self._spikes = {
            "loss": Spike("loss", deviations),
            "gradient": Spike("the gradient's norm", deviations),
            "validation": Spike(
                config.monitor, deviations, window=16, needed=5, in_a_row=1, times_first=1.0
            ),
        }
        self._metric_was_finite = False
        self.memory = MemoryLimit(config.memory_limit_bytes)
        self.lag = 0
        """Steps by which the loss seen last is late: 1 on a device, else 0."""

    def loss(self, loss: Tensor | float | None) -> float | None:
        """Take a step's loss; the newest one that can be read, if any.

        Raises:
            ConfigError: it is not one number.
        """
        value = self._losses.observe(loss)
        self.lag = int(self._losses.has_pending)
        return value

    def after_step(
        self, loss: float | None, grad_norm: Tensor | float | None, *, blamable: bool, scaled: bool
    ) -> Broken | None:
        """What is wrong after a step, or None.

        Args:
            loss: as `loss` has returned it.
            blamable: whether there is a seed to blame.
            scaled: whether a gradient scaler skips the steps whose gradient is not finite.
        """
        if loss is not None:
            if (what := self._bad_loss.see(loss)) is not None:
                return Broken("loss", what, in_one_step=True)
            if (what := self._spike("loss", loss, blamable)) is not None:
                return Broken("loss", what)
        norm = None if grad_norm is None else self._norms.observe(grad_norm)
        if norm is None or (scaled and not math.isfinite(norm)):
            return None
        if (what := self._bad_norm.see(norm)) is not None:
            return Broken("gradient", what, in_one_step=True)
        what = self._spike("gradient", norm, blamable)
        return None if what is None else Broken("gradient", what)

    def at_boundary(
        self, epoch: int, metrics: Mapping[str, float], *, blamable: bool
    ) -> Broken | None:
        """What is wrong at an epoch's end, or None: the last loss, the metric, the memory."""
        last = self._losses.last()
        if last is not None and (what := self._bad_loss.see(last)) is not None:
            return Broken("loss", what)
        value = metrics.get(self._monitor)
        if value is not None and not math.isfinite(value):
            # The user's own business, unless a seed may have done it.
            blames = blamable and self._metric_was_finite
            what = self._bad_metric.see(value) if blames else None
        elif value is not None and self._less_is_better:
            what = self._spike("validation", value, blamable)
        else:
            what = None
        if value is not None and what is None:
            self._metric_was_finite = math.isfinite(value)
        if what is not None:
            return Broken("validation", what)
        what = self.memory.see(epoch) if blamable else None
        return None if what is None else Broken("memory", what)

    def _spike(self, name: str, value: float, blamable: bool) -> str | None:
        spike = self._spikes[name]
        what = spike.see(value)
        if what is None or blamable:
            return what
        spike.forget()
        return None

    def state_dict(self) -> dict[str, Any]:
        """What the next answers depend on."""
        spikes = {name: spike.state_dict() for name, spike in self._spikes.items()}
        return {**spikes, "metric_was_finite": self._metric_was_finite}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; a trigger that it says nothing of begins anew."""
        self._metric_was_finite = state.get("metric_was_finite", False)
        for name, spike in self._spikes.items():
            if name in state:
                spike.load_state_dict(state[name])
