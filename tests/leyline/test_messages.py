"""The messages: frozen, complete, and the tables about them agree with them."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec
import pytest

import leyline
from leyline import COLUMN_FORMATS, PRIORITIES, Message, Priority, StatePacket
from tests.leyline.examples import MESSAGES

EVENTS = get_args(leyline.Event)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_is_strict(kind: type[Message]) -> None:
    """Every message is frozen, tagged, an array on the wire, and takes no unknown field."""
    config = kind.__struct_config__
    assert config.frozen
    assert config.array_like
    assert config.forbid_unknown_fields
    assert isinstance(config.tag, str)


def test_no_message_is_left_out() -> None:
    """Every message class in the contract can stand alone on the wire, each under its own tag."""
    assert set(Message.__subclasses__()) == set(MESSAGES)
    assert len({kind.__struct_config__.tag for kind in MESSAGES}) == len(MESSAGES)


def test_frozen_and_strict_in_use() -> None:
    """A message cannot be changed, nor built with a field it does not have."""
    step = leyline.StepMetrics(step=1, loss=0.5)
    with pytest.raises(AttributeError):
        step.loss = 0.0  # type: ignore[misc] # the claim
    with pytest.raises(TypeError):
        leyline.StepMetrics(step=1, loss=0.5, seconds=3.0)  # type: ignore[call-arg] # the claim


def test_every_event_has_a_lane() -> None:
    """Every event type has a priority, and nothing else has one."""
    assert set(PRIORITIES) == set(EVENTS)


def test_metrics_are_dropped_before_lifecycle_and_faults() -> None:
    """Steps and state go first when space is short; transitions, faults and a run's ends last."""
    lowest = {kind for kind in EVENTS if PRIORITIES[kind] == min(Priority)}
    highest = {kind for kind in EVENTS if PRIORITIES[kind] == max(Priority)}
    assert lowest == {leyline.StepMetrics, leyline.StatePacket}
    assert highest == {leyline.SeedReport, leyline.Fault, leyline.RunStarted, leyline.RunEnded}


def test_column_formats_are_the_columns() -> None:
    """COLUMN_FORMATS names every memoryview of a state packet, in its order, and nothing else."""
    hints = get_type_hints(StatePacket)
    columns = [name for name in StatePacket.__struct_fields__ if hints[name] is memoryview]
    assert list(COLUMN_FORMATS) == columns


def test_policies_see_no_seconds_and_no_memory() -> None:
    """No field that a policy is given is a time or an amount of memory."""
    seen = [*StatePacket.__struct_fields__, *leyline.Schema.__struct_fields__]
    units = {"s", "ms", "us", "ns", "bytes", "memory", "time", "wall"}
    assert not [name for name in seen if units & set(name.split("_"))]


def test_tables_cannot_be_changed() -> None:
    """No part of a program can change the contract for another."""
    for table in (COLUMN_FORMATS, PRIORITIES, leyline.LIFECYCLE, leyline.GUARDS):
        with pytest.raises(TypeError):
            table["x"] = "y"  # type: ignore[index] # the claim


def test_messages_compare_by_value() -> None:
    """Messages of plain values compare by value, so a decoded one equals the one that was sent."""
    command = leyline.Cull(seed="a/0", cause="why", embargo_epochs=3)
    copied = msgspec.structs.replace(command)
    assert copied == command
    assert copied is not command
    assert hash(copied) == hash(command)
