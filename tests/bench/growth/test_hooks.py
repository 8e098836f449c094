"""The hooks of arms that leave out what no setting does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.growth.arms.esper import HOOKS, grow
from bench.growth.store import Job
from kasmina.slots.slot import attached_seeds
from leyline import Stage
from tests.bench.growth.tiny import tiny_task
from tolaria import Orchestrator

SPANS = 12


def fossils_over_time(hook: str | None) -> list[dict[str, list[Tensor]]]:
    """Every span's fossils with their parameters, in a run that has one from about the middle."""
    seen: list[dict[str, list[Tensor]]] = []

    def before_boundary(esper: Orchestrator) -> None:
        if hook is not None:
            HOOKS[hook](esper)
        held = attached_seeds(esper.model)
        fossils = esper.executor.table.in_stage(Stage.FOSSILIZED)
        seen.append(
            {name: [p.detach().clone() for p in held[name].seed.parameters()] for name in fossils}
        )

    esper = {"policy": "schedule", "schedule": [[2, "0", "conv"]], "veto": False}
    settings = {"num_spans": SPANS, "learning_rate": 1e-2, "esper": esper}
    grow(tiny_task(SPANS), Job("tiny", "esper", 0, settings), before_boundary)
    return [fossils for fossils in seen if fossils]


@pytest.mark.parametrize(("hook", "moves"), [(None, True), ("frozen fossils", False)])
def test_a_frozen_fossil_does_not_move(hook: str | None, moves: bool) -> None:
    """From the first boundary after it was fossilized it stays as it is; without the hook it is
    trained on.
    """
    seen = fossils_over_time(hook)
    assert len(seen) >= 3
    (name,) = seen[0]
    same = [torch.equal(a, b) for a, b in zip(seen[0][name], seen[-1][name], strict=True)]
    assert all(same) is not moves
