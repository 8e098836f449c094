"""The outbox's file: its layout, how it is made, recognised and read back by another process.

One page of header (identity, last sequence used, name of the server that holds all that was
delivered, state of each ring, table of drops by type, word of a sender in another process), then
the rings, METRIC first.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

from leyline import Priority
from leyline.checksum import crc32
from oona.outbox.ring import ALIGNMENT, STATE_SIZE_BYTES, Ring, oldest

FILE_NAME: Final = "outbox.bin"
_SEQUENCE_AT: Final = 64
_SERVER: Final = struct.Struct("<64p")
_SERVER_AT: Final = 128
_DROP_NAME: Final = struct.Struct("<24p")
_DROPS_AT: Final = 1024
_NUM_DROP_SLOTS: Final = 64
_DROP_SIZE_BYTES: Final = _DROP_NAME.size + 8
_STATUS_AT: Final = _DROPS_AT + _NUM_DROP_SLOTS * _DROP_SIZE_BYTES
PAGE_SIZE_BYTES: Final = 4096
_STATES_AT: Final = 256
_IDENTITY: Final = struct.Struct("<8sIIQ")
_CHECKSUM: Final = struct.Struct("<I")
_MAGIC: Final = b"ESPROONA"
_FORMAT: Final = 2
_ZEROS: Final = bytes(1 << 20)


def open_file(path: Path, ring_size_bytes: int, warnings: list[str]) -> memoryview:
    """Map the file, made if need be; one that cannot be used is moved aside with a warning.

    Raises:
        OSError: no space, no permission, or not an ordinary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes and any(os.pread(descriptor, PAGE_SIZE_BYTES, 0)):
            memory = memoryview(mmap.mmap(descriptor, 0))
            flaw = find_flaw(memory)
            if flaw is None:
                _allocate(descriptor, size_bytes)
                return memory
            aside = path.with_name(path.name + ".damaged")
            path.replace(aside)
            warnings.append(f"{path.name} cannot be used: {flaw}; kept as {aside.name}")
            fresh = open_file(path, ring_size_bytes, warnings)
            sequence_counter(fresh)[0] = _last_sequence(memory)
            return fresh
        return _make(descriptor, path, ring_size_bytes)
    finally:
        os.close(descriptor)


def is_made(path: Path) -> bool:
    """Say whether there is a file that is more than the beginning of one."""
    try:
        with path.open("rb") as file:
            return any(file.read(PAGE_SIZE_BYTES))
    except OSError:
        return False


def map_file(path: Path) -> memoryview:
    """Map a file that is there, whatever it holds.

    Raises:
        OSError: it cannot be opened, or is empty.
    """
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        return memoryview(mmap.mmap(descriptor, 0))
    except ValueError as error:
        raise OSError(errno.ENODATA, "it is empty") from error
    finally:
        os.close(descriptor)


def _make(descriptor: int, path: Path, ring_size_bytes: int) -> memoryview:
    size_bytes = file_size_bytes(ring_size_bytes)
    try:
        _allocate(descriptor, size_bytes)
        os.ftruncate(descriptor, size_bytes)  # a file cut short while it was made may be longer
        memory = memoryview(mmap.mmap(descriptor, size_bytes))
    except OSError:
        path.unlink()  # what was allocated so far belongs to whoever needs the space
        raise
    format_memory(memory, ring_size_bytes)
    return memory


