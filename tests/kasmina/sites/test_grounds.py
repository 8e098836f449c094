"""The grounds: what fits where, how large it is, and numbers that a resumed run keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from torch import nn

from kasmina import discover
from kasmina.blueprints import Blueprint, catalogue
from kasmina.sites.grounds import Grounds
from kasmina.sites.shape import SiteShape
from leyline import BlueprintError, SiteError
from tests.kasmina.hosts import HOSTS, conv_net


@pytest.fixture
def grounds() -> Grounds:
    opened = Grounds()
    opened.open(discover(conv_net(), (HOSTS["conv_net"].example(),)))
    return opened


@pytest.fixture(autouse=True)
def forget_own() -> Iterator[None]:
    """Leave the catalogue as it was."""
    held = dict(catalogue.by_name)
    yield
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


def test_candidates_are_every_pair_that_fits(grounds: Grounds) -> None:
    """With the size that the built module has, and the same pairs in the contract's words."""
    pairs = {(c.site, c.blueprint): c.parameters for c in grounds.candidates}
    flops = {(c.site, c.blueprint): c.flops for c in grounds.candidates}
    expected = {
        (site.name, name): sum(p.numel() for p in blueprint.build(site.shape, 0).parameters())
        for site in grounds.sites
        for name, blueprint in catalogue.by_name.items()
        if blueprint.accepts(site.shape)
    }
    assert pairs == expected
    assert flops["stem", "conv"] == 2 * 36 * (8 * 8 * 9 + 8 * 8)
    assert {(s.name, b) for s in grounds.site_infos() for b in s.accepts} == set(expected)
    assert all(grounds.size(*pair) == size for pair, size in expected.items())


def test_nothing_can_be_planted_before_the_sites_are_known() -> None:
    """Closed grounds have no candidates and say that there are no sites."""
    assert Grounds().candidates == ()
    with pytest.raises(SiteError, match="sites are none"):
        Grounds().size("stem", "norm")


@pytest.mark.parametrize(
    ("site", "blueprint", "error", "reason"),
    [
        (
            "neck",
            "norm",
            SiteError,
            "'neck' is not a site that may.*control arm.*stem, block, block.0, head",
        ),
        ("head", "conv", SiteError, r"'conv' does not fit site 'head' of shape \(4, 4\)"),
        ("stem", "cnv", BlueprintError, "'cnv' is not registered"),
    ],
)
def test_a_pair_that_does_not_fit_says_why(
    grounds: Grounds, site: str, blueprint: str, error: type[Exception], reason: str
) -> None:
    """An unknown site, an unknown blueprint and a misfit are three different sentences."""
    with pytest.raises(error, match=reason):
        grounds.size(site, blueprint)


def _unbuildable(shape: SiteShape) -> nn.Module:
    raise RuntimeError("no luck")


def _one_kernel(shape: SiteShape) -> nn.Module:
    return nn.Conv2d(shape.channels, shape.channels, 1)


@pytest.mark.parametrize(
    ("factory", "accepts", "reason", "num_reasons"),
    [
        (_unbuildable, lambda shape: True, "cannot be built .*no luck", 2),
        (_one_kernel, lambda shape: shape[3] > 0, "cannot tell whether it fits .*IndexError", 1),
    ],
)
def test_a_blueprint_that_fails_for_a_shape_is_left_out_there(
    factory: Callable[[SiteShape], nn.Module],
    accepts: Callable[[SiteShape], bool],
    reason: str,
    num_reasons: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says why, once for each shape; it is a candidate where it works, and the others are
    what they are without it."""
    sites = discover(conv_net(), (HOSTS["conv_net"].example(),))
    without, opened = Grounds(), Grounds()
    without.open(sites)
    catalogue.register(Blueprint("flawed", factory, accepts))
    opened.open(sites)
    assert len(caplog.messages) == num_reasons
    assert all(re.search(f"left out: blueprint 'flawed' {reason}", m) for m in caplog.messages)
    works = {c.site for c in opened.candidates if c.blueprint == "flawed"}
    assert works == (set() if factory is _unbuildable else {"stem", "block", "block.0"})
    others = [c for c in opened.candidates if c.blueprint != "flawed"]
    assert others == list(without.candidates)
    with pytest.raises(SiteError, match="'flawed' does not fit site 'head'"):
        opened.size("head", "flawed")


def test_races_can_be_restricted(grounds: Grounds) -> None:
    """Only the named blueprints are candidates, also after a resume; a schedule may use any."""
    grounds.restrict(("norm", "low_rank"))
    assert {c.blueprint for c in grounds.candidates} == {"norm", "low_rank"}
    grounds.renumber(grounds.blueprints)
    assert {c.blueprint for c in grounds.candidates} == {"norm", "low_rank"}
    assert grounds.size("stem", "conv") > 0
    with pytest.raises(BlueprintError, match="'cnv' is not registered"):
        grounds.restrict(["conv", "cnv"])
    grounds.restrict(())
    assert {c.blueprint for c in grounds.candidates} == set(catalogue.by_name)


def test_saved_numbers_come_first(grounds: Grounds) -> None:
    """After a resume old numbers mean what they meant; blueprints added since come behind."""
    saved = list(reversed(grounds.blueprints))[:3]
    before = {(c.site, c.blueprint): c.parameters for c in grounds.candidates}
    grounds.renumber(saved)
    assert grounds.blueprints[:3] == tuple(saved)
    assert set(grounds.blueprints) == set(catalogue.by_name)
    assert {(c.site, c.blueprint): c.parameters for c in grounds.candidates} == before
    site, name = grounds.at(grounds.site_index("block"), grounds.blueprint_index(saved[1]))
    assert (site.name, name) == ("block", saved[1])
    with pytest.raises(BlueprintError, match="'gone'"):
        grounds.renumber(["gone"])
