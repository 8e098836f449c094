"""The risk engine: one level for a run, which rises at once and falls step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from leyline import RiskLevel
from tamiyo.risk.grounds import grounds_of_chance, grounds_of_run
from tamiyo.risk.rules import RiskRules
from tamiyo.risk.signals import Signals
from tamiyo.risk.usual import Usual

_MAX_CAUSES: Final = 4


@dataclass(frozen=True)
class Assessment:
    """What one boundary came to."""

    level: RiskLevel
    """What holds from here on."""
    was: RiskLevel
    """What held before."""
    causes: tuple[str, ...]
    """Why, the worst first; none at GREEN unless the level has just fallen to it."""
    by_chance: RiskLevel = RiskLevel.GREEN
    """What time, memory and disks alone came to: a resumed run must be told of it."""
    ends_run: bool = False
    """Whether this boundary's own signals are critical, not only the level that is left of them."""


class RiskEngine:
    """Judges boundary by boundary. The same signals from the same state give the same level.

    The level rises at once to what the signals say. It falls by one after `calm_boundaries` in a
    row whose signals say less than the level.
    """

    def __init__(self, rules: RiskRules | None = None):
        self._rules = rules if rules is not None else RiskRules()
        self.level = RiskLevel.GREEN
        """What holds now."""
        self.pace = RiskLevel.GREEN
        """What alpha goes by: the level as it would be without what slows nothing."""
        self._num_calm_pace = 0
        self._causes: tuple[str, ...] = ()
        self._num_calm = 0
        self._rollbacks: deque[int] = deque(maxlen=self._rules.window_boundaries)
        self._norm = Usual(self._rules.gradient_yellow)
        self._variance = Usual(self._rules.variance_yellow)

    def assess(self, signals: Signals) -> Assessment:
        """Take one boundary's signals."""
        self._rollbacks.append(signals.num_rollbacks)
        chance = grounds_of_chance(signals.chance, self._rules)
        found = chance + grounds_of_run(
            signals,
            self._rules,
            num_lately=sum(self._rollbacks),
            norm_times=self._norm.take(signals.gradient_norm),
            variance_times=self._variance.take(signals.gradient_variance),
        )
        found.sort(key=lambda ground: ground.level, reverse=True)  # stable: chance stays in front
        worst = found[0].level if found else RiskLevel.GREEN
        was = self.level
        self._set_pace(next((g.level for g in found if g.slows), RiskLevel.GREEN))
        if worst >= was:
            self.level, self._num_calm = worst, 0
            self._causes = tuple(ground.why for ground in found[:_MAX_CAUSES])
            causes = self._causes
        else:
            causes = self._calm_down()
        return Assessment(
            level=self.level,
            was=was,
            causes=causes,
            by_chance=max((ground.level for ground in chance), default=RiskLevel.GREEN),
            ends_run=worst is RiskLevel.CRITICAL,
        )

    def _calm_down(self) -> tuple[str, ...]:
        """One more boundary that says less than the level; why the level is what it is then."""
        self._num_calm += 1
        asked = self._rules.calm_boundaries
        calm = f"calm for {self._num_calm} of {asked} boundaries"
        if self._num_calm >= asked:
            self.level, self._num_calm = RiskLevel(self.level - 1), 0
            if not self.level:
                self._causes = ()
        return (*self._causes, calm)

    def _set_pace(self, worst: RiskLevel) -> None:
        """As the level, which rises at once and falls step by step."""
        self._num_calm_pace = 0 if worst >= self.pace else self._num_calm_pace + 1
        self.pace = max(worst, self.pace)
        if self._num_calm_pace >= self._rules.calm_boundaries:
            self.pace, self._num_calm_pace = RiskLevel(self.pace - 1), 0

    def state_dict(self) -> dict[str, Any]:
        """Everything the next level depends on besides the signals, as plain values."""
        return {
            "level": int(self.level),
            "pace": int(self.pace),
            "num_calm_pace": self._num_calm_pace,
            "causes": list(self._causes),
            "num_calm": self._num_calm,
            "rollbacks": list(self._rollbacks),
            "norm": self._norm.state_dict(),
            "variance": self._variance.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.level, self.pace = RiskLevel(state["level"]), RiskLevel(state["pace"])
        self._num_calm_pace = state["num_calm_pace"]
        self._causes, self._num_calm = tuple(state["causes"]), state["num_calm"]
        self._rollbacks.clear()
        self._rollbacks.extend(state["rollbacks"])
        self._norm.load_state_dict(state["norm"])
        self._variance.load_state_dict(state["variance"])
