"""State packets of a chosen size, for the benches that encode and offer them."""

from __future__ import annotations

import array

import leyline

_NUM_METRICS = 8


def state_packet(num_seeds: int) -> leyline.StatePacket:
    """A packet whose columns are filled, as the gatherer leaves them."""
    columns = {
        name: memoryview(
            array.array(item, [1] * (_NUM_METRICS if name == "metrics" else num_seeds))
        )
        for name, item in leyline.COLUMN_FORMATS.items()
    }
    return leyline.StatePacket(
        schema_id=1,
        epoch=1,
        step=1,
        num_epochs=10,
        host_parameters=1,
        grown_parameters=1,
        param_budget=1,
        trials_possible=True,
        **columns,
    )
