"""Hostile manifests and markers with a seal that fits: refused by name, or of no effect."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from leyline import RunError
from tests.reliability.hostile_runs import finished as finished
from tests.reliability.plugin import Faults
from tests.reliability.resealing import WORDS, Values, manifest, outcome
from tests.tolaria.disk.test_run import tree_of
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.disk.run import RunDirectory
from tolaria.disk.sealed import seal
from tolaria.disk.store import CheckpointStore

SEED: Final[Values] = {
    "site": "conv",
    "seed": "conv/0",
    "blueprint": "conv",
    "shape": {},
    "chunk": [0, 1],
}


def _listed(name: str) -> Callable[[Values], None]:
    return lambda m: m["files"].update({name: {"size_bytes": 1, "blake2b": ""}})


def _structure(**values: Any) -> Callable[[Values], None]:
    return lambda m: m["structure"].update(values)


def _stated(**values: Any) -> Callable[[Values], None]:
    return _structure(seeds=[SEED | values])


UNSOUND: Final[dict[str, tuple[Callable[[Values], None], str]]] = {
    "absolute": (_listed("/etc/passwd"), "lists '/etc/passwd', which is none of"),
    "upwards": (_listed("../../run.json"), "lists '../../run.json'"),
    "4 KiB": (_listed("x" * 4096), "lists 'xxx"),
    "twin": (_listed("STATE.json"), "lists 'STATE.json'"),
    "escape": (_listed(WORDS), r"lists 'a\\x00b\\u202e\\n\\x1b"),
    "unknown field": (lambda m: m.update({WORDS: 1}), "unknown field"),
    "step -1": (lambda m: m.update(step=-1), "checkpoint of step -1 under another name"),
    "step 2**63": (lambda m: m.update(step=2**63), "under another name"),
    "format 2**63": (lambda m: m.update(format=2**63), "of format 9223372036854775808"),
    "format in words": (lambda m: m.update(format=WORDS), r"of format 'a\\x00b"),
    "100,000 seeds": (
        _structure(seeds=[SEED | {"seed": f"conv/{i}"} for i in range(10**5)]),
        r"manifest.json has \d+ bytes, more than the 16777216 it may have",
    ),
    "no occasion": (lambda m: m.update(occasion=None), "manifest.json is damaged"),
    "chunk of three": (_stated(chunk=[0, 1, 2]), "manifest.json is damaged"),
    "blueprint that is none": (_stated(blueprint=3), "manifest.json is damaged"),
    "size 2**63": (
        lambda m: m["files"].update({"state.json ": {"size_bytes": 2**63, "blake2b": ""}}),
        "lists 'state.json '",
    ),
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", UNSOUND)
def test_a_hostile_manifest_makes_no_checkpoint(
    name: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """It is passed over, with the reason; where all are alike the run is refused, untouched."""
    change, why = UNSOUND[name]
    assert "has no whole checkpoint left" in outcome(finished, tmp_path, manifest(change))
    store = CheckpointStore(tmp_path / "run" / "checkpoints", read_only=True)
    assert store.newest_valid() is None
    assert all(re.search(why, problems[0]) for problems in store.problems.values())
    faults.injected()


def test_a_number_that_no_reader_has_room_for_is_damage(finished: Path, tmp_path: Path) -> None:
    """10**30 in a manifest, a marker: what cannot be spelt again is no sealed file."""
    shutil.copytree(finished, tmp_path / "run")
    for file in (tmp_path / "run").rglob("*.json"):
        text = file.read_text()
        if '"format":' in text:
            file.write_text(re.sub(r'"format": \d+', f'"format": 1{"0" * 30}', text))
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        RunDirectory.open(tmp_path / "run")
    store = CheckpointStore(tmp_path / "run" / "checkpoints", read_only=True)
    assert store.newest_valid() is None


IDLE: Final[dict[str, tuple[Callable[[Values], None], str]]] = {
    "many seeds": (
        _structure(seeds=[SEED | {"seed": f"conv/{i}"} for i in range(10_000)]),
        "",
    ),
    "site that is not": (_stated(site="no\x00where"), ""),
    "blueprint that is not": (_stated(blueprint="os.system"), ""),
    "2**62 channels": (_stated(shape={"sizes": [1, 2**62]}), ""),
    "10**9 chunks": (_stated(chunk=[0, 10**9]), ""),
    "reason": (lambda m: m["occasion"].update(reason=WORDS), ""),
    "parameter twice": (
        _structure(groups=[[["conv.weight", "conv.weight"]]]),
        "had 'conv.weight' where it now has 'conv.bias'",
    ),
    "parameter with an escape": (_structure(groups=[[[WORDS]]]), r"had 'a\\x00b\\u202e\\n\\x1b"),
}


@pytest.mark.slow
@pytest.mark.fault(22)
@pytest.mark.parametrize("name", IDLE)
def test_what_a_manifest_states_builds_nothing(
    name: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """Its seeds are for readers: a resume goes by the model's own. Parameters must be as stated."""
    change, refusal = IDLE[name]
    found = outcome(finished, tmp_path, manifest(change))
    assert re.search(refusal, found) if refusal else not found
    faults.injected()


RUN_IDS: Final = ("..", "a/b", "-rf", ".hidden", "", "x" * 300, "a\0b", "a\nb", "a\x1b[2J", "é")


@pytest.mark.fault(22)
@pytest.mark.parametrize("run_id", RUN_IDS)
def test_a_hostile_run_id_is_refused(
    run_id: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """It becomes part of paths, keys and commands: no other characters, no way up, no option."""
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    marker = json.loads((place / "run.json").read_text())
    marker.pop("blake2b")
    (place / "run.json").write_bytes(seal({**marker, "run_id": run_id}))
    before = tree_of(place)
    with pytest.raises(RunError, match="is not the name of a run") as caught:
        RunDirectory.open(place)
    assert str(caught.value).isprintable()
    assert tree_of(place) == before
    faults.injected()
