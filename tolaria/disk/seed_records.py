"""Seed records on disk: one mapped file in the run directory, where the newest two of every seed
outlive the process.

Two slots for the header, then two for each seed, written by turns, so that a kill in the middle of
a record leaves the one before it. A record carries its own CRC: in whatever order its bytes arrive,
a slot is either whole or skipped. Nothing is synced: a power cut may take what a kill cannot. To
touch a mapped page that the file no longer has would end the process, so its size is asked first.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import weakref
from pathlib import Path
from typing import Final

from kasmina import MemoryRecords, SeedRecord, unpack_record
from leyline import CheckpointError
from tolaria.disk.files import reason

_LOG = logging.getLogger("esper")
FILE_NAME: Final = "seeds.bin"
SLOT_SIZE_BYTES: Final = 1024
_FIRST_SIZE_BYTES: Final = 128 * SLOT_SIZE_BYTES
_IDENTITY: Final = struct.Struct("<8sII")
_HEADER: Final = _IDENTITY.pack(b"ESPRSEED", 1, SLOT_SIZE_BYTES)
_ZEROS: Final = bytes(1 << 16)


class SeedRecords:
    """A RecordSink in a file; what the disk refuses is kept in memory instead, with one warning."""

    def __init__(self, path: Path):
        self._path = path
        self._overflow = MemoryRecords()
        self._warned = False
        self._descriptor = -1
        self._memory: memoryview | None = None
        self._next_slots: dict[str, int] = {}
        """Where each seed's next record goes: the slot whose neighbour holds its newest."""
        self._last_slot = 1
        self.last_id = 0
        self.last_id_in_file = 0
        """The highest id that the file was given; 0 for none."""
        try:
            self._open()
        except OSError as error:
            self._warn(reason(error))

    def commit(self, seed: str, checkpoint_id: int, record: bytes) -> None:
        """Write over the older of the seed's two records."""
        if checkpoint_id > self.last_id:
            self.last_id = checkpoint_id
        memory = self._memory
        # lseek takes a third of the time of fstat, and this is in the way of every transition.
        if memory is not None and os.lseek(self._descriptor, 0, os.SEEK_END) < len(memory):
            self._warn("the file was cut short while the run went on")
            self.close()
            memory = None
        slot = self._next_slots.get(seed)
        if slot is None:
            slot = self._new_slot(seed)
            memory = self._memory
        if slot is None or memory is None or len(record) > SLOT_SIZE_BYTES:
            self._overflow.commit(seed, checkpoint_id, record)
            return
        start = slot * SLOT_SIZE_BYTES
        memory[start : start + len(record)] = record
        self._next_slots[seed] = slot ^ 1
        self.last_id_in_file = checkpoint_id

    def records(self, seed: str) -> list[bytes]:
        """The records of a seed that are whole, newest first; at most two."""
        kept = self._overflow.records(seed)
        slot = self._next_slots.get(seed)
        memory = self._memory
        if slot is not None and memory is not None:
            whole_slots = os.fstat(self._descriptor).st_size // SLOT_SIZE_BYTES
            kept += [bytes(_slot(memory, at)) for at in (slot ^ 1, slot) if at < whole_slots]
        whole = [(found.checkpoint_id, data) for data in kept if (found := _of(data, seed))]
        return [data for _, data in sorted(whole, reverse=True)][:2]

    def close(self) -> None:
        """Let go of the file; later records are kept in memory."""
        self._memory = None
        if self._descriptor >= 0:
            self._close_descriptor()
            self._descriptor = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        self._descriptor = descriptor = os.open(self._path, flags, 0o600)
        self._close_descriptor = weakref.finalize(self, os.close, descriptor)
        try:
            start = os.pread(descriptor, len(_HEADER), 0)
            is_other = any(start) and start != _HEADER
            if is_other:
                aside = self._path.with_name(f"{FILE_NAME}.damaged")
                self._path.replace(aside)
                _LOG.warning("%s is not of this version; kept as %s", self._path, aside.name)
            else:
                size_bytes = os.fstat(descriptor).st_size
                memory = self._memory = _map(descriptor, max(_FIRST_SIZE_BYTES, size_bytes))
        except OSError:
            if not os.fstat(descriptor).st_size:
                self._path.unlink(missing_ok=True)
            self.close()
            raise
        if is_other:
            self.close()
            self._open()
            return
        memory[: len(_HEADER)] = _HEADER
        found = _newest(memory)
        self._next_slots = {seed: slot ^ 1 for seed, (_, slot) in found.items()}
        self._last_slot = max(self._next_slots.values(), default=0) | 1
        self.last_id = max((record.checkpoint_id for record, _ in found.values()), default=0)
        self.last_id_in_file = self.last_id

    def _new_slot(self, seed: str) -> int | None:
        """The first of two slots that no seed has, in a larger file if need be."""
        if self._memory is None:
            return None
        slot = self._last_slot + 1
        if (slot + 2) * SLOT_SIZE_BYTES > len(self._memory) and not self._grow():
            return None
        self._last_slot += 2
        self._next_slots[seed] = slot
        return slot

    def _grow(self) -> bool:
        assert self._memory is not None
        try:
            self._memory = _map(self._descriptor, 2 * len(self._memory))
        except OSError as error:
            self._warn(reason(error))
            return False
        return True

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            what = "seed records are in memory only and a crash would lose them"
            _LOG.warning("%s: %s: %s", what, self._path, why)


