"""Built-in blueprints in exported networks: the same outputs where Esper cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kasmina import export
from kasmina.blueprints import Blueprint
from kasmina.blueprints.built_in import BUILT_IN
from kasmina.sites.shape import SiteShape
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed
from tests.kasmina.growing import wake
from tests.kasmina.test_export import WITHOUT_ESPER

IMAGE = SiteShape((2, 8, 5, 6), 1)
SEQUENCE = SiteShape((2, 6, 8), -1, causal=True)
SIGNAL = SiteShape((2, 8, 7), 1, causal=True)
FITTING = [(b, s) for b in BUILT_IN for s in (IMAGE, SEQUENCE, SIGNAL) if b.accepts(s)]

WITHOUT_ESPER_EITHER = (
    WITHOUT_ESPER.partition("for folder in")[0]
    + """
for folder in sys.argv[2:]:
    x, y = torch.load(f"{folder}/example.pt")
    program = torch.export.load(f"{folder}/model.pt2").module()
    torch.testing.assert_close(program(x), y)
    assert torch.equal(torch.load(f"{folder}/model.pt", weights_only=False)(x), y), folder
assert not {"kasmina", "leyline", "tolaria"} & set(sys.modules)
"""
)


def grown(blueprint: Blueprint, shape: SiteShape) -> tuple[nn.Module, Tensor]:
    """A host whose only site carries an awake seed at alpha 0.7, and an input for it."""
    x = torch.randn(*shape)
    kinds = {3: nn.Conv1d, 4: nn.Conv2d}
    layer = kinds[len(shape)](8, 8, 1) if shape.channels_first else nn.Linear(8, 8)
    model = nn.Sequential(layer, nn.ReLU()).eval()
    body = wake(blueprint.build(shape, 3))
    seed = GraftedSeed(body, seed="0/0", blueprint=blueprint.name, shape=shape)
    attach_seed("0", layer, seed)
    seed.blend(0.7)
    return model, x


@pytest.mark.slow
def test_exports_run_without_esper(tmp_path: Path) -> None:
    """Every blueprint, pickled and as a torch.export program, in a process that has no Esper."""
    folders = []
    for number, (blueprint, shape) in enumerate(FITTING):
        model, x = grown(blueprint, shape)
        plain = export(model)
        folder = tmp_path / f"{number}-{blueprint.name}"
        folder.mkdir()
        torch.save((x, model(x).detach()), folder / "example.pt")
        torch.save(plain, folder / "model.pt")
        torch.export.save(torch.export.export(plain, (x,)), folder / "model.pt2")
        folders.append(str(folder))
    command = [sys.executable, "-c", WITHOUT_ESPER_EITHER, str(Path.cwd()), *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [IMAGE, SEQUENCE, SIGNAL], ids=["image", "sequence", "signal"])
def test_a_program_takes_any_batch_size(shape: SiteShape) -> None:
    """torch.export with a dynamic batch axis does not bake the example's batch in."""
    batch = torch.export.Dim("batch", min=1, max=64)
    for blueprint in (blueprint for blueprint in BUILT_IN if blueprint.accepts(shape)):
        model, x = grown(blueprint, shape)
        plain = export(model)
        program = torch.export.export(plain, (x,), dynamic_shapes=({0: batch},)).module()
        other = torch.randn(5, *shape[1:])
        torch.testing.assert_close(program(other), plain(other))
