"""A seed's story as the terminal shows it, and as plain values that JSON can hold."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tolaria.show.phrases import clean, life_name
from tolaria.show.plain import seed_dict, without_nan
from tolaria.show.scores import scores_table
from tolaria.show.story import Story
from tolaria.show.story_words import tell


def told(story: Story) -> RenderableType:
    """A life, chapter by chapter, as wide as the terminal."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for chapter in tell(story):
        grid.add_row(chapter.heading, Text(" ".join(chapter.sentences)))
        if chapter.heading == "race" and story.race is not None and len(story.race.scores) > 1:
            grid.add_row("", scores_table(story.race.shown, story.race.mine))
    life = story.life
    title = Text.assemble((life_name(life), "bold"), f"  {clean(life.blueprint)}")
    return Group(title, grid)


def story_dict(story: Story) -> dict[str, Any]:
    """All that is known of one life, with the sentences that tell it."""
    life, race = story.life, story.race
    fields = seed_dict(life) | {
        "site_shape": list(story.site.shape) if story.site else [],
        "flops": story.flops,
        "step_cost": story.step_cost,
        "planted_epoch": story.planted.epoch if story.planted else None,
        "race": race
        and {
            "epoch": race.decision.epoch,
            "cause": race.decision.cause,
            "rank": race.rank,
            "scores": [msgspec.structs.asdict(score) for score in race.scores],
        },
        "grafted_epoch": story.grafted,
        "alphas": {str(epoch): alpha for epoch, alpha in story.alphas.items()},
        "transitions": [msgspec.structs.asdict(report) for report in life.transitions],
        "field_reports": [msgspec.structs.asdict(report) for report in story.field_reports],
        "refusals": [msgspec.structs.asdict(report) for report in story.refusals],
        "faults": [msgspec.structs.asdict(fault) for fault in story.faults],
        "embargo_until": story.embargo_until,
        "told": {chapter.heading: chapter.sentences for chapter in tell(story)},
    }
    plain: dict[str, Any] = without_nan(fields)
    return plain
