"""The bus between runs, threads, signals and forks."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import oona
from oona.outbox import file as outbox_file
from tests.oona.test_bus import EPOCH, NOWHERE, STEP, assert_exact, fault


def test_two_runs_live_in_one_process(tmp_path: Path) -> None:
    """Two buses have their own servers, files and counts."""
    with oona.Bus.open(tmp_path / "a", "a") as a, oona.Bus.open(tmp_path / "b", "b") as b:
        assert a.url != b.url
        assert all(a.offer(STEP) for _ in range(3))
        assert all(b.offer(EPOCH) for _ in range(5))
        assert a.flush(10.0)
        assert b.flush(10.0)
        assert [envelope.event for envelope in oona.read(a.url)] == [STEP] * 3
        assert [envelope.event for envelope in oona.read(b.url)] == [EPOCH] * 5


def test_offers_from_many_threads_all_count(tmp_path: Path) -> None:
    """Concurrent offers each get their own sequence, and the ledger stays exact."""
    with oona.Bus.open(tmp_path, "run") as bus:
        threads = [
            threading.Thread(target=lambda: [bus.offer(STEP) for _ in range(500)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bus.flush(10.0)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert statistics.offered == 2000
        assert oona.count_delivered(bus.url, "run") == statistics.delivered


def test_a_signal_handler_may_offer_during_an_offer(tmp_path: Path) -> None:
    """A handler that interrupts an offer and offers cannot deadlock; both are counted."""
    with oona.Bus.open(tmp_path, "run", NOWHERE) as bus:
        num_signals = num_steps = 0

        def handle(_number: int, _frame: Any) -> None:
            nonlocal num_signals
            num_signals += bus.offer(fault(num_signals))
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005)

        previous = signal.signal(signal.SIGVTALRM, handle)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005)
        try:
            while num_signals < 100:
                bus.offer(STEP)
                num_steps += 1
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, previous)
        statistics = bus.statistics()
        assert_exact(statistics)
        num_told = statistics.offered - num_steps - num_signals  # of drops, once a second
        assert 0 <= num_told <= 10
        assert statistics.dropped or not num_told
        assert "Fault" not in statistics.dropped_by_type


@pytest.mark.slow
def test_an_interrupted_offer_leaves_the_bus_whole(tmp_path: Path) -> None:
    """Ctrl-C at any moment of an offer neither locks the bus nor spoils its ledger or its ids."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    with oona.Bus.open(tmp_path, "run", "memory") as bus:
        num_offers = num_interrupts = 0
        previous = signal.signal(signal.SIGVTALRM, interrupt)
        try:
            while num_interrupts < 100:
                try:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005)
                    while True:
                        bus.offer(STEP)
                        num_offers += 1
                except KeyboardInterrupt:
                    num_interrupts += 1
        finally:
            signal.signal(signal.SIGVTALRM, previous)
        assert bus.flush(10.0)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert num_offers <= statistics.offered <= num_offers + num_interrupts
    with oona.Bus.open(tmp_path, "run", "memory") as bus:
        assert all(bus.offer(STEP) for _ in range(200))
    sequences = [envelope.sequence for envelope in oona.read(tmp_path)]
    assert len(sequences) == len(outbox_file.read_file(tmp_path / outbox_file.FILE_NAME)[0])


def test_a_fork_leaves_the_bus_to_its_parent(tmp_path: Path) -> None:
    """A forked worker can neither write to the outbox nor stop the server."""
    with oona.Bus.open(tmp_path, "run") as bus:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: the point
            child = os.fork()
        if child == 0:
            offered = bus.offer(STEP)
            bus.close()
            os._exit(1 if offered else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert bus.statistics().offered == 0
        assert bus.offer(STEP)
        assert bus.flush(10.0)
