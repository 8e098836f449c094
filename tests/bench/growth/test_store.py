"""A run is there whole or not at all, and only for the settings that it was done with."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.growth.store import Job, Store
from tests.bench.growth.tiny import result

JOB = Job("tiny", "host", 0, {"learning_rate": 0.01, "net": {"kind": "host"}})


def test_a_result_is_found_again(tmp_path: Path) -> None:
    """By another store too, as after an interrupt."""
    Store(tmp_path).put(JOB, result(61.0), "a machine")
    assert Store(tmp_path).get(JOB) == result(61.0)


def test_the_order_of_settings_does_not_matter() -> None:
    """The digest is that of what is said, not of how."""
    turned = dict(reversed(list(JOB.settings.items())))
    assert JOB._replace(settings=turned).digest == JOB.digest


@pytest.mark.parametrize(
    "other",
    [
        JOB._replace(settings={**JOB.settings, "learning_rate": 0.02}),
        JOB._replace(settings={**JOB.settings, "more": None}),
        JOB._replace(rng_seed=1),
        JOB._replace(arm="hand"),
        JOB._replace(task="other"),
    ],
)
def test_another_run_is_to_be_done(tmp_path: Path, other: Job) -> None:
    """Whatever is different: a setting, the RNG seed, the arm or the task."""
    store = Store(tmp_path)
    store.put(JOB, result(), "a machine")
    assert store.get(other) is None


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_a_damaged_file_is_to_be_done_again(tmp_path: Path, keep: int) -> None:
    """Cut short anywhere, it counts as missing, and the next result takes its place."""
    store = Store(tmp_path)
    store.put(JOB, result(), "a machine")
    path = store.path(JOB)
    path.write_bytes(path.read_bytes()[:keep])
    assert store.get(JOB) is None
    store.put(JOB, result(70.0), "a machine")
    assert store.get(JOB) == result(70.0)


def test_a_file_that_tells_of_other_settings_is_not_believed(tmp_path: Path) -> None:
    """Copied to another run's name, or edited by hand."""
    store = Store(tmp_path)
    other = JOB._replace(settings={"learning_rate": 0.5})
    store.put(JOB, result(), "a machine")
    store.path(JOB).rename(store.path(other))
    assert store.get(other) is None


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    """What a kill leaves is a part under another name, which no reader takes for a run."""
    store = Store(tmp_path)
    store.put(JOB, result(), "a machine")
    whole = store.path(JOB)
    whole.rename(whole.with_suffix(".1.part"))
    assert store.get(JOB) is None
    assert list(whole.parent.glob("*.json")) == []


def test_pruning_keeps_what_is_used(tmp_path: Path) -> None:
    """And what is of another arm: nobody has said that it is not used."""
    store = Store(tmp_path)
    stale = JOB._replace(settings={"learning_rate": 0.5})
    other = JOB._replace(arm="hand")
    for job in (JOB, stale, other):
        store.put(job, result(), "a machine")
    assert store.prune([JOB]) == 1
    assert [store.get(job) is not None for job in (JOB, stale, other)] == [True, False, True]
