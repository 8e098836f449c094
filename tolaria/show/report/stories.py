"""The stories of the seeds that touched the network, each folded up under its headline."""

from __future__ import annotations

from leyline import Stage
from tolaria.show.report.cells import prose
from tolaria.show.report.scores import scores_table
from tolaria.show.report.svg import escape
from tolaria.show.report.timeline import shown
from tolaria.show.story import Story, story_of
from tolaria.show.story_words import headline_of, tell
from tolaria.show.view import RunView


def stories(view: RunView) -> str:
    """What `esper explain` tells of each seed with a strip; empty if there is none."""
    return "".join(_story(story_of(view, life)) for life in shown(view.seeds))


def _story(story: Story) -> str:
    parts = []
    for chapter in tell(story):
        said = "".join(f"<p>{prose(sentence)}</p>" for sentence in chapter.sentences)
        if chapter.heading == "race" and story.race is not None and len(story.race.scores) > 1:
            said += scores_table(story.race.shown, story.race.mine)
        parts.append(f"<dt>{escape(chapter.heading)}</dt><dd>{said}</dd>")
    stage = story.life.stage
    swatch = f'<span class="swatch s{stage.value}"></span>' if stage != Stage.DORMANT else ""
    return (
        f'<details class="story"><summary>{swatch}{prose(headline_of(story))}</summary>'
        f"<dl>{''.join(parts)}</dl></details>"
    )
