"""A run on a chunked site: several seeds planted at once, one kernel, the host never harmed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import kasmina
from kasmina.slots.chunked import Group
from kasmina.slots.slot import attached_seeds, slot_of
from leyline import ConfigError, Stage
from tests.tolaria.plain_loops import HELD_OUT, SITE, adam, attach, make_host, run

AT_ONCE = ((1, SITE, "low_rank"), (1, SITE, "conv"), (2, SITE, "low_rank"))


def test_seeds_on_chunks_live_their_lives(tmp_path: Path) -> None:
    """Planted on the chunks in turn, each through its stages; those alike run in one kernel, and
    the export gives what the grown model gives."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path, schedule=AT_ONCE, chunks=2) as esper:
        assert not attached_seeds(model)
        run(model, optimizer, esper, 2)
        held = attached_seeds(model)
        assert [seed.chunk for _, _, seed in held.values()] == [(0, 2), (1, 2)]
        run(model, optimizer, esper, 6)
        table = esper.executor.table
        stages = {seed: table.stage(seed) for seed in table.names}
        assert stages == dict.fromkeys(("conv/0", "conv/1", "conv/2"), Stage.FOSSILIZED)
    # conv/0 and conv/1 are of two kinds, conv/2 stands on the chunk of conv/0.
    slot = slot_of(model.conv)
    assert slot is not None
    assert len(slot.roster.turns) == 3
    assert len(optimizer.param_groups) == 4
    plain = kasmina.export(model.eval())
    batch = HELD_OUT[0][0]
    torch.testing.assert_close(plain(batch), model(batch))


def test_alike_seeds_train_in_one_kernel(tmp_path: Path) -> None:
    """Two seeds of one kind on two chunks are one turn of the slot, and both learn."""
    schedule = ((1, SITE, "low_rank"), (1, SITE, "low_rank"))
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path, schedule=schedule, chunks=2) as esper:
        run(model, optimizer, esper, 2)
        before = copy.deepcopy(model.state_dict())
        run(model, optimizer, esper, 1)
        slot = slot_of(model.conv)
        assert slot is not None
        assert [type(turn) for turn in slot.roster.turns] == [Group]
    moved = {
        name.split(".")[2]
        for name, tensor in model.state_dict().items()
        if ".esper." in name and "weight" in name and not torch.equal(tensor, before[name])
    }
    assert moved == {"0", "1"}


def test_a_site_that_cannot_be_cut_stays_whole(tmp_path: Path) -> None:
    """Four channels cannot be cut into three parts, nor into four of at least two channels."""
    for number, chunks in enumerate((3, 4)):
        model = make_host()
        optimizer = adam(model)
        folder = tmp_path / str(number)
        with attach(model, optimizer, folder, schedule=AT_ONCE, chunks=chunks) as esper:
            run(model, optimizer, esper, 1)
            sites = {site.name: site.num_chunks for site in esper.executor.grounds.sites}
        assert sites[SITE] == 1


def test_the_number_of_chunks_is_checked(tmp_path: Path) -> None:
    """Nothing can be cut into no parts."""
    model = make_host()
    with pytest.raises(ConfigError, match="chunks"):
        attach(model, adam(model), tmp_path, schedule=AT_ONCE, chunks=0)
