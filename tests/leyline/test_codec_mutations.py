"""Twenty thousand damaged messages: refused, or valid; never another error."""

from __future__ import annotations

from typing import get_args

import pytest

import leyline
from leyline import COLUMN_FORMATS, ContractError, StatePacket
from tests.leyline.examples import exact
from tests.leyline.mutations import hostile, valid_messages
from tests.reliability.plugin import Faults

NUM_MESSAGES = 20_000


def test_every_type_is_among_them() -> None:
    """Each type of message is damaged, and each event also in its envelope."""
    valid = [leyline.decode(data) for data in valid_messages()]
    assert {type(message) for message in valid} == set(get_args(leyline.AnyMessage))
    inside = {type(m.event) for m in valid if isinstance(m, leyline.Envelope)}
    assert inside == set(get_args(leyline.Event))


@pytest.mark.fault(18)
def test_mutations_are_refused_or_valid(faults: Faults) -> None:
    """Of 20,000 damaged messages, half under a header that fits, each raises ContractError or is a
    valid message: it can be read and encoded again.
    """
    originals = valid_messages()
    decoded = 0
    for number in range(NUM_MESSAGES):
        try:
            message = leyline.decode(hostile(originals, number, faults.random))
        except ContractError:
            continue
        decoded += 1
        assert exact(leyline.decode(leyline.encode(message))) == exact(message)
        found = message.event if isinstance(message, leyline.Envelope) else message
        if isinstance(found, StatePacket):
            lengths = {len(found.column(n).tolist()) for n in COLUMN_FORMATS if n != "metrics"}
            assert len(lengths) == 1
    print(f"{NUM_MESSAGES:,} mutated messages: {decoded:,} valid, the others refused")
    assert 1_000 < decoded < 10_000, "the mutations must reach both the refusals and the fields"
    faults.injected(NUM_MESSAGES)
