"""The executor: the one that changes the live model, and only by a validated transition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from kasmina.grafting.ramps import Ramps
from kasmina.lifecycle.reports import Reports
from kasmina.lifecycle.seed_table import SeedTable
from kasmina.sites.grounds import Grounds
from kasmina.sites.site import Site
from kasmina.slots.slot import attach_seed, attached_seeds, detach_seed
from kasmina.trials.counterfactual import counterfactual_gains
from kasmina.trials.nursery import Nursery
from kasmina.trials.race import RaceRules
from kasmina.trials.task import Task
from kasmina.trials.trial import OptimizerRecipe
from leyline import (
    LIFECYCLE,
    Advance,
    Cull,
    Decision,
    EsperError,
    Evidence,
    Germinate,
    LifecycleError,
    SeedReport,
    SiteError,
    Stage,
    refusal,
    validate,
)


@dataclass(frozen=True)
class LiveSeed:
    """A seed in the live model, as the learning-rate controller needs it."""

    site: str
    parameters: tuple[nn.Parameter, ...]
    trainable: bool


class Executor:
    """Applies decisions to a model, and measures what decisions rest on.

    `apply` is bookkeeping and attaching only, fit for the boundary. `prove`, `race` and
    `measure_counterfactuals` take as long as they take and belong outside it.
    """

    def __init__(self, model: nn.Module, *, rng_seed: int, ramp_steps: int = 1):
        self._model = model
        self.grounds = Grounds()
        self.table = SeedTable()
        self.nursery = Nursery(model, rng_seed)
        self._reports = Reports(self.table, self.grounds)
        self.ramp_steps = ramp_steps
        self.trials_waived: str | None = None
        """Why no trial can be run here; None while trials are possible."""
        self._birth_epoch: dict[str, int] = {}
        self._ramps = Ramps(self.table)
        self._moments: dict[str, Sequence[Mapping[str, Any]]] = {}

    # --- what is in the model ----------------------------------------------------------------

    def grown_parameters(self) -> int:
        """Parameters that growth has added to the live model."""
        attached = attached_seeds(self._model).values()
        return sum(p.numel() for _, _, seed in attached for p in seed.parameters())

    def live_seeds(self) -> dict[str, LiveSeed]:
        """Every seed of this run in the live model, by name, in order of the model's submodules.

        Seeds that the model brought along from an earlier run are part of its host.
        """
        live = {}
        for name, (site, _, seed) in attached_seeds(self._model).items():
            if name in self.table:
                trainable = LIFECYCLE[self.table.stage(name)].trains_in_host
                live[name] = LiveSeed(site, tuple(seed.parameters()), trainable)
        return live

    def take_moments(self, seed: str) -> Sequence[Mapping[str, Any]]:
        """Optimizer state that a seed brings from its trial, one mapping per parameter, once."""
        return self._moments.pop(seed, ())

    # --- inside the boundary -----------------------------------------------------------------

    def apply(self, decision: Decision, epoch: int) -> list[SeedReport]:
        """Carry out a decision, command by command.

        A command that the lifecycle, a site or a blueprint refuses changes nothing and is
        reported with its reason; the others are carried out.
        """
        reports = self._release(epoch)
        for command in decision.commands:
            try:
                reports.append(self._execute(command, epoch))
            except EsperError as error:
                reports.append(self._reports.refused(command, epoch, str(error)))
        self.nursery.clear()
        return reports

    def _execute(self, command: Germinate | Advance | Cull, epoch: int) -> SeedReport:
        if isinstance(command, Germinate):
            return self._germinate(command, epoch)
        if command.seed not in self.table:
            raise SiteError(f"there is no seed {command.seed!r}; nothing was changed")
        if isinstance(command, Cull):
            return self.withdraw(command.seed, epoch, command.cause, command.embargo_epochs)
        return self._advance_as_asked(command, epoch)

    def _germinate(self, command: Germinate, epoch: int) -> SeedReport:
        size = self.grounds.size(command.site, command.blueprint)
        site, _, number = command.seed.rpartition("/")
        left_over = command.seed not in self.table and command.seed in attached_seeds(self._model)
        if site != command.site or not number.isdecimal() or left_over:
            raise SiteError(
                f"seed {command.seed!r} cannot be planted at {command.site!r}; name it "
                f"{command.site + '/'!r} and a number that no seed of an earlier run has"
            )
        if command.seed not in self.table:
            self.table.add(command.seed, self.grounds.site_index(command.site))
        was = self.table.stage(command.seed)
        self.table.advance(command.seed, Stage.GERMINATED, self._evidence(command.seed))
        self.table.put(
            command.seed,
            blueprint=self.grounds.blueprint_index(command.blueprint),
            parameters=size,
            alpha=0.0,
            error_count=0,
            trial_steps=0,
            trial_gain=math.nan,
            trial_error=math.nan,
            counterfactual_gain=math.nan,
            counterfactual_error=math.nan,
        )
        self._birth_epoch[command.seed] = epoch
        return self._reports.made(command.seed, was, epoch, command.cause)

    def _advance_as_asked(self, command: Advance, epoch: int) -> SeedReport:
        """Advance, where the number may be any and the stage may have a way of its own."""
        if command.to in (Stage.CULLED, Stage.ROLLED_BACK):
            return self._withdraw_to(Stage(command.to), command.seed, epoch, command.cause, 0)
        if command.to == Stage.GERMINATED or command.to not in set(Stage):
            was = self.table.stage(command.seed)
            raise LifecycleError(
                command.seed,
                was.name,
                f"stage {command.to}",
                tuple(stage.name for stage in LIFECYCLE[was].leaves_to),
                "there is no such stage, or it takes a germinate command",
            )
        return self._advance(command.seed, Stage(command.to), epoch, command.cause)

    def _advance(self, seed: str, to: Stage, epoch: int, cause: str) -> SeedReport:
        was, evidence = self.table.stage(seed), self._evidence(seed)
        if to is Stage.GRAFTING:
            # A site that refuses must leave the row as it was.
            validate(seed, was, to, evidence)
            self._graft(seed)
        self.table.advance(seed, to, evidence)
        if to is not Stage.GRAFTING:
            self._ramps.end(seed)
        if to is Stage.CANCELLED:
            self._forget(seed)
        elif to is not Stage.GRAFTING and LIFECYCLE[to].in_forward:
            module = attached_seeds(self._model)[seed][2]
            module.requires_grad_(LIFECYCLE[to].trains_in_host)
            for parameter in module.parameters():
                # A left gradient would still move a frozen weight.
                parameter.grad = None
        return self._reports.made(seed, was, epoch, cause)

    def _graft(self, seed: str) -> None:
        site, blueprint = self._where(seed)
        trial = self.nursery.trial(seed)
        if trial is not None and trial.fault is None:
            module, moments = trial.module, trial.moments()
        else:
            module = self.nursery.build(seed, site, blueprint, self._birth_epoch[seed])
            moments = []
        module.blend(0.0)
        module.requires_grad_(True)
        for parameter in module.parameters():
            parameter.grad = None
        attach_seed(site.name, self._model.get_submodule(site.name), module)
        self._ramps.begin(seed, self.ramp_steps)
        if moments:
            self._moments[seed] = moments

    def withdraw(self, seed: str, epoch: int, cause: str, embargo_epochs: int) -> SeedReport:
        """Take a seed out at once, by the way that its stage allows: culled or rolled back."""
        was = self.table.stage(seed)
        allowed = LIFECYCLE[was].leaves_to
        to = Stage.CULLED if Stage.CULLED in allowed else Stage.ROLLED_BACK
        return self._withdraw_to(to, seed, epoch, cause, embargo_epochs)

    def roll_back(self, seed: str, epoch: int, cause: str, embargo_epochs: int) -> SeedReport:
        """Take a seed out because the run was restored."""
        return self._withdraw_to(Stage.ROLLED_BACK, seed, epoch, cause, embargo_epochs)

    def withdraw_faulted(self, epoch: int, embargo_epochs: int) -> list[SeedReport]:
        """Take out every live seed whose module has faulted."""
        held = attached_seeds(self._model)
        faults = {name: seed.fault for name, (_, _, seed) in held.items() if seed.fault}
        reports = []
        for name, fault in faults.items():
            if name in self.table and LIFECYCLE[self.table.stage(name)].leaves_to:
                # A cull may wait for a measurement that the fault prevents; a rollback never does.
                culled = refusal(self.table.stage(name), Stage.CULLED, self._evidence(name)) is None
                to = Stage.CULLED if culled else Stage.ROLLED_BACK
                cause = f"blueprint fault: {fault}"
                reports.append(self._withdraw_to(to, name, epoch, cause, embargo_epochs))
        return reports

    def _withdraw_to(
        self, to: Stage, seed: str, epoch: int, cause: str, embargo_epochs: int
    ) -> SeedReport:
        was = self.table.stage(seed)
        self.table.advance(seed, to, self._evidence(seed))
        held = attached_seeds(self._model).get(seed)
        if held is not None:
            detach_seed(held[1], held[2])
        self.table.put(seed, alpha=0.0, embargo_epochs_left=embargo_epochs)
        self._forget(seed)
        return self._reports.made(seed, was, epoch, cause)

    def _forget(self, seed: str) -> None:
        self._ramps.end(seed)
        self._moments.pop(seed, None)
        self._birth_epoch.pop(seed, None)

    def _release(self, epoch: int) -> list[SeedReport]:
        """Make places free again: the cancelled at once, the others after their embargo."""
        return [
            self._advance(seed, Stage.DORMANT, epoch, "its place is free again")
            for seed in self.table.in_stage(Stage.CANCELLED, Stage.CULLED, Stage.ROLLED_BACK)
            if self.table.get(seed, "embargo_epochs_left") <= 0
        ]

    # --- outside the boundary ----------------------------------------------------------------

    def prove(self, epoch: int) -> list[SeedReport]:
        """Prove every germinated seed: on to TRAINING, or CANCELLED with the fault."""
        reports = []
        for seed in self.table.in_stage(Stage.GERMINATED):
            site, blueprint = self._where(seed)
            fault = self.nursery.proof_fault(seed, site, blueprint, self._birth_epoch[seed])
            if fault is None:
                evidence = self._evidence(seed, blueprint_proven=True)
                self.table.advance(seed, Stage.TRAINING, evidence)
                reports.append(
                    self._reports.made(seed, Stage.GERMINATED, epoch, "its blueprint fits")
                )
            else:
                self.table.put(seed, error_count=1)
                reports.append(
                    self._advance(seed, Stage.CANCELLED, epoch, f"blueprint fault: {fault}")
                )
        return reports

    def race(
        self,
        task: Task,
        train_batches: Sequence[Any],
        held_out: Sequence[Any],
        recipe: OptimizerRecipe,
        rules: RaceRules,
    ) -> int:
        """Try every seed in TRAINING and write what was found into the table.

        Returns:
            FLOPs spent.

        Raises:
            TrialError: no trial can be run here.
        """
        seeds = self.table.in_stage(Stage.TRAINING)
        entries = {s: (*self._where(s), self._birth_epoch[s]) for s in seeds}
        flops = self.nursery.race(task, entries, train_batches, held_out, recipe, rules)
        for seed in seeds:
            trial = self.nursery.trial(seed)
            assert trial is not None
            self.table.put(
                seed,
                trial_steps=trial.steps,
                trial_gain=trial.gain,
                trial_error=trial.gain_error,
                error_count=int(trial.fault is not None),
            )
        return flops

    def trial_faults(self) -> dict[str, str]:
        """Faults of the last race's candidates, by seed."""
        trials = ((seed, self.nursery.trial(seed)) for seed in self.table.in_stage(Stage.TRAINING))
        return {seed: t.fault for seed, t in trials if t is not None and t.fault is not None}

    def measure_counterfactuals(self, task: Task, held_out: Sequence[Any]) -> list[str]:
        """Measure every seed in EVALUATING; returns their names."""
        seeds = self.table.in_stage(Stage.EVALUATING)
        if seeds and held_out:
            for seed, (gain, error) in counterfactual_gains(task, seeds, held_out).items():
                self.table.put(seed, counterfactual_gain=gain, counterfactual_error=error)
        return seeds

    def after_step(self, loss: float | None = None) -> None:
        """Move the alpha of every grafting seed on by one step.

        Args:
            loss: the newest training loss that is known, if any.
        """
        if len(self._ramps):
            held = {name: seed for name, (_, _, seed) in attached_seeds(self._model).items()}
            self._ramps.step(held, loss)

    # --- resuming ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All but the modules themselves, which travel in the model's own state."""
        return {
            "table": self.table.state_dict(),
            "blueprints": list(self.grounds.blueprints),
            "birth_epoch": dict(self._birth_epoch),
            "ramps": self._ramps.state_dict(),
            "ramp_steps": self.ramp_steps,
            "trials_waived": self.trials_waived,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; the model must already carry the seeds in it."""
        self.table.load_state_dict(state["table"])
        self.grounds.renumber(state["blueprints"])
        self._birth_epoch = dict(state["birth_epoch"])
        self.ramp_steps = state["ramp_steps"]
        self.trials_waived = state["trials_waived"]
        self._ramps.load_state_dict(state["ramps"])

    # --- helpers -----------------------------------------------------------------------------

    def _where(self, seed: str) -> tuple[Site, str]:
        return self.grounds.at(self.table.get(seed, "site"), self.table.get(seed, "blueprint"))

    def _evidence(self, seed: str, *, blueprint_proven: bool | None = None) -> Evidence:
        waived = self.trials_waived is not None
        return self.table.evidence(seed, trials_waived=waived, blueprint_proven=blueprint_proven)
