"""A made-up but realistic run, as the events it would have sent.

Thirty epochs and three races. Two winners are grafted and fossilized, the third is culled; forty
candidates are cancelled. Rows are used again, so several names have more than one life.
"""

from __future__ import annotations

import math
import random
from array import array

import leyline
from leyline import Stage

BLUEPRINTS = ("bottleneck", "conv3x3", "depthwise", "low_rank", "squeeze_excite")
SITES = ("block1", "block2", "block3")
METRICS = ("loss", "val_loss", "val_acc")
NUM_EPOCHS = 30
HOST_PARAMETERS = 28_938
RACES = {3: 15, 10: 14, 17: 14}
"""Candidates by the epoch whose boundary starts the race."""
NAMES = tuple(f"{site}/{number}" for site in SITES for number in range(6))
NAN = math.nan


class Row:
    """What the run knows about one seed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.site = name.rpartition("/")[0]
        self.stage = Stage.DORMANT
        self.blueprint = BLUEPRINTS[0]
        self.parameters = 0
        self.alpha = 0.0
        self.trial = (NAN, NAN)
        self.counterfactual = (NAN, NAN)
        self.entered = 0


class Run:
    """Plays the run and keeps the events in the order they happened."""

    def __init__(self, rng_seed: int = 7) -> None:
        self.random = random.Random(rng_seed)  # noqa: S311 - not a secret
        self.rows = [Row(name) for name in NAMES]
        self.events: list[leyline.Event] = []
        self.grown = 0
        self.final: dict[str, float] = {}

    def move(self, epoch: int, row: Row, now: Stage, cause: str) -> None:
        report = leyline.SeedReport(
            epoch=epoch,
            seed=row.name,
            site=row.site,
            blueprint=row.blueprint,
            was=row.stage,
            now=now,
            parameters=row.parameters,
            alpha=row.alpha,
            cause=cause,
        )
        self.events.append(report)
        row.stage, row.entered = now, epoch

    def packet(self, epoch: int) -> leyline.StatePacket:
        def ints(values: list[int], code: str = "i") -> memoryview:
            return memoryview(array(code, values))

        def floats(values: list[float]) -> memoryview:
            return memoryview(array("f", values))

        rows, zeros = self.rows, [0] * len(self.rows)
        return leyline.StatePacket(
            schema_id=1,
            epoch=epoch,
            step=epoch * 45,
            num_epochs=NUM_EPOCHS,
            host_parameters=HOST_PARAMETERS,
            grown_parameters=self.grown,
            param_budget=40_000,
            trials_possible=True,
            metrics=memoryview(array("d", [0.0, 0.0, 0.0])),
            stage=ints([row.stage for row in rows]),
            blueprint=ints([BLUEPRINTS.index(row.blueprint) for row in rows]),
            epochs_in_stage=ints([epoch - row.entered for row in rows]),
            grafting_strategy=ints(zeros),
            error_count=ints(zeros),
            site=ints([SITES.index(row.site) for row in rows]),
            embargo_epochs_left=ints(zeros),
            trial_steps=ints(zeros),
            parameters=ints([row.parameters for row in rows], "q"),
            alpha=floats([row.alpha for row in rows]),
            trial_gain=floats([row.trial[0] for row in rows]),
            trial_error=floats([row.trial[1] for row in rows]),
            counterfactual_gain=floats([row.counterfactual[0] for row in rows]),
            counterfactual_error=floats([row.counterfactual[1] for row in rows]),
        )

    def decide(self, epoch: int) -> leyline.Decision:
        """The decision of one boundary; its effects are added as reports afterwards."""
        on_trial = [row for row in self.rows if row.stage == Stage.TRAINING]
        if epoch in RACES:
            return self._race(epoch)
        if on_trial:
            return self._settle(epoch, on_trial)
        return self._step(epoch) or leyline.Decision(
            epoch=epoch,
            policy="heuristic",
            cause=f"hold: val_loss fell by {self.random.uniform(0.01, 0.03):.3f}, more than 0.008",
        )

    def _race(self, epoch: int) -> leyline.Decision:
        free = [row for row in self.rows if row.stage == Stage.DORMANT][: RACES[epoch]]
        commands = []
        for number, row in enumerate(free):
            row.blueprint = BLUEPRINTS[number % len(BLUEPRINTS)]
            row.parameters = 240 + 380 * (number % len(BLUEPRINTS)) + 64 * SITES.index(row.site)
            row.alpha, row.trial, row.counterfactual = 0.0, (NAN, NAN), (NAN, NAN)
            commands.append(
                leyline.Germinate(
                    seed=row.name, site=row.site, blueprint=row.blueprint, cause="race"
                )
            )
        cause = "val_loss fell by 0.011 in 3 epochs, less than 0.020; 36,400 parameters left"
        return leyline.Decision(
            epoch=epoch, policy="heuristic", cause=cause, commands=tuple(commands)
        )

    def _settle(self, epoch: int, on_trial: list[Row]) -> leyline.Decision:
        for row in on_trial:
            gain = self.random.gauss(0.008, 0.012)
            row.trial = (gain, abs(self.random.gauss(0.003, 0.0008)))
        best = max(on_trial, key=lambda row: row.trial[0])
        best.trial = (max(best.trial[0], 0.024), best.trial[1])
        scores, commands = [], []
        for row in on_trial:
            scores.append(
                leyline.Score(
                    seed=row.name,
                    site=row.site,
                    blueprint=row.blueprint,
                    parameters=row.parameters,
                    gain=row.trial[0],
                    gain_error=row.trial[1],
                    threshold=2 * row.trial[1] + row.parameters * 1e-6,
                    steps=160 if row.trial[0] > 0.01 else 40,
                    chosen=row is best,
                )
            )
            to = Stage.GRAFTING if row is best else Stage.CANCELLED
            cause = "won its race" if row is best else "lost its race"
            commands.append(leyline.Advance(seed=row.name, to=to, cause=cause))
        cause = f"{best.blueprint} at {best.site} gains {best.trial[0]:.3f}, above its threshold"
        return leyline.Decision(
            epoch=epoch,
            policy="heuristic",
            cause=cause,
            commands=tuple(commands),
            scores=tuple(scores),
        )

    def _step(self, epoch: int) -> leyline.Decision | None:
        """Move the first grafted seed that may move on by one stage."""
        growing = range(Stage.GRAFTING, Stage.FOSSILIZED)
        moved = (self._advance(epoch, row) for row in self.rows if row.stage in growing)
        return next((decision for decision in moved if decision), None)

    def _advance(self, epoch: int, row: Row) -> leyline.Decision | None:
        stay = {Stage.GRAFTING: 3, Stage.FINE_TUNING: 3}.get(row.stage, 1)
        if row.stage == Stage.GRAFTING:
            row.alpha = min(1.0, (epoch - row.entered) / 3)
        if epoch - row.entered < stay:
            return None
        command: leyline.Command
        if row.stage == Stage.EVALUATING and epoch > 20:
            cause = "without it the loss is lower: counterfactual -0.006 +- 0.002"
            row.counterfactual = (-0.006, 0.002)
            command = leyline.Cull(seed=row.name, cause=cause, embargo_epochs=5)
        else:
            cause = {
                Stage.GRAFTING: "alpha reached 1",
                Stage.STABILIZATION: "statistics settled in 1 epoch",
                Stage.EVALUATING: "counterfactual +0.041 +- 0.006 does not veto",
                Stage.FINE_TUNING: "kept for 3 epochs without a regression",
            }[row.stage]
            if row.stage == Stage.EVALUATING:
                row.counterfactual = (0.041, 0.006)
            command = leyline.Advance(seed=row.name, to=row.stage + 1, cause=cause)
        return leyline.Decision(epoch=epoch, policy="heuristic", cause=cause, commands=(command,))

    def carry_out(self, decision: leyline.Decision) -> None:
        rows = {row.name: row for row in self.rows}
        for command in decision.commands:
            row = rows[command.seed]
            match command:
                case leyline.Germinate():
                    self.move(decision.epoch, row, Stage.GERMINATED, decision.cause)
                    self.move(decision.epoch, row, Stage.TRAINING, "blueprint proven")
                case leyline.Advance():
                    evaluated = row.stage == Stage.EVALUATING
                    self.move(decision.epoch, row, Stage(command.to), command.cause)
                    self.grown += row.parameters if command.to == Stage.GRAFTING else 0
                    if evaluated:
                        self.field_report(decision.epoch, row, "kept")
                    if command.to == Stage.CANCELLED:
                        self.move(decision.epoch, row, Stage.DORMANT, "no embargo after a trial")
                case leyline.Cull():
                    self.move(decision.epoch, row, Stage.CULLED, command.cause)
                    self.grown -= row.parameters
                    self.field_report(decision.epoch, row, "culled: the host is better off alone")

    def field_report(self, epoch: int, row: Row, verdict: str) -> None:
        self.events.append(
            leyline.FieldReport(
                epoch=epoch,
                seed=row.name,
                site=row.site,
                blueprint=row.blueprint,
                parameters=row.parameters,
                expected_gain=row.trial[0],
                expected_error=row.trial[1],
                counterfactual_gain=row.counterfactual[0],
                counterfactual_error=row.counterfactual[1],
                verdict=verdict,
            )
        )

    def epoch(self, epoch: int) -> None:
        for step in range((epoch - 1) * 45 + 1, epoch * 45 + 1, 15):
            loss = 0.25 + 1.9 * math.exp(-step / 260) + self.random.gauss(0, 0.02)
            self.events.append(leyline.StepMetrics(step=step, loss=loss))
        kept = 0.03 * sum(row.stage >= Stage.GRAFTING for row in self.rows if row.alpha > 0)
        val_loss = 0.31 + 1.7 * math.exp(-epoch / 5.5) - kept + self.random.gauss(0, 0.008)
        self.final = {
            "loss": 0.25 + 1.8 * math.exp(-epoch / 5) - kept,
            "val_loss": val_loss,
            "val_acc": min(0.995, 1 - val_loss / 4.6 + self.random.gauss(0, 0.004)),
        }
        self.events.append(self.packet(epoch))
        decision = self.decide(epoch)
        self.events.append(decision)
        self.carry_out(decision)
        for row in self.rows:
            if row.stage == Stage.CULLED and epoch - row.entered >= 5:
                self.move(epoch, row, Stage.DORMANT, "embargo over")
        self.events.append(
            leyline.EpochMetrics(
                epoch=epoch,
                num_epochs=NUM_EPOCHS,
                step=epoch * 45,
                metrics=dict(self.final),
                parameters=HOST_PARAMETERS + self.grown,
                stages={
                    stage.name: sum(row.stage == stage for row in self.rows)
                    for stage in Stage
                    if any(row.stage == stage for row in self.rows)
                },
            )
        )
        self.events.append(self.timing(epoch, decision))
        if epoch == 14:
            self.events.append(
                leyline.Fault(
                    epoch=14,
                    step=631,
                    where="checkpoint",
                    what="disk full: 0 of 1,204,224 bytes written",
                    action="skipped this checkpoint; the one of epoch 13 stands",
                )
            )

    def timing(self, epoch: int, decision: leyline.Decision) -> leyline.BoundaryTiming:
        num = len(decision.commands)
        outside = {"snapshot": self.random.uniform(4, 9), "checkpoint": self.random.uniform(20, 45)}
        if epoch in RACES:
            outside["race"] = 240.0 * num
        if any(row.stage == Stage.EVALUATING for row in self.rows):
            outside["counterfactual"] = self.random.uniform(150, 210)
        return leyline.BoundaryTiming(
            epoch=epoch,
            gather_ms=self.random.uniform(0.05, 0.2),
            decide_ms=self.random.uniform(0.1, 0.4) + 0.05 * num,
            apply_ms=self.random.uniform(0.1, 0.6) + 0.35 * num * self.random.uniform(0.7, 1.3),
            outside_ms=outside,
        )


def schema(run_id: str = "digits-7f3a") -> leyline.Schema:
    sites = tuple(
        leyline.SiteInfo(name=site, shape=(64, 32, 8, 8), channels=32, accepts=BLUEPRINTS)
        for site in SITES
    )
    return leyline.Schema(
        run_id=run_id,
        schema_id=1,
        sites=sites,
        blueprints=BLUEPRINTS,
        candidates=(),
        metrics=METRICS,
        seeds=NAMES,
    )


def started(
    run_id: str = "digits-7f3a", epoch: int = 0, resumed: bool = False
) -> leyline.RunStarted:
    return leyline.RunStarted(
        run_id=run_id,
        epoch=epoch,
        num_epochs=NUM_EPOCHS,
        host_parameters=HOST_PARAMETERS,
        model="DigitsNet",
        resumed=resumed,
    )


def a_run(rng_seed: int = 7) -> list[leyline.Event]:
    """Every event of the run, in the order it happened."""
    run = Run(rng_seed)
    run.events += [started(), schema()]
    for epoch in range(1, NUM_EPOCHS + 1):
        run.epoch(epoch)
    run.events.append(
        leyline.RunEnded(
            run_id="digits-7f3a",
            epoch=NUM_EPOCHS,
            status="finished",
            parameters=HOST_PARAMETERS + run.grown,
            metrics={"test_loss": run.final["val_loss"] + 0.01, "test_acc": 0.943},
        )
    )
    return run.events
