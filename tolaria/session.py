"""The session: a run's directory, journal, bus and checkpoints, opened and closed together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from kasmina.blueprints import catalogue
from leyline import Event, Fault, RunEnded, RunError, RunLockedError
from oona import Bus, BusStatistics, check_access
from oona.collecting import Child, start_child
from tolaria.config import EsperConfig
from tolaria.disk.manifest import Occasion
from tolaria.disk.retention import Rules
from tolaria.disk.run import RunDirectory, warn_of_others
from tolaria.disk.saves import refuse_lost
from tolaria.disk.seed_records import FILE_NAME, SeedRecords
from tolaria.disk.store import CheckpointStore, Groups
from tolaria.disk.writer import CheckpointWriter
from tolaria.exporters import Exporters
from tolaria.recorder import Recorder
from tolaria.show import report
from tolaria.show.phrases import clean

_LOG = logging.getLogger("esper")
_ROUTINE: Final = Occasion()
_COLLECTOR_TIMEOUT_S: Final = 3.0
"""How long the end of a run waits for its audit trail."""


class Session:
    """Everything of a run that lives outside the training process's memory."""

    def __init__(self, run: RunDirectory, bus: Bus, config: EsperConfig):
        self.run = run
        self.bus = bus
        rules = Rules(
            config.keep_checkpoints, config.keep_archived, config.max_checkpoints_size_bytes
        )
        self._store = CheckpointStore(run.checkpoints, rules)
        self.recorder = Recorder(run.journal, bus, run.run_id)
        self._writer = CheckpointWriter(
            self._store, self.recorder.require_sync, background=config.async_checkpoints
        )
        wanted = config.seed_checkpoints and config.grows
        self.seed_records = SeedRecords(run.path / FILE_NAME) if wanted else None
        """Where seeds' records go; None leaves them in memory."""
        self.report: Path | None = None
        """The run's report, once it is written."""
        self._checkpoints_on = config.checkpoint
        self._collector: Child | None = None
        self._closed = False
        self.exporters = Exporters.open(config, run.run_id)
        """What shows the run to a monitoring system; None if nothing does."""
        if self.exporters is not None:
            self.recorder.listeners.append(self.exporters.apply)

    @classmethod
    def open(cls, config: EsperConfig, *, resume: bool = False) -> Self:
        """Make the run's directory, or open it again to resume, and start the bus.

        Raises:
            RunError: the directory is another run's or cannot be written.
            RunLockedError: a live process holds it.
            BusError: the telemetry URL is malformed.
            BlueprintError: a blueprint that may race is not registered.
        """
        check_access(config.telemetry)  # both before anything is written
        catalogue.require(config.blueprints)
        path = None if config.run_dir is None else Path(config.run_dir)
        run = RunDirectory.open(path) if resume and path is not None else _create(path)
        warn_of_others(run.path)
        with ExitStack() as undo:
            undo.callback(run.close)
            bus = Bus.open(
                *(run.path, run.run_id, config.telemetry),
                publisher=config.publisher,
                bytes_per_s=config.telemetry_bytes_per_s,
            )
            undo.callback(bus.close)
            session = cls(run, bus, config)
            session._start_collector(config)
            undo.pop_all()
        return session

    def record(self, event: Event) -> None:
        """Record an event everywhere."""
        self.recorder.record(event)

    def commit(
        self,
        step: int,
        state: Mapping[str, Any],
        occasion: Occasion = _ROUTINE,
        groups: Groups = (),
    ) -> str | None:
        """Commit a checkpoint, if the config asks for them; it is copied now and written later.

        Args:
            step: optimizer steps so far.
            state: what to write; when this returns it may change again.
            occasion: when and why.
            groups: names of the parameters of each group of each optimizer.

        Returns:
            Why this one or the one before it could not be written, or None. The last one stays.
        """
        if not self._checkpoints_on:
            return None
        return self._writer.save(step, state, occasion, groups)

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole; those that are not are logged with the reason."""
        if not self._writer.wait():
            _LOG.warning("the last checkpoint is still being written; looking at earlier ones")
        newest = self._store.newest_valid()
        for name, problems in self._store.problems.items():
            _LOG.warning("checkpoint passed over: %s: %s", name, clean("; ".join(problems)))
        return newest

    def checkpoint_at(self, step: int) -> Path | None:
        """The last whole checkpoint of a step, active or archived."""
        return self._store.valid_at(step)

    def refuse_lost(self) -> None:
        """Refuse to begin again where checkpoints were and none is whole.

        Raises:
            CheckpointError: see `tolaria.disk.saves`.
        """
        refuse_lost(self.run, damaged=bool(self._store.problems))

    def abandon(self) -> None:
        """Let go of everything without a word: the run never began."""
        self._closed = True
        self._writer.close()
        self.recorder.close()
        self._close_exporters()
        self._close_records()
        self.bus.close()
        self._end_collector()
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
            held.callback(self._end_collector)
            held.callback(self.bus.close)
            held.callback(self.recorder.close)
            held.callback(self._close_exporters)
            held.callback(self._close_records)
            self._finish_checkpoints(ended)
            self.record(ended)
            try:
                report.write(self.recorder.view, self.run.report)
                self.report = self.run.report
            except RunError as error:
                _LOG.warning("the report could not be written: %s", error)
            self.recorder.sync()
            problem = self.recorder.take_problem()
            if problem:  # there is no boundary left to tell of it
                _LOG.warning("the run's end is not wholly in its journal: %s", problem)
        return self.bus.statistics()

    def _finish_checkpoints(self, ended: RunEnded) -> None:
        """Wait for the last one: what is in the journal after it tells of a run that has ended."""
        problem = self._writer.close()
        if problem is not None:
            action = "the one before it stays"
            step = self.recorder.view.step
            self.record(
                Fault(epoch=ended.epoch, step=step, where="checkpoint", what=problem, action=action)
            )

    def _start_collector(self, config: EsperConfig) -> None:
        if config.audit:
            try:
                self._collector = start_child(self.run.path, config.telemetry)
            except RunError as error:
                _LOG.warning("no audit trail is written beside the run: %s", error)

    def _end_collector(self) -> None:
        """Let it write what is left; if it cannot, `esper events` does so later."""
        collector, self._collector = self._collector, None
        problem = None if collector is None else collector.wait(_COLLECTOR_TIMEOUT_S)
        if problem is not None:
            _LOG.warning("audit trail: %s", problem)

    def _close_exporters(self) -> None:
        if self.exporters is not None:
            self.exporters.close()

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
