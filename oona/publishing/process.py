"""The publisher in a process of its own: it shares the outbox's pages, and nothing else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import Final

import msgspec

import leyline
from oona.outbox.outbox import Outbox
from oona.publishing import status
from oona.publishing.status import PublisherStatus

FLUSH: Final = b"flush\n"
STOP: Final = b"stop\n"

_POLL_INTERVAL_S: Final = 0.005
_RESTART_INTERVAL_S: Final = 5.0


class Errand(msgspec.Struct, frozen=True):
    """What the process is told first, on its standard input, because it may hold a password."""

    path: str
    url: str
    run_id: str
    bytes_per_s: int | None
    trainer_pid: int


class PublisherProcess:
    """Does as `Publisher` does, but beside the trainer: its Python does not share our lock.

    It ends by itself when the trainer has died, after what was left has been sent or its server
    turned out to be gone. One that dies is started again.

    Args:
        outbox: what to send; it has a file.
        url: of the server.
        run_id: names the streams.
        bytes_per_s: as for `Publisher`.

    Raises:
        BusError: a process cannot be started.
    """

    def __init__(self, outbox: Outbox, url: str, run_id: str, *, bytes_per_s: int | None = None):
        self._outbox = outbox
        self._errand = Errand(str(outbox.path), url, run_id, bytes_per_s, os.getpid())
        self._last = PublisherStatus()
        self._is_stopped = False
        self._num_deaths = 0
        self._process = self._start()
        self._started_at = time.monotonic()

    @property
    def pid(self) -> int:
        """The process, a child of this one."""
        return self._process.pid

    def health(self) -> tuple[str, str]:
        """The breaker, "open" or "closed", and the state in words, as it last told."""
        now = self.status()
        return now.breaker, now.state

    def status(self) -> PublisherStatus:
        """How it last said it was."""
        self._last = status.read(self._outbox.status) or self._last
        code = self._process.poll()
        if code is not None and not self._is_stopped:
            self._restart(code)
        return msgspec.structs.replace(
            self._last, num_faults=self._last.num_faults + self._num_deaths
        )

    def flush(self, timeout_s: float, *, retries: bool = True) -> bool:
        """Do as `Publisher.flush` does."""
        before = self.status().num_failures
        deadline = time.monotonic() + timeout_s
        self._tell(FLUSH)
        while time.monotonic() < deadline:
            now = self.status()
            if self._outbox.is_drained() and now.is_done:
                break
            if not retries and now.num_failures > before:
                break
            time.sleep(_POLL_INTERVAL_S)
        return self._outbox.is_drained()

    def stop(self, timeout_s: float) -> None:
        """Stop it after the send that is under way; after `timeout_s` it is killed."""
        self._is_stopped = True
        self._tell(STOP)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._hang_up()

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                # -P: nothing in the working directory may stand in for a module.
                [sys.executable, "-P", "-m", "oona.publishing"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C at the terminal is for the trainer alone
                bufsize=0,
            )
        except OSError as error:
            raise leyline.BusError(
                f"publisher process not started: {error}; use publisher='thread'"
            ) from error
        self._process = process
        self._tell(msgspec.json.encode(self._errand) + b"\n")
        return process

    def _restart(self, code: int) -> None:
        state = f"publisher process ended with code {code}"
        self._last = msgspec.structs.replace(self._last, state=state, is_done=False)
        now = time.monotonic()
        if not self._num_deaths or now - self._started_at >= _RESTART_INTERVAL_S:
            self._started_at = now
            self._num_deaths += 1
            self._hang_up()
            with contextlib.suppress(leyline.BusError):
                self._start()

    def _hang_up(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _tell(self, line: bytes) -> None:
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it is gone, which status() says
                stdin.write(line)
