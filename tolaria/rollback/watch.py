"""The watch: every trigger of a run, asked after each step and at each boundary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from tamiyo.risk.engine import Assessment, RiskEngine
from tamiyo.risk.rules import RiskRules
from tolaria.config import EsperConfig
from tolaria.monitor import better_sign
from tolaria.resume.replay import Replay
from tolaria.rollback.chance import ChanceWatch
from tolaria.rollback.loss_watch import LossWatch
from tolaria.rollback.triggers import MemoryLimit, NonFinite, Spike


class Broken(NamedTuple):
    """What is wrong with a run."""

    where: str
    """The trigger, in one word."""
    what: str
    in_one_step: bool = False
    """Whether it is the last step that did it, so that undoing that one step is enough."""
    is_finite: bool = True
    """Whether no more than a finite value, memory or a request says so."""


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
        self.chance = ChanceWatch()
        self.risk = RiskEngine(RiskRules(rollbacks_critical=config.max_rollbacks))
        """How near the run is to harm. It does not go back with the run."""
        self.ends_for: tuple[str, ...] = ()
        """Why the run is to end once the epoch has; empty if it is not."""
        self.num_rollbacks = self.num_non_finite = 0
        """Since the last boundary: times the run went back, and those for what is not finite."""
        self.lag = 0
        """Steps by which the loss seen last is late: 1 on a device, else 0."""

    def replay(self, replay: Replay) -> None:
        """Answer as the run that is resumed did where its state alone does not tell."""
        self.memory.replay(frozenset(replay.short_of_memory), replay.last_epoch)
        self.chance.replay(replay.risk, replay.last_epoch)

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
                return Broken("loss", what, in_one_step=True, is_finite=False)
            if (what := self._spike("loss", loss, blamable)) is not None:
                return Broken("loss", what)
        norm = None if grad_norm is None else self._norms.observe(grad_norm)
        if norm is None or (scaled and not math.isfinite(norm)):
            return None
        if (what := self._bad_norm.see(norm)) is not None:
            return Broken("gradient", what, in_one_step=True, is_finite=False)
        what = self._spike("gradient", norm, blamable)
        return None if what is None else Broken("gradient", what)

    def at_boundary(
        self, epoch: int, metrics: Mapping[str, float], *, blamable: bool
    ) -> Broken | None:
        """What is wrong at an epoch's end, or None: the last loss, the metric, the memory."""
        last = self._losses.last()
        if last is not None and (what := self._bad_loss.see(last)) is not None:
            return Broken("loss", what, is_finite=False)
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
            return Broken("validation", what, is_finite=value is None or math.isfinite(value))
        what = self.memory.see(epoch) if blamable else None
        return None if what is None else Broken("memory", what)

    def _spike(self, name: str, value: float, blamable: bool) -> str | None:
        spike = self._spikes[name]
        what = spike.see(value)
        if what is None or blamable:
            return what
        spike.forget()
        return None

    # --- for the level of risk ---------------------------------------------------------------

    def note_rollback(self, broken: Broken) -> None:
        """The run has gone back, by more than a single guarded step."""
        self.num_rollbacks += 1
        self.num_non_finite += not broken.is_finite
        if broken.where == "memory":
            self.memory.note_rollback()

    def counts(self) -> dict[str, int]:
        """What has happened since the last boundary, by the names of the fields of Signals."""
        return {
            "num_outliers": sum(spike.num_outliers for spike in self._spikes.values()),
            "num_spikes": sum(spike.num_spikes for spike in self._spikes.values()),
            "num_rollbacks": self.num_rollbacks,
            "num_non_finite": self.num_non_finite,
        }

    def passed_boundary(self, risk: Assessment) -> None:
        """Count from here on; end the run with the epoch if this boundary was critical."""
        self.ends_for = risk.causes if risk.ends_run else self.ends_for
        self.num_rollbacks = self.num_non_finite = 0
        for spike in self._spikes.values():
            spike.num_outliers = spike.num_spikes = 0

    def gradient(self) -> tuple[float, float] | None:
        """Median and variance of the last usual gradient norms, if they are told."""
        return self._spikes["gradient"].usual()

    # --- resuming ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What the next answers depend on."""
        spikes = {name: spike.state_dict() for name, spike in self._spikes.items()}
        return {
            **spikes,
            "metric_was_finite": self._metric_was_finite,
            "num_rollbacks": self.num_rollbacks,
            "num_non_finite": self.num_non_finite,
            "risk": self.risk.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; a trigger that it says nothing of begins anew."""
        self._metric_was_finite = state.get("metric_was_finite", False)
        self.num_rollbacks = state.get("num_rollbacks", 0)
        self.num_non_finite = state.get("num_non_finite", 0)
        if "risk" in state:
            self.risk.load_state_dict(state["risk"])
        for name, spike in self._spikes.items():
            if name in state:
                spike.load_state_dict(state[name])
