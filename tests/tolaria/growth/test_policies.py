"""Policies in a run: found by name, asked apart where they are a user's, and never in its way."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from leyline import ConfigError, Decision, PolicyError, Stage
from tamiyo import AskedApart, HeuristicPolicy, HoldPolicy, PolicyKind, RandomPolicy, State
from tamiyo.policies import ENTRY_POINT_GROUP, PolicyCatalogue
from tamiyo.policies.built_in import BUILT_IN
from tests.installing import Packages
from tests.tamiyo import boundaries
from tests.tamiyo.policies.test_policies_page import EXAMPLE
from tests.tolaria.plain_loops import (
    Scripted,
    adam,
    assert_same,
    attach,
    copy_of,
    evaluate,
    make_host,
    run,
    streams,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator
from tolaria.config import EsperConfig, load_config
from tolaria.disk.journal import read
from tolaria.growth.policies import build_policy
from tolaria.resume.replay import Replay

OWN: dict[str, Any] = {"blueprints": ["norm", "low_rank", "conv"]}
"""None that another test of this process has registered."""


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> PolicyCatalogue:
    """A catalogue of this test alone, in place of the process's."""
    fresh = PolicyCatalogue(ENTRY_POINT_GROUP)
    for kind in BUILT_IN:
        fresh.register(kind)
    for module in ("tolaria.config", "tolaria.growth.policy_kinds"):
        monkeypatch.setattr(f"{module}.policy_catalogue", fresh)
    return fresh


@pytest.fixture
def packages(catalogue: PolicyCatalogue, tmp_path: Path) -> Iterator[Packages]:
    directory = tmp_path / "installed"
    directory.mkdir()
    installed = Packages(directory, ENTRY_POINT_GROUP)
    yield installed
    installed.remove()


def registered(catalogue: PolicyCatalogue, decide: Callable[[State], Any]) -> Scripted:
    """A user's policy of the name "theirs"."""
    policy = Scripted(decide)
    catalogue.register(PolicyKind("theirs", lambda rules: policy))
    return policy


def with_time(esper: Orchestrator) -> Orchestrator:
    """Have the policy never be late for what else the machine does."""
    esper.controller._clock_s = lambda: 0.0
    if isinstance(esper.controller._policy, AskedApart):
        esper.controller._policy._deadline_ms = 60_000.0
    return esper


def hold(state: State) -> Decision:
    return Decision(epoch=state.packet.epoch, policy="theirs", cause="nothing")


# --- from a config -------------------------------------------------------------------------------


def test_the_config_names_the_policy_and_its_options() -> None:
    """Options and the run's own settings reach the rules; of the monitor's mode what its name
    says; disabled, nothing grows whatever the policy.
    """
    settings: dict[str, Any] = {"policy_options": {"max_grafts": 3}, "max_candidates": 7}
    policy = build_policy(load_config({**settings, "monitor": "val_accuracy"}, environment={}))
    assert isinstance(policy, HeuristicPolicy)
    rules = policy._rules
    assert (rules.max_grafts, rules.max_candidates) == (3, 7)
    assert (rules.monitor, rules.monitor_mode) == ("val_accuracy", "max")
    control = build_policy(EsperConfig(policy="random", rng_seed=4))
    assert isinstance(control, RandomPolicy)
    assert control._rules.rng_seed == 4
    assert isinstance(build_policy(EsperConfig(policy="random", enabled=False)), HoldPolicy)


def test_options_are_checked_with_the_config() -> None:
    """A wrong one is refused before anything is built, from the environment too."""
    with pytest.raises(ConfigError, match="'max_graft' is no option of policy 'heuristic'"):
        load_config({"policy_options": {"max_graft": 3}}, environment={})
    variable = {"ESPER_POLICY_OPTIONS": "{max_grafts = 0}"}
    with pytest.raises(ConfigError, match="'max_grafts' of policy 'heuristic' is 0"):
        load_config(None, environment=variable)
    with pytest.raises(ConfigError, match="'policy_options' is 3"):
        load_config({"policy_options": 3}, environment={})
    share: dict[str, Any] = {"policy_options": {"host_gain_share": 0.5}}
    with pytest.raises(ConfigError, match="'trial_control' is False"):
        load_config(share, environment={})
    assert load_config({**share, "trial_control": True}, environment={}).trial_control


