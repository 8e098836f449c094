"""Which sites a run uses: patterns, exclusions, a bound, a function; and what is said of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from kasmina import Site
from leyline import ConfigError, SiteError
from tests.tolaria.lightning.models import MLP, PLANT, SITE, Losses, esper, fit
from tests.tolaria.plain_loops import TRAIN, adam, attach, make_host, train_step
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.commands.inspection import inspect_run
from tolaria.config import load_config


def opened(tmp_path: Path, **settings: Any) -> list[str]:
    """The sites of a hand-written loop after its first boundary."""
    model = make_host()
    with attach(model, adam(model), tmp_path / "run", example=TRAIN[0][0], **settings) as run:
        run.epoch_boundary({})
        return [site.name for site in run.executor.grounds.sites]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["conv", "norm", "head"]),
        ({"sites": ["n*", "head"]}, ["norm", "head"]),
        ({"exclude_sites": ["conv"]}, ["norm", "head"]),
        ({"max_sites": 1}, ["norm"]),
        ({"sites": lambda sites: [s for s in sites if s.shape.channels_first]}, ["conv", "norm"]),
        ({"sites": lambda sites: sites, "exclude_sites": ["h*"], "max_sites": 1}, ["norm"]),
    ],
)
def test_every_way_to_choose(settings: dict[str, Any], names: list[str], tmp_path: Path) -> None:
    """The settings, and a function given as `sites` to attach, choose what was asked for."""
    assert opened(tmp_path, **settings) == names


def test_a_wrong_choice_is_an_error_by_name(tmp_path: Path) -> None:
    """At the first boundary if no step comes before it; a bad bound at once."""
    with pytest.raises(SiteError, match="exclude_sites: 'tail'"):
        opened(tmp_path / "exclude", exclude_sites=["tail"])
    with pytest.raises(SiteError, match="the function returned True"):
        opened(tmp_path / "predicate", sites=lambda sites: True)
    with pytest.raises(ConfigError, match="'max_sites' is 0"):
        load_config({"max_sites": 0})
    with pytest.raises(ConfigError, match="plain values"):
        load_config({"sites": len})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sites": ["encoder.*"]}, r"sites: 'encoder\.\*' matches"),
    ({"schedule": [(1, "tail", "norm")]}, "schedule: epoch 1 plants at 'tail'"),
    ({"schedule": [(1, "head", "conv")]}, "'conv' does not fit 'head'"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG)
def test_a_wrong_name_is_told_after_the_first_step(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """No epoch is lost: neither a fit's nor a hand-written loop's."""
    losses = Losses()
    policy = "schedule" if "schedule" in settings else "heuristic"
    with pytest.raises((SiteError, ConfigError), match=said):
        fit(MLP, [losses, esper(tmp_path / "fit", policy=policy, **settings)], max_epochs=2)
    assert len(losses.losses) == 1

    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "loop", **settings) as run:
        with pytest.raises((SiteError, ConfigError), match=said):
            run.after_step(train_step(model, optimizer, TRAIN[0]))
        assert run.step == 1


def test_the_survey_after_the_first_step_is_timed_with_the_next_boundary(tmp_path: Path) -> None:
    """It happens once, between two steps, and its time is not hidden."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run") as run:
        assert not run.executor.grounds.sites
        run.after_step(train_step(model, optimizer, TRAIN[0]))
        assert [site.name for site in run.executor.grounds.sites] == ["conv", "norm", "head"]
        run.after_step(train_step(model, optimizer, TRAIN[1]))
        reports = [run.epoch_boundary({}), run.epoch_boundary({})]
    assert ["survey" in report.outside_ms for report in reports] == [True, False]
    assert reports[0].outside_ms["survey"] > 0.0


def test_a_resumed_fit_keeps_the_sites_that_a_function_chose(tmp_path: Path) -> None:
    """The callback's function is asked once: a resumed run has the sites of the checkpoint, also
    if the function would now answer otherwise."""
    answers: list[list[str]] = []

    def first_only(sites: list[Site]) -> list[Site]:
        answers.append([site.name for site in sites])
        return sites[1:2]

    options = {"schedule": PLANT, "veto": False, "checkpoint": True}
    fit(MLP, [esper(tmp_path / "first", sites=first_only, **options)], max_epochs=2)
    newest = sorted((tmp_path / "first" / "checkpoints" / "active").iterdir())[-1]
    again = esper(tmp_path / "second", sites=lambda sites: [], **options)
    fit(MLP, [again], max_epochs=4, ckpt_path=newest)
    assert answers == [["net", SITE, "head"]]
    assert again.orchestrator is not None
    assert [s.name for s in again.orchestrator.executor.grounds.sites] == [SITE]


class Spare(MLP):
    """A model with a layer that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


def test_inspect_says_where_a_run_may_grow_and_why_not_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sites are counted, the control arm is named, and every refused module has its reason."""
    run_dir = tmp_path / "run"
    fit(Spare, [esper(run_dir, schedule=PLANT, rollout_percentage=0)], max_epochs=1)
    capsys.readouterr()
    inspect_run(run_dir, as_json=False)
    said = capsys.readouterr().out
    assert "sites: 0 may grow, rollout 0 %, 3 in the control arm; 1 module cannot carry" in said
    assert f"control arm: net, {SITE}, head" in said
    assert "it is never called: it is not used, or only its weights are: spare" in said
    assert "3 in the control arm" in (run_dir / "report.html").read_text()