def read_seed_records(path: Path) -> dict[str, SeedRecord]:
    """The newest whole record of every seed in a file, also of a live run.

    Raises:
        CheckpointError: the file cannot be read or is not one of seed records.
    """
    return {seed: record for seed, (record, _) in _newest(_read(path)).items()}


def num_damaged_records(path: Path) -> int:
    """Places for records that hold something which is none.

    Raises:
        CheckpointError: as `read_seed_records`.
    """
    memory = _read(path)
    slots = [_slot(memory, at) for at in range(2, len(memory) // SLOT_SIZE_BYTES)]
    return sum(any(slot) and _of(slot) is None for slot in slots)


def _read(path: Path) -> memoryview:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"seed records {path} cannot be read: {reason(error)}") from error
    if content[: len(_HEADER)] != _HEADER:
        raise CheckpointError(f"{path} is not a file of seed records of this version")
    return memoryview(content)


def _newest(memory: memoryview) -> dict[str, tuple[SeedRecord, int]]:
    """The newest whole record of every seed and its slot; what is damaged is skipped."""
    found: dict[str, tuple[SeedRecord, int]] = {}
    for slot in range(2, len(memory) // SLOT_SIZE_BYTES):
        record = _of(_slot(memory, slot))
        if record is not None:
            known = found.get(record.seed)
            if known is None or record.checkpoint_id > known[0].checkpoint_id:
                found[record.seed] = record, slot
    return found


def _slot(memory: memoryview, slot: int) -> memoryview:
    return memory[slot * SLOT_SIZE_BYTES : (slot + 1) * SLOT_SIZE_BYTES]


def _of(data: bytes | memoryview, seed: str | None = None) -> SeedRecord | None:
    """The record that the bytes hold, if they are whole and, where it is given, of that seed."""
    try:
        record = unpack_record(data)
    except CheckpointError:
        return None
    return record if seed in (None, record.seed) else None


def _map(descriptor: int, size_bytes: int) -> memoryview:
    """Map a file of whole slots; one that cannot be made so large keeps its size."""
    before = os.fstat(descriptor).st_size
    size_bytes = size_bytes // (2 * SLOT_SIZE_BYTES) * 2 * SLOT_SIZE_BYTES
    try:
        _allocate(descriptor, size_bytes)
        return memoryview(mmap.mmap(descriptor, size_bytes))
    except OSError:
        os.ftruncate(descriptor, before)  # the room belongs to whoever needs it
        raise


def _allocate(descriptor: int, size_bytes: int) -> None:
    """Own every block now: storing into a hole of a map on a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    written = os.fstat(descriptor).st_size
    while written < size_bytes:
        written += os.pwrite(descriptor, _ZEROS[: size_bytes - written], written)
