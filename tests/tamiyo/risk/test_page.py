"""docs/risk.md says what the engine does: its tables hold the thresholds and the levels."""

from __future__ import annotations

import re
from pathlib import Path

from leyline import RiskLevel
from tamiyo.risk.allowance import ALLOWANCES
from tamiyo.risk.rules import RiskRules

PAGE = (Path(__file__).parents[3] / "docs" / "risk.md").read_text(encoding="utf-8")
RULES = RiskRules()


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of each row of the table that begins so, by the row's first cell."""
    lines = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: cells for first, *cells in table}


def numbers(cells: list[str]) -> list[float]:
    """The first number of every cell that begins with one."""
    found = [re.match(r"(?:above )?([0-9.]+)", cell) for cell in cells]
    return [float(number[1]) for number in found if number]


def test_every_threshold_is_in_the_table() -> None:
    """Row by row, in the columns' order."""
    signals = {re.split(r",|\[\^", signal)[0]: cells for signal, cells in rows("signal").items()}
    table = {signal: numbers(cells) for signal, cells in signals.items()}
    assert table == {
        "finite losses": [RULES.outliers_yellow],
        "values that are not finite and made the run go back": [1],
        "rollbacks": [RULES.rollbacks_orange, 1],
        "gradient norm": [RULES.gradient_yellow, RULES.gradient_orange],
        "variance of the gradient norm": [RULES.variance_yellow, RULES.variance_orange],
        "memory in use": [RULES.memory_yellow, 1, 1],
        "boundaries in a row over their 18 ms": [RULES.overruns_yellow],
        "breakers of policy": [1, RULES.breakers_orange],
        "the breaker of checkpoints is open": [],
    }
    assert f"above 1 at {RULES.memory_boundaries_critical} boundaries in a row" in PAGE
    assert (RULES.calm_boundaries, RULES.window_boundaries) == (2, 10), "as the sentences say"


def test_every_level_is_in_the_table() -> None:
    """With what it does to alpha, to planting and to seeds that settle."""
    speeds = {"as their ramp says": 1, "at half speed": 2, "stands still": 0}
    told = {
        level: (speeds[alpha.partition(":")[0]], plants.startswith("yes"), moves == "yes")
        for level, (alpha, plants, moves, _) in rows("level").items()
    }
    assert told == {level.name: tuple(ALLOWANCES[level]) for level in RiskLevel}
