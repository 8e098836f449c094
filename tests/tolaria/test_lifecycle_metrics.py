"""What a run tells of its seeds' lives: metrics at each boundary, records, contained callbacks."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from leyline import LifecycleMetrics, OwnerError, SeedReport, Stage
from tests.tolaria.plain_loops import (
    NUM_BATCHES,
    SCHEDULE,
    SEED,
    adam,
    attach,
    faults,
    listen,
    make_host,
    run,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.commands import cli
from tolaria.disk.seed_records import FILE_NAME, read_seed_records


def grown(run_dir: Path, num_epochs: int, **settings: Any) -> tuple[Any, list[Any], dict[str, Any]]:
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, run_dir, schedule=SCHEDULE, **settings) as esper:
        events = listen(esper)
        run(model, optimizer, esper, num_epochs)
    return esper, events, esper.report()


def test_every_boundary_tells_how_lives_went_on(tmp_path: Path) -> None:
    """Distribution, transitions and records agree with the reports; alpha is that of the ramp."""
    _, events, report = grown(tmp_path / "run", 5)
    told = [event for event in events if isinstance(event, LifecycleMetrics)]
    made = [event for event in events if isinstance(event, SeedReport) and not event.refused]
    assert [metrics.epoch for metrics in told] == [1, 2, 3, 4, 5]
    for metrics in told:
        assert metrics.transitions == sum(event.epoch == metrics.epoch for event in made)
        assert metrics.seed_checkpoints == sum(event.epoch <= metrics.epoch for event in made)
        assert (metrics.faults, metrics.refusals) == (0, 0)
    assert [list(metrics.stages) for metrics in told] == [
        ["TRAINING"],
        ["GRAFTING"],
        ["STABILIZATION"],
        ["EVALUATING"],
        ["FINE_TUNING"],
    ]
    assert told[1].mean_alpha == 0.0
    assert math.isnan(told[2].mean_alpha)
    assert report["lifecycle"]["stages"] == {"FINE_TUNING": 1}
    assert report["lifecycle"]["mean_alpha"] is None
    shown = CliRunner().invoke(cli.esper, ["inspect", str(tmp_path / "run")]).output
    line = " ".join(shown.split())
    assert "seeds after epoch 5: 1 FINE_TUNING; " in line
    assert f"{told[-1].seed_checkpoints} seed checkpoints so far" in line


def test_a_run_without_growth_tells_nothing_of_lives(tmp_path: Path) -> None:
    """A dormant run has no lifecycle metrics and no file of records."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", policy="hold") as esper:
        events = listen(esper)
        run(model, optimizer, esper, 2)
    assert not [event for event in events if isinstance(event, LifecycleMetrics)]
    assert not (tmp_path / "run" / FILE_NAME).exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_records_are_in_the_run_directory_unless_switched_off(tmp_path: Path, wanted: bool) -> None:
    """The newest record of the file is the seed's row; switched off there is no file, and the
    seed's life is the same."""
    esper, _, _ = grown(tmp_path / "run", 4, seed_checkpoints=wanted)
    table = esper.executor.table
    assert table.stage(SEED) is Stage.EVALUATING
    assert table.get(SEED, "checkpoint_id") == 5
    assert (tmp_path / "run" / FILE_NAME).exists() is wanted
    if wanted:
        record = read_seed_records(tmp_path / "run" / FILE_NAME)[SEED]
        assert record.row().tobytes() == table.rows([SEED]).tobytes()
        assert record.blueprint == "conv"


def test_a_callback_that_raises_is_a_fault_of_the_run(tmp_path: Path) -> None:
    """One fault event for each call says why, it is counted, and growth goes on."""
    model = make_host()
    optimizer = adam(model)

    def careless(report: SeedReport) -> None:
        raise ValueError("no luck")

    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        events = listen(esper)
        esper.executor.lifecycle.on_transition(careless)
        run(model, optimizer, esper, 2)
    told = [event for event in events if isinstance(event, LifecycleMetrics)]
    assert [metrics.transitions for metrics in told] == [metrics.faults for metrics in told]
    assert len(faults(events)) == sum(metrics.faults for metrics in told) == 3
    assert all("careless" in fault.what and "no luck" in fault.what for fault in faults(events))
    assert esper.executor.table.stage(SEED) is Stage.GRAFTING


def test_a_loop_that_moves_to_another_thread_must_say_so(tmp_path: Path) -> None:
    """A step that would move alpha from a thread that does not own the table is refused by name;
    after adopt() it goes on."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        run(model, optimizer, esper, 2)

        def elsewhere() -> None:
            with pytest.raises(OwnerError, match=r"adopt\(\)"):
                train_epoch(model, optimizer, esper)
            esper.executor.table.adopt()
            train_epoch(model, optimizer, esper)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(elsewhere).result()
        assert esper.executor.table.get(SEED, "alpha") == 1.0
        assert esper.step == 3 * NUM_BATCHES
        esper.executor.table.adopt()