def test_a_built_in_policy_is_checked_without_torch() -> None:
    """Neither torch nor a plug-in is imported to check a config of one."""
    code = (
        "import sys; from tolaria.config import load_config\n"
        f"for name in {[kind.name for kind in BUILT_IN]}:\n"
        "    load_config({'policy': name}, environment={})\n"
        "assert not {'torch', 'kasmina'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_plug_in_is_found_by_name_and_a_broken_one_only_named(packages: Packages) -> None:
    """It is imported for its own name, which draws nothing from the run's streams; the error of an
    unknown one names what cannot be imported.
    """
    source = f"{EXAMPLE}\nimport random\nrandom.random()\n"
    packages.install("my-package", source, smallest_first=":SmallestFirst")
    packages.install("bad-package", "raise RuntimeError('no GPU')", broken=":x")
    packages.install("evil-package", "import sys; sys.exit('usage: evil')", evil=":x")
    load_config({"policy": "random"}, environment={})
    assert "my_package" not in sys.modules
    before = streams()
    config = load_config(
        {"policy": "smallest_first", "policy_options": {"every_epochs": 3}}, environment={}
    )
    assert isinstance(build_policy(config), AskedApart)
    assert streams() == before
    with pytest.raises(ConfigError, match="'every_epochs' of policy 'smallest_first' is 1"):
        load_config(
            {"policy": "smallest_first", "policy_options": {"every_epochs": 1}}, environment={}
        )
    with pytest.raises(ConfigError, match=r"'wild'.*smallest_first.*'bad-package'.*no GPU") as wild:
        load_config({"policy": "wild"}, environment={})
    assert "it calls sys.exit('usage: evil')" in str(wild.value)


def broken_factory(rules: Any) -> Any:
    raise OSError("no disk")


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (broken_factory, "OSError: no disk"),
        (lambda rules: sys.exit(3), r"it calls sys.exit\(3\)"),
        (lambda rules: 3, r"has no method decide\(\)"),
    ],
)
def test_a_policy_that_cannot_be_built_is_refused_at_the_start(
    factory: Any, said: str, catalogue: PolicyCatalogue
) -> None:
    """With its name and the reason."""
    catalogue.register(PolicyKind("theirs", factory))
    with pytest.raises(PolicyError, match=f"'theirs' cannot be built.*{said}"):
        build_policy(EsperConfig(policy="theirs"))


def test_without_a_time_limit_a_slow_policy_is_heard(catalogue: PolicyCatalogue) -> None:
    """A replay is not held to the time of a boundary; a run is."""

    def slow(state: State) -> Decision:
        end_s = time.thread_time() + 0.006
        while time.thread_time() < end_s:
            pass
        return hold(state)

    registered(catalogue, slow)
    config = EsperConfig(policy="theirs")
    assert build_policy(config).decide(boundaries.state()).late
    assert not build_policy(config, in_time=False).decide(boundaries.state()).late


# --- in a run ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_plug_in_grows_and_resumes(packages: Packages, tmp_path: Path) -> None:
    """The example of the page, installed, grows the network; a run that is resumed half-way ends
    with the same weights as one that is not.
    """
    packages.install("my-package", EXAMPLE, smallest_first=":SmallestFirst")
    settings = {**OWN, "policy": "smallest_first", "policy_options": {"every_epochs": 2}}
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "whole", **settings) as esper:
        reports = run(model, optimizer, with_time(esper), 6)
        assert {report.decision.policy for report in reports} == {"smallest_first"}
        assert len(esper.executor.live_seeds()) == 2
        whole = copy_of(model)
    model = make_host()
    optimizer = adam(model)
    settings |= {"checkpoint": True, "async_checkpoints": False, "resume": True}
    for num_epochs in (3, 3):
        model = make_host()
        optimizer = adam(model)
        with attach(model, optimizer, tmp_path / "halved", **settings) as esper:
            run(model, optimizer, with_time(esper), num_epochs)
    assert esper.epoch == 6
    assert_same(copy_of(model), whole)


