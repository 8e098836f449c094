"""CRC-32 as zlib has it, by the processor's own instructions where a wheel for them exists."""

from __future__ import annotations

try:
    # Nine times as fast as zlib's: of a large packet the checksum would be most of the cost.
    from isal.isal_zlib import crc32 as crc32
except ImportError:
    from zlib import crc32 as crc32
