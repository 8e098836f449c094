"""What bits depend on: a difference is told, and what an old checkpoint never said is not one."""

from __future__ import annotations

import msgspec
import pytest

from tests.reliability.plugin import Faults
from tolaria.disk.surroundings import Surroundings

HERE = Surroundings.here()


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("field", "was", "words"),
    [
        ("torch", "2.6.0", f"torch was 2.6.0 and is {HERE.torch}"),
        ("python", "3.10.1", f"Python was 3.10.1 and is {HERE.python}"),
        ("platform", "Darwin arm64", f"platform was Darwin arm64 and is {HERE.platform}"),
        ("num_threads", 96, f"threads was 96 and is {HERE.num_threads}"),
        ("cpu_capability", "VSX", f"CPU capability was VSX and is {HERE.cpu_capability}"),
        ("contract", 99, f"contract version was 99 and is {HERE.contract}"),
    ],
)
def test_every_difference_is_told(field: str, was: str | int, words: str, faults: Faults) -> None:
    """An older torch, another machine, another number of threads: each by name, was and is."""
    assert msgspec.structs.replace(HERE, **{field: was}).differences(HERE) == words
    faults.injected()


def test_what_was_never_said_is_no_difference() -> None:
    """Format 1 named torch, threads and CPU capability alone."""
    old = Surroundings(HERE.torch, HERE.num_threads, HERE.cpu_capability)
    assert old.differences(HERE) == ""
    assert Surroundings("2.6.0", 1, "").differences(HERE).startswith("torch was 2.6.0")
