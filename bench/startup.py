"""How long a command waits before it can answer, and what importing brings with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from bench.harness import Effort, Row, Target

TITLE = "Start-up, processes from nothing"
_HELP_MS = 500.0
_LIGHTNING = "import lightning.pytorch"


def rows(effort: Effort) -> Iterator[Row]:
    """`esper --help` beside a Python that does nothing, the packages beside what they import.

    A quick look leaves out those that import torch: that takes seconds each time.
    """
    yield _row(
        effort, "help", "esper --help", "-m tolaria --help", "pass", "python -c pass", _HELP_MS
    )
    yield _row(effort, "leyline", "import leyline", "import leyline", "import msgspec")
    yield _row(effort, "oona", "import oona", "import oona", "import redis")
    if effort.is_quick:
        return
    yield _row(effort, "kasmina", "import kasmina", "import kasmina", "import torch", most=1.25)
    callback = "from tolaria import EsperCallback"
    yield _row(effort, "tolaria", callback, callback, _LIGHTNING, most=1.25)


def _row(
    effort: Effort,
    name: str,
    claim: str,
    ours: str,
    peer: str,
    shown: str = "",
    target_ms: float | None = None,
    most: float | None = None,
) -> Row:
    found = effort.compare(lambda: _start(ours), lambda: _start(peer), num_pairs=7)
    return Row.timed(
        f"startup/{name}",
        claim,
        "ms",
        found,
        peer=shown or peer,
        most=most,
        target=Target(p50=target_ms),
    )


def _start(code: str) -> None:
    """Run a statement, or arguments of the interpreter, in a process of its own."""
    arguments = code.split() if code.startswith("-") else ["-c", code]
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
