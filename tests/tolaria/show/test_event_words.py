"""Every event in words: one line, whatever anybody put into it."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from tests.leyline.examples import messages
from tolaria.show.event_words import event_words

KINDS = get_args(leyline.Event)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_event_is_one_line_that_steers_no_terminal(
    kind: type[leyline.Message], data: st.DataObject
) -> None:
    """Hostile names, huge numbers and stages that do not exist fail nothing and print as text."""
    words = event_words(data.draw(messages(kind)))
    assert words == "" or words.isprintable()


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            leyline.SeedReport(
                epoch=2,
                seed="a/0",
                site="a",
                blueprint="conv",
                was=2,
                now=3,
                parameters=9,
                alpha=0.25,
                cause="won",
            ),
            "a/0 conv training -> grafting at alpha 0.25: won",
        ),
        (
            leyline.SeedReport(
                epoch=2,
                seed="a/0",
                site="a",
                blueprint="conv",
                was=2,
                now=2,
                parameters=9,
                alpha=0.0,
                cause="",
                refused="too early",
            ),
            "a/0 stays training, refused: too early",
        ),
        (
            leyline.Fault(epoch=1, step=5, where="disk", what="full", action="went on"),
            "disk: full -> went on",
        ),
        (leyline.StepMetrics(step=1234, loss=0.5), "step 1,234  loss 0.5"),
        (leyline.DropsCounted(dropped_by_type={"StepMetrics": 3}), "dropped so far: 3 StepMetrics"),
        (
            leyline.Decision(epoch=4, policy="p", cause="hold: patience", late=True),
            "hold: patience (too late, discarded)",
        ),
    ],
)
def test_what_is_said(event: leyline.Event, words: str) -> None:
    """The figures and the reason, in the words that the other displays use."""
    assert event_words(event) == words
