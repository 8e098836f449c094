"""The checkpoints of one run, committed whole or absent: active/ to resume from, archive/ to keep.

Earlier versions kept them beside these two directories; such ones are found and read too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from leyline import CheckpointError, ConfigError, RunError
from tolaria.disk import manifest as manifests
from tolaria.disk.checkpoint import NAME, order, verify
from tolaria.disk.files import DISK, FileOps, reason
from tolaria.disk.manifest import (
    FileRecord,
    Manifest,
    ManifestCache,
    Occasion,
    Structure,
    UnreadableError,
    sealed,
)
from tolaria.disk.migrations import FORMAT
from tolaria.disk.retention import Kept, Rules, plan
from tolaria.disk.sealed import digest
from tolaria.disk.staging import Staged, Staging
from tolaria.disk.surroundings import Surroundings

_TEMPORARY: Final = ".tmp-"
UNDONE: Final = "undone-"
"""Begins the names of checkpoints that a rollback has set aside."""
_USUAL: Final = Rules()
_ROUTINE: Final = Occasion()
Groups = tuple[tuple[tuple[str, ...], ...], ...]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: where they are; created if missing, and cleaned of what a crash left behind.
        rules: which are kept. Those known to be damaged are not.
        ops: how files are written.
        read_only: only look; a store of a run that another process writes must be read-only.
    """

    def __init__(
        self,
        directory: Path,
        rules: Rules = _USUAL,
        ops: FileOps = DISK,
        *,
        read_only: bool = False,
    ):
        if rules.active < 1:
            raise ConfigError(f"{rules.active} checkpoints cannot be kept; keep at least 1")
        self.directory: Final = directory
        self.active: Final = directory / "active"
        self.archive: Final = directory / "archive"
        self.problems: Final[dict[str, list[str]]] = {}
        """What is wrong, by name of checkpoint, as far as it was looked at."""
        self._rules = rules
        self._ops = ops
        self._read_only = read_only
        self._manifests = ManifestCache()
        if read_only:
            return
        try:
            ops.mkdir_with_parents(self.active)
            for stale in self._stale():
                ops.remove_tree(stale)
        except OSError as error:
            raise CheckpointError(f"{directory} cannot be used: {reason(error)}") from error

    # --- looking -----------------------------------------------------------------------------

    def paths(self) -> list[Path]:
        """Every checkpoint, oldest first, sound or not, archived or not.

        Raises:
            CheckpointError: the disk does not tell, or the process may open no more files.
        """
        try:
            found = [
                path
                for folder in self._folders()
                for path in folder.iterdir()
                if NAME.fullmatch(path.name)
            ]
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be read: {reason(error)}") from error
        return sorted(found, key=order)

    def newest_valid(self) -> Path | None:
        """The newest checkpoint without a fault; `problems` says what is wrong with newer ones.

        Raises:
            CheckpointError: as `paths`.
        """
        while True:
            vanished = False
            newest = None
            for path in reversed(self.paths()):
                found = verify(path)
                if not found:
                    newest = path
                    break
                if path.is_dir():
                    self.problems[path.name] = found
                else:
                    vanished = True
            if not vanished:  # else the run that writes here has gone on, and there is a newer one
                return newest

    def valid_at(self, step: int) -> Path | None:
        """The last checkpoint of a step that is without a fault."""
        of_step = [path for path in self.paths() if order(path)[0] == step]
        return next((path for path in reversed(of_step) if not verify(path)), None)

    def manifest(self, path: Path) -> Manifest:
        """A checkpoint's manifest, from memory if it has not changed.

        Raises:
            CheckpointError: it is missing, damaged or of another format.
        """
        return self._manifests.read(path)

    def _folders(self) -> list[Path]:
        return [f for f in (self.directory, self.active, self.archive) if f.is_dir()]

    def _stale(self) -> list[Path]:
        """What a crash or a disk that would not even delete has left behind."""
        return [stale for f in self._folders() for stale in f.glob(f"{_TEMPORARY}*")]

    # --- writing -----------------------------------------------------------------------------

    def commit(self, step: int, state: Mapping[str, Any], occasion: Occasion = _ROUTINE) -> Path:
        """Stage a state and write it; see `Staging.stage` and `write` for arguments and errors."""
        self.check(step)
        return self.write(step, Staging().stage(state), occasion)

    def check(self, step: int) -> None:
        """Refuse what could never be written.

        Raises:
            CheckpointError: the store is read-only, or the step is not one.
        """
        if self._read_only:
            raise CheckpointError(f"{self.directory} is open read-only; open it to write")
        if not 0 <= step < 10**18:
            raise CheckpointError(f"{step} is no number of steps; it counts from 0")

    def write(
        self,
        step: int,
        staged: Staged,
        occasion: Occasion,
        groups: Groups = (),
        before_commit: Callable[[], None] = lambda: None,
    ) -> Path:
        """Write a checkpoint, then remove those that are no longer to be kept.

        A checkpoint of the same step is replaced (the new one's name gets -2, -3, ...), and later
        ones, which belong to a future that was undone, are removed.

        Args:
            step: optimizer steps so far; names the checkpoint.
            staged: what to write.
            occasion: when and why.
            groups: names of the parameters of each group of each optimizer.
            before_commit: called when all is on the disk and nothing counts yet; a RunError of it
                is taken for the disk's.

        Raises:
            CheckpointError: the disk refused; earlier checkpoints are as they were and nothing
                else is left behind. After an error of fsync the files are given up, not tried
                again: the kernel may have dropped what it could not write.
        """
        self.check(step)
        path = self._free_path(step)
        temporary = self.active / f"{_TEMPORARY}{path.name}"
        files = staged.files()
        manifest = Manifest(
            format=FORMAT,
            step=step,
            occasion=occasion,
            surroundings=Surroundings.here(),
            structure=Structure(staged.seeds, groups),
            files={name: FileRecord(len(data), digest(data)) for name, data in files.items()},
        )
        files[manifests.FILE_NAME] = sealed(manifest)
        try:
            self.sweep()
            if temporary.exists():  # this one must go
                self._ops.remove_tree(temporary)
            self._write(temporary, files)
            before_commit()
            self._ops.rename(temporary, path)
            self._ops.fsync_dir(self.active)
        except (OSError, RunError) as error:
            with suppress(OSError):  # after the rename: not surely durable, so it does not count
                if path.exists():
                    self._ops.rename(path, temporary)
            with suppress(OSError):
                self._ops.remove_tree(temporary)
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise CheckpointError(f"{path} could not be written: {why}") from error
        with suppress(CheckpointError):  # the new one is there all the same
            self._retire(path)
        return path

    def sweep(self) -> None:
        """Remove what earlier failures could not, as far as the disk lets it now."""
        for stale in self._stale():
            with suppress(OSError):
                self._ops.remove_tree(stale)

    def undo_after(self, path: Path) -> list[Path]:
        """Set every checkpoint after this one aside, in archive/, where no resume finds it.

        Returns:
            Where they are now.

        Raises:
            CheckpointError: the disk refused; the newest ones were set aside first.
        """
        aside = []
        try:
            self._ops.mkdir_with_parents(self.archive)
            for later in reversed([p for p in self.paths() if order(p) > order(path)]):
                target, number = self.archive / f"{UNDONE}{later.name}", 1
                while target.exists():
                    number += 1
                    target = self.archive / f"{UNDONE}{later.name}.{number}"
                self._ops.rename(later, target)
                self._ops.fsync_dir(later.parent)
                aside.append(target)
            self._ops.fsync_dir(self.archive)
        except OSError as error:
            raise CheckpointError(f"{self.archive} cannot be used: {reason(error)}") from error
        return aside

    def _write(self, folder: Path, contents: Mapping[str, bytes | memoryview]) -> None:
        self._ops.mkdir(folder)
        for name, data in contents.items():
            self._ops.write(folder / name, data)
        for name in contents:
            self._ops.fsync(folder / name)
        self._ops.fsync_dir(folder)

    def _free_path(self, step: int) -> Path:
        """The name for a checkpoint of this step: with a number, if there is one already."""
        numbers = [order(path)[1] for path in self.paths() if order(path)[0] == step]
        suffix = f"-{max(numbers) + 1}" if numbers else ""
        return self.active / f"step-{step:08d}{suffix}"

    # --- keeping -----------------------------------------------------------------------------

    def _retire(self, newest: Path) -> None:
        """Do as the rules say; what the disk refuses waits for the next commit."""
        looked_at = [self._kept(path, newest) for path in self.paths()]
        steps = plan([kept for kept in looked_at if kept is not None], newest, self._rules)
        for path in steps.remove:
            self._remove(path)
        for path in steps.archive:
            with suppress(OSError):
                self._ops.mkdir_with_parents(self.archive)
                self._ops.rename(path, self.archive / path.name)
                self._ops.fsync_dir(self.archive)
        self._manifests.keep_only(self.paths())

    def _kept(self, path: Path, newest: Path) -> Kept | None:
        """What the rules look at; None for an older one of which the disk does not tell.

        That may be sound, and worth keeping: it stays, and is looked at again by the next commit.
        """
        archived = path.parent == self.archive
        try:
            held = self._manifests.read(path)
        except CheckpointError as error:
            if isinstance(error, UnreadableError) and order(path)[0] < order(newest)[0]:
                return None
            self.problems[path.name] = [str(error)]
            return Kept(path, order(path), "low", 0, is_sound=False, is_archived=archived)
        sound = path.name not in self.problems
        priority, size_bytes = held.occasion.priority, held.size_bytes
        return Kept(path, order(path), priority, size_bytes, sound, archived)

    def _remove(self, path: Path) -> None:
        temporary = path.with_name(f"{_TEMPORARY}{path.name}")
        try:
            self._ops.rename(path, temporary)
            self._ops.remove_tree(temporary)
        except OSError as error:
            self.problems[path.name] = [f"it could not be removed: {reason(error)}"]
            with suppress(OSError):
                self._ops.remove_tree(temporary)
        else:
            self.problems.pop(path.name, None)