def test_a_policy_does_not_touch_the_runs_random_streams_and_settings(
    catalogue: PolicyCatalogue, tmp_path: Path
) -> None:
    """One that draws from the global streams, and leaves torch with another default dtype, leaves
    the run as one that does not."""
    ends = []
    for name in ("hold", "theirs"):
        drawn: list[float] = []

        def draw(state: State, drawn: list[float] = drawn) -> Decision:
            drawn.append(random.random())  # noqa: S311 - a careless policy
            torch.set_default_dtype(torch.float64)
            return hold(state)

        registered(catalogue, draw)
        model = make_host()
        optimizer = adam(model)
        with attach(model, optimizer, tmp_path / name, policy=name) as esper:
            run(model, optimizer, with_time(esper), 3)
        ends.append((copy_of(model), streams()))
    assert len(drawn) == 3
    assert len(set(drawn)) == 3, "of its own at every epoch"
    assert_same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.slow
def test_a_real_hang_holds_is_journaled_and_replayed(
    catalogue: PolicyCatalogue, packages: Packages, tmp_path: Path
) -> None:
    """A policy that hangs at the second boundary of six: after a second that boundary holds, the
    next at once, checkpoints are written meanwhile. Let go, it decides again from where it was.
    A run that is only told which boundaries were late decides alike.
    """
    packages.install("my-package", EXAMPLE, smallest_first=":SmallestFirst")
    made: dict[str, Any] = {"policy": "smallest_first", "policy_options": {"every_epochs": 2}}
    kind = None
    is_free, hangs = threading.Event(), threading.Event()

    class Hanging:
        """The example, which hangs at the second boundary when it first meets it."""

        name = "theirs"

        def __init__(self, rules: Any):
            self._inner = kind.factory(rules)  # type: ignore[attr-defined] # set below

        def decide(self, state: State) -> Decision:
            if state.packet.epoch == 2 and not hangs.is_set():
                hangs.set()
                is_free.wait(60)
            decision: Decision = self._inner.decide(state)
            return decision

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    load_config(made, environment={})
    kind = catalogue["smallest_first"]
    catalogue.register(PolicyKind("theirs", Hanging, kind.rules))
    settings = {**OWN, **made, "policy": "theirs"}
    settings |= {"checkpoint": True, "async_checkpoints": False}
    lived = _hang(settings, tmp_path / "run", hangs, is_free)
    told = Replay.of(read(tmp_path / "run" / "journal.bin"))
    assert told.late == (2, 3)
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "told", **settings) as esper:
        esper.replay(told)
        run(model, optimizer, with_time(esper), 6)
        assert len(esper.executor.table.in_stage(Stage.GRAFTING, Stage.TRAINING)) > 0
    assert_same(copy_of(model), lived)


def _hang(
    settings: dict[str, Any], path: Path, hangs: threading.Event, is_free: threading.Event
) -> dict[str, Any]:
    """Live through the hang; the weights at the end."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, path, **settings) as esper:
        esper.controller._clock_s = lambda: 0.0  # the wait for the answer has a clock of its own
        for epoch in range(1, 7):
            train_epoch(model, optimizer, esper)
            report = esper.epoch_boundary(evaluate(model))
            assert report.decision.late is (epoch in (2, 3)), epoch
            esper.checkpoint()
            if epoch == 2:
                assert hangs.is_set()
                assert report.decide_ms > 900
            if epoch == 3:
                assert report.decide_ms < 500
                assert "still works on an earlier boundary" in report.decision.cause
                thread = esper.controller._policy._thread  # type: ignore[attr-defined] # asked apart
                is_free.set()
                thread.join(60)
        assert esper.controller.num_late == 2
        return copy_of(model)
