"""What every test of the growth benchmark leaves as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    """The benchmark quietens Esper's logger for its whole process."""
    logger = logging.getLogger("esper")
    level = logger.level
    yield
    logger.setLevel(level)
