"""Every budget and size that the parts of Esper promise one another, with its unit in its name."""

from __future__ import annotations

from typing import Final

BOUNDARY_MS: Final = 18.0
"""p95 of gather + decide + apply at an epoch boundary."""
GATHER_MS: Final = 1.0
"""Filling the state packet."""
DECIDE_MS: Final = 5.0
"""The policy's time; a later answer is discarded."""
APPLY_MS: Final = 10.0
"""Attaching and detaching seeds, optimizer surgery included."""
ENCODE_US: Final = 80.0
"""Encoding one state packet of 32 seeds."""
ROLLBACK_MS: Final = 500.0
"""Restoring the in-memory snapshot."""

MESSAGE_SIZE_BYTES: Final = 16 * 1024 * 1024
"""Largest message the codec reads or writes, header included: a packet of 250,000 seeds fits."""
HISTORY_LENGTH: Final = 10
"""Transitions remembered for each seed."""
SEED_RECORD_BYTES: Final = 128
"""One seed's documented row: 8 int32, a 10 x 2 int32 ring, 4 float32."""
NAME_LENGTH: Final = 512
"""Longest site, seed or blueprint name, in characters."""
