"""A finished run that tests share: it costs a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tolaria.plain_loops import adam, attach, make_host, run
from tolaria.commands.runs import StoredSpec, store_spec
from tolaria.commands.spec import TrainSpec

SETTINGS = {"max_candidates": 6, "veto": False}


@pytest.fixture(scope="session")
def grown_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight epochs that raced and grew, as `esper train` would have left it; read only."""
    path = tmp_path_factory.mktemp("grown") / "run"
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, path, param_budget=2_000, num_epochs=12, **SETTINGS) as esper:
        run(model, optimizer, esper, 8)
    spec = TrainSpec(esper={**SETTINGS, "telemetry": "off"})
    store_spec(path, StoredSpec(spec=spec, rng_seed=0, epochs=12))
    return path
