"""Children whose system calls strace watches, kills them at, or refuses."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

_PR_SET_PTRACER: Final = 0x59616D61
_ANY_PROCESS: Final = ctypes.c_ulong(-1)
_HARMLESS: Final = re.compile(
    "access|close|dup|facc|fcntl|fstat|getcwd|getdents|ioctl|lseek|lstat|mmap|newfstat|pread|read|stat"
)
"""How calls begin that change nothing in a directory, if no file was opened for writing."""
_CALL: Final = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_PATH: Final = re.compile(r'"(/[^"]*)"|\d<(/[^>]*)>')


class Call(NamedTuple):
    """A system call that changed something: opened a file to write, wrote, synced, renamed, ..."""

    name: str
    paths: tuple[str, ...]
    """Relative to the directory."""
    size_bytes: int = 0


@pytest.fixture(scope="session")
def strace() -> None:
    """Skips where no process may be traced."""
    if platform.machine() != "x86_64":
        pytest.skip("other processors have other system calls for the same")
    command = shutil.which("strace")
    if command is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run(
        [command, "-e", "trace=none", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"no process may be traced here: {tried.stderr.strip()[:200]}")


def ended(action: Callable[[], int], options: Sequence[str], paths: Iterable[Path] = ()) -> int:
    """Fork a child that acts under strace; how it ended: what it returned, or minus its signal.

    Args:
        action: run in the child once strace watches it.
        options: of strace.
        paths: only calls on these are seen; none: every call is. They are absolute and without
            links, and so are those that the action uses.
    """
    held, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(release)
            # Some systems let only a parent trace; elsewhere this is refused, and not needed.
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY_PROCESS, 0, 0, 0)
            os.read(held, 1)
            code = action()
        finally:
            os._exit(code)
    os.close(held)
    only = [word for path in paths for word in ("-P", str(path))]
    command = ["strace", "-f", "-p", str(pid), *only, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        os.close(release)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said += tracer.stderr.read()
    assert "attached" in said, said
    return code


def calls(trace: Path, root: Path) -> list[Call]:
    """The calls of a trace, by `-y -e trace=%file,%desc`, that changed something in a directory.

    The writes of one file in a row are one.
    """
    found: list[Call] = []
    for call in _changing(trace.read_text().splitlines(), root):
        if found and call.name == "write" and found[-1][:2] == call[:2]:
            call = call._replace(size_bytes=call.size_bytes + found.pop().size_bytes)
        found.append(call)
    return found


def _changing(lines: Iterable[str], root: Path) -> Iterator[Call]:
    for line in lines:
        if str(root) not in line:
            continue
        parts = _CALL.search(line)
        assert parts is not None, f"not understood: {line}"
        name, arguments, result = parts[1], parts[2], int(parts[3])
        paths = [Path("".join(either)) for either in _PATH.findall(arguments)]
        inside = tuple(str(p.relative_to(root)) for p in paths if p.is_relative_to(root))
        is_reading = name.startswith("open") and not re.search("O_WR|O_RDWR|O_CREAT", arguments)
        if inside and result >= 0 and not _HARMLESS.match(name) and not is_reading:
            yield Call(name.removesuffix("at"), inside, result if "write" in name else 0)
