"""The session: a run's directory, journal, bus and checkpoints, opened and closed together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from leyline import CheckpointError, Event, RunEnded, RunError, RunLockedError
from oona import Bus, BusStatistics, check_url
from tolaria.config import EsperConfig
from tolaria.disk.checkpoint import CheckpointStore
from tolaria.disk.run import RunDirectory
from tolaria.disk.seed_records import FILE_NAME, SeedRecords
from tolaria.recorder import Recorder
from tolaria.show import report

_LOG = logging.getLogger("esper")


class Session:
    """Everything of a run that lives outside the training process's memory."""

    def __init__(self, run: RunDirectory, bus: Bus, config: EsperConfig):
        self.run = run
        self.bus = bus
        self._store = CheckpointStore(run.checkpoints, keep=config.keep_checkpoints)
        self.recorder = Recorder(run.journal, bus, run.run_id)
        wanted = config.seed_checkpoints and config.grows
        self.seed_records = SeedRecords(run.path / FILE_NAME) if wanted else None
        """Where seeds' records go; None leaves them in memory."""
        self.report: Path | None = None
        """The run's report, once it is written."""
        self._checkpoints_on = config.checkpoint
        self._closed = False

    @classmethod
    def open(cls, config: EsperConfig, *, resume: bool = False) -> Self:
        """Make the run's directory, or open it again to resume, and start the bus.

        Raises:
            RunError: the directory is another run's or cannot be written.
            RunLockedError: a live process holds it.
            BusError: the telemetry URL is malformed.
        """
        check_url(config.telemetry)  # before anything is written
        path = None if config.run_dir is None else Path(config.run_dir)
        run = RunDirectory.open(path) if resume and path is not None else _create(path)
        with ExitStack() as undo:
            undo.callback(run.close)
            bus = Bus.open(run.path, run.run_id, config.telemetry)
            undo.callback(bus.close)
            session = cls(run, bus, config)
            undo.pop_all()
        return session

    def record(self, event: Event) -> None:
        """Record an event everywhere."""
        self.recorder.record(event)

    def commit(self, step: int, state: Mapping[str, Any]) -> str | None:
        """Commit a checkpoint, if the config asks for them.

        Returns:
            Why it could not be written, or None. The last one stays.
        """
        if not self._checkpoints_on:
            return None
        self.recorder.sync()
        try:
            self._store.commit(step, dict(state))
        except CheckpointError as error:
            return str(error)
        return None

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole; those that are not are logged with the reason."""
        newest = self._store.newest_valid()
        for problem in self._store.problems:
            _LOG.warning("checkpoint passed over: %s", problem)
        return newest

    def abandon(self) -> None:
        """Let go of everything without a word: the run never began."""
        self._closed = True
        self.recorder.close()
        self._close_records()
        self.bus.close()
        self.run.close()

    def close(self, ended: RunEnded) -> BusStatistics:
        """Record the end, write the report, flush the bus within its time and let go of the run.

        Further calls only return the bus's last statistics.
        """
        if self._closed:
            return self.bus.statistics()
        self._closed = True
        with ExitStack() as held:
            # Whatever fails here, the bus's server ends and the directory is free again.
            held.callback(self.run.close)
            held.callback(self.bus.close)
            held.callback(self.recorder.close)
            held.callback(self._close_records)
            self.record(ended)
            try:
                report.write(self.recorder.view, self.run.report)
                self.report = self.run.report
            except RunError as error:
                _LOG.warning("the report could not be written: %s", error)
            self.recorder.sync()
        return self.bus.statistics()

    def _close_records(self) -> None:
        if self.seed_records is not None:
            self.seed_records.close()


def _create(path: Path | None) -> RunDirectory:
    try:
        return RunDirectory.create(path, now=datetime.now(tz=UTC))
    except RunLockedError:
        raise
    except RunError:
        if path is not None and (path / "run.json").is_file():
            # "It already holds a run" is not what to say while that run is alive.
            RunDirectory.open(path).close()
        raise
