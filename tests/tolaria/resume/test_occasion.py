"""Why a checkpoint is written, and how long it is worth keeping."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.tolaria.plain_loops import TRAIN, adam, attach, make_host, train_epoch
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.disk.manifest import read_manifest
from tolaria.resume.occasion import is_best


@pytest.mark.parametrize(
    ("monitor", "mode", "values", "best"),
    [
        ("val_loss", "auto", [3.0, 2.0, 2.0, 1.0], [True, True, False, True]),
        ("val_acc", "auto", [0.1, 0.3, 0.2, math.nan], [True, True, False, False]),
        ("val_acc", "min", [0.1, 0.3, 0.05, math.inf], [True, False, True, False]),
        ("reward", "max", [1.0, 0.0, 2.0, 2.5], [True, False, True, True]),
        ("reward", "auto", [1.0, 2.0, 0.0, 3.0], [False] * 4),
    ],
)
def test_the_best_epoch_is_strictly_better_than_all_before_it(
    monitor: str, mode: str, values: list[float], best: list[bool]
) -> None:
    """In the direction that the mode states or the name tells; NaN and infinity are never best, and
    of a name that tells nothing no epoch is."""
    metrics = {epoch: {monitor: value} for epoch, value in enumerate(values, start=1)}
    assert [is_best(metrics, monitor, epoch, mode) for epoch in metrics] == best
    assert not is_best({1: {}}, monitor, 1, mode)


def test_a_run_keeps_its_best_and_the_one_before_its_graft(tmp_path: Path) -> None:
    """Of seven epochs two are kept to resume from; the best one and the one in which a graft began
    are in the archive, each with its reason, and every manifest names its epoch's metrics."""
    losses = [2.0, 1.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    model = make_host()
    optimizer = adam(model)
    settings = {"schedule": ((2, "conv", "conv"),), "checkpoint": True}
    without = {"data": None, "loss_fn": None, "example": TRAIN[0][0]}
    with attach(model, optimizer, tmp_path / "run", **settings, **without) as esper:
        for loss in losses:
            train_epoch(model, optimizer, esper)
            esper.epoch_boundary({"val_loss": loss, "odd": math.nan})
    folder = tmp_path / "run" / "checkpoints"
    found = {
        place: [read_manifest(path).occasion for path in sorted((folder / place).iterdir())]
        for place in ("active", "archive")
    }
    assert [(o.epoch, o.reason, o.priority) for o in found["archive"]] == [
        (2, "best val_loss", "high"),
        (3, "before the graft of conv/0", "normal"),
    ]
    assert [(o.epoch, o.reason, o.priority) for o in found["active"]] == [
        (6, "end of an epoch", "low"),
        (7, "end of an epoch", "low"),
    ]
    assert [o.metrics for o in found["archive"]] == [{"val_loss": 1.0}, {"val_loss": 3.0}]
