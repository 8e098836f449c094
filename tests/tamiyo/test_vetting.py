"""Vetting: an answer is read as a decision on this state, or refused in words."""

from __future__ import annotations

import math
from typing import Any

import pytest

import leyline
from leyline import Advance, Cull, Decision, Germinate, PolicyError, Score, Stage
from tamiyo.vetting import vetted
from tests.tamiyo.boundaries import Row, state, tried

AT = state(Row("block2/0"), tried("block1/0", 0.5))
CULL = Cull(seed="block1/0", cause="", embargo_epochs=5)


def vet(**fields: Any) -> Decision:
    given = {"epoch": 20, "policy": "theirs", "cause": "why"}
    return vetted(leyline.encode(Decision(**{**given, **fields})), AT, "mine")


def test_a_sound_answer_is_taken_under_the_registered_name() -> None:
    """Commands and scores, numbers that were not measured among them, pass as they are."""
    score = Score(
        seed="x",
        site="y",
        blueprint="z",
        parameters=1,
        gain=math.nan,
        gain_error=math.inf,
        threshold=0.0,
        steps=0,
        chosen=False,
    )
    plant = Germinate(seed="block3/7", site="block3", blueprint="conv", cause="")
    decision = vet(commands=(CULL, plant), scores=(score,))
    assert decision.policy == "mine"
    assert decision.commands == (CULL, plant)
    assert math.isnan(decision.scores[0].gain)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epoch": 21}, "decided for epoch 21, but epoch 20 ends"),
        ({"late": True}, "set 'late', which is not the policy's to say"),
        ({"undone": "apply"}, "set 'undone'"),
        ({"risk_level": 3}, "set 'risk_level'"),
        ({"risk_causes": ("x",)}, "set 'risk_causes'"),
        ({"risk_by_chance": 1}, "set 'risk_by_chance'"),
        ({"cause": "x" * 20_000}, "a cause of over 10,000 characters"),
        ({"next_step": "x" * 20_000}, "a cause of over 10,000 characters"),
        ({"commands": (CULL,) * 5000}, "gave 5,000 commands; at most 4,096"),
        ({"commands": (Cull(seed="a/0", cause="", embargo_epochs=1),)}, "no seed 'a/0'"),
        ({"commands": (Cull(seed="block2/0", cause="", embargo_epochs=1),)}, "no seed 'block2/0'"),
        ({"commands": (Advance(seed="a/0", to=3, cause=""),)}, "there is no seed 'a/0'"),
        ({"commands": (Cull(seed="block1/0", cause="", embargo_epochs=-1),)}, "embargo of -1"),
        ({"commands": (Cull(seed="block1/0", cause="", embargo_epochs=2**31),)}, "embargo of 2147"),
        (
            {"commands": (Germinate(seed="a/0", site="a", blueprint="conv", cause=""),)},
            "no candidate is 'conv' at 'a'",
        ),
        (
            {"commands": (Germinate(seed="block1/1", site="block1", blueprint="x", cause=""),)},
            "no candidate is 'x' at 'block1'",
        ),
        ({"cause": None}, "malformed"),
        ({"epoch": "20"}, "malformed"),
        ({"commands": ("cull",)}, "malformed"),
        ({"commands": (Cull(seed="x" * 600, cause="", embargo_epochs=1),)}, "malformed"),
        ({"scores": (1,)}, "malformed"),
    ],
)
def test_nonsense_is_refused_in_words(fields: dict[str, Any], said: str) -> None:
    """Each is refused with what it was."""
    with pytest.raises(PolicyError, match=said):
        vet(**fields)


def test_another_message_is_no_decision() -> None:
    """A message of the contract that is none."""
    with pytest.raises(PolicyError, match="returned a Cull, not a Decision"):
        vetted(leyline.encode(CULL), AT, "mine")


def test_what_the_lifecycle_refuses_is_not_vetted_here() -> None:
    """A command that is only illegal now passes: the executor refuses it alone, with a report."""
    jump = Advance(seed="block1/0", to=int(Stage.FOSSILIZED), cause="")
    assert vet(commands=(jump,)).commands == (jump,)
