"""Any host: whatever is drawn, shared trials end as trials through the whole host do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kasmina import RaceRules, discover
from tests.kasmina.racing import TRAIN, assert_close, entries, measured, run, whole

WIDTH = 6
LAYERS = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "batch_norm": lambda: nn.BatchNorm1d(WIDTH),
    "relu": lambda: nn.ReLU(inplace=True),
    "dropout": lambda: nn.Dropout(0.5),
    "block": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()),
}
GLUE = ("plain", "skip", "in_place", "from_start", "tanh", "shared")


class Drawn(nn.Module):
    """Layers one after another, each with some functional code around it."""

    def __init__(self, kinds: list[tuple[str, str]]) -> None:
        super().__init__()
        self.start = nn.Linear(2, WIDTH)
        self.layers = nn.ModuleList(LAYERS[kind]() for kind, _ in kinds)
        self.shared = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 2)
        self.glue = [glue for _, glue in kinds]

    def forward(self, x: Tensor) -> Tensor:
        start = hidden = self.start(x)
        for layer, glue in zip(self.layers, self.glue, strict=True):
            before = hidden
            hidden = layer(hidden.clone() if isinstance(layer, nn.ReLU) else hidden)
            if glue == "skip":
                hidden = hidden + before
            elif glue == "in_place":
                hidden = hidden * 1.0
                hidden += before
            elif glue == "from_start":
                hidden = hidden + start
            elif glue == "tanh":
                hidden = torch.tanh(hidden)
            elif glue == "shared":
                hidden = self.shared(hidden)
        return self.head(hidden)


kinds = st.lists(st.tuples(st.sampled_from(list(LAYERS)), st.sampled_from(GLUE)), max_size=5)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(kinds=kinds, data=st.data())
def test_whatever_the_host_is_shared_trials_end_alike(
    kinds: list[tuple[str, str]], data: st.DataObject
) -> None:
    """A lone one to the bit, two of a site up to rounding; and every site that can shares."""
    torch.manual_seed(0)
    model = Drawn(kinds)
    sites = [site.name for site in discover(model, (TRAIN[0][0],))]
    site = data.draw(st.sampled_from(sites))
    rules = RaceRules((3, 6), 2)
    for wanted in ([f"{site}:low_rank"], [f"{site}:low_rank", f"{site}:norm"]):
        some = entries(model, TRAIN[0][0], *wanted)
        shared, report = run(model, some, rules=rules)
        alone, _ = run(model, some, rules=whole(rules))
        if len(wanted) == 1:
            assert measured(shared) == measured(alone)
        assert_close(shared, alone)
        is_shared = report.num_whole_steps == 0
        assert is_shared == (site != "shared" or [g for _, g in kinds].count("shared") == 1)
