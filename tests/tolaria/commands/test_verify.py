"""`esper verify` and `esper rollback`, on a run that is real and on one that is damaged."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from leyline import CheckpointError, RunLockedError
from tests.tolaria.plain_loops import (
    SCHEDULE,
    TRAIN,
    adam,
    attach,
    evaluate,
    make_host,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.commands.cli import esper
from tolaria.commands.runs import StoredSpec, store_spec
from tolaria.commands.spec import TrainSpec
from tolaria.disk.checkpoint import load
from tolaria.disk.manifest import Structure, read_manifest, sealed
from tolaria.disk.run import RunDirectory
from tolaria.disk.seed_records import read_seed_records
from tolaria.disk.usage import disk_use, disk_words, size_words
from tolaria.resume.replay import Replay

SETTINGS = {
    "schedule": SCHEDULE,
    "checkpoint": True,
    "keep_checkpoints": 3,
    "monitor_mode": "max",
    "telemetry": "memory",
    "data": None,
    "loss_fn": None,
    "example": TRAIN[0][0],
}


def train(run_dir: Path, num_epochs: int) -> int:
    """A script that goes on with its run; returns the epoch that it started from."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, run_dir, resume=True, **SETTINGS) as running:
        start = running.epoch
        while running.epoch < num_epochs:
            train_epoch(model, optimizer, running)
            running.epoch_boundary(evaluate(model))
    return start


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five epochs, on the disk."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train(path, 5)
    return path


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(esper, [str(argument) for argument in arguments])


def test_a_sound_run_is_one_clean_line(run_dir: Path) -> None:
    """Everything is looked at: the journal, four checkpoints or more, the outbox, seed records."""
    shown = call("verify", run_dir)
    assert shown.exit_code == 0, shown.output
    num_checkpoints = len(list((run_dir / "checkpoints").glob("*/step-*")))
    assert shown.output.split() == [
        f"{run_dir}:",
        "all",
        str(num_checkpoints + 4),
        "parts",
        "are",
        "sound",
    ]
    assert num_checkpoints >= 4


def test_every_damage_is_found_and_named(run_dir: Path) -> None:
    """A flipped bit in any file of any checkpoint, in the journal, in the outbox's events or in a
    seed record: exit code 1, and a line that names the file; mended, all is well again."""
    chance = random.Random(5)  # noqa: S311  # damage need not be secret
    files = [p for p in run_dir.glob("checkpoints/*/step-*/*") if p.is_file()]
    assert {file.parent.parent.name for file in files} == {"active", "archive"}
    for file in [*files, *(run_dir / n for n in ("journal.bin", "seeds.bin"))]:
        content = file.read_bytes()
        written = len(content.rstrip(b"\0"))
        damaged = bytearray(content)
        damaged[chance.randrange(2048 if file.name == "seeds.bin" else 0, written)] ^= 4
        file.write_bytes(damaged)
        shown = call("verify", run_dir)
        assert shown.exit_code == 1
        (bad,) = [line for line in shown.output.splitlines() if line.startswith("bad: ")]
        assert file.name in bad
        assert file.parent.name in bad or file.parent == run_dir
        assert " 1 bad, " in shown.output
        file.write_bytes(content)
    assert call("verify", run_dir).exit_code == 0


@pytest.mark.parametrize("name", ["journal.bin", "outbox.bin", "seeds.bin"])
def test_a_missing_part_is_found(run_dir: Path, name: str) -> None:
    """Other parts tell that it was there: exit code 1, and a line that names it alone."""
    (run_dir / name).unlink()
    shown = call("verify", run_dir)
    assert shown.exit_code == 1
    assert [line.split()[1] for line in shown.output.splitlines()[:-1]] == [f"{name}:"]
    assert "is missing" in shown.output


@pytest.mark.parametrize("gone", ["checkpoints", "checkpoints/active"])
def test_checkpoints_that_the_journal_tells_of_are_missed(run_dir: Path, gone: str) -> None:
    """All of them, or the newest ones with only archived ones left."""
    shutil.rmtree(run_dir / gone)
    shown = call("verify", run_dir)
    assert shown.exit_code == 1
    assert "bad: checkpoints: the journal tells of checkpoints, and " in shown.output


