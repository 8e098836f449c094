"""One checkpoint on disk: verified before it is read, and read without pickle.

A checkpoint is a directory step-00000123 with four files: model.safetensors (the state_dict, under
the parameters' own names), state.safetensors (all other tensors), state.json (everything else, as
tolaria.disk.tree packs it) and manifest.json (what it holds and why, sizes and digests). The
digests detect damage; they do not prove who wrote a checkpoint, and reading one never runs code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import safetensors.torch
from safetensors import SafetensorError

from leyline import CheckpointError
from tolaria.disk import manifest as manifests
from tolaria.disk import migrations, tree
from tolaria.disk.manifest import Manifest, read_file, read_manifest
from tolaria.disk.misfit import MISFIT
from tolaria.disk.sealed import digest
from tolaria.disk.staging import FILES, MODEL, SKELETON, TENSORS, refuse_many

NAME: Final = re.compile(r"step-(\d{8,18})(?:-(\d{1,9}))?")


def load(path: Path) -> dict[str, Any]:
    """The state that was committed, verified first; all tensors are on the CPU.

    One of an older format is brought up to date, in memory alone.

    Raises:
        CheckpointError: what is wrong with the checkpoint, file by file.
    """
    manifest, contents, problems = _read(path)
    if manifest is None or problems:
        raise CheckpointError(f"{path} is damaged: {'; '.join(problems)}")
    try:
        refuse_many(contents)
        skeleton = json.loads(contents[SKELETON])
        model = safetensors.torch.load(contents[MODEL])
        tensors = safetensors.torch.load(contents[TENSORS])
        state = tree.unpack(skeleton["state"], tensors)
        if skeleton["state_dict"] is not None:
            state["state_dict"] = tree.unpack(skeleton["state_dict"], model)
        if not isinstance(state, dict):
            raise CheckpointError(f"it holds a {type(state).__name__}, not a dict")
        written_on = msgspec.to_builtins(manifest.surroundings)
        migrations.bring_up_to_date(state, written_on)
    except (SafetensorError, *MISFIT) as error:  # a CheckpointError is a ValueError
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return state


def verify(path: Path) -> list[str]:
    """What is wrong with a checkpoint, one sentence for each fault; empty when it is sound."""
    return _read(path)[2]


def order(path: Path) -> tuple[int, int]:
    """The step of a checkpoint, and which one of that step it is."""
    match = NAME.fullmatch(path.name)
    assert match, path
    return int(match[1]), int(match[2] or 1)


def _read(path: Path) -> tuple[Manifest | None, dict[str, bytes], list[str]]:
    """Read every file once and check what was read: the sound files, and the faults."""
    contents: dict[str, bytes] = {}
    problems: list[str] = []
    try:
        manifest = read_manifest(path)
    except CheckpointError as error:
        return None, contents, [str(error)]
    if NAME.fullmatch(path.name) and order(path)[0] != manifest.step:
        problems.append(f"it is the checkpoint of step {manifest.step} under another name")
    problems += [
        f"{manifests.FILE_NAME} lists {name!r:.200}, which is none of {', '.join(FILES)}"
        for name in manifest.files
        if name not in FILES
    ]
    for name in FILES:
        record = manifest.files.get(name)
        if record is None:
            problems.append(f"{manifests.FILE_NAME} does not list {name}")
            continue
        try:
            data = read_file(path / name, record.size_bytes)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if len(data) != record.size_bytes:
            problems.append(f"{name} has {len(data)} bytes and should have {record.size_bytes}")
        elif digest(data) != record.blake2b:
            problems.append(f"{name} has other content than was written (its digest differs)")
        else:
            contents[name] = data
    return manifest, contents, problems
