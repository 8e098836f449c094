"""What all messages share: the version, names, lanes and the base class."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

import msgspec

from leyline.limits import NAME_LENGTH

VERSION: Final = 3
"""The one contract version; a message of another version is refused."""

Name = Annotated[str, msgspec.Meta(max_length=NAME_LENGTH)]


class Priority(IntEnum):
    """The lane an event travels in; when space is short the lowest number is dropped first."""

    METRIC = 0
    REPORT = 1
    DECISION = 2
    EMERGENCY = 3


class Message(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True
):
    """Base of all messages."""
