"""The audit trail: every event of a run in a SQLite file, each row chained to the one before."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import leyline
from leyline import RunError, RunLockedError
from oona.audit import schema
from oona.audit.chain import Chain
from oona.audit.database import PassingError, database_errors, open_writable
from oona.audit.head import Head, head_path, read_head, write_head
from oona.audit.reader import verify_trail
from oona.audit.row import Row, row_of
from oona.outbox.claim import Claim

FILE_NAME: Final = "audit.db"
"""The trail in a run's directory; beside it lie audit.head, and audit.lock for its one writer."""

_INSERT: Final = (
    f"INSERT INTO events ({schema.ROW}) "  # noqa: S608 -- our own names
    f"VALUES ({', '.join('?' * len(schema.COLUMNS))}) "
    "ON CONFLICT (run_id, sequence) DO NOTHING"
)
_SEAL: Final = "UPDATE trail SET num_rows = ?, last_hash = ?, seal = ?"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class AuditTrail:
    """The writer of a trail; there is one at a time. Readers (`oona.audit.reader`) need none."""

    def __init__(self, path: Path, chain: Chain, claim: Claim):
        self.path: Final = path
        self.num_refused = 0
        """Hostile events that no store can hold."""
        self._chain = chain
        self._claim = claim
        self._lock = threading.Lock()
        self._connection = open_writable(path, chain)
        try:
            self._head = self._noted = self._find_head()
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def open(cls, path: Path, chain: Chain | None = None) -> Self:
        """Open a trail to write to, or make it.

        Args:
            path: the SQLite file.
            chain: computes the hashes; None: with the key in ESPER_AUDIT_KEY, if there is one.

        Raises:
            RunLockedError: another writer has it.
            PassingError: another process holds the file, or its disk has no room.
            RunError: it cannot be used: damaged, foreign, of a newer format, chained with another
                key, or no longer as it was left. It is never changed then.
            ConfigError: the key is too short.
        """
        chain = Chain.from_environment() if chain is None else chain
        claim = _claim(path)
        try:
            return cls(path, chain, claim)
        except BaseException:
            claim.release()
            raise

    def append(self, envelopes: Iterable[leyline.Envelope]) -> int:
        """Append events, all or none of them; those that are there already are passed over.

        Returns:
            How many are new, those that a call before could commit but not note included.

        Raises:
            PassingError: another process holds the file, or its disk has no room.
            RunError: the file refused; the trail is as it was.
        """
        found = [row_of(envelope) for envelope in envelopes]
        rows = [row for row in found if row is not None]
        with self._lock, database_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                head = self._insert(rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._head = head
            num_new = head.num_rows - self._noted.num_rows
            if num_new:
                self._note(head)
            self._noted = head
            self.num_refused += len(found) - len(rows)
        return num_new

    def verify(self) -> list[str]:
        """What is wrong with the trail, in words; see `verify_trail`."""
        return verify_trail(self.path, self._chain)

    def close(self) -> None:
        """Let go of the file; further calls do nothing."""
        with self._lock:
            self._connection.close()
            self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _insert(self, rows: list[Row]) -> Head:
        """Insert what is new and seal it; the head that the trail then has."""
        count, last_hash, _ = self._head
        for row in rows:
            link = self._chain.link(last_hash, count + 1, row)
            if self._connection.execute(_INSERT, (count + 1, *row, link)).rowcount:
                count, last_hash = count + 1, link
        if count == self._head.num_rows:
            return self._head
        head = Head.sealed(self._chain, count, last_hash)
        self._connection.execute(_SEAL, head)
        return head

    def _note(self, head: Head) -> None:
        path = head_path(self.path)
        try:
            write_head(path, head)
        except OSError as error:
            raise _refused(error, path, "written", "; the events before it are kept") from error

    def _find_head(self) -> Head:
        """Where the trail ends; refuses one that no longer is as it was left.

        To write on would hide it: the file beside it would be replaced.
        """
        noted = read_head(head_path(self.path))
        with database_errors(self.path):
            found = self._connection.execute(schema.HEAD).fetchone()
            head = Head.of_table(found, self.path)
            is_sealed = all(h is None or h.has_seal_of(self._chain) for h in (head, noted))
            if noted is None and not head.num_rows and is_sealed:
                self._note(head)
            elif noted is None or not is_sealed or not self._holds(noted):
                there = "is missing" if noted is None else f"notes {noted.num_rows} rows"
                there += "" if is_sealed else ", not both under the seal of its writer"
                raise RunError(
                    f"{self.path} is no longer as it was left: it has {head.num_rows} rows, and "
                    f"{head_path(self.path).name} {there}. `esper verify` tells more; move both "
                    "away to have the trail written anew"
                )
        return head

    def _holds(self, head: Head) -> bool:
        find = "SELECT hash FROM events WHERE position = ?"
        found = self._connection.execute(find, (head.num_rows,)).fetchone()
        return not head.num_rows or (found is not None and found[0] == head.last_hash)


def _refused(error: OSError, path: Path, what: str, more: str = "") -> RunError:
    """The error in words; one that passes if all that is missing is room."""
    kind = PassingError if error.errno in _NO_ROOM else RunError
    return kind(f"{path} cannot be {what}: {error.strerror}{more}")


def _claim(path: Path) -> Claim:
    """Hold a trail against other writers until it is released or the process dies."""
    lock_path = path.with_suffix(".lock")
    claim = Claim(lock_path)
    try:
        lock_path.touch()
        is_ours = claim.take()
    except OSError as error:
        raise _refused(error, lock_path, "opened") from error
    if not is_ours:
        raise RunLockedError(f"{path} has a writer already; wait until it has ended")
    return claim
