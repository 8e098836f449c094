"""For all tests: one thread, since two contended ones make small tensors ten times slower."""

from __future__ import annotations

import gc

import torch

from tests.reliability.plugin import (
    faults,
    pytest_addoption,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)

__all__ = ["faults", "pytest_addoption", "pytest_runtest_makereport", "pytest_terminal_summary"]

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Take what was imported out of Python's collections, and of its searches for referrers.

    Looking for schedulers asks every object of the process; with all test files imported, that was
    a quarter of the suite's time.
    """
    gc.collect()
    gc.freeze()
