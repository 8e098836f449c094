"""Where a model may grow, where not, and why, as it is said to a reader."""

from __future__ import annotations

from leyline import RunStarted, SitesFound
from tolaria.show.sites import sites_lines, sites_words
from tolaria.show.view import RunView

FOUND = SitesFound(
    epoch=2,
    grows=("a", "b"),
    control=("c",),
    rollout_percentage=60,
    num_refused=11,
    refused={**{f"layer.{n}": "it is never called" for n in range(10)}, "odd": "it returns None"},
)


def test_every_module_is_counted_and_every_reason_said_once() -> None:
    """Long lists of names are cut short and say by how many."""
    first, arm, *reasons = sites_lines(FOUND)
    assert first == (
        "sites: 2 may grow, rollout 60 %, 1 in the control arm; 11 modules cannot carry a seed"
    )
    assert arm == "  control arm: c"
    named = ", ".join(f"layer.{n}" for n in range(8))
    assert reasons == [f"  it is never called: {named} and 2 more", "  it returns None: odd"]


def test_a_full_rollout_speaks_of_no_arms() -> None:
    """At 100 % there is no control arm to name."""
    whole = SitesFound(
        epoch=1, grows=("a",), control=(), rollout_percentage=100, num_refused=1, refused={}
    )
    assert sites_words(whole) == ("1", "1 module cannot carry a seed")


def test_a_resumed_view_forgets_a_survey_that_happens_anew() -> None:
    """A run that goes on from before the survey has none; one from after it keeps it."""
    for epoch, kept in ((1, None), (2, FOUND), (5, FOUND)):
        view = RunView()
        view.apply(FOUND)
        resumed = {"num_epochs": 9, "host_parameters": 1, "model": "M", "resumed": True}
        view.apply(RunStarted(run_id="run", epoch=epoch, **resumed))
        assert view.sites == kept