def _allocate(descriptor: int, size_bytes: int) -> None:
    """Own every block now: storing into a hole of a map on a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    written = os.fstat(descriptor).st_size
    while written < size_bytes:
        written += os.pwrite(descriptor, _ZEROS[: size_bytes - written], written)


def file_size_bytes(ring_size_bytes: int) -> int:
    """Size of the file for a size of its rings."""
    return PAGE_SIZE_BYTES + len(Priority) * ring_size_bytes


def format_memory(memory: memoryview, ring_size_bytes: int) -> None:
    """Give zeroed memory its identity; until then a file counts as not yet made."""
    identity = _IDENTITY.pack(_MAGIC, _FORMAT, len(Priority), ring_size_bytes)
    _CHECKSUM.pack_into(memory, _IDENTITY.size, crc32(identity))
    memory[: _IDENTITY.size] = identity


def rings_of(memory: memoryview) -> dict[Priority, Ring]:
    """The rings in memory whose identity is known to be good."""
    ring_size_bytes = _IDENTITY.unpack_from(memory)[3]
    rings = {}
    for lane in Priority:
        data_at = PAGE_SIZE_BYTES + lane * ring_size_bytes
        data = memory[data_at : data_at + ring_size_bytes]
        rings[lane] = Ring(_state_memory(memory, lane), data)
    return rings


def sequence_counter(memory: memoryview) -> memoryview:
    """The last sequence used, as one 64-bit item."""
    return memory[_SEQUENCE_AT : _SEQUENCE_AT + 8].cast("Q")


def sequence_after_loss() -> int:
    """A sequence above all that a lost outbox can have used up: about the us since 1970."""
    return time.time_ns() >> 10


def _last_sequence(damaged: memoryview) -> int:
    """The last sequence that a damaged outbox has used up: events must not come twice."""
    if len(damaged) >= _SEQUENCE_AT + 8:
        last: int = sequence_counter(damaged)[0]
        if 0 < last <= sequence_after_loss():
            return last
    return sequence_after_loss()


def drop_counters(memory: memoryview, names: list[str]) -> dict[str, memoryview]:
    """The counter of drops of every name, as one 64-bit item each; names new to the file join."""
    counters: dict[str, memoryview] = {}
    for slot in range(_NUM_DROP_SLOTS):
        at = _DROPS_AT + slot * _DROP_SIZE_BYTES
        name = _DROP_NAME.unpack_from(memory, at)[0].decode(errors="replace")
        if not name:
            name = next((name for name in names if name not in counters), "")
            if not name:
                break
            _DROP_NAME.pack_into(memory, at, name.encode())
        counters[name] = memory[at + _DROP_NAME.size : at + _DROP_SIZE_BYTES].cast("Q")
    return counters


def status_memory(memory: memoryview) -> memoryview:
    """The rest of the page, for the word of a sender in another process."""
    return memory[_STATUS_AT:PAGE_SIZE_BYTES]


def read_server(memory: memoryview) -> str:
    """Identity of the server that holds all that was delivered."""
    name: bytes = _SERVER.unpack_from(memory, _SERVER_AT)[0]
    return name.decode(errors="replace")


def write_server(memory: memoryview, identity: str) -> None:
    """Record the server that holds all that was delivered."""
    _SERVER.pack_into(memory, _SERVER_AT, identity.encode())


def find_flaw(memory: memoryview) -> str | None:
    """Say why memory is not an outbox, or None if it is one."""
    if len(memory) < PAGE_SIZE_BYTES:
        return f"it has {len(memory)} bytes, the header alone has {PAGE_SIZE_BYTES}"
    magic, layout, num_lanes, ring_size_bytes = _IDENTITY.unpack_from(memory)
    if magic != _MAGIC:
        return "it is not an outbox"
    checksum = _CHECKSUM.unpack_from(memory, _IDENTITY.size)[0]
    if crc32(memory[: _IDENTITY.size]) != checksum:
        return "its header is damaged"
    if (layout, num_lanes) != (_FORMAT, len(Priority)) or ring_size_bytes % ALIGNMENT:
        return f"its layout is {layout} with {num_lanes} lanes, this is {_FORMAT} with 4"
    if len(memory) != file_size_bytes(ring_size_bytes):
        return f"it has {len(memory)} bytes, not {file_size_bytes(ring_size_bytes)}"
    for lane, ring in rings_of(memory).items():
        if not ring.is_sane():
            return f"the state of its {lane.name} lane is damaged"
    return None


def read_file(path: Path) -> tuple[list[bytes], int]:
    """Read every record kept in an outbox, in the order of each lane, also of a live run.

    Returns:
        The records' bodies and how many records were damaged. A file that is not an outbox has
        no records and counts as one that is damaged.

    Raises:
        OSError: the file cannot be read.
    """
    content = memoryview(path.read_bytes())
    if find_flaw(content) is not None:
        return [], 1
    with path.open("rb") as file:
        later = memoryview(file.read(PAGE_SIZE_BYTES))
    bodies: list[bytes] = []
    num_damaged = 0
    for lane, ring in rings_of(content).items():
        # What a live writer overwrote while we read lies before the record that is oldest now.
        records, num_missing = ring.history(oldest(_state_memory(later, lane)))
        bodies += [record.body for record in records]
        num_damaged += num_missing
    return bodies, num_damaged


def _state_memory(memory: memoryview, lane: Priority) -> memoryview:
    state_at = _STATES_AT + lane * STATE_SIZE_BYTES
    return memory[state_at : state_at + STATE_SIZE_BYTES]
