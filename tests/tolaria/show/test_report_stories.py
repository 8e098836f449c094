"""The report tells the life of every seed that touched the network, as `esper explain` does."""

from __future__ import annotations

import msgspec
import pytest

import leyline
from tests.tolaria.show.events import a_run
from tests.tolaria.show.test_report import of_class, parsed
from tolaria.show.report.page import render
from tolaria.show.report.scores import scores_table
from tolaria.show.scores import costs_decided
from tolaria.show.story import story_of
from tolaria.show.story_words import headline_of, tell
from tolaria.show.view import RunView


@pytest.fixture(scope="module")
def view() -> RunView:
    folded = RunView()
    for event in a_run():
        folded.apply(event)
    return folded


def test_each_grafted_seed_has_its_story_folded_up(view: RunView) -> None:
    """One collapsed section for each of the three, whose headline and sentences are those of
    `esper explain`, with the scores of its race."""
    sections = of_class(parsed(render(view)), "story")
    lives = [life for life in view.seeds if life.touched_host]
    assert len(sections) == len(lives) == 3
    for section, life in zip(sections, lives, strict=True):
        story = story_of(view, life)
        assert section.get("open") is None
        said = "".join(section.itertext())
        assert headline_of(story).replace("+-", "\u00b1") in said
        for chapter in tell(story):
            for sentence in chapter.sentences:
                assert sentence.replace("+-", "\u00b1") in said
        assert len(of_class(section, "chosen")) == 1


def scores(**costs: float) -> list[leyline.Score]:
    """Two candidates of which the one with the smaller gain was chosen."""
    first = leyline.Score(
        seed="a/0",
        site="a",
        blueprint="conv",
        parameters=10,
        gain=0.5,
        gain_error=0.1,
        threshold=0.1,
        steps=9,
        chosen=True,
    )
    second = msgspec.structs.replace(first, seed="b/0", gain=0.6, chosen=False)
    return [msgspec.structs.replace(first, **costs), second]


def test_costs_have_columns_where_they_tell_something() -> None:
    """A value that is not the gain, and work that is known; else neither is in the table."""
    plain = scores_table(scores())
    assert "value" not in plain
    assert "work" not in plain
    costly = scores_table(scores(value=0.45, step_cost=0.125))
    assert ">value</th>" in costly
    assert ">+0.4500</td>" in costly
    assert ">+12.5 %</td>" in costly


def test_costs_decided_where_a_better_gain_was_passed_over() -> None:
    """Then, and only then, the terminal's narrow table has them too."""
    first, second = scores()
    assert costs_decided([first, second])
    assert not costs_decided([first, msgspec.structs.replace(second, gain=0.4)])
    assert not costs_decided([msgspec.structs.replace(first, chosen=False), second])


def test_what_comes_next_is_beside_the_decision(view: RunView) -> None:
    """A policy that says what its next step is has it in the table of decisions."""
    shown = RunView()
    decision = leyline.Decision(epoch=1, policy="p", cause="why", next_step="a race in 2 epochs")
    shown.apply(decision)
    assert "then: a race in 2 epochs" in "".join(parsed(render(shown)).itertext())
