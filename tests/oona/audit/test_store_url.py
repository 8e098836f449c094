"""URLs of stores, shown without their passwords."""

from __future__ import annotations

import pytest

from oona.audit.store_url import redact


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@h/db", "postgresql://me:***@h/db"),
        ("postgresql://me:s3c@ret@h/db", "postgresql://me:***@h/db"),
        ("postgresql://me:s3c/ret@h/db", "postgresql://me:***@h/db"),
        ("postgresql://me@h/db?password=s3cret", "postgresql://me@h/db?password=***"),
        ("postgresql://me@h/db?pass%77ord=s3cret", "postgresql://me@h/db?pass%77ord=***"),
        ("postgresql://h/db?a=1&%50ASSWORD=s3cret&b=2", "postgresql://h/db?a=1&%50ASSWORD=***&b=2"),
        ("postgresql://h/db?ssl%70assword=s3cret", "postgresql://h/db?ssl%70assword=***"),
        ("postgresql://h/db?password%3ds3cret", "postgresql://h/db?***"),
        ("postgresql://me@h/db?password=s3c@ret", "postgresql://..."),
        ("postgresql://me:s3c?ret@h/db", "postgresql://..."),
        ("postgresql://me@/db?host=/run/one", "postgresql://me@/db?host=/run/one"),
        ("sqlite:runs/audit.db", "sqlite:runs/audit.db"),
    ],
)
def test_no_password_is_shown_and_the_rest_is(url: str, shown: str) -> None:
    """Wherever libpq takes one, and however it is spelt; an ambiguous URL is not shown at all."""
    assert redact(url) == shown
    assert "s3c" not in shown
