"""The rollout: arms by hash, and what a run with a control arm, or without growth, does."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kasmina import Site, SiteShape
from leyline import ConfigError, SeedReport, SitesFound
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SITE,
    adam,
    assert_same,
    attach,
    copy_of,
    listen,
    make_host,
    run,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.config import load_config
from tolaria.growth.rollout import arms

SHAPE = SiteShape((2, 3), -1)
NAMES = st.lists(st.text("abc.0123456789", min_size=1, max_size=12), max_size=30, unique=True)
PERCENTAGES = st.integers(0, 100)


def sites_of(names: list[str]) -> list[Site]:
    return [Site(name, SHAPE, torch.float32) for name in names]


@given(NAMES, st.text(max_size=20), PERCENTAGES, PERCENTAGES)
def test_raising_the_percentage_never_takes_a_site_out(
    names: list[str], run_id: str, one: int, other: int
) -> None:
    """The arms are a partition in site order, the same at every call, and one grows into the
    next; 0 % is nobody, 100 % is everybody."""
    sites = sites_of(names)
    smaller, larger = sorted((one, other))
    grows, control = arms(sites, run_id, smaller)
    assert sorted(grows + control, key=sites.index) == sites
    assert grows == sorted(grows, key=sites.index)
    assert arms(sites, run_id, smaller) == (grows, control)
    assert [s for s in grows if s not in arms(sites, run_id, larger)[0]] == []
    assert arms(sites, run_id, 0) == ([], sites)
    assert arms(sites, run_id, 100) == (sites, [])


@given(NAMES, PERCENTAGES)
def test_an_arm_hangs_on_the_name_alone(names: list[str], percentage: int) -> None:
    """Which other sites there are does not move a site to the other arm."""
    together = {site.name for site in arms(sites_of(names), "run", percentage)[0]}
    alone = {name for name in names if arms(sites_of([name]), "run", percentage)[0]}
    assert together == alone


@pytest.mark.parametrize("percentage", [10, 50, 90])
def test_the_share_is_about_what_was_asked_for(percentage: int) -> None:
    """Of 2,000 sites, within four standard deviations; another run has other arms."""
    sites = sites_of([f"layers.{number}.mlp" for number in range(2_000)])
    grows = arms(sites, "first", percentage)[0]
    spread = (2_000 * percentage * (100 - percentage)) ** 0.5 / 100
    assert abs(len(grows) - 20 * percentage) < 4 * spread
    assert arms(sites, "second", percentage)[0] != grows


def run_with(percentage: int) -> str:
    """A name of a run whose control arm has the scheduled site at this percentage."""
    site = sites_of([SITE])
    return next(f"run-{n}" for n in range(500) if arms(site, f"run-{n}", percentage)[1])


def test_the_control_arm_never_grows_and_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A schedule may name a site of the control arm: planting is refused by name, the run ends
    with the bits of a held one, and event, view and log name the arms."""
    caplog.set_level(logging.INFO, "esper")
    ends = []
    name = run_with(50)
    for settings in ({"schedule": SCHEDULE, "rollout_percentage": 50}, {"policy": "hold"}):
        model = make_host()
        optimizer = adam(model)
        torch.manual_seed(3)
        path = tmp_path / str(len(ends)) / name
        with attach(model, optimizer, path, **settings) as esper:
            events = listen(esper)
            run(model, optimizer, esper, 4)
            report = esper.report()
        ends.append((copy_of(model), events, report))
    (grown, events, report), (held, _, _) = ends
    assert_same(grown, held)
    (refused,) = [e for e in events if isinstance(e, SeedReport)]
    assert f"{SITE!r} is not a site" in refused.refused
    (found,) = [e for e in events if isinstance(e, SitesFound)]
    assert SITE in found.control
    assert {*found.grows, *found.control} == {"conv", "norm", "head"}
    assert list(found.control) == list(report["sites"]["control"])
    assert f"{len(found.control)} are the control arm" in caplog.text


def test_disabled_is_held(tmp_path: Path) -> None:
    """enabled=False surveys nothing and changes nothing, whatever policy and schedule say."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE, enabled=False) as esper:
        events = listen(esper)
        reports = run(model, optimizer, esper, 3)
        assert esper.executor.grounds.sites == ()
        assert esper.controller.policy_name == "hold"
    assert not [e for e in events if isinstance(e, SitesFound | SeedReport)]
    assert all("survey" not in report.outside_ms for report in reports)


@pytest.mark.parametrize("percentage", [-1, 101])
def test_a_percentage_is_from_0_to_100(percentage: int) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ConfigError, match=r"'rollout_percentage' is .*; it must be 0 to 100"):
        load_config({"rollout_percentage": percentage})
