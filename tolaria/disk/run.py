"""A run's directory: everything one run leaves on disk, held by one live process at a time."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import io
import logging
import os
import re
import shlex
import stat
import weakref
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from leyline import RunError, RunLockedError
from tolaria.disk.files import DISK, FileOps, reason, write_atomic
from tolaria.disk.sealed import seal, unseal

_LOG: Final = logging.getLogger("esper")
_FORMAT: Final = 1
_MARKER: Final = "run.json"
_LOCK: Final = "lock"
_OWN_FILES: Final = frozenset({_LOCK, f".{_MARKER}.tmp"})
_RUN_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
"""Neither hidden, nor a way up, nor an option of a command: it may become part of a path."""
_MARKER_SIZE_BYTES: Final = 65536
_NUM_RUNS_SHOWN: Final = 10


class _Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content of run.json, whose presence makes a directory a run."""

    format: int
    run_id: str
    created: str
    essential: tuple[str, ...] = ()
    """Files that this run cannot go on without, beside those of every run."""


class RunDirectory:
    """The files of one run. Use `create` or `open`; close it, or use it in a `with` statement."""

    def __init__(self, path: Path, marker: _Marker, lock: io.FileIO | None):
        self.path: Final = path
        self.run_id: Final = marker.run_id
        self.created: Final = datetime.fromisoformat(marker.created)
        self.essential: Final = marker.essential
        self._lock = lock
        if lock is not None:
            # A forked data loader worker that outlives a killed trainer must not keep the lock.
            os.register_at_fork(after_in_child=functools.partial(_close, weakref.ref(self)))

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        parent: Path = Path("runs"),
        now: datetime,
        ops: FileOps = DISK,
    ) -> Self:
        """Make and lock a new run's directory.

        Args:
            path: where; None makes a new directory named after `now` in `parent`.
            parent: where dated directories are made.
            now: the time of creation, with its time zone.
            ops: how files are written.

        Raises:
            RunError: `path` holds another run or other files, or cannot be written.
            RunLockedError: another process is creating this very run.
        """
        try:
            if path is None:
                path = _make_dated(parent, now, ops)
            else:
                refuse_used(path)
                ops.mkdir_with_parents(path)
        except (OSError, ValueError) as error:
            if isinstance(error, RunError):
                raise
            where = parent if path is None else path
            raise RunError(f"no run can be made in {where}: {_said(error)}") from error
        lock = _lock(path, ops)
        try:
            refuse_used(path)  # another process may have been first, and ended since
            marker = _Marker(_FORMAT, _run_id(path), now.isoformat())
            write_atomic(path / _MARKER, seal(msgspec.to_builtins(marker)), ops)
        except BaseException:
            lock.close()
            raise
        return cls(path, marker, lock)

    @classmethod
    def open(cls, path: Path, *, lock: bool = True, ops: FileOps = DISK) -> Self:
        """Open an existing run: locked to resume it, or with `lock=False` only to read it.

        Raises:
            RunError: there is no run at `path`, or its run.json is damaged.
            RunLockedError: a live process holds it.
        """
        marker = _read_marker(path)
        return cls(path, marker, _lock(path, ops) if lock else None)

    @property
    def locked(self) -> bool:
        """Whether this object holds the run against all others."""
        return self._lock is not None and not self._lock.closed

    def is_held(self) -> bool:
        """Whether a live process holds the run, this one included; nothing is written."""
        try:
            with (self.path / _LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:  # held, or this user may not ask: nothing says that it has stopped
            return True
        return False

    @property
    def journal(self) -> Path:
        """The history of events (tolaria.disk.journal)."""
        return self.path / "journal.bin"

    @property
    def outbox(self) -> Path:
        """The events on their way to the bus (oona)."""
        return self.path / "outbox.bin"

    @property
    def checkpoints(self) -> Path:
        """The directory of checkpoints (tolaria.disk.checkpoint)."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """The report (HTML)."""
        return self.path / "report.html"

    def close(self) -> None:
        """Let go of the run; further calls do nothing."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def require(path: Path, name: str, ops: FileOps = DISK) -> None:
    """Note in a run's run.json that it cannot go on without this file; only its holder may.

    Raises:
        RunError: there is no run at `path`, or the disk refused.
    """
    marker = _read_marker(path)
    if name not in marker.essential:
        marker = msgspec.structs.replace(marker, essential=(*marker.essential, name))
        write_atomic(path / _MARKER, seal(msgspec.to_builtins(marker)), ops)


def warn_of_others(path: Path) -> None:
    """Log one line if anybody on the machine may write into a run's directory.

    It is not refused: in containers and on network volumes that is usual, and does no harm.
    """
    if path.stat().st_mode & stat.S_IWOTH:
        _LOG.warning(
            "%s can be written by every user of this machine, who may so change what the run "
            "resumes from: chmod o-w %s",
            path,
            shlex.quote(str(path)),
        )


def _close(reference: weakref.ref[RunDirectory]) -> None:
    """Close a forked child's copy of the lock file, which leaves the parent's lock in place."""
    run = reference()
    if run is not None:
        run.close()


def _said(error: Exception) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)


