"""What a hand-written loop may hand over, and what it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kasmina
from kasmina import FunctionTask
from kasmina.slots.slot import attached_seeds
from leyline import ConfigError, SiteError
from tests.tolaria.plain_loops import (
    HELD_OUT,
    SCHEDULE,
    SEED,
    TRAIN,
    adam,
    assert_tracked,
    attach,
    copy_of,
    evaluate,
    loss_fn,
    make_host,
    run,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator
from tolaria.config import load_config
from tolaria.growth.batch_source import GivenBatches
from tolaria.session import Session


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,), lambda x: [x]])
def test_an_example_is_a_tensor_or_a_tuple_of_arguments(wrap: Any, tmp_path: Path) -> None:
    """A single tensor is taken for a tuple of one; the sites are found with it."""
    model = make_host()
    with attach(model, adam(model), tmp_path / "run", example=wrap(TRAIN[0][0])) as esper:
        esper.epoch_boundary({})
        assert [site.name for site in esper.executor.grounds.sites] == ["conv", "norm", "head"]
        assert esper.growth.search.example is not None
        assert len(esper.growth.search.example) == 1


def test_a_loop_is_told_its_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was chosen for it, also once the run is closed."""
    monkeypatch.chdir(tmp_path)
    model = make_host()
    with Orchestrator.attach(model, adam(model), policy="hold", telemetry="off") as esper:
        assert esper.run_dir.parent.resolve() == tmp_path / "runs"
    assert (esper.run_dir / "report.html").is_file()


@pytest.mark.parametrize("example", [{"x": 1}, "image", 3])
def test_an_example_of_another_kind_is_refused(example: Any, tmp_path: Path) -> None:
    """The error says what to give, and no run was opened."""
    model = make_host()
    with pytest.raises(ConfigError, match=r"give the positional arguments .* as a tuple"):
        attach(model, adam(model), tmp_path / "run", example=example)
    assert not (tmp_path / "run").exists()


