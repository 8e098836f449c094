"""Training while the server of its telemetry is killed, and killed again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from kasmina.slots.slot import attached_seeds as seeds_of
from oona import BusStatistics
from tests.oona.faults.place import Place
from tests.tolaria.plain_loops import (
    NUM_BATCHES,
    SCHEDULE,
    adam,
    assert_same,
    attach,
    copy_of,
    evaluate,
    make_host,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread

NUM_EPOCHS = 6
KILLS_EVERY_STEPS = 2


class Killer:
    """Kills a server after every second step and starts it after the others."""

    def __init__(self, place: Place):
        self._place = place
        self._num_steps = self.num_kills = 0

    def __call__(self, loss: Tensor) -> None:
        self._num_steps += 1
        if self._num_steps % KILLS_EVERY_STEPS:
            self._place.kill()
            self.num_kills += 1
        else:
            self._place.start()


def train(
    run_dir: Path, after_step: Callable[[Tensor], None] = lambda loss: None, **settings: Any
) -> tuple[list[float], dict[str, Tensor], BusStatistics]:
    """Losses of every step and measures of every epoch, the weights, and the bus's ledger."""
    model = make_host()
    optimizer = adam(model)
    losses: list[float] = []
    with attach(model, optimizer, run_dir, schedule=SCHEDULE, **settings) as esper:
        for _ in range(NUM_EPOCHS):
            losses += train_epoch(model, optimizer, esper, after_step=after_step)
            measures = evaluate(model)
            losses += measures.values()
            esper.epoch_boundary(measures)
        esper.session.bus.flush(20.0)
        counts = esper.session.bus.statistics()
    assert seeds_of(model)
    return losses, copy_of(model), counts


@pytest.mark.slow
def test_losses_are_the_same_bits_while_the_server_dies(tmp_path: Path) -> None:
    """A run that grows while its telemetry's server is killed a dozen times has the losses and the
    weights, bit for bit, of one without telemetry, and everything that it told is delivered."""
    losses, weights, _ = train(tmp_path / "off", telemetry="off")
    place = Place(tmp_path)
    killer = Killer(place)
    their_losses, their_weights, counts = train(tmp_path / "on", killer, telemetry=place.url)
    place.kill()
    assert killer.num_kills == NUM_EPOCHS * NUM_BATCHES // KILLS_EVERY_STEPS
    assert their_losses == losses
    assert_same(their_weights, weights)
    assert counts.offered == counts.delivered > NUM_EPOCHS * NUM_BATCHES
    assert (counts.dropped, counts.queued, counts.num_faults) == (0, 0, 0)
