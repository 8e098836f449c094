"""Work: counted, so the same everywhere; and nearer to the time that a pass takes than FLOPs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kasmina import count_flops, discover
from kasmina.blueprints import catalogue
from kasmina.sites.grounds import Grounds
from kasmina.sites.shape import SiteShape
from kasmina.sites.survey import survey
from kasmina.work import _CALL_SIZE_BYTES, _FLOPS_PER_BYTE, count_work

IMAGES = SiteShape((4, 8, 6, 6), 1)


def test_work_by_hand() -> None:
    """A product reads its factors and writes its result; a view is free, a copy is not."""
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    moved = 4 * (3 * 5 + 5 * 7 + 3 * 7)
    arithmetic = 2 * 3 * 5 * 7 // _FLOPS_PER_BYTE
    assert count_work(lambda: a @ b) == _CALL_SIZE_BYTES + moved + arithmetic
    assert count_work(lambda: a.t().view(5, 3)[1:]) == 0
    assert count_work(lambda: a.clone()) == _CALL_SIZE_BYTES + 4 * 2 * 15


def test_a_depthwise_convolution_is_cheap_in_flops_alone() -> None:
    """Of the full convolution's FLOPs it has a fraction, of its work most."""
    full, depthwise = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
    x = torch.ones(*IMAGES)
    flops = [count_flops(lambda m=m: m(x)) for m in (depthwise, full)]
    work = [count_work(lambda m=m: m(x)) for m in (depthwise, full)]
    assert flops[0] == flops[1] / 8
    assert work[0] > 0.8 * work[1]


@pytest.mark.parametrize("blueprint", ["conv", "norm", "bottleneck_mlp"])
def test_it_does_not_depend_on_the_device(blueprint: str) -> None:
    """Counted on the meta device, which computes nothing, it is that of a real pass."""
    body = catalogue[blueprint].build(IMAGES, 0).eval()
    x = torch.rand(*IMAGES)
    with torch.no_grad():
        assert catalogue[blueprint].cost(IMAGES).work == count_work(lambda: body(x))


def test_a_candidate_s_step_cost_is_its_share_of_the_host() -> None:
    """The host's own work is the whole; without knowing it no share is told."""
    grounds = Grounds()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    x = torch.rand(4, 3, 6, 6)
    found = survey(model, (x,))
    with torch.no_grad():
        assert found.host_work == count_work(lambda: model(x))
    grounds.open(found.sites)
    assert {candidate.step_cost for candidate in grounds.candidates} == {0.0}
    grounds.host_work = found.host_work
    sites = {site.name: site for site in discover(model, (x,))}
    for candidate in grounds.candidates:
        cost = sites[candidate.site].cost(candidate.blueprint)
        assert candidate.step_cost == pytest.approx(cost.work / found.host_work)
