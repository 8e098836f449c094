"""One address at which a real server can be killed and started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from oona.servers.embedded import EmbeddedServer


class Place:
    """A unix socket's path that stays the same whichever server listens there."""

    def __init__(self, folder: Path):
        self._log = folder / "server.log"
        self._here = folder / "here"
        self.start()
        self.url = f"unix://{self._here / 'bus.sock'}"

    def kill(self) -> None:
        """SIGKILL: it has kept nothing on disk."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()
        self._here.unlink()

    def start(self) -> None:
        self.server = EmbeddedServer(self._log)
        self._here.symlink_to(self.server.socket_path.parent)
