"""The collector as a child process of the trainer."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from leyline import RunError
from oona.servers.credentials import PASSWORD, PASSWORD_FILE, USERNAME
from oona.servers.log_file import open_log

LOG_NAME: Final = "audit.log"
"""What the child says, in the run's directory."""


class Child:
    """A collector that was started; it ends by itself once the run is over, or the trainer dead."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path):
        self.pid = process.pid
        self._process = process
        self._log = log

    def wait(self, timeout_s: float) -> str | None:
        """Tell it that nothing more will come and wait until it has written all there is.

        Returns:
            What is wrong, in words; None if it has ended well. It is left alone if it takes longer.
        """
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"the collector (process {self.pid}) is still writing the audit trail"
        if code == 0:
            return None
        return f"the collector ended with code {code}; see {self._log}"


def start_child(run_dir: Path, url: str = "") -> Child:
    """Start the collector of a run, which writes RUN/audit.db, as a child of this process.

    It has a session of its own, so Ctrl-C in a terminal ends the trainer first.

    Args:
        run_dir: the run's directory, whose bus is open.
        url: of the bus, if it holds a password; the child gets that through its environment.

    Raises:
        RunError: no process can be started.
    """
    log = run_dir / LOG_NAME
    try:
        with open_log(log) as output:
            process = subprocess.Popen(  # noqa: S603 -- ourselves
                # -P: nothing in the working directory may stand in for a module.
                [sys.executable, "-P", "-m", "oona.collecting", str(run_dir), str(os.getpid())],
                stdin=subprocess.PIPE,  # its end is the run's end
                stdout=output,
                stderr=output,
                env=_environment(url),
                start_new_session=True,
            )
    except OSError as error:
        raise RunError(f"no collector for {run_dir}: {error.strerror or error}") from error
    return Child(process, log)


def _environment(url: str) -> dict[str, str]:
    """The child's environment: of a URL with a password the login alone, as it is the run's."""
    parts = urlsplit(url)
    password = unquote(parts.password or "") or parse_qs(parts.query).get("password", [""])[0]
    if not password:
        return dict(os.environ)
    kept = {name: os.environ[name] for name in os.environ if name not in (PASSWORD_FILE, USERNAME)}
    return kept | {PASSWORD: password}
