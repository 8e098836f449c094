"""A state machine against a small model: however pushed, seeds move along legal edges only."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kasmina import SeedTable
from leyline import LifecycleError, Stage
from tests.reliability.plugin import Faults

# The design's table, written out again: least epochs, leaves to.
DESIGN: dict[int, tuple[int, set[int]]] = {
    0: (0, {1}),
    1: (0, {2, 9}),
    2: (0, {3, 8, 9}),
    3: (1, {4, 10}),
    4: (1, {5, 10}),
    5: (1, {6, 8, 10}),
    6: (1, {7, 8, 10}),
    7: (0, set()),
    8: (0, {0}),
    9: (0, {0}),
    10: (0, {0}),
}
SEEDS = ["a/0", "a/1", "b/0"]
seeds = st.sampled_from(SEEDS)
Picture = dict[str, tuple[Any, ...]]
FRESH: dict[str, Any] = {"alpha": 0.0, "trial": math.nan, "gain": math.nan, "embargo": 0}


class Lives(RuleBasedStateMachine):
    """The table beside a dictionary of plain values."""

    ended: ClassVar[list[bool]] = []
    """For every sequence so far whether the two agreed at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SeedTable()
        self.model: dict[str, dict[str, Any]] = {}
        for seed in SEEDS:
            self.table.add(seed, site=0)
            self.model[seed] = {"stage": 0, "stay": 0, "path": [], **FRESH}

    def legal(self, seed: str, to: int, proven: bool | None, waived: bool) -> bool:
        known = self.model[seed]
        was = known["stage"]
        least, ends = DESIGN[was]
        guards = {
            (1, 2): bool(proven),
            (2, 3): waived or not math.isnan(known["trial"]),
            (3, 4): known["alpha"] == 1.0,
            (5, 6): not math.isnan(known["gain"]),
            (5, 8): not math.isnan(known["gain"]),
            (8, 0): known["embargo"] <= 0,
            (10, 0): known["embargo"] <= 0,
        }
        waits = to < 8 and known["stay"] < least
        return to in ends and not waits and guards.get((was, to), True)

    def move(self, seed: str, to: int) -> None:
        known = self.model[seed]
        known["path"].append((known["stage"], to))
        known["stage"], known["stay"] = to, 0

    @rule(seed=seeds, to=st.sampled_from(Stage), proven=st.sampled_from([None, False, True]))
    def ask_anything(self, seed: str, to: Stage, proven: bool | None) -> None:
        self.ask(seed, to, proven, False)

    @rule(seed=seeds, choice=st.integers(0, 2), proven=st.booleans(), waived=st.booleans())
    def ask_a_neighbour(self, seed: str, choice: int, proven: bool, waived: bool) -> None:
        ends = sorted(DESIGN[self.model[seed]["stage"]][1])
        if ends:
            self.ask(seed, Stage(ends[choice % len(ends)]), proven, waived)

    def ask(self, seed: str, to: Stage, proven: bool | None, waived: bool) -> None:
        evidence = self.table.evidence(seed, trials_waived=waived, blueprint_proven=proven)
        if self.legal(seed, to, proven, waived):
            self.table.advance(seed, to, evidence)
            self.move(seed, to)
        else:
            with pytest.raises(LifecycleError):
                self.table.advance(seed, to, evidence)

    @rule(to=st.sampled_from(Stage), proven=st.booleans(), chosen=st.sets(seeds))
    def ask_many(self, to: Stage, proven: bool, chosen: set[str]) -> None:
        names = sorted(chosen)
        rows = np.array([self.table.row(seed) for seed in names], dtype=np.intp)
        refused = self.table.advance_all(rows, to, blueprint_proven=np.full(len(rows), proven))
        for seed, no in zip(names, refused.tolist(), strict=True):
            assert no is not self.legal(seed, to, proven, False)
            if not no:
                self.move(seed, to)

    @rule(seed=seeds, alpha=st.sampled_from([0.0, 0.5, 1.0]))
    def blend(self, seed: str, alpha: float) -> None:
        self.table.put(seed, alpha=alpha)
        self.model[seed]["alpha"] = alpha

    @rule(seed=seeds, trial=st.booleans(), gain=st.sampled_from([math.nan, -1.0, 0.0, math.inf]))
    def measure(self, seed: str, trial: bool, gain: float) -> None:
        measured = 0.5 if trial else math.nan
        self.table.put(seed, trial_gain=measured, counterfactual_gain=gain)
        self.model[seed].update(trial=measured, gain=gain)

    @rule(seed=seeds, epochs=st.integers(0, 3))
    def embargo(self, seed: str, epochs: int) -> None:
        self.table.put(seed, embargo_epochs_left=epochs)
        self.model[seed]["embargo"] = epochs

    @rule()
    def end_epoch(self) -> None:
        self.table.end_epoch()
        for known in self.model.values():
            known["stay"] += 1
            known["embargo"] = max(0, known["embargo"] - 1)

    @rule(seed=seeds)
    def keep_and_restore(self, seed: str) -> None:
        record = self.table.record(seed)
        self.table.put(seed, stage=9, alpha=0.75, epochs_in_stage=77)
        assert self.table.restore(record) == seed

    @rule()
    def save_and_load(self) -> None:
        loaded = SeedTable()
        loaded.load_state_dict(self.table.state_dict())
        self.table = loaded

    @rule()
    def grow(self) -> None:
        self.table.add(f"more/{len(self.table)}", site=1)

    @invariant()
    def agrees(self) -> None:
        assert self.pictures()[0] == self.pictures()[1]

    def pictures(self) -> tuple[Picture, Picture]:
        """Stage, stay, history and parent of every seed, as the table and the model have them."""
        table = self.table
        ours = {
            seed: (
                table.stage(seed),
                table.get(seed, "epochs_in_stage"),
                table.history(seed),
                table.parent(seed),
            )
            for seed in self.model
        }
        wanted = {
            seed: (
                known["stage"],
                known["stay"],
                known["path"][-10:],
                known["path"][-1][0] if known["path"] else None,
            )
            for seed, known in self.model.items()
        }
        return ours, wanted

    def teardown(self) -> None:
        ours, wanted = self.pictures()
        self.ended.append(ours == wanted)


def walk(num_sequences: int) -> list[bool]:
    """Push seeds about in so many sequences; for each whether table and model agreed at its end."""
    Lives.ended.clear()
    quiet = settings(
        max_examples=num_sequences,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Lives, settings=quiet)
    return list(Lives.ended)


def test_a_hundred_lives() -> None:
    """Stages, stays, history and parents are the model's after every push, single or in bulk."""
    ended = walk(100)
    assert len(ended) >= 100
    assert all(ended)


@pytest.mark.slow
@pytest.mark.fault(19)
def test_two_thousand_lives(faults: Faults) -> None:
    """The same over at least 2,000 sequences of up to 50 pushes each."""
    ended = walk(2_000)
    assert len(ended) >= 2_000
    assert all(ended)
    faults.injected(len(ended))
