"""The outbox: queue, flight recorder and crash log of a run, and the ledger of its events."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final, Self

import msgspec

import leyline
from leyline import Priority
from oona.outbox import file as outbox_file
from oona.outbox.claim import Claim
from oona.outbox.ring import ALIGNMENT, Batch, Ring, State

DEFAULT_RING_SIZE_BYTES: Final = 4 * 1024 * 1024
MIN_RING_SIZE_BYTES: Final = 256
DAMAGED: Final = "damaged"
UNKNOWN: Final = "unknown"

_NUM_LOCK_FREE_COUNTS: Final = 3
_LARGEST_COUNT: Final = 2**63 - 1
"""A count that somebody has spoilt in the file must not end an offer."""


class Ledger(msgspec.Struct, frozen=True):
    """Every event ever offered to an outbox: offered == delivered + dropped + queued."""

    offered: int
    delivered: int
    queued: int
    dropped_by_type: dict[str, int]

    @property
    def dropped(self) -> int:
        """Events that no reader will see, of all types."""
        return sum(self.dropped_by_type.values())


class Outbox:
    """One ring per priority and the ledger, in a mapped file or, without room, in plain memory.

    Hold `lock` around `next_sequence`, `append` and `drop`. `acknowledge` is the sender's, who may
    be another process and needs no lock.

    Args:
        path: the file; a file that is there already keeps its size, its events and its counts.
        ring_size_bytes: of each ring.

    Raises:
        ConfigError: the ring size is too small.
    """

    def __init__(self, path: Path, ring_size_bytes: int = DEFAULT_RING_SIZE_BYTES):
        if ring_size_bytes < MIN_RING_SIZE_BYTES:
            raise leyline.ConfigError(
                f"ring size of {ring_size_bytes} bytes refused: at least {MIN_RING_SIZE_BYTES}"
            )
        size_bytes = (ring_size_bytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        self.lock = threading.RLock()  # a signal handler may offer too
        self.warnings: list[str] = []
        self.path: Path | None = path
        """The file; None if there is no room for one."""
        try:
            self._memory = outbox_file.open_file(path, size_bytes, self.warnings)
        except OSError as error:
            self.path = None
            self.warnings.append(f"events are in memory only and a crash would lose them: {error}")
            self._memory = memoryview(bytearray(outbox_file.file_size_bytes(size_bytes)))
            outbox_file.format_memory(self._memory, size_bytes)
        self._open_memory()
        self._continue_sequence()

    @classmethod
    def to_send(cls, path: Path) -> Self:
        """The outbox of a run, perhaps another process's: to send what it holds, not to add.

        Raises:
            BusError: there is no outbox at `path`, or it is damaged.
        """
        outbox = cls.__new__(cls)
        outbox.lock, outbox.warnings, outbox.path = threading.RLock(), [], path
        try:
            outbox._memory = outbox_file.map_file(path)
        except OSError as error:
            raise leyline.BusError(f"{path} cannot be opened: {error.strerror}") from error
        outbox._check(path)
        outbox._open_memory()
        return outbox

    @classmethod
    def of_copy(cls, path: Path) -> Self:
        """A private copy of the outbox of a run that may be live: to count, not to write.

        Raises:
            BusError: there is no outbox at `path`, or it is damaged.
        """
        outbox = cls.__new__(cls)
        outbox.lock, outbox.warnings, outbox.path = threading.RLock(), [], None
        try:
            outbox._memory = memoryview(bytearray(path.read_bytes()))
        except OSError as error:
            raise leyline.BusError(f"{path} cannot be read: {error.strerror}") from error
        outbox._check(path)
        outbox._open_memory()
        return outbox

    def _check(self, path: Path) -> None:
        flaw = outbox_file.find_flaw(self._memory)
        if flaw is not None:
            raise leyline.BusError(f"{path} cannot be used: {flaw}")

    def _open_memory(self) -> None:
        self.claim = Claim(self.path)
        """Held by whoever sends."""
        self.rings: dict[Priority, Ring] = outbox_file.rings_of(self._memory)
        names = [UNKNOWN, *sorted(kind.__name__ for kind in leyline.PRIORITIES)]
        self._drops = outbox_file.drop_counters(self._memory, names)
        self._sequence = outbox_file.sequence_counter(self._memory)
        self.status = outbox_file.status_memory(self._memory)
        """Where a sender in another process says how it is."""

    def _continue_sequence(self) -> None:
        self._sequence[0] = max(self._sequence[0], self.tally().offered)

    @property
    def server(self) -> str:
        """Identity of the server that was sent everything delivered so far; "" for none."""
        return outbox_file.read_server(self._memory)

    @server.setter
    def server(self, identity: str) -> None:
        outbox_file.write_server(self._memory, identity)

    def skip_lost(self) -> None:
        """Use up every sequence that an outbox which is gone can have used."""
        self._sequence[0] = max(self._sequence[0], outbox_file.sequence_after_loss())

    def append(
        self, lane: Priority, type_name: str, header: bytes, body: bytes | bytearray = b""
    ) -> bool:
        """Queue an encoded event, or drop it if its lane is full of events that wait."""
        if not self.rings[lane].append(header, body):
            self.drop(type_name)
            return False
        return True

    def next_sequence(self) -> int:
        """Use up a sequence; one whose event a kill or an interrupt prevents is never reused."""
        sequence = (self._sequence[0] + 1) & _LARGEST_COUNT
        self._sequence[0] = sequence
        return sequence

    def drop(self, type_name: str) -> None:
        """Count an event that is not queued."""
        count = self._drops.get(type_name, self._drops[UNKNOWN])
        count[0] = (count[0] + 1) & _LARGEST_COUNT

    def num_dropped(self) -> dict[str, int]:
        """Drops so far, by type."""
        return {name: count[0] for name, count in self._drops.items() if count[0]}

    def acknowledge(self, lane: Priority, batch: Batch) -> None:
        """Count a batch as delivered."""
        self.rings[lane].acknowledge(batch)

    def tally(self) -> Ledger:
        """Count without reading: events that wait are taken for undamaged until they are sent."""
        with self.lock:
            drops, states = self._snapshot()
        accepted = sum(state.accepted for state in states.values())
        offered = accepted + sum(drops.values())
        if damaged := sum(state.damaged for state in states.values()):
            drops[DAMAGED] = damaged
        delivered = sum(state.delivered for state in states.values())
        return Ledger(offered, delivered, accepted - delivered - damaged, drops)

    def is_drained(self) -> bool:
        """Say whether no event waits."""
        return all(ring.state.tail == ring.state.head for ring in self.rings.values())

    def count(self) -> Ledger:
        """Count the events; those that wait are read one by one, if possible outside the lock."""
        for _ in range(_NUM_LOCK_FREE_COUNTS):
            with self.lock:
                drops, states = self._snapshot()
            ledger = self._count(drops, states)
            with self.lock:
                if all(self.rings[lane].state.oldest <= states[lane].tail for lane in states):
                    return ledger
        with self.lock:  # the rings turn faster than they are read
            return self._count(*self._snapshot())

    def _snapshot(self) -> tuple[dict[str, int], dict[Priority, State]]:
        return self.num_dropped(), {lane: ring.state for lane, ring in self.rings.items()}

    def _count(self, drops: dict[str, int], states: dict[Priority, State]) -> Ledger:
        accepted = sum(state.accepted for state in states.values())
        offered = accepted + sum(drops.values())
        delivered = sum(state.delivered for state in states.values())
        queued = sum(self.rings[lane].num_waiting(state) for lane, state in states.items())
        damaged = accepted - delivered - queued
        if damaged:
            drops[DAMAGED] = damaged
        return Ledger(offered, delivered, queued, drops)


def ledger(run_dir: Path | str) -> Ledger:
    """The ledger of a run directory, whether its run is live or over; zeros if it has no bus.

    Raises:
        BusError: the outbox is damaged.
    """
    path = Path(run_dir) / outbox_file.FILE_NAME
    return Outbox.of_copy(path).count() if path.exists() else Ledger(0, 0, 0, {})