def test_an_example_that_the_model_does_not_take_is_named(tmp_path: Path) -> None:
    """The first boundary says that the example is wrong and what the model said."""
    model = make_host()
    with (
        attach(model, adam(model), tmp_path / "run", example=torch.ones(2, 3)) as esper,
        pytest.raises(ConfigError, match="example: ConvNet cannot be called with it: RuntimeError"),
    ):
        esper.epoch_boundary({})


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A function is no module; an optimizer of another model trains nothing here."""
    with pytest.raises(ConfigError, match="model is a function"):
        attach(loss_fn, adam(make_host()), tmp_path / "run")  # type: ignore[arg-type] # the point
    with pytest.raises(ConfigError, match="holds no parameter of this ConvNet"):
        attach(make_host(), adam(make_host()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        ({"sites": ["nose*"]}, SiteError, "'nose\\*' matches none"),
        ({"schedule": ((1, "nose", "conv"),)}, ConfigError, "'nose', which is not a site"),
        ({"schedule": ((1, "head", "conv"),)}, ConfigError, "does not fit 'head'"),
        ({"monitor": "val_los"}, ConfigError, "logged are val_loss"),
    ],
)
def test_a_name_that_the_model_does_not_have_is_told_at_the_first_boundary(
    settings: dict[str, Any], error: type[Exception], reason: str, tmp_path: Path
) -> None:
    """Sites, schedules and the monitor are checked as soon as they can be."""
    model = make_host()
    with (
        attach(model, adam(model), tmp_path / "run", **settings) as esper,
        pytest.raises(error, match=reason),
    ):
        esper.epoch_boundary({"val_loss": 1.0})


def test_a_monitor_may_be_missing_in_epochs_without_validation(tmp_path: Path) -> None:
    """Once it was logged, an epoch without it is no mistake."""
    model = make_host()
    with attach(model, adam(model), tmp_path / "run", monitor="val_acc") as esper:
        esper.epoch_boundary({"val_acc": 0.5, "loss": 1.0})
        esper.epoch_boundary({"loss": 1.0})
        assert esper.epoch == 2


def test_metrics_are_the_numbers_among_what_was_given(tmp_path: Path) -> None:
    """Tensors of one item, numpy numbers and bools count; the rest is left out."""
    model = make_host()
    given = {
        "a": torch.tensor(0.5, requires_grad=True),
        "b": np.float32(0.25),
        "c": 3,
        "d": torch.ones(2),
        "e": "text",
        "f": None,
        "g": torch.tensor([2.0]),
    }
    with attach(model, adam(model), tmp_path / "run", policy="hold") as esper:
        esper.epoch_boundary(given)
        assert esper.session.recorder.view.metrics[1] == {"a": 0.5, "b": 0.25, "c": 3.0, "g": 2.0}
        with pytest.raises(ConfigError, match="metrics is a float"):
            esper.epoch_boundary(0.5)  # type: ignore[arg-type] # the point of the test


def test_a_model_with_seeds_of_an_earlier_run_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    """The error names the seeds; both ways that it names work: taking them off, or making them
    part of the host."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "first", schedule=SCHEDULE) as esper:
        run(model, optimizer, esper, 4)
    with pytest.raises(ConfigError, match=f"carries seeds .*{SEED}") as refused:
        attach(model, optimizer, tmp_path / "second", schedule=SCHEDULE)
    assert not (tmp_path / "second").exists()
    for word in ("kasmina.detach(model)", "kasmina.export(model)"):
        assert word in str(refused.value)

    plain = kasmina.export(model)
    fresh = adam(plain)
    with attach(plain, fresh, tmp_path / "exported", schedule=((1, "head", "low_rank"),)) as later:
        run(plain, fresh, later, 3)
        assert list(attached_seeds(plain)) == ["head/0"]
        assert_tracked(plain, fresh)

    kasmina.detach(model)
    with attach(model, optimizer, tmp_path / "second", schedule=SCHEDULE) as again:
        run(model, optimizer, again, 3)
        assert_tracked(model, optimizer)


def test_a_run_that_is_started_by_hand_refuses_strange_seeds_too(tmp_path: Path) -> None:
    """As a callback builds it: the seeds of a model are known once its state was restored, so
    the refusal comes with the start, unless growth is off."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "first", schedule=SCHEDULE) as esper:
        run(model, optimizer, esper, 4)
    for policy in ("heuristic", "hold"):
        config = load_config({"run_dir": tmp_path / policy, "telemetry": "off", "policy": policy})
        later = Orchestrator(
            model,
            [adam(model)],
            config,
            session=Session.open(config),
            task=FunctionTask(model, loss_fn),
            source=GivenBatches((TRAIN, HELD_OUT), 4, 1 << 20),
        )
        if policy == "heuristic":
            with pytest.raises(ConfigError, match=f"carries seeds .*{SEED}"):
                later.start(resumed=False)
        else:
            later.start(resumed=False)
            later.epoch_boundary({})
        later.close()


def test_a_frozen_host_needs_one_line_of_the_loop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Attaching says that a loss may have no graph before the first graft. A loop that heeds it
    grows adapters: the loss falls, and every bit of the host's parameters stays."""
    caplog.set_level("INFO", "esper")
    model = make_host().eval().requires_grad_(False)
    optimizer = adam(model)
    before = copy_of(model)
    losses = []
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        assert "call loss.backward() only if loss.requires_grad" in caplog.text
        for _ in range(12):
            for batch in TRAIN:
                optimizer.zero_grad()
                loss = loss_fn(model, batch)
                if loss.requires_grad:
                    loss.backward()
                optimizer.step()
                esper.after_step(loss.detach(), batch)
            losses.append(evaluate(model)["val_loss"])
            esper.epoch_boundary({"val_loss": losses[-1]})
    assert losses[0] == losses[1]
    assert losses[-1] < losses[0] - 0.02
    after = copy_of(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert set(attached_seeds(model)) == {SEED}
