"""A seed's story: whatever a run's events tell of a life is told, and nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from leyline import Stage
from tests.tolaria.show.events import a_run
from tests.tolaria.show.made_up_lives import SEED, MadeUp, made_up_lives
from tolaria.show.story import Story, stories, story_of
from tolaria.show.story_words import headline_of, tell
from tolaria.show.told import story_dict
from tolaria.show.view import RunView


def view_of(events: list[leyline.Event]) -> RunView:
    view = RunView()
    for event in events:
        view.apply(event)
    return view


def text(story: Story) -> str:
    return " ".join(sentence for chapter in tell(story) for sentence in chapter.sentences)


@settings(max_examples=100, deadline=None)
@given(made_up_lives())
def test_every_fact_of_a_legal_life_is_told(made: tuple[list[leyline.Event], list[MadeUp]]) -> None:
    """Along any legal path, each life's story names its blueprint, site, race with gain and rank,
    graft, counterfactual, verdict, metrics, end, its cause and the embargo."""
    events, lives = made
    told = stories(view_of(events), SEED)
    assert len(told) == len(lives)
    for story, life in zip(told, lives, strict=True):
        said = text(story)
        missing = [fact for fact in life.facts if fact not in said]
        assert not missing, f"{missing} in {said}"


@settings(max_examples=50, deadline=None)
@given(made_up_lives(), st.randoms(use_true_random=False))
def test_a_part_of_a_run_is_told_too(
    made: tuple[list[leyline.Event], list[MadeUp]], rng: random.Random
) -> None:
    """With any events missing and in any order nothing raises, in words and as plain values."""
    events = [event for event in made[0] if rng.random() < 0.7]
    rng.shuffle(events)
    view = view_of(events)
    for life in view.seeds:
        story = story_of(view, life)
        assert headline_of(story).isprintable()
        assert text(story).isprintable()
        assert story_dict(story)["seed"] == life.seed


@pytest.fixture(scope="module")
def view() -> RunView:
    return view_of(a_run())


def story(view: RunView, stage: Stage) -> Story:
    """The story of the first life that ended in a stage."""
    return story_of(view, next(life for life in view.seeds if life.stage == stage))


def test_a_winner_s_story(view: RunView) -> None:
    """Its place, cost, race, ramp, verdict, and where it is now, in the order they happened."""
    fossil = story(view, Stage.FOSSILIZED)
    chapters = {chapter.heading: " ".join(chapter.sentences) for chapter in tell(fossil)}
    assert list(chapters) == ["what", "race", "graft", "verdict", "outcome", "now"]
    assert "place 2 of the site block2, whose output has 32 channels" in chapters["what"]
    assert "1,444 parameters (4.99 % of the host's 28,938)" in chapters["what"]
    assert "in a race of 15 candidates at 3 sites" in chapters["race"]
    assert "+0.0253 +- 0.0033, number 1 of 15; more than +0.0080 was needed" in chapters["race"]
    assert "Alpha rose to 1 in 4 epochs" in chapters["graft"]
    assert "0.0410 +- 0.0060 higher (6.8 standard errors)" in chapters["verdict"]
    assert "part of the network for good" in chapters["now"]


def test_a_loser_s_story_names_who_won(view: RunView) -> None:
    """Why it lost, and the winner with its gain; nothing of a graft that there was not."""
    chapters = {c.heading: " ".join(c.sentences) for c in tell(story(view, Stage.CANCELLED))}
    assert list(chapters) == ["what", "race", "now"]
    assert "It was not chosen after epoch 4: lost its race." in chapters["race"]
    assert (
        "The winner was low_rank at block2 (block2/2), with +0.0253 +- 0.0033" in chapters["race"]
    )
    assert "before it touched the network" in chapters["now"]


def test_a_culled_seed_s_story_says_why_and_until_when(view: RunView) -> None:
    """The cause of the cull and the epoch at which its place is free again."""
    culled = story(view, Stage.CULLED)
    said = text(culled)
    assert "0.0060 +- 0.0020 lower" in said
    assert "Culled after epoch 23: without it the loss is lower" in said
    assert culled.embargo_until == 28
    assert "Its place and blueprint stayed empty until epoch 28." in said


def test_only_the_best_of_a_race_are_shown_beside_a_seed(view: RunView) -> None:
    """Five, whoever won, and the seed itself if it is not among them."""
    lost = [story_of(view, life) for life in view.seeds if life.stage == Stage.CANCELLED]
    last = next(s for s in lost if s.race is not None and s.race.rank == len(s.race.scores))
    assert last.race is not None
    shown = last.race.shown
    assert shown[:5] == list(last.race.scores[:5])
    assert shown[5:] == [last.race.mine]
