"""The Lightning callback in every kind of run that Lightning offers, and beside other runs."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
)
from torch import Tensor

import kasmina
from kasmina.slots.slot import attached_seeds
from leyline import ConfigError, Decision, Fault, SeedReport, Stage
from tests.tolaria.lightning.models import (
    MLP,
    PLANT,
    SITE,
    STEPS_PER_EPOCH,
    AtEpochEnd,
    ByHand,
    ConvNet,
    NoValidation,
    TwoOptimizers,
    assert_same_run,
    assert_same_tensors,
    children,
    esper,
    fit,
    held_out_loader,
    listen,
    quiet_trainer,
    seed_streams,
    stages,
    train_loader,
    weights,
)
from tolaria import EsperCallback
from tolaria.disk.run import RunDirectory

SEED = f"{SITE}/0"


# What Lightning says of settings that these tests ask for on purpose.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{text}:UserWarning")
    for text in (
        r"trying to `self.log\(\)` but `Trainer\(barebones=True\)`",
        "requested to overfit but enabled train dataloader shuffling",
        "`training_step` returned `None`",
    )
]

# --- kinds of runs -------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "sanity check": {"num_sanity_val_steps": 2},
    "barebones": {"barebones": True, "num_sanity_val_steps": None, "logger": None},
    "limited": {"limit_train_batches": 2, "limit_val_batches": 2},
    "two validations": {"val_check_interval": 0.5},
    "clipped": {"gradient_clip_val": 0.1},
    "clipped by value": {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"},
    "accumulating": {"accumulate_grad_batches": 4},
    "bf16": {"precision": "bf16-mixed"},
    "steps only": {"max_epochs": -1, "max_steps": 7 * STEPS_PER_EPOCH},
    "reloading": {"reload_dataloaders_every_n_epochs": 1},
    "overfitting": {"overfit_batches": 2},
}


RARE = ("clipped by value", "reloading", "overfitting", "limited", "clipped", "steps only")
NAMES = [pytest.param(n, marks=[pytest.mark.slow] if n in RARE else []) for n in RUNS]


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_lives_its_life_in_every_run(tmp_path: Path, name: str) -> None:
    """Whatever the trainer's settings, a seed goes from planting to FOSSILIZED with a trial."""
    options = {"max_epochs": 7, **RUNS[name]}
    if name == "barebones":
        options = {**options, "enable_checkpointing": None}
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    events = listen(callback)
    _, model = fit(ConvNet, [callback], **options)
    assert stages(callback) == {SEED: "FOSSILIZED"}
    assert [e for e in events if isinstance(e, Fault)] == []
    assert [e for e in events if isinstance(e, SeedReport) and e.refused] == []
    (seed,) = callback.report()["seeds"]
    assert seed["trial_gain"] is not None
    assert seed["counterfactual_gain"] is not None
    assert all(bool(torch.isfinite(value).all()) for value in weights(model).values())


@pytest.mark.parametrize("name", NAMES)
def test_growth_that_is_off_changes_no_run(tmp_path: Path, name: str) -> None:
    """Whatever the trainer's settings, a run with policy='hold' is that without Esper."""
    options = {"max_epochs": 2, **RUNS[name]}
    if name == "barebones":
        options = {**options, "enable_checkpointing": None}
    elif name == "steps only":
        options["max_steps"] = STEPS_PER_EPOCH + 2
    plain = fit(ConvNet, **options)
    assert_same_run(plain, fit(ConvNet, [esper(tmp_path / "run")], **options))


@pytest.mark.parametrize("planted", [1, 2, 3])
def test_trials_wait_for_the_next_validation(tmp_path: Path, planted: int) -> None:
    """With validation every third epoch a trial and a counterfactual wait for one, unrefused."""
    schedule = ((planted, SITE, "bottleneck_mlp"),)
    callback = esper(tmp_path / "run", schedule=schedule, veto=False, monitor="val_loss")
    events = listen(callback)
    fit(MLP, [callback], max_epochs=12, check_val_every_n_epoch=3)
    reports = [e for e in events if isinstance(e, SeedReport)]
    assert [r.refused for r in reports] == [""] * len(reports)
    entered = {Stage(report.now).name: report.epoch for report in reports}
    assert entered["GRAFTING"] == (6 if planted == 3 else 3)
    assert entered["FINE_TUNING"] % 3 == 0
    assert callback.report()["seeds"][0]["trial_gain"] is not None
    assert not [e for e in events if isinstance(e, Fault)]


def test_a_race_waits_for_the_next_validation(tmp_path: Path) -> None:
    """The heuristic policy takes a race that waits for validation for no lost race."""
    callback = esper(tmp_path / "run", policy="heuristic", num_epochs=40, max_candidates=3)
    events = listen(callback)
    fit(MLP, [callback], max_epochs=9, check_val_every_n_epoch=8)
    decisions = [e for e in events if isinstance(e, Decision)]
    assert [d.epoch for d in decisions if "waits for the next validation" in d.cause] == [5, 6, 7]
    assert [d.epoch for d in decisions if d.scores] == [8]


