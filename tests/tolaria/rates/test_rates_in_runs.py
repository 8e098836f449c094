"""The rates of whole runs: warm-up, both rules, resumed, told of and shown."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import lr_scheduler

from leyline import LearningRates
from tests.tolaria.lightning.models import MLP, PLANT, STEPS_PER_EPOCH, esper, fit
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    TRAIN,
    adam,
    attach,
    evaluate,
    listen,
    make_host,
    run,
    seed_parameters,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.commands.inspection import inspect_run
from tolaria.rates.groups import SEED_KEY
from tolaria.rates.rules import norm_ratio

WARMUP_STEPS = STEPS_PER_EPOCH + 3


class Rates(pl.Callback):
    """Keeps the rates of every group in every optimizer step, by the step's number."""

    def __init__(self) -> None:
        self.used: dict[int, list[float]] = {}
        self.shares: dict[int, float] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        self.used[trainer.global_step] = [group["lr"] for group in groups]
        for group in groups:
            if SEED_KEY in group:
                self.shares[trainer.global_step] = group["lr"] / groups[0]["lr"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
@pytest.mark.parametrize(
    "rule", [pytest.param("constant", marks=pytest.mark.slow), "variance_transfer"]
)
def test_a_run_resumed_in_the_middle_of_a_warm_up_has_the_same_rates(
    rule: str, tmp_path: Path
) -> None:
    """From Lightning's .ckpt after six of nine steps: the share of the host's rate rises on from
    there once the seed trains again, is 0 while it is frozen, and equals the unstopped run's."""
    build = partial(MLP, "adamw", lambda o: lr_scheduler.ExponentialLR(o, 0.9))
    settings = {"schedule": PLANT, "veto": False, "seed_warmup_steps": WARMUP_STEPS}

    def saver() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)

    whole, resumed = Rates(), Rates()
    for rates, path in ((whole, None), (resumed, tmp_path / "epoch=2.ckpt")):
        callback = esper(tmp_path / rule / str(path is None), seed_rate_rule=rule, **settings)
        callbacks = [rates, callback, saver()]
        fit(build, callbacks, max_epochs=7, ckpt_path=path, rng_seed=3 if path is None else 7)
    first = 3 * STEPS_PER_EPOCH + 1
    assert resumed.used == {step: used for step, used in whole.used.items() if step >= first}
    shares = [whole.shares[step] for step in sorted(whole.shares)]
    grafting, frozen, training = shares[:6], shares[6:18], shares[18:]
    full = 1.0 if rule == "constant" else grafting[0] * WARMUP_STEPS
    assert grafting == pytest.approx([full * n / WARMUP_STEPS for n in range(1, 7)])
    assert frozen == [0.0] * 12
    assert training[2] > training[1] > training[0] > 0
    assert training[2:] == pytest.approx([training[2]] * 10)
    assert math.isclose(training[0] / training[2], 7 / 9)
    assert (rule == "constant") == (training[2] == 1.0)


def test_variance_transfer_takes_the_norms_when_the_seed_starts_to_train(tmp_path: Path) -> None:
    """At the graft, over the seed's trained weights and its site's, seeds left out; the ratio then
    stays while the weights move."""
    model = make_host()
    optimizer = adam(model)
    settings = {"seed_rate_rule": "variance_transfer", "seed_learning_rate_factor": 0.5}
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE, **settings) as orchestrator:
        run(model, optimizer, orchestrator, 2)
        own = [model.conv.weight, model.conv.bias]
        expected = 0.01 * 0.5 * norm_ratio(seed_parameters(model), own)
        found = optimizer.param_groups[1]["lr"]
        train_epoch(model, optimizer, orchestrator)
        assert found == optimizer.param_groups[1]["lr"] == pytest.approx(expected)
        assert norm_ratio(seed_parameters(model), own) != expected


def test_every_boundary_tells_the_rates_that_training_goes_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the host's groups and of every seed, 0 while it is frozen; `esper inspect` shows the
    last, as a line and as JSON."""
    model = make_host()
    optimizer = adam(model)
    settings = {"schedule": SCHEDULE, "seed_learning_rate_factor": 0.5}
    orchestrator = attach(model, optimizer, tmp_path / "run", **settings)
    heard = listen(orchestrator)
    with orchestrator:
        for rate in (0.01, 0.02, 0.04):
            optimizer.param_groups[0]["lr"] = rate
            run(model, optimizer, orchestrator, 1)
    told = [event for event in heard if isinstance(event, LearningRates)]
    assert [(t.epoch, t.step, t.host, t.seeds) for t in told] == [
        (1, 4, (0.01,), {}),
        (2, 8, (0.02,), {SEED: 0.01}),
        (3, 12, (0.04,), {SEED: 0.0}),
    ]
    inspect_run(tmp_path / "run", as_json=False)
    assert f"learning rates after epoch 3: host 0.04, {SEED} 0" in capsys.readouterr().out
    inspect_run(tmp_path / "run", as_json=True)
    shown = json.loads(capsys.readouterr().out)["learning_rates"]
    assert shown == {"epoch": 3, "step": 12, "host": [0.04], "seeds": {SEED: 0.0}}


def test_a_boundary_that_does_not_count_takes_its_rates_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed's rate and place in the warm-up are those from before."""
    model = make_host()
    optimizer = adam(model)
    no_trial = {"loss_fn": None, "data": None, "example": TRAIN[0][0]}
    settings = {"schedule": SCHEDULE, "seed_warmup_steps": 100, **no_trial}
    with attach(model, optimizer, tmp_path / "run", **settings) as orchestrator:
        run(model, optimizer, orchestrator, 2)
        train_epoch(model, optimizer, orchestrator)
        rates = orchestrator.rates
        before = rates.state_dict(), rates.learning_rates()

        reconcile = rates.reconcile

        def breaks(*arguments: Any) -> None:
            reconcile(*arguments)
            raise RuntimeError("no")

        monkeypatch.setattr(rates, "reconcile", breaks)
        report = orchestrator.epoch_boundary(evaluate(model))
        assert "did not count" in report.decision.cause
        assert before == (rates.state_dict(), rates.learning_rates())
        assert before[0]["seeds"][SEED]["steps"] == len(TRAIN)
        assert before[1][1][SEED] == pytest.approx(0.01 * 5 / 100)
