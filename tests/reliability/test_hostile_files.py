"""Hostile files in a run's directory: refused by name or passed over; nothing of them is run."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.reliability.hostile_runs import Payload, resume
from tests.reliability.hostile_runs import finished as finished
from tests.reliability.plugin import Faults
from tests.tolaria.plain_loops import one_thread as one_thread

HEADER_BYTES: Final = 100 << 20
FILES: Final = (
    "lock",
    "report.html",
    "run.json",
    "replay.json",
    "journal.bin",
    "seeds.bin",
    "checkpoints/active/*/manifest.json",
    "checkpoints/active/*/state.json",
    "checkpoints/active/*/state.safetensors",
    "checkpoints/active/*/model.safetensors",
)


def pickled(file: Path, canary: Path) -> None:
    file.write_bytes(pickle.dumps(Payload(canary)))


def archived(file: Path, canary: Path) -> None:
    """What torch.save writes: a zip archive with a pickle in it, and 100 MB that deflate well."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(canary)))
        archive.writestr("archive/data/0", bytes(HEADER_BYTES))


def long_header(file: Path, canary: Path) -> None:
    """A safetensors header of 100 MB, as far as its length says."""
    with file.open("wb") as stream:
        stream.write(HEADER_BYTES.to_bytes(8, "little") + b"{")
        stream.truncate(HEADER_BYTES + 8)


def nested(file: Path, canary: Path) -> None:
    file.write_bytes(b"[" * 200_000)


def other_encoding(file: Path, canary: Path) -> None:
    file.write_bytes(b'\xff\xfe{\x00"\x00\xd8\x00')


def twice(file: Path, canary: Path) -> None:
    """JSON that says everything twice, and a number that is none."""
    file.write_bytes(b'{"format": 1, "format": NaN, "run_id": "a", "run_id": "../../b"}')


def empty(file: Path, canary: Path) -> None:
    file.write_bytes(b"")


def linked(file: Path, canary: Path) -> None:
    """A link to something outside the run."""
    file.unlink()
    file.symlink_to("/etc/passwd")


def moved(file: Path, canary: Path) -> None:
    """A link to the file itself, which lies outside the run now."""
    outside = canary.parent / "moved"
    file.replace(outside)
    file.symlink_to(outside)


def planted(file: Path, canary: Path) -> None:
    """A link where the file is written before it gets its name."""
    outside = canary.parent / "planted"
    outside.write_bytes(b"not yours")
    temporary = file.with_name(f".{file.name}.tmp")
    if not temporary.is_symlink():
        temporary.symlink_to(outside)


def endless(file: Path, canary: Path) -> None:
    """A link to a device that never ends."""
    file.unlink()
    file.symlink_to("/dev/zero")


def hard_link(file: Path, canary: Path) -> None:
    """The same file as one outside the run; not the lock, which takes its holder's number."""
    if file.name == "lock":
        return
    outside = canary.parent / "hard link"
    outside.write_bytes(b"not yours")
    file.unlink()
    os.link(outside, file)


def pipe(file: Path, canary: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path, canary: Path) -> None:
    file.unlink()
    file.mkdir()


HOSTILE: Final[tuple[Callable[[Path, Path], None], ...]] = (
    pickled,
    archived,
    long_header,
    nested,
    other_encoding,
    twice,
    empty,
    linked,
    moved,
    planted,
    endless,
    hard_link,
    pipe,
    folder,
)


@pytest.mark.timeout(30)
@pytest.mark.fault(22)
@pytest.mark.parametrize("spoil", HOSTILE)
@pytest.mark.parametrize("name", FILES)
def test_a_run_with_a_hostile_file_is_refused_or_goes_on_without_it(
    name: str, spoil: Callable[[Path, Path], None], finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """Resuming it raises an EsperError and leaves every byte but those of a journal's unfinished
    last record, or goes on from what is sound; it runs nothing, writes to nothing outside, ends in
    time, and takes no memory for what a file claims."""
    place, canary = tmp_path / "run", tmp_path / "canary"
    shutil.copytree(finished, place)
    for file in place.glob(name):
        spoil(file, canary)
    resume(place, canary)
    faults.injected()


def test_the_payload_would_be_seen(tmp_path: Path) -> None:
    """What no reader may do leaves the canary."""
    file = io.BytesIO(pickle.dumps(Payload(tmp_path / "canary")))
    pickle.load(file)  # noqa: S301 - the point
    assert (tmp_path / "canary").exists()
