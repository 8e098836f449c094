"""The executor: the one that changes the live model, and only by a validated transition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from kasmina.grafting.strategies import GraftingRecipe
from kasmina.lifecycle.commands import Commands
from kasmina.lifecycle.effects import Effects
from kasmina.lifecycle.manager import LifecycleManager
from kasmina.lifecycle.record_sink import MemoryRecords, RecordSink
from kasmina.lifecycle.reports import Reports
from kasmina.lifecycle.seed_table import SeedTable
from kasmina.sites.grounds import Grounds
from kasmina.sites.site import Site
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import AttachedSeed, attached_seeds, every_seed, seed_at_its_site
from kasmina.trials.counterfactual import counterfactual_gains
from kasmina.trials.flops import FlopLedger
from kasmina.trials.nursery import Nursery
from kasmina.trials.race import RaceRules
from kasmina.trials.task import Task
from kasmina.trials.trial import OptimizerRecipe
from kasmina.walk import parameters_of
from leyline import (
    LIFECYCLE,
    Advance,
    Cull,
    Decision,
    EsperError,
    Evidence,
    SeedReport,
    Stage,
    refusal,
)

_IN_FORWARD: Final = tuple(stage for stage in Stage if LIFECYCLE[stage].in_forward)
_MOVES: Final = (Stage.GRAFTING, Stage.CULLED, Stage.CANCELLED, Stage.ROLLED_BACK)
"""Where a seed that is advanced there comes into the model or leaves it."""


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

    def __init__(
        self,
        model: nn.Module,
        *,
        rng_seed: int,
        ramp_steps: int = 1,
        records: RecordSink | None = None,
    ):
        self._model = model
        self.grounds = Grounds()
        self.table = SeedTable()
        self.nursery = Nursery(model, rng_seed)
        self._effects = Effects(model, self.table, self.grounds, self.nursery)
        self.ramp_steps = ramp_steps
        self._reports = Reports(self.table, self.grounds)
        sink = MemoryRecords() if records is None else records
        self.lifecycle = LifecycleManager(self.table, self._reports, self._effects.carry_out, sink)
        """The one way of every transition; callbacks are registered with it."""
        self._commands = Commands(model, self.table, self.grounds, self.lifecycle, self._evidence)
        self._untold_faults: dict[str, str] = {}
        self.trials_waived: str | None = None
        """Why no trial can be run here; None while trials are possible."""

    @property
    def ramp_steps(self) -> int:
        """Steps in which the next graft's alpha goes from 0 to 1."""
        return self._effects.ramp_steps

    @ramp_steps.setter
    def ramp_steps(self, num_steps: int) -> None:
        self._effects.ramp_steps = num_steps

    def graft_by(self, recipe: GraftingRecipe) -> None:
        """Graft seeds by this recipe from now on; without it alpha rises linearly."""
        self._effects.grafting = recipe

    # --- what is in the model ----------------------------------------------------------------

    def grown_parameters(self) -> int:
        """Parameters that growth has added to the live model."""
        held = every_seed(self._model)
        return sum(p.numel() for _, _, seed in held for p in parameters_of(seed))

    def live_seeds(self) -> dict[str, LiveSeed]:
        """Every seed of this run in the live model, by name, in order of the table.

        Seeds that the model brought along from an earlier run are part of its host, as are those of
        a copy that it keeps of a part of itself.
        """
        live = {}
        for name, (site, _, seed) in self._own_seeds().items():
            trainable = LIFECYCLE[self.table.stage(name)].trains_in_host
            live[name] = LiveSeed(site, tuple(parameters_of(seed)), trainable)
        return live

    def take_moments(self, seed: str) -> Sequence[Mapping[str, Any]]:
        """Optimizer state that a seed brings from its trial, one mapping per parameter, once."""
        return self._effects.take_moments(seed)

    def like(self, seed: str) -> GraftedSeed:
        """A throw-away seed, built as this one was at its birth."""
        return self.nursery.build(seed, *self._birth(seed))

    # --- inside the boundary -----------------------------------------------------------------

    def moves_seeds(self, decision: Decision) -> bool:
        """Whether a decision or a fault is to put a seed into the live model or to take one out."""
        return any(
            isinstance(command, Cull) or (isinstance(command, Advance) and command.to in _MOVES)
            for command in decision.commands
        ) or any(held.seed.fault for held in self._own_seeds().values())

    def apply(self, decision: Decision, epoch: int) -> list[SeedReport]:
        """Carry out a decision, command by command.

        A command that the lifecycle, a site or a blueprint refuses changes nothing and is
        reported with its reason; the others are carried out.
        """
        reports = self._commands.release(epoch)
        for command in decision.commands:
            try:
                reports.append(self._commands.execute(command, epoch))
            except EsperError as error:
                self.lifecycle.refused()
                reports.append(self._reports.refused(command, epoch, str(error)))
        self.nursery.retire()
        return reports

    def roll_back(self, seed: str, epoch: int, cause: str, embargo_epochs: int) -> SeedReport:
        """Take a seed out because the run was restored, by the way that its stage allows."""
        self._untold_faults = self.take_faults()
        ways = LIFECYCLE[self.table.stage(seed)].leaves_to
        ends = (Stage.ROLLED_BACK, Stage.CULLED, Stage.CANCELLED)
        to = next(stage for stage in ends if stage in ways)
        return self._commands.withdraw(seed, to, epoch, cause, embargo_epochs)

    def withdraw_faulted(self, epoch: int, embargo_epochs: int) -> list[SeedReport]:
        """Take out every live seed whose module has faulted."""
        reports = []
        for name, (_, _, seed) in self._own_seeds().items():
            if seed.fault and LIFECYCLE[self.table.stage(name)].leaves_to:
                # A cull may wait for a measurement that the fault prevents; a rollback never does.
                culled = refusal(self.table.stage(name), Stage.CULLED, self._evidence(name)) is None
                to = Stage.CULLED if culled else Stage.ROLLED_BACK
                cause = f"blueprint fault: {seed.fault}"
                reports.append(self._commands.withdraw(name, to, epoch, cause, embargo_epochs))
        return reports

    def take_faults(self) -> dict[str, str]:
        """Faults of live seeds, by seed; each is given out once, for one event that says why."""
        untold, self._untold_faults = self._untold_faults, {}
        for name, (_, _, seed) in attached_seeds(self._model).items():
            seed.look()
            if seed.fault is not None and not seed.is_fault_told:
                seed.is_fault_told = True
                untold[name] = seed.fault
        return untold

    # --- outside the boundary ----------------------------------------------------------------

    def prove(self, epoch: int) -> list[SeedReport]:
        """Prove every germinated seed: on to TRAINING, or CANCELLED with the fault."""
        reports = []
        for seed in self.table.in_stage(Stage.GERMINATED):
            fault = self.nursery.proof_fault(seed, *self._birth(seed))
            if fault is None:
                proven = self._evidence(seed, blueprint_proven=True)
                cause = "its blueprint fits"
                report = self.lifecycle.request(
                    seed, Stage.TRAINING, proven, epoch=epoch, cause=cause
                )
            else:
                cause = f"blueprint fault: {fault}"
                report = self._commands.advance(seed, Stage.CANCELLED, epoch, cause, error_count=1)
            reports.append(report)
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
        entries = {seed: self._birth(seed) for seed in seeds}
        flops = self.nursery.race(task, entries, train_batches, held_out, recipe, rules)
        for seed in seeds:
            self.table.put(seed, error_count=int(self.nursery.trial_fault(seed) is not None))
            trial = self.nursery.trial(seed)
            if trial is not None:
                self.table.put(
                    seed,
                    trial_steps=trial.steps,
                    trial_gain=trial.gain,
                    trial_error=trial.gain_error,
                )
        return flops

    def host_gain(self) -> dict[str, float]:
        """What the host itself gained in the race since the last boundary, by packet field."""
        report = self.nursery.race_report
        if report is None:
            return {}
        return {"host_gain": report.host_gain, "host_gain_error": report.host_gain_error}

    def trial_faults(self) -> dict[str, str]:
        """Faults of the last race's candidates, by seed."""
        seeds = self.table.in_stage(Stage.TRAINING)
        faults = ((seed, self.nursery.trial_fault(seed)) for seed in seeds)
        return {seed: fault for seed, fault in faults if fault is not None}

    def measure_counterfactuals(self, task: Task, held_out: Sequence[Any]) -> int:
        """Measure every seed in EVALUATING; returns the FLOPs spent."""
        seeds, ledger = self.table.in_stage(Stage.EVALUATING), FlopLedger()
        if seeds and held_out:
            gains = counterfactual_gains(task, seeds, held_out, ledger)
            for seed, (gain, error) in gains.items():
                self.table.put(seed, counterfactual_gain=gain, counterfactual_error=error)
        return ledger.total

    def after_step(self, loss: float | None = None) -> dict[str, str]:
        """Move the alpha of every grafting seed on by one step.

        Args:
            loss: the newest training loss that is known, if any.

        Returns:
            Why grafts failed in this step, by seed. Such a seed keeps its alpha and stays in
            GRAFTING, with an error count above 0, until a decision takes it out.
        """
        return self._effects.step(loss)

    # --- resuming ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All but the modules themselves, which travel in the model's own state."""
        return {
            "table": self.table.state_dict(),
            "blueprints": list(self.grounds.blueprints),
            "lifecycle": self.lifecycle.state_dict(),
            "ramps": self._effects.state_dict(),
            "ramp_steps": self.ramp_steps,
            "trials_waived": self.trials_waived,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; the model must already carry the seeds in it."""
        self.table.load_state_dict(state["table"])
        self.grounds.renumber(state["blueprints"])
        self.lifecycle.load_state_dict(state["lifecycle"])
        self.ramp_steps = state["ramp_steps"]
        self.trials_waived = state["trials_waived"]
        self._effects.load_state_dict(state["ramps"])

    # --- helpers -----------------------------------------------------------------------------

    def _own_seeds(self) -> dict[str, AttachedSeed]:
        """Those of this run: of no earlier one, and in no copy that the model keeps of itself."""
        names = self.table.in_stage(*_IN_FORWARD)
        held = ((name, seed_at_its_site(self._model, name)) for name in names)
        return {name: seed for name, seed in held if seed is not None}

    def _birth(self, seed: str) -> tuple[Site, str, int]:
        """Site, blueprint and epoch: with the seed's name, all that it is built from."""
        table = self.table
        site, blueprint = self.grounds.at(table.get(seed, "site"), table.get(seed, "blueprint"))
        return site, blueprint, table.get(seed, "birth_epoch")

    def _evidence(self, seed: str, *, blueprint_proven: bool | None = None) -> Evidence:
        waived = self.trials_waived is not None
        return self.table.evidence(seed, trials_waived=waived, blueprint_proven=blueprint_proven)
