"""A LightningModule whose network is compiled grows like any other, and no step waits for that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tolaria.lightning.models import (
    NUM_CLASSES,
    NUM_FEATURES,
    Classifier,
    esper,
    fit,
    stages,
    weights,
)

WIDTH = 8


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(NUM_FEATURES, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs).relu()


class Grows(Classifier):
    """Counts the graphs that were compiled within live batches, by epoch."""

    how = "not at all"

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.head = nn.Linear(WIDTH, NUM_CLASSES)
        if self.how == "wrapped":
            self.net = torch.compile(self.net, backend=self._backend)  # type: ignore[assignment] # a module
        elif self.how == "in place":
            self.net.compile(backend=self._backend)
        self.graphs: dict[int, int] = {}
        self.in_batch = False

    def _backend(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        if self.in_batch:
            self.graphs[self.current_epoch + 1] = self.graphs.get(self.current_epoch + 1, 0) + 1
        return graph.forward

    def on_train_batch_start(self, *_: Any) -> None:
        self.in_batch = True

    def on_train_batch_end(self, *_: Any) -> None:
        self.in_batch = False

    def on_validation_batch_start(self, *_: Any) -> None:
        self.in_batch = True

    def on_validation_batch_end(self, *_: Any) -> None:
        self.in_batch = False


class Wrapped(Grows):
    how = "wrapped"


class InPlace(Grows):
    how = "in place"


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "site"), [(Wrapped, "net._orig_mod.layer"), (InPlace, "net.layer")]
)
def test_a_compiled_network_grows_without_compiling_in_a_batch(
    kind: type[Grows], site: str, tmp_path: Path
) -> None:
    """All graphs of live batches are the host's own, of the first epoch; those of the graft are
    made beside the boundary and timed there."""
    callback = esper(tmp_path / "run", schedule=((1, site, "low_rank"),), veto=False)
    _, model = fit(kind, [callback], max_epochs=8)
    assert stages(callback) == {f"{site}/0": "FOSSILIZED"}
    assert set(model.graphs) == {1}
    timed = [part for b in callback.report()["boundaries"] for part in b["outside_ms"]]
    assert timed.count("prewarm") == 1


@pytest.mark.slow
def test_a_compiled_run_learns_what_the_eager_run_learns(tmp_path: Path) -> None:
    """With graphs that are run as they were traced, the weights at the end are the same."""
    runs = []
    for kind in (InPlace, Grows):
        callback = esper(tmp_path / kind.__name__, schedule=((1, "net.layer", "low_rank"),))
        runs.append(weights(fit(kind, [callback], max_epochs=8)[1]))
    assert runs[0].keys() == runs[1].keys()
    for name, weight in runs[0].items():
        if "_extra_state" not in name:
            torch.testing.assert_close(weight, runs[1][name], rtol=1e-4, atol=1e-5)
