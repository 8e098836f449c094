"""What was found of a server, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    told: str
    """What was found, or why it could not be seen."""
    mend: str | None = None
    """What to do; None if it is good as it is."""
    is_seen: bool = True
