"""Runs whose directory somebody has been at: they are refused by name, or go on without it."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any, Final

import pytest

from leyline import EsperError
from tests.tolaria.disk.test_run import tree_of
from tests.tolaria.plain_loops import adam, attach, make_host, run
from tests.tolaria.rollback.loops import GROWN

MOST_BYTES: Final = 32 << 20
MOST_S: Final = 10.0
SETTINGS: Final = {**GROWN, "checkpoint": True, "async_checkpoints": False, "num_epochs": 9}
NUM_EPOCHS: Final = 3


class Payload:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, canary: Path):
        self._canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self._canary,)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, with a seed in the live model."""
    place = tmp_path_factory.mktemp("finished") / "run"
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, place, **SETTINGS) as esper:
        run(model, optimizer, esper, NUM_EPOCHS)
    return place


def resume(place: Path, canary: Path) -> str:
    """Resume it; returns why it was refused, or nothing if it went on from what is sound.

    Asserts that a refused one has every byte but those of its journal's unfinished last record;
    that nothing beside it has changed; that nothing was run; and that neither time nor memory went
    into what a file claims.
    """
    before = {path: content for path, content in tree_of(place).items() if path.name != "lock"}
    outside = _beside(place)
    model = make_host()
    refusal = ""
    tracemalloc.start()
    start_s = time.monotonic()
    try:
        with attach(model, adam(model), place, resume=True, **SETTINGS) as esper:
            assert esper.epoch <= NUM_EPOCHS
    except EsperError as error:
        refusal = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if refusal:
        after = tree_of(place)
        unfinished = place / "journal.bin"
        assert (before.pop(unfinished) or b"").startswith(after[unfinished] or b"")
        assert {path: after[path] for path in before} == before
    assert _beside(place) == outside
    largest = max(len(content or b"") for content in before.values())
    assert time.monotonic() - start_s < MOST_S
    assert peak < MOST_BYTES + 2 * largest
    assert not canary.exists()
    return refusal


def _beside(place: Path) -> dict[str, bytes]:
    """The content of the files in the directory that a run lies in."""
    return {p.name: p.read_bytes() for p in place.parent.iterdir() if p.is_file()}
