"""Small files that carry the digest of their content."""

from __future__ import annotations

import pytest

from tolaria.disk.sealed import seal, unseal

CONTENT = {"format": 1, "name": "caf\u00e9", "nested": {"a": [1, 2.5, None, True]}}


def test_every_flipped_bit_of_a_sealed_file_is_found() -> None:
    """Whichever bit it is: the file is refused, or what is left has an entry that was never there
    in the place of the digest, which readers refuse by its name."""
    data = seal(CONTENT)
    assert unseal(data, required=True) == CONTENT
    unnamed = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):  # noqa: PT011  # of JSON or ours
            unseal(bytes(damaged), required=True)
        try:
            content = unseal(bytes(damaged))
        except ValueError:
            continue
        assert len(content) == len(CONTENT) + 1
        unnamed += 1
    assert 0 < unnamed < 8 * len("blake2b")


def test_a_file_of_an_earlier_version_has_no_digest() -> None:
    """It is read as it is, unless a digest is required."""
    plain = b'{"format": 1}'
    assert unseal(plain) == {"format": 1}
    with pytest.raises(ValueError, match="digest does not fit"):
        unseal(plain, required=True)
    for nonsense in (b"", b"[]", b"3", b"{"):
        with pytest.raises(ValueError):  # noqa: PT011  # of JSON
            unseal(nonsense)
