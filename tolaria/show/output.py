"""The console that commands print to."""

from __future__ import annotations

import os
import sys

from rich.console import Console


class Output(Console):
    """Standard output without colours of its own, which a reader may leave at any time.

    `esper inspect RUN | head` has had what it wanted, and `esper train | head` goes on training.
    """

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Print no more; what Python flushes at its end must find a place to go, too."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
