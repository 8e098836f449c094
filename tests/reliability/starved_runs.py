"""Whole runs in which a blueprint takes more memory than there is, and their twins.

Run as a script, it trains under a limit of the process's address space, and says as JSON what came
of each case.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from kasmina.slots.slot import attached_seeds
from oona.metrics.operations import resident_size_bytes
from tests.golden.make import digests
from tests.reliability.hungry import AT_ONCE, BIT_BY_BIT, Meal, eating, registered
from tests.tolaria.plain_loops import (
    SEED,
    SITE,
    TRAIN,
    adam,
    attach,
    evaluate,
    faults,
    listen,
    loss_fn,
    make_host,
    streams,
)

ROOM_BYTES: Final = 128 * 2**20
"""That a run may take beside what its process has at the start."""
NUM_EPOCHS: Final = 4
GRAFTED: Final = 3
"""The epoch in which the seed is in the live model, its alpha rising."""
STRIKE_STEP: Final = 1


class Strike(NamedTuple):
    """Where a body eats."""

    part: str
    """Of its code."""
    epoch: int
    """At whose end it does; in whose steps, if it is grafted then."""


STRIKES: Final = {
    "birth": Strike("init", 1),
    "proof, forward": Strike("forward", 1),
    "proof, backward": Strike("backward", 1),
    "birth for the trial": Strike("init", 2),
    "trial, forward": Strike("forward", 2),
    "trial, backward": Strike("backward", 2),
    "grafted, forward": Strike("forward", GRAFTED),
    "grafted, backward": Strike("backward", GRAFTED),
}


class End(NamedTuple):
    """What is left of a run."""

    told: list[tuple[str, str]]
    """Where something failed, and what."""
    before_bytes: int
    after_bytes: int
    """In RAM before the strike, and at the end."""
    losses: list[str]
    state: dict[str, str]
    streams: list[bytes]

    def is_as(self, other: End) -> bool:
        """Whether losses, weights, moments and random streams are the same, to the bit."""
        return self[3:] == other[3:]


class Run:
    """A run that is struck by a meal; without one its twin, which goes on without the seed.

    If the seed is in the live model, the twin takes it out in the step of the strike: before its
    forward pass, or, where the strike is in backward, after one without a gradient. A seed that is
    not there yet was never in the host's way: the twin never has one.
    """

    def __init__(self, strike: Strike, meal: Meal | None):
        self._strike, self._meal = strike, meal
        self._losses: list[str] = []
        self._model = make_host()
        self._optimizer = adam(self._model)

    def train(self, folder: Path) -> End:
        """From the first epoch to the last."""
        strike = self._strike
        has_seed = self._meal is not None or strike.epoch == GRAFTED
        grown: dict[str, Any] = {"schedule": ((1, SITE, "hungry"),)}
        policy = grown if has_seed else {"policy": "hold"}
        before_bytes = 0
        with attach(self._model, self._optimizer, folder, **policy) as esper:
            heard = listen(esper)
            for epoch in range(1, NUM_EPOCHS + 1):
                is_struck = epoch == strike.epoch
                if is_struck:
                    before_bytes = _resident_bytes()
                self._model.train()
                for number, batch in enumerate(TRAIN):
                    here = is_struck and epoch == GRAFTED and number == STRIKE_STEP
                    esper.after_step(self._struck(batch) if here else self._step(batch), batch)
                at_end = is_struck and epoch < GRAFTED and self._meal is not None
                with eating(strike.part if at_end else "", self._meal or len):
                    esper.epoch_boundary(evaluate(self._model))
            told = [(fault.where, fault.what) for fault in faults(heard)]
            assert attached_seeds(self._model) == {}
            state = digests(self._model, self._optimizer)
            return End(told, before_bytes, _resident_bytes(), self._losses, state, streams())

    def _step(self, batch: Any, *, ends_seed: bool = False) -> Tensor:
        self._optimizer.zero_grad()
        loss = loss_fn(self._model, batch)
        if ends_seed:
            attached_seeds(self._model)[SEED][2].fail("taken out")
        loss.backward()
        self._optimizer.step()
        self._losses.append(float(loss.detach()).hex())
        return loss.detach()

    def _struck(self, batch: Any) -> Tensor:
        seed = attached_seeds(self._model)[SEED][2]
        assert seed.active
        if self._meal is not None:
            with eating(self._strike.part, self._meal):
                return self._step(batch)
        if self._strike.part == "forward":
            seed.fail("taken out")
            return self._step(batch)
        with eating("detached"):
            return self._step(batch, ends_seed=True)


def _resident_bytes() -> int:
    gc.collect()
    size_bytes = resident_size_bytes()
    assert size_bytes is not None
    return size_bytes


@contextmanager
def little_memory() -> Iterator[None]:
    """The process may take no more address space than a little."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    most_bytes = num_pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def main(folder: Path) -> dict[str, Any]:
    """Each strike by a meal at once and by one bit by bit, against its twin."""
    torch.set_num_threads(1)
    found = {}
    twins: dict[Strike | None, End] = {}
    at_once, bit_by_bit = cycle(AT_ONCE.items()), cycle(BIT_BY_BIT.items())
    # What is imported late stays in RAM.
    Run(STRIKES["grafted, forward"], None).train(folder / "first")
    for where, strike in STRIKES.items():
        like = strike if strike.epoch == GRAFTED else None
        if like not in twins:
            twins[like] = Run(strike, None).train(folder / f"{where}, twin")
        for what, meal in (next(at_once), next(bit_by_bit)):
            with little_memory():
                end = Run(strike, meal).train(folder / f"{where}, {what}")
            is_same = end.is_as(twins[like])
            found[f"{where}: {what}"] = (is_same, end.told, end.before_bytes, end.after_bytes)
    return found


if __name__ == "__main__":
    with registered():
        print(json.dumps(main(Path(sys.argv[1]))))