def _make_dated(parent: Path, now: datetime, ops: FileOps) -> Path:
    """Make runs/2026-11-21-143005, or the same with -2, -3, ... where that is taken."""
    ops.mkdir_with_parents(parent)
    name = now.strftime("%Y-%m-%d-%H%M%S")
    path, number = parent / name, 1
    while True:
        try:
            ops.mkdir(path)
        except FileExistsError:
            number += 1
            path = parent / f"{name}-{number}"
        else:
            ops.fsync_dir(parent)
            return path


def refuse_used(path: Path) -> None:
    """Refuse a directory that holds a run, or anything that no run has put there."""
    if not path.exists():
        return
    if not path.is_dir():
        raise RunError(f"{path} is a file; a run needs a directory: choose another --run-dir")
    names = sorted({entry.name for entry in path.iterdir()} - _OWN_FILES)
    if _MARKER in names:
        raise RunError(
            f"{path} already holds a run; use --resume (in Python: ckpt_path= in fit(), or "
            "attach(resume=True)) or another --run-dir"
        )
    if names:
        raise RunError(
            f"{path} is not empty and not an Esper run (it holds {names[0]!r}); "
            "choose another --run-dir"
        )


def _run_id(path: Path) -> str:
    """The directory's name, or where it has other characters a likeness with a short hash."""
    name = path.resolve().name
    if _RUN_ID.fullmatch(name):
        return name
    digest = hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()
    alike = re.sub("[^a-zA-Z0-9._-]", "-", name).lstrip("._-")[:48]
    return f"{alike or 'run'}-{digest}"


def _lock(path: Path, ops: FileOps) -> io.FileIO:
    """Hold the run, and leave this process's id for those who come too late."""
    file = path / _LOCK
    try:
        lock = ops.lock(file)
    except BlockingIOError as error:
        raise RunLockedError(_in_use(path, file)) from error
    except OSError as error:
        raise RunError(f"{path} cannot be locked: {reason(error)}") from error
    try:
        ops.write(file, b"%d\n" % os.getpid())
    except OSError as error:
        lock.close()
        raise RunError(f"{file} could not be written: {reason(error)}") from error
    return lock


def _in_use(path: Path, file: Path) -> str:
    try:
        pid = int(file.read_bytes()[:20])
    except (OSError, ValueError):
        return f"{path} is in use by another process; wait for it, or choose another --run-dir"
    if pid == os.getpid():
        return f"{path} is already open in this process ({pid}); close that one first"
    return (
        f"{path} is in use by process {pid}; wait until it ends, stop it, "
        "or choose another --run-dir"
    )


def _read_marker(path: Path) -> _Marker:
    file = path / _MARKER
    try:
        if not path.is_dir():
            raise RunError(f"there is no run at {path}; {_runs_in(path.parent)}")
        if not file.is_file():
            raise RunError(f"{path} is not an Esper run (no {_MARKER}); {_runs_in(path.parent)}")
        with file.open("rb") as stream:
            marker = msgspec.convert(unseal(stream.read(_MARKER_SIZE_BYTES)), _Marker)
        datetime.fromisoformat(marker.created)
    except RunError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
    if marker.format != _FORMAT:
        raise RunError(
            f"{path} is a run of format {marker.format}; this version reads {_FORMAT}: "
            "open it with the version that wrote it"
        )
    if not _RUN_ID.fullmatch(marker.run_id):
        raise RunError(f"{file} is damaged: {marker.run_id[:80]!r} is not the name of a run")
    return marker


def _runs_in(parent: Path) -> str:
    """The newest runs in a directory, or where it has none in its runs/, in words."""
    for place in (parent, parent / "runs"):
        try:
            names = sorted(marker.parent.name for marker in place.glob(f"*/{_MARKER}"))
        except OSError:
            names = []
        if names:
            return f"the runs in {place} are: {', '.join(names[-_NUM_RUNS_SHOWN:])}"
    return f"there are no runs in {parent}"
