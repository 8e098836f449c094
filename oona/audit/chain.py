"""The chain that holds the rows of an audit trail together, and its optional key.

Every row carries the BLAKE2b hash of the row before it, its own position and all its columns, so a
row that was altered, removed, inserted or moved no longer fits its neighbours. How many rows there
are, and the last hash, is kept twice beside them, under a seal (in the store, and in a small file),
so rows cut off at the end are missed.

Without a key this finds damage and careless hands. It proves nothing against somebody who may
write to all of these places and knows this file: they can chain everything anew. With a key
(ESPER_AUDIT_KEY, kept where they cannot read it) they can neither alter nor add a row, nor seal
another end. Even then they can put back an older copy of everything together, an empty one too:
against that, note the last hash elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, Self

import msgspec

from leyline import ConfigError
from oona.audit.row import Row

KEY_VARIABLE: Final = "ESPER_AUDIT_KEY"
GENESIS: Final = bytes(32)
"""What stands for the hash before the first row."""
_SHORTEST_KEY: Final = 16
_DIGEST_SIZE_BYTES: Final = 32
_SEAL: Final = b"the end of an Esper audit trail"
_KEY_CHECK: Final = b"the key of an Esper audit trail"
_ENCODER: Final = msgspec.msgpack.Encoder()


class Chain:
    """Computes the links of a chain, keyed or not."""

    def __init__(self, key: bytes = b""):
        self._key = key
        self.key_check = b""
        """Tells two keys apart and says nothing else of them; empty without a key."""
        if key:
            self.key_check = blake2b(_KEY_CHECK, key=key, digest_size=16).digest()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """A chain with the key that ESPER_AUDIT_KEY holds, or without one.

        Raises:
            ConfigError: the key is too short to keep a secret.
        """
        secret = (os.environ if environment is None else environment).get(KEY_VARIABLE, "")
        if not secret:
            return cls()
        if len(secret) < _SHORTEST_KEY:
            raise ConfigError(
                f"{KEY_VARIABLE} has {len(secret)} characters; a key needs {_SHORTEST_KEY} or "
                "more: make one with `openssl rand -hex 32`"
            )
        return cls(blake2b(secret.encode("utf-8", "surrogateescape")).digest())

    def link(self, before: bytes, position: int, row: Row) -> bytes:
        """The hash of a row at a position, 1 for the first, after the row with that hash."""
        columns = _ENCODER.encode((position, *row))
        return blake2b(before + columns, key=self._key, digest_size=_DIGEST_SIZE_BYTES).digest()

    def seal(self, num_rows: int, last_hash: bytes) -> bytes:
        """What shows, with a key, that a trail ended with this row and this hash."""
        end = _ENCODER.encode((num_rows, last_hash))
        return blake2b(_SEAL + end, key=self._key, digest_size=_DIGEST_SIZE_BYTES).digest()

    def key_flaw(self, key_check: bytes) -> str | None:
        """Why this chain cannot go on with a trail that has this key check; None if it can."""
        if key_check == self.key_check:
            return None
        if not key_check:
            return f"it was begun without a key; unset {KEY_VARIABLE} to use it"
        if not self.key_check:
            return f"it is chained with a key; set {KEY_VARIABLE} to it"
        return f"it is chained with another key than the one in {KEY_VARIABLE}"