def test_a_metric_of_a_later_validation_may_be_monitored(tmp_path: Path) -> None:
    """A monitor that only validation logs is not missed before the first validation."""
    own = EsperCallback(
        policy="hold", telemetry="off", run_dir=str(tmp_path / "run"), monitor="accuracy"
    )

    class Accurate(MLP):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    fit(Accurate, [own], max_epochs=2, check_val_every_n_epoch=2)
    assert own.report()["status"] == "finished"


def test_without_validation_a_seed_is_kept_unproven(tmp_path: Path) -> None:
    """With no validation loop the trial is waived by name and the seed stays in EVALUATING."""
    callback = esper(tmp_path / "run", schedule=PLANT)
    events = listen(callback)
    _, model = fit(NoValidation, [callback], max_epochs=8)
    assert stages(callback) == {SEED: "EVALUATING"}
    (fault,) = [e for e in events if isinstance(e, Fault)]
    assert "no held-out batches" in fault.what
    graft = next(e for e in events if isinstance(e, SeedReport) and e.now == Stage.GRAFTING)
    assert "no trial is possible here" in graft.cause
    assert weights(model)[f"{SITE}.esper.0.alpha"] == 1.0


def test_early_stopping_ends_the_run_in_order(tmp_path: Path) -> None:
    """A run that EarlyStopping ends has every boundary, and is finished."""
    callback = esper(tmp_path / "run", schedule=PLANT, checkpoint=True)
    stop = EarlyStopping("val_loss", patience=0, min_delta=9.0)
    trainer, _ = fit(MLP, [callback, stop], max_epochs=9)
    assert trainer.current_epoch == 2
    assert [b["epoch"] for b in callback.report()["boundaries"]] == [1, 2]
    assert callback.report()["status"] == "finished"
    assert len(list((tmp_path / "run" / "checkpoints" / "active").iterdir())) == 2


@pytest.mark.parametrize("model", [ByHand, TwoOptimizers])
def test_manual_optimization_grows_without_a_trial(tmp_path: Path, model: Any) -> None:
    """Steps by hand have no trial, by name; what is planted is grafted from zero and trains."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    events = listen(callback)
    trainer, grown = fit(model, [callback], max_epochs=6)
    (fault,) = [e for e in events if isinstance(e, Fault)]
    assert f"{model.__name__} optimizes by hand" in fault.what
    assert stages(callback) == {SEED: "EVALUATING"}, "no counterfactual without a loss"
    assert bool(weights(grown)[f"{SITE}.esper.0.body.3.weight"].any()), "it has trained"
    owner = trainer.optimizers[-1]
    own = {id(p) for p in attached_seeds(grown)[SEED][2].parameters()}
    assert own <= {id(p) for group in owner.param_groups for p in group["params"]}
    assert owner.param_groups[-1]["lr"] == 0.0, "it is frozen in this stage"


@pytest.mark.parametrize("model", [ByHand, TwoOptimizers])
def test_growth_that_is_off_changes_no_manual_run(tmp_path: Path, model: Any) -> None:
    """A run by hand with policy='hold' is that without Esper, bit for bit."""
    assert_same_run(fit(model), fit(model, [esper(tmp_path / "run")]))


def test_steps_may_return_nothing(tmp_path: Path) -> None:
    """Steps that Lightning skips because they return None are steps without a loss."""

    class Skips(MLP):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 1 else {"loss": super().training_step(batch, batch_idx)}

    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    fit(Skips, [callback], max_epochs=7)
    assert stages(callback) == {SEED: "FOSSILIZED"}
    assert callback.orchestrator.step == 7 * STEPS_PER_EPOCH


def test_losses_kept_in_a_list_do_not_stop_growth(tmp_path: Path) -> None:
    """The usual list of step outputs, cleared at the epoch's end, is no reason to grow nothing."""

    class Collects(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.outputs: list[Tensor] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.outputs.append(loss)
            return loss

        def on_train_epoch_end(self) -> None:
            assert len(self.outputs) == STEPS_PER_EPOCH
            self.outputs.clear()

    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    events = listen(callback)
    fit(Collects, [callback], max_epochs=7)
    assert [e for e in events if isinstance(e, Fault)] == []
    assert stages(callback) == {SEED: "FOSSILIZED"}


def test_a_step_that_fails_on_a_copy_grows_nothing_and_harms_nothing(tmp_path: Path) -> None:
    """A training step that works in the live run alone gives up trials; the run goes on."""

    class LiveOnly(MLP):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if not isinstance(self.trainer, pl.Trainer):
                raise TypeError("this is no trainer")
            return super().training_step(batch, batch_idx)

    plain = fit(LiveOnly)
    callback = esper(tmp_path / "run", schedule=PLANT)
    observed = fit(LiveOnly, [callback])
    assert_same_run(plain, observed)
    assert callback.report()["status"] == "finished"


# --- runs that are no fit, or more than one ------------------------------------------------------


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_other_verbs_are_left_alone(tmp_path: Path, verb: str) -> None:
    """validate, test and predict give what they give without Esper, and write nothing."""

    def outcome(callbacks: list[Any]) -> Any:
        seed_streams(1)
        model = MLP()
        run = getattr(quiet_trainer(callbacks=callbacks), verb)
        if verb == "predict":
            return torch.cat(run(model, held_out_loader(model))).tolist()
        return run(model, held_out_loader(model), verbose=False)

    callback = esper(tmp_path / "run")
    assert outcome([callback]) == outcome([])
    assert callback.orchestrator is None
    assert callback.report() == {"boundaries": [], "seeds": [], "decisions": []}
    assert list(tmp_path.iterdir()) == []


def test_verbs_after_a_fit_change_nothing_of_the_run(tmp_path: Path) -> None:
    """After a fit the report stays, and the model gives the same again and again."""
    callback = esper(tmp_path / "run", schedule=PLANT)
    trainer, model = fit(MLP, [callback], max_epochs=3)
    report, before = callback.report(), weights(model)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    first = trainer.test(model, held_out_loader(model), verbose=False)
    trainer.validate(model, held_out_loader(model), verbose=False)
    trainer.predict(model, held_out_loader(model))
    assert trainer.test(model, held_out_loader(model), verbose=False) == first
    assert callback.report() == report
    assert_same_tensors(before, weights(model))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files


def test_fast_dev_run_opens_nothing(tmp_path: Path) -> None:
    """A dry run makes no directory, thread or report."""
    callback = esper(tmp_path / "run", schedule=PLANT)
    threads = threading.active_count()
    fit(MLP, [callback], fast_dev_run=2)
    assert list(tmp_path.iterdir()) == []
    assert callback.orchestrator is None
    assert threading.active_count() == threads


def test_a_second_fit_goes_on(tmp_path: Path) -> None:
    """fit again with the same trainer goes on with the seed, in the same directory and count."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    trainer, model = fit(MLP, [callback], max_epochs=3)
    assert stages(callback) == {SEED: "STABILIZATION"}
    trainer.fit_loop.max_epochs = 7
    trainer.fit(model, train_loader(model), held_out_loader(model))
    assert stages(callback) == {SEED: "FOSSILIZED"}
    assert callback.run_dir == tmp_path / "run"
    assert [b["epoch"] for b in callback.report()["boundaries"]] == list(range(1, 8))


def test_a_second_trainer_goes_on(tmp_path: Path) -> None:
    """A new trainer, whose epochs begin at 0, goes on with the seed and counts epochs on."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    _, model = fit(MLP, [callback], max_epochs=3)
    second = quiet_trainer(4, callbacks=[callback])
    second.fit(model, train_loader(model), held_out_loader(model))
    assert stages(callback) == {SEED: "FOSSILIZED"}
    assert [b["epoch"] for b in callback.report()["boundaries"]] == list(range(1, 8))
    assert callback.orchestrator.num_epochs == 7
    grouped = [p for group in second.optimizers[0].param_groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))