def test_a_run_without_checkpoints_misses_none(tmp_path: Path) -> None:
    """Its journal tells of no save, however many epochs it tells of."""
    model = make_host()
    with attach(model, adam(model), tmp_path / "run", **SETTINGS | {"checkpoint": False}) as esper:
        for _ in range(3):
            esper.epoch_boundary(evaluate(model))
    assert call("verify", tmp_path / "run").exit_code == 0


def test_what_esper_train_was_asked_for_is_missed(run_dir: Path) -> None:
    """run.json says that the run cannot do without it; a hand-written loop's run can."""
    store_spec(run_dir, StoredSpec(spec=TrainSpec(epochs=3), rng_seed=17, epochs=3))
    (run_dir / "spec.json").unlink()
    shown = call("verify", run_dir)
    assert shown.exit_code == 1
    assert "bad: spec.json: is missing" in shown.output


def test_seed_records_that_a_checkpoint_belongs_to_are_missed(run_dir: Path) -> None:
    """A page of zeros has no CRC that could fail: the checkpoints tell which seed lacks records."""
    file = run_dir / "seeds.bin"
    held = read_seed_records(file)
    content = bytearray(file.read_bytes())
    content[2048:] = bytes(len(content) - 2048)
    file.write_bytes(content)
    shown = call("verify", run_dir)
    assert shown.exit_code == 1
    (bad,) = shown.output.splitlines()[:-1]
    assert bad.startswith("bad: seeds.bin: lacks records that it had: of ")
    assert set(bad.partition(": of ")[2].partition(" and ")[0].split(", ")) <= set(held)


def test_a_run_that_keeps_no_seed_records_misses_none(tmp_path: Path) -> None:
    """Without a bus and without seed records there is nothing to miss."""
    settings = SETTINGS | {"telemetry": "off", "seed_checkpoints": False}
    model = make_host()
    with attach(model, adam(model), tmp_path / "run", **settings) as running:
        running.epoch_boundary(evaluate(model))
    assert "all 3 parts are sound" in call("verify", tmp_path / "run").output


def test_a_flipped_bit_in_a_small_file_is_found(run_dir: Path) -> None:
    """What a resume goes by: the run's own name, the command it was started with, what chance
    decided; the first one ends the command, the others are listed."""
    store_spec(run_dir, StoredSpec(spec=TrainSpec(epochs=3), rng_seed=17, epochs=3))
    Replay(late=(3,), last_epoch=4).save(run_dir / "replay.json")
    assert call("verify", run_dir).exit_code == 0
    for name, was, now in (
        ("run.json", b"run", b"rum"),
        ("spec.json", b"17", b"16"),
        ("replay.json", b"3", b"2"),
    ):
        content = (run_dir / name).read_bytes()
        (run_dir / name).write_bytes(content.replace(was, now, 1))
        shown = call("verify", run_dir)
        assert shown.exit_code == 1
        said = shown.output + str(shown.exception)
        assert f"{name}: is damaged: its digest" in said or f"{name} cannot be read: its" in said
        (run_dir / name).write_bytes(content)
    assert call("verify", run_dir).exit_code == 0


def test_a_damaged_event_in_the_outbox_is_found(run_dir: Path) -> None:
    """The CRC of every record is checked."""
    file = run_dir / "outbox.bin"
    content = bytearray(file.read_bytes())
    at = content.index(b"val_loss")
    content[at] ^= 1
    file.write_bytes(content)
    shown = call("verify", run_dir)
    assert shown.exit_code == 1
    assert "bad: outbox.bin: one of its events is damaged" in shown.output


def test_a_checkpoint_of_another_history_is_found(run_dir: Path) -> None:
    """A journal that was cut back by hand no longer reaches to where its checkpoints point."""
    file = run_dir / "journal.bin"
    file.write_bytes(file.read_bytes()[:500])
    shown = call("verify", run_dir)
    assert shown.exit_code == 1
    assert "of the journal, where no record ends" in shown.output


