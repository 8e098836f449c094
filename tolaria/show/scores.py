"""The scores of a race on the terminal: what each candidate brought, needed and costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from leyline import Score
from tolaria.show.lives import Gain
from tolaria.show.phrases import clean, gain_words, work_words

_NUM_SCORES: Final = 10
"""Candidates a score table lists; the rest are counted."""
_FIGURES: Final[dict[str, Callable[[Score], str]]] = {
    "gain": lambda score: gain_words(Gain(score.gain, score.gain_error)),
    "needed": lambda score: gain_words(Gain(score.threshold)),
    "value": lambda score: gain_words(Gain(score.value)),
    "steps": lambda score: f"{score.steps:,}",
    "params": lambda score: f"{score.parameters:,}",
    "work": lambda score: work_words(score.step_cost),
}
"""Columns of figures, in order."""


def scores_table(scores: Sequence[Score], of: Score | None = None) -> Table:
    """The best candidates of a race, what was asked of each, and a star for those chosen.

    Args:
        scores: of all candidates, or of those to show.
        of: the one that the table is about, which gets an arrow.
    """
    table = plain_table()
    table.add_column("", width=1)
    # Names may be cut where the terminal is narrow, figures never. Not no_wrap: rich would take the
    # same from all columns then.
    for heading in ("site", "blueprint"):
        table.add_column(heading, overflow="ellipsis")
    # There is little room for names beside them.
    left_out = set() if costs_decided(scores) else {"value", "work"}
    if not any(score.step_cost for score in scores):
        left_out.add("work")
    if len({score.steps for score in scores}) == 1:
        left_out.add("steps")
    headings = [heading for heading in _FIGURES if heading not in left_out]
    for heading in headings:
        least = max([len(heading), *(len(_FIGURES[heading](score)) for score in scores)])
        table.add_column(heading, justify="right", no_wrap=True, min_width=least)
    listed = sorted(
        scores, key=lambda score: (not score.chosen, math.isnan(score.gain), -score.gain)
    )
    for score in listed[:_NUM_SCORES]:
        table.add_row(
            "*" if score.chosen else ">" if score is of else "",
            Text(clean(score.site)),
            Text(clean(score.blueprint)),
            *(_FIGURES[heading](score) for heading in headings),
            style="bold" if score.chosen else None,
        )
    if len(listed) > _NUM_SCORES:
        table.add_row("", Text(f"+ {len(listed) - _NUM_SCORES} more", style="dim"))
    return table


def costs_decided(scores: Sequence[Score]) -> bool:
    """Whether a candidate was chosen before one of a better gain, so that costs tell why."""
    chosen = [score.gain for score in scores if score.chosen]
    return any(score.gain > gain for gain in chosen for score in scores if not score.chosen)


def plain_table(gap: int = 2) -> Table:
    """A table without lines."""
    return Table(box=None, header_style="dim", padding=(0, gap, 0, 0), pad_edge=False)
