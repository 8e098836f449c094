"""Checkpoints whose contents are hostile and whose sizes and digests fit, as an attacker's would.

Every checkpoint of a run is treated alike, or the older one would be used.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch

from tests.reliability.hostile_runs import resume
from tests.tolaria.disk.test_run import tree_of
from tolaria.disk.sealed import digest, seal

Edit = Callable[[Path], None]
"""Changes one checkpoint."""
Values = dict[str, Any]
WORDS: Final = "a\x00b\u202e\n\x1b[2Jfault at step 1"
"""NUL, writing from right to left, a new line, and what clears a terminal."""


def reseal(place: Path, edit: Edit) -> None:
    """Change every checkpoint of a run, and have its manifest fit what its files are then."""
    found = sorted(place.glob("checkpoints/*/step-*"))
    assert found
    for checkpoint in found:
        edit(checkpoint)
        file = checkpoint / "manifest.json"
        manifest = json.loads(file.read_text())
        manifest.pop("blake2b")
        for name, record in manifest["files"].items():
            if name in ("model.safetensors", "state.safetensors", "state.json"):
                data = (checkpoint / name).read_bytes()
                record |= {"size_bytes": len(data), "blake2b": digest(data)}
        file.write_bytes(seal(manifest))


def outcome(finished: Path, where: Path, edit: Edit) -> str:
    """What resuming a copy of a run comes to, all of whose checkpoints were changed.

    Returns:
        Why it was refused; then nothing at all has changed. Empty if it went on.
    """
    place = where / "run"
    shutil.copytree(finished, place)
    reseal(place, edit)
    before = tree_of(place)
    refusal = resume(place, where / "canary")
    if refusal:
        before[place / "lock"] = tree_of(place)[place / "lock"]  # its holder's number
        assert tree_of(place) == before
    return refusal


def manifest(change: Callable[[Values], None]) -> Edit:
    """Change what a manifest says."""

    def edit(checkpoint: Path) -> None:
        file = checkpoint / "manifest.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return edit


def header(name: str, change: Callable[[Values, list[str]], Any]) -> Edit:
    """Change the header of a file of tensors.

    Args:
        change: gets the entries by name, and the names of those with data by place in the file;
            may return the header's JSON, else the changed entries are written.
    """

    def edit(checkpoint: Path) -> None:
        data = (checkpoint / name).read_bytes()
        size_bytes = int.from_bytes(data[:8], "little")
        entries = json.loads(data[8 : 8 + size_bytes])
        with_data = [n for n in entries if entries[n]["data_offsets"][0] < _end(entries[n])]
        with_data.sort(key=lambda n: _end(entries[n]))
        text = change(entries, with_data)
        head = (json.dumps(entries) if text is None else text).encode()
        content = len(head).to_bytes(8, "little") + head + data[8 + size_bytes :]
        (checkpoint / name).write_bytes(content)

    return edit


def _end(entry: Values) -> int:
    end: int = entry["data_offsets"][1]
    return end


def tensors(name: str, tensor: str, value: torch.Tensor) -> Edit:
    """Put a tensor into a file, in the place of the one of that name if there is one."""

    def edit(checkpoint: Path) -> None:
        held = safetensors.torch.load_file(checkpoint / name)
        safetensors.torch.save_file({**held, tensor: value}, checkpoint / name)

    return edit


def replaced(pattern: str, text: str) -> Edit:
    """Put a text in the place of the first match in state.json."""

    def edit(checkpoint: Path) -> None:
        file = checkpoint / "state.json"
        changed, num = re.subn(pattern, lambda _: text, file.read_text(), count=1)
        assert num, f"{pattern} is not in {file}"
        file.write_text(changed)

    return edit


def said(name: str, value: str) -> Edit:
    """Let state.json say something else of the growth: a value of JSON under this name."""

    def edit(checkpoint: Path) -> None:
        file = checkpoint / "state.json"
        skeleton = json.loads(file.read_text())
        ((growth),) = [v["dict"] for k, v in skeleton["state"]["dict"] if k == "esper"]
        (pair,) = [pair for pair in growth if pair[0] == name]
        pair[1] = "the value"
        file.write_text(json.dumps(skeleton).replace('"the value"', value))

    return edit


def described(change: Callable[[Values], None]) -> Edit:
    """Change what model.safetensors says of its seed, and the manifest alike."""

    def edit(checkpoint: Path) -> None:
        file, name = checkpoint / "model.safetensors", "conv.esper._extra_state"
        held = safetensors.torch.load_file(file)
        if name not in held:
            return  # before there was one
        (seed,) = json.loads(bytes(held[name].tolist()))
        change(seed)
        held[name] = torch.tensor(list(json.dumps([seed]).encode()), dtype=torch.uint8)
        safetensors.torch.save_file(held, file)
        manifest(lambda m: m["structure"]["seeds"][0].update(_as_stated(seed)))(checkpoint)

    return edit


def _as_stated(seed: Values) -> Values:
    return {name: seed[name] for name in ("seed", "blueprint", "shape", "chunk")}
