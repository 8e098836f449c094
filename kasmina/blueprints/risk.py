"""Risk: how much a blueprint's module is trusted while it runs inside the host."""

from __future__ import annotations

from enum import IntEnum


class Risk(IntEnum):
    """How closely the guard watches a blueprint's module.

    The higher the number, the more a call costs: at HIGH the guard gives the module a copy of its
    input and a random stream of its own, and watches its hooks and its memory.
    """

    LOW = 0
    """Built in, and each position is mapped by itself through linear layers."""
    MEDIUM = 1
    """Built in, and positions are mixed: convolutions, pooling, attention."""
    HIGH = 2
    """Everything that a user or a plug-in registers and does not declare less risky."""
