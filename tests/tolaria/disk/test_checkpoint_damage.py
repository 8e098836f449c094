"""Damaged and hostile checkpoints: found, named, passed over; nothing runs."""

from __future__ import annotations

import json
import os
import shutil

import msgspec
import pytest

from leyline import CheckpointError
from tests.tolaria.disk.test_checkpoint import FILES, is_state, store_of
from tolaria.disk.checkpoint import load, verify
from tolaria.disk.manifest import Manifest, sealed
from tolaria.disk.sealed import digest

SECTOR = 512


def mutations(data, others, rng, num):
    """Flipped bits, cuts, blocks that are inverted, zeroed, moved or doubled, and other files.

    Args:
        others: contents of other files, which may lie in its place.
    """
    for i in range(num):
        content = bytearray(data)
        at = rng.randrange(len(content))
        match i % 8:
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                for _ in range(2):
                    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            case 2:
                del content[at:]
            case 3:
                content[at : at + 16] = bytes(b ^ 0xFF for b in content[at : at + 16])
            case 4:
                content += bytes([rng.randrange(256)])
            case 5:
                content[at:at] = content[at : at + rng.randrange(1, 64)]
            case 6:
                start = at // SECTOR * SECTOR
                content[start : start + SECTOR] = bytes(len(content[start : start + SECTOR]))
            case 7:
                content = bytearray(rng.choice(others))
        if bytes(content) != data:  # two flips of one bit, zeros for zeros
            yield bytes(content)


@pytest.mark.parametrize("num", [300, pytest.param(2_600, marks=pytest.mark.slow)])
@pytest.mark.fault(4)
def test_every_damage_is_found_and_the_previous_one_is_used(tmp_path, num, faults):
    """Of thousands of damaged files none goes unseen; the file is named, the older one loaded."""
    store = store_of(tmp_path, 1, 2)
    newest, older = store.active / "step-00000002", store.active / "step-00000001"
    files = {path: path.read_bytes() for path in (*newest.iterdir(), *older.iterdir())}
    for name in FILES:
        data = files[newest / name]
        others = [content for content in files.values() if content != data] + [b""]
        for number, content in enumerate(mutations(data, others, faults.random, num)):
            (newest / name).write_bytes(content)
            found = verify(newest)
            assert found
            # The other checkpoint's manifest is sound: what it says of the files is then not so.
            named = "" if content in others else name
            assert all(problem.startswith(named) for problem in found)
            if num <= 300 or number % 8 == number // 8 % 8:  # reading finds what looking found
                with pytest.raises(CheckpointError, match=named or None):
                    load(newest)
            faults.injected()
        assert store.newest_valid() == store.active / "step-00000001"
        assert store.problems["step-00000002"] == verify(newest)
        (newest / name).write_bytes(data)
    assert store.newest_valid() == newest


@pytest.mark.parametrize("name", FILES)
@pytest.mark.fault(4)
def test_a_file_of_another_kind_or_step_is_found(tmp_path, name, faults):
    """A missing file, a directory, a link, a FIFO and the same file of another step are refused."""
    store = store_of(tmp_path, 1, 2)
    old, new = store.paths()
    file = new / name
    file.unlink()
    assert verify(new) == [f"{name} is missing"]
    file.symlink_to(old / name)
    assert verify(new) == [f"{name} is not an ordinary file"]
    file.unlink()
    os.mkfifo(file)
    assert verify(new) == [f"{name} is not an ordinary file"]
    file.unlink()
    file.mkdir()
    assert verify(new) == [f"{name} is not an ordinary file"]
    file.rmdir()
    shutil.copy(old / name, file)
    assert verify(new)
    faults.injected(5)


def test_a_checkpoint_under_another_name_is_found(tmp_path):
    """A directory renamed to look newer is not taken for that step."""
    store = store_of(tmp_path, 1, 2)
    shutil.copytree(store.active / "step-00000001", store.active / "step-00000009")
    assert store.newest_valid() == store.active / "step-00000002"
    assert store.problems["step-00000009"] == ["it is the checkpoint of step 1 under another name"]
    shutil.copytree(store.active / "step-00000001", tmp_path / "backup")
    assert is_state(load(tmp_path / "backup"), 1)


# --- hostile content, with digests that fit ----------------------------------------------------


def resealed(path, edit):
    """Change the manifest and give it a digest that fits, as an attacker would."""
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    del manifest["blake2b"]
    for name, record in manifest["files"].items():
        if (path / name).is_file():
            data = (path / name).read_bytes()
            record |= {"size_bytes": len(data), "blake2b": digest(data)}
    decoded = msgspec.convert(manifest, Manifest)
    (path / "manifest.json").write_bytes(sealed(decoded))


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "state.json/", "STATE.JSON", ""])
def test_a_manifest_that_points_elsewhere_is_refused(tmp_path, name):
    """Only the three known names may be listed; nothing outside is opened."""
    path = store_of(tmp_path, 1).newest_valid()
    (tmp_path / "secret").write_text("1")
    resealed(path, lambda m: m["files"].update({name: {"size_bytes": 1, "blake2b": "0"}}))
    (problem,) = verify(path)
    assert problem.startswith(f"manifest.json lists {name!r}, which is none of")


def test_a_manifest_of_another_format_is_refused_by_number(tmp_path):
    """A checkpoint of a later format says so, and a missing entry is named."""
    path = store_of(tmp_path, 1).newest_valid()
    resealed(path, lambda m: m["files"].pop("state.json"))
    assert verify(path) == ["manifest.json does not list state.json"]
    resealed(path, lambda m: m.update(format=3))
    assert "of format 3 and this version reads 1 to 2" in verify(path)[0]


HOSTILE = {
    "model.safetensors": [
        b"",
        b"\x80\x04\x95\x00cposix\nsystem\n",
        b"\xff" * 64,
        (2**63).to_bytes(8, "little") + b"{}",
        (99).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}',
    ],
    "state.json": [
        b"",
        b"\xff",
        b"[" * 50_000,
        b"[]",
        b"{}",
        b'{"state":[],"state_dict":null}',
        b'{"state":1,"state_dict":{"dict":[]}}',
        b'{"state":{"reduce":["posix.system","true"]},"state_dict":null}',
        b'{"state":{"dict":[["a",{"tensor":{"name":"b"}}]]},"state_dict":null}',
    ],
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name, all_ in HOSTILE.items() for content in all_]
)
def test_hostile_content_ends_in_one_kind_of_error(tmp_path, name, content):
    """Content that was made to fit its digest still gives CheckpointError and nothing else."""
    path = store_of(tmp_path, 1).newest_valid()
    (path / name).write_bytes(content)
    resealed(path, lambda m: None)
    assert verify(path) == []
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path)