def test_a_manifest_that_states_another_structure_is_found(run_dir: Path) -> None:
    """With digests that fit: the seeds it states are held against those of the stored model."""
    newest = max((run_dir / "checkpoints" / "active").iterdir())
    manifest = read_manifest(newest)
    assert [seed.seed for seed in manifest.structure.seeds] == ["conv/0"]
    bare = msgspec.structs.replace(manifest, structure=Structure())
    (newest / "manifest.json").write_bytes(sealed(bare))
    shown = call("verify", run_dir)
    assert shown.exit_code == 1
    assert "its manifest states the seeds [], its model has [('conv'" in shown.output


def test_rollback_makes_an_earlier_one_the_newest_and_resume_goes_on(run_dir: Path) -> None:
    """Later checkpoints are set aside whole, what is lost is said, a resume starts there and ends
    as the run did before; asked again, there is nothing more to undo."""
    before = load(max((run_dir / "checkpoints" / "active").iterdir()))["state_dict"]
    shown = call("rollback", run_dir, "--to", 16)
    assert shown.exit_code == 0, shown.output
    assert "undone: 1 epoch, 4 steps" in shown.output
    aside = list((run_dir / "checkpoints" / "archive").glob("undone-*"))
    assert [path.name for path in aside] == ["undone-step-00000020"]
    assert len(list(aside[0].iterdir())) == 4
    assert call("verify", run_dir).exit_code == 0
    assert train(run_dir, 5) == 4
    after = load(max((run_dir / "checkpoints" / "active").iterdir()))["state_dict"]
    assert all((before[name] == after[name]).all() for name in before)
    assert call("verify", run_dir).exit_code == 0
    assert aside[0].is_dir()


def test_a_run_that_was_rolled_back_says_so_until_it_is_resumed(run_dir: Path) -> None:
    """Even to an archived one, with none active, the run is sound; inspect and the report tell."""
    oldest = min(
        int(path.name.split("-")[1]) for path in (run_dir / "checkpoints" / "archive").iterdir()
    )
    assert call("rollback", run_dir, "--to", oldest).exit_code == 0
    assert not list((run_dir / "checkpoints" / "active").iterdir())
    assert call("verify", run_dir).exit_code == 0
    shown = call("inspect", run_dir).output.splitlines()
    assert shown[0].startswith("run rolled back, epoch 5")
    assert shown[1].startswith(f"rolled back to step {oldest}; what follows is undone")
    call("report", run_dir)
    assert ", rolled back, epoch 5" in (run_dir / "report.html").read_text()
    train(run_dir, 5)
    assert call("inspect", run_dir).output.startswith("run finished, epoch 5")


def test_rollback_refuses_what_it_cannot_do_and_changes_nothing(run_dir: Path) -> None:
    """A step without a checkpoint lists those there are; a damaged one and a live run are named."""
    tree = sorted(run_dir.rglob("*"))
    missing = call("rollback", run_dir, "--to", 3)
    assert isinstance(missing.exception, CheckpointError)
    assert "no checkpoint of step 3; there are: " in str(missing.exception)
    (run_dir / "checkpoints" / "active" / "step-00000016" / "state.json").write_bytes(b"{}")
    damaged = call("rollback", run_dir, "--to", 16)
    assert "is damaged: state.json has" in str(damaged.exception)
    with RunDirectory.open(run_dir):
        live = call("rollback", run_dir, "--to", 12)
    assert isinstance(live.exception, RunLockedError)
    assert sorted(run_dir.rglob("*")) == tree


def test_disk_use_is_told_by_kind(run_dir: Path) -> None:
    """The parts add up to what the files' blocks take, and a line names the largest; where there is
    nothing, nothing is said to be there."""
    found = disk_use(run_dir)
    blocks = sum(path.lstat().st_blocks for path in run_dir.rglob("*") if path.is_file())
    assert sum(found.values()) == blocks * 512
    assert list(found) == sorted(found, key=lambda kind: -found[kind])
    assert {"checkpoints/active", "checkpoints/archive", "journal.bin"} <= set(found)
    assert disk_words(run_dir).startswith(f"{size_words(blocks * 512)}: outbox.bin ")
    assert f"on disk: {disk_words(run_dir)}" in call("inspect", run_dir).output
    assert json.loads(call("inspect", run_dir, "--json").output)["disk_size_bytes"] == found
    assert disk_words(run_dir / "gone") == "0 B"
    assert [size_words(n) for n in (999, 1000, 16_777_216)] == ["999 B", "1.0 kB", "16.8 MB"]