def test_another_model_begins_another_run(tmp_path: Path) -> None:
    """A callback that is fitted to another model makes another run."""
    callback = esper(tmp_path / "run", schedule=PLANT)
    fit(MLP, [callback], max_epochs=3)
    with pytest.raises(ValueError, match="already holds a run"):
        fit(MLP, [callback])
    assert not RunDirectory.open(tmp_path / "run").close()


def test_seeds_changed_between_fits_are_refused(tmp_path: Path) -> None:
    """A second fit of a model whose seeds were taken off says so before it begins."""
    callback = esper(tmp_path / "run", schedule=PLANT)
    trainer, model = fit(MLP, [callback], max_epochs=3)
    kasmina.detach(model)
    trainer.fit_loop.max_epochs = 4
    with pytest.raises(ConfigError, match=r"seeds are none, but its last fit ended with net.0/0"):
        trainer.fit(model, train_loader(model), held_out_loader(model))
    RunDirectory.open(tmp_path / "run").close()


# --- several runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [pytest.param("hold", marks=pytest.mark.slow), "heuristic"])
def test_two_runs_live_in_one_process(tmp_path: Path, policy: str) -> None:
    """A run inside another one's epoch leaves it as it is."""
    plain = fit(MLP, [esper(tmp_path / "plain", policy=policy)])

    def nested(trainer: Any, model: Any) -> None:
        kept = torch.get_rng_state()
        fit(MLP, [esper(tmp_path / f"inner {trainer.current_epoch}", schedule=PLANT)])
        seed_streams(0)
        torch.set_rng_state(kept)

    outer = fit(MLP, [esper(tmp_path / "outer", policy=policy), AtEpochEnd(nested)])
    assert_same_run(plain, outer)


def test_default_settings_grow_in_an_unchanged_script(tmp_path: Path) -> None:
    """EsperCallback() as most will use it runs a fit to its end, with an embedded bus."""
    processes = children()
    callback = EsperCallback(run_dir=str(tmp_path / "run"), trial_steps=(2, 4))
    fit(partial(MLP, "sgd"), [callback], max_epochs=5)
    report = callback.report()
    assert len(report["boundaries"]) == len(report["decisions"]) == 5
    assert report["status"] == "finished"
    assert children() <= processes
