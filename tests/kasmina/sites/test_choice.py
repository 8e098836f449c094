"""The choice of sites: names, patterns, a function, a bound on their number."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kasmina import Site, SiteShape, choose, discover
from leyline import SiteError
from tests.kasmina.hosts import HOSTS

SITES = discover(HOSTS["resnet"].build(), (HOSTS["resnet"].example(),))


def names(sites: list[Site]) -> list[str]:
    return [site.name for site in sites]


def test_globs_keep_matches_in_site_order() -> None:
    """ "auto" keeps all, globs keep matches, one string is one pattern."""
    assert choose(SITES) == choose(SITES, "auto") == SITES
    assert names(choose(SITES, ["head", "blocks.?"])) == ["blocks.0", "blocks.1", "head"]
    assert names(choose(SITES, "*.conv")) == ["blocks.0.conv", "blocks.1.conv"]


def test_what_is_excluded_stays_out_of_what_was_asked_for() -> None:
    """Exclusion wins over every way of asking."""
    for wanted in ("auto", ["*"], lambda sites: sites):
        assert names(choose(SITES, wanted, exclude=["blocks.*", "head"])) == ["stem"]


def test_a_function_returns_those_it_wants() -> None:
    """From the whole list, so that it may count; whatever order it returns, sites keep theirs."""
    kept = choose(SITES, lambda sites: {*sites[:1], *[s for s in sites if s.shape.channels == 4]})
    assert names(kept) == ["stem", "head"]
    assert names(choose(SITES, lambda sites: sites[::-1])) == names(SITES)
    assert choose(SITES, lambda sites: []) == []


@pytest.mark.parametrize("answer", [True, None, ["stem"], [3]])
def test_a_function_that_returns_no_sites_is_an_error(answer: Any) -> None:
    """A predicate or a list of names is a likely mistake; the error says what was returned."""
    with pytest.raises(SiteError, match=rf"returned .*{answer}.*those of the list of sites"):
        choose(SITES, lambda sites: answer)


def test_a_pattern_without_a_match_names_itself_and_the_sites() -> None:
    """Of both settings; for a module that is no site it says why it is none."""
    with pytest.raises(SiteError, match=r"^sites: 'neck\*'.*stem, blocks\.0, "):
        choose(SITES, ["head", "neck*"])
    with pytest.raises(SiteError, match=r"^exclude_sites: 'neck'.*stem, blocks\.0, "):
        choose(SITES, exclude=["neck"])
    with pytest.raises(SiteError, match=r"'neck', which is no site: it is never called"):
        choose(SITES, ["n?ck"], refused={"neck": "it is never called"})


@given(num_sites=st.integers(0, 60), max_sites=st.integers(1, 70))
def test_a_bound_keeps_an_even_stride(num_sites: int, max_sites: int) -> None:
    """As many as allowed, in order, none twice, and equally far apart, give or take 1."""
    shape = SiteShape((2, 3), -1)
    sites = [Site(f"layer.{n}", shape, torch.float32) for n in range(num_sites)]
    kept = choose(sites, max_sites=max_sites)
    places = [sites.index(site) for site in kept]
    assert len(kept) == min(num_sites, max_sites)
    assert places == sorted(set(places))
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    if kept:
        assert abs(places[0] - (num_sites - 1 - places[-1])) <= 1
