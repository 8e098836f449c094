"""What a run takes on the disk, by kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_CHECKPOINTS: Final = "checkpoints"
_UNIT: Final = 1000
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def disk_use(run_dir: Path) -> dict[str, int]:
    """Space taken on the disk in bytes, by what it is for, largest first; {} if there is no run.

    Checkpoints count as "checkpoints/active" and "checkpoints/archive", a file under its own name.
    What vanishes meanwhile, as in a live run, is left out.
    """
    found: dict[str, int] = {}
    for folder, _, names in os.walk(run_dir):
        parts = Path(folder).relative_to(run_dir).parts
        for name in names:
            kind = "/".join(parts[:2]) if parts[:1] == (_CHECKPOINTS,) else (*parts, name)[0]
            try:
                status = (Path(folder) / name).lstat()
            except FileNotFoundError:
                continue
            found[kind] = found.get(kind, 0) + status.st_blocks * 512
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def disk_words(run_dir: Path, num_kinds: int = 3) -> str:
    """The same in one line: the total, and what takes most."""
    found = disk_use(run_dir)
    most = [f"{kind} {size_words(size)}" for kind, size in list(found.items())[:num_kinds]]
    rest = ", ".join(most)
    return size_words(sum(found.values())) + (f": {rest}" if rest else "")


def size_words(size_bytes: int) -> str:
    """A size such as "16.8 MB"; 1 MB is a million bytes."""
    value, unit = float(size_bytes), 0
    while value >= _UNIT and unit < len(_UNITS) - 1:
        value, unit = value / _UNIT, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} B"
