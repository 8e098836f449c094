"""Small JSON files that carry the digest of their own content, so that damage is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_DIGEST: Final = "blake2b"


def digest(data: bytes | memoryview) -> str:
    """The digest that detects damage; it proves nothing about who wrote the data."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def seal(content: Mapping[str, Any]) -> bytes:
    """The one spelling of a JSON object, with its digest as "blake2b"."""
    own = digest(msgspec.json.encode({**content, _DIGEST: ""}))
    return msgspec.json.format(msgspec.json.encode({**content, _DIGEST: own})) + b"\n"


def unseal(data: bytes, *, required: bool = False) -> dict[str, Any]:
    """The content of a sealed file, without its digest.

    Args:
        data: the file's bytes.
        required: whether a file without a digest is refused too; earlier versions wrote none.

    Raises:
        ValueError: it is no JSON object, or its digest does not fit its content.
        RecursionError: it is nested too deep.
    """
    content: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    if (required or _DIGEST in content) and seal(content) != data:
        raise ValueError("its digest does not fit its content")
    content.pop(_DIGEST, None)
    return content
