"""What is wrong with an outbox, for those who check a run."""

from __future__ import annotations

from pathlib import Path

import leyline
from oona.outbox import file as outbox_file


def damage(path: Path) -> list[str]:
    """What is wrong with an outbox's file, in words; its CRCs are checked, nothing is changed.

    Raises:
        BusError: the file cannot be read.
    """
    try:
        content = memoryview(path.read_bytes())
        if not any(content[: outbox_file.PAGE_SIZE_BYTES]):
            return []  # a process that died while it made the file; the next one makes it anew
        flaw = outbox_file.find_flaw(content)
        if flaw is not None:
            return [flaw]
        _, num_damaged = outbox_file.read_file(path)
    except OSError as error:
        raise leyline.BusError(f"{path} cannot be read: {error.strerror}") from error
    if num_damaged == 1:
        return ["one of its events is damaged"]
    return [f"{num_damaged} of its events are damaged"] if num_damaged else []
