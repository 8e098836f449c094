"""The recorder: one event, one place in the journal, the bus, the view and every listener."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyline import Decision, EpochMetrics, Event, Fault, Germinate, RunError, StepMetrics
from leyline.limits import MESSAGE_SIZE_BYTES
from oona import Bus
from tests.tolaria.show.events import a_run
from tolaria.disk.journal import read
from tolaria.recorder import Recorder
from tolaria.resume.replay import Replay
from tolaria.show.plain import view_dict


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with Bus.open(tmp_path, "run", "memory") as bus:
        yield bus


def _recorder(tmp_path: Path, bus: Bus) -> Recorder:
    return Recorder(tmp_path / "journal.bin", bus, "run")


def _decision(epoch: int, *, late: bool = False) -> Decision:
    return Decision(epoch=epoch, policy="hold", cause="", late=late)


def test_every_event_but_a_step_is_in_the_journal_in_order(tmp_path: Path, bus: Bus) -> None:
    """Steps go to the bus, the view and the listeners only; all else is on disk at once."""
    recorder = _recorder(tmp_path, bus)
    heard: list[Event] = []
    recorder.listeners.append(heard.append)
    events: list[Event] = [
        _decision(1),
        StepMetrics(step=1, loss=0.5),
        Fault(epoch=1, step=1, where="loss", what="nan", action="restored"),
        StepMetrics(step=2, loss=0.25),
    ]
    for event in events:
        recorder.record(event)
    assert heard == events
    assert list(read(tmp_path / "journal.bin")) == [events[0], events[2]]
    assert bus.statistics().offered == 4
    assert recorder.view.loss == 0.25
    assert [fault.what for fault in recorder.view.faults] == ["nan"]
    recorder.close()


def test_quick_steps_are_told_together(tmp_path: Path, bus: Bus) -> None:
    """Every loss is told once and in order: slow steps at once, quick ones with others, and before
    whatever else happens; the view has each at once."""
    now_s = 0.0
    recorder = Recorder(tmp_path / "journal.bin", bus, "run", lambda: now_s)
    heard: list[Event] = []
    recorder.listeners.append(heard.append)

    def told() -> list[tuple[int, float, int]]:
        steps = [event for event in heard if isinstance(event, StepMetrics)]
        return [(event.step, event.loss, len(event.earlier)) for event in steps]

    recorder.record_step(1, 1.0)
    assert told() == [(1, 1.0, 0)], "the first one at once"
    for step in range(2, 80):
        recorder.record_step(step, 1 / step)
        assert (recorder.view.step, recorder.view.loss) == (step, 1 / step)
    assert told()[1:] == [(65, 1 / 65, 63)]
    recorder.record(_decision(1))
    assert told()[2:] == [(79, 1 / 79, 13)]
    assert heard[-1] == _decision(1)
    recorder.record_step(80, 8.0)
    now_s = 0.25
    recorder.record_step(81, 9.0)
    assert told()[3:] == [(81, 9.0, 1)]
    recorder.record_step(82, 1.0)
    recorder.record_step(40, 2.0)  # the run went back
    now_s = 9.0
    recorder.record_step(41, 3.0)
    assert told()[4:] == [(82, 1.0, 0), (41, 3.0, 1)]
    losses = [x for e in heard if isinstance(e, StepMetrics) for x in (*e.earlier, e.loss)]
    assert losses == [1 / step for step in range(1, 80)] + [8.0, 9.0, 1.0, 2.0, 3.0]
    recorder.close()


def test_the_view_can_be_rebuilt_from_the_journal(tmp_path: Path, bus: Bus) -> None:
    """After rewinding to the end the view tells the same as before."""
    recorder = _recorder(tmp_path, bus)
    for event in a_run():
        if not isinstance(event, StepMetrics):
            recorder.record(event)
    told = view_dict(recorder.view)
    assert recorder.rewind(recorder.position) == Replay(last_epoch=30)
    assert view_dict(recorder.view) == told
    recorder.close()


def test_rewinding_forgets_what_followed_but_not_what_time_or_chance_decided(
    tmp_path: Path, bus: Bus
) -> None:
    """Journal and view end at the checkpoint. Late decisions and boundaries that did not count are
    told, also to a second resume, which finds no trace of them in the journal any more."""
    recorder = _recorder(tmp_path, bus)
    recorder.record(_decision(1, late=True))
    recorder.record(_decision(2))
    position = recorder.position
    for epoch in (3, 4, 5):
        recorder.record(_decision(epoch, late=epoch != 4))
    recorder.record(Decision(epoch=6, policy="hold", cause="", undone="apply"))
    told = Replay(late=(1, 3, 5), undone={6: "apply"}, last_epoch=6)
    assert recorder.rewind(position) == told
    assert [decision.epoch for decision in recorder.view.decisions] == [1, 2]
    recorder.record(_decision(3))
    assert [e.epoch for e in read(tmp_path / "journal.bin") if isinstance(e, Decision)] == [1, 2, 3]
    recorder.record(_decision(4, late=True))
    recorder.close()
    again = _recorder(tmp_path, bus)
    told = Replay(late=(1, 3, 4, 5), undone={6: "apply"}, last_epoch=6)
    assert again.rewind(position) == told
    again.close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"late": "all"}', b"\xff"])
def test_a_damaged_replay_is_refused_by_name(content: bytes, tmp_path: Path, bus: Bus) -> None:
    """A resume that cannot know where the run held says so, and leaves the journal as it is."""
    recorder = _recorder(tmp_path, bus)
    recorder.record(_decision(1))
    (tmp_path / "replay.json").write_bytes(content)
    with pytest.raises(RunError, match=r"replay.json is damaged"):
        recorder.rewind(0)
    recorder.close()
    assert len(list(read(tmp_path / "journal.bin"))) == 1


def test_an_event_that_the_journal_refuses_reaches_all_others(tmp_path: Path, bus: Bus) -> None:
    """Neither a closed file nor an event too large for a message ends the run; it is counted."""
    recorder = _recorder(tmp_path, bus)
    huge = Germinate(seed="a/0", site="a", blueprint="b", cause="x" * MESSAGE_SIZE_BYTES)
    recorder.record(Decision(epoch=1, policy="p", cause="", commands=(huge,)))
    assert recorder.num_unwritten == 1
    recorder.close()
    recorder.record(_decision(2))
    recorder.sync()
    assert recorder.num_unwritten == 3
    assert [decision.epoch for decision in recorder.view.decisions] == [1, 2]
    assert list(read(tmp_path / "journal.bin")) == []


def test_metrics_that_are_not_numbers_survive_the_journal(tmp_path: Path, bus: Bus) -> None:
    """NaN and infinity come back as they were."""
    recorder = _recorder(tmp_path, bus)
    metrics = {"a": math.nan, "b": math.inf, "c": -math.inf}
    event = EpochMetrics(
        epoch=1, num_epochs=2, step=3, metrics=metrics, parameters=4, stages={"DORMANT": 1}
    )
    recorder.record(event)
    recorder.close()
    (found,) = read(tmp_path / "journal.bin")
    assert isinstance(found, EpochMetrics)
    assert math.isnan(found.metrics["a"])
    assert (found.metrics["b"], found.metrics["c"]) == (math.inf, -math.inf)
