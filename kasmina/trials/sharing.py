"""Sharing: what the trials of a race do together, and what each of them does alone.

All candidates take the same step at the same time, so one recording of a batch serves them all.
Whatever goes wrong there, a fault included, is not held against a candidate: it goes back to where
it was and runs through the whole host, alone, and only what happens there counts.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kasmina.guard import attempt, describe
from kasmina.rng import isolated_rng
from kasmina.sites.output import main_tensor
from kasmina.trials.flops import FlopLedger
from kasmina.trials.group import Group
from kasmina.trials.proof import prove
from kasmina.trials.race_report import RaceReport
from kasmina.trials.recording import Recording, rng_streams
from kasmina.trials.replay import Replay
from kasmina.trials.rows import Rows, prove_rows
from kasmina.trials.shadow import HELD_OUT_RNG_SEED, Shadow
from kasmina.trials.trial import OptimizerRecipe, Trial


class Sharing:
    """Trains and measures the candidates of one race.

    Args:
        trials: all of them, from the first rung on.
        max_size_bytes: for recordings, and again for what a pass of several candidates holds.
    """

    def __init__(
        self,
        shadow: Shadow,
        trials: Sequence[Trial],
        train_batches: Sequence[Any],
        held_out: Sequence[Any],
        recipe: OptimizerRecipe,
        ledger: FlopLedger,
        report: RaceReport,
        max_size_bytes: int,
    ):
        self._shadow = shadow
        self._train_batches = train_batches
        self._held_out = held_out
        self._recipe = recipe
        self._ledger = ledger
        self._report = report
        self._max_size_bytes = max_size_bytes
        half = max_size_bytes // 2
        self._training = Replay(shadow, train_batches, ledger, True, half)
        self._held = Replay(shadow, held_out, ledger, False, half)
        self._rows: dict[str, Rows | str] = {}
        num_at = Counter(trial.site for trial in trials)
        sites = [site for site, _ in num_at.most_common()]
        for replay in (self._training, self._held):
            prove(replay, sites)
            self._report.reasons |= replay.refused

    # --- training ------------------------------------------------------------------------------

    def train(self, trials: Sequence[Trial], num_steps: int) -> None:
        """Train candidates that are equally far, up to `num_steps` in all."""
        back: dict[str, Callable[[], None]] = {}
        for trial in trials:
            if trial.site in self._training.plans:
                bookmark = attempt(trial.bookmark)
                if not isinstance(bookmark, Exception):
                    back[trial.seed] = bookmark
        together = [trial for trial in trials if trial.seed in back]
        again = self._train_together(together, num_steps)
        for trial in trials:
            if trial.seed not in back or trial in again:
                back.get(trial.seed, _stay)()
                first = trial.steps
                trial.train(self._shadow, self._train_batches, num_steps, self._ledger)
                self._report.num_whole_steps += trial.steps - first
        self._report.recordings_size_bytes = max(
            self._report.recordings_size_bytes,
            self._training.peak_size_bytes + self._held.peak_size_bytes,
        )

    def _train_together(self, trials: Sequence[Trial], num_steps: int) -> list[Trial]:
        """Returns those that have to be trained again, alone."""
        if not trials:
            return []
        again: list[Trial] = []
        self._training.keep_only({trial.site for trial in trials})
        groups = self._groups(trials)
        self._shadow.mode(training=True)
        self._shadow.restore_buffers()
        with isolated_rng(HELD_OUT_RNG_SEED):
            streams = rng_streams()
            for step in range(trials[0].steps, num_steps):
                index = step % len(self._train_batches)
                recording = self._recording(self._training, index)
                for group in groups:
                    again += self._step(group, recording, self._train_batches[index])
                groups = [group for group in groups if group.trials]
            if rng_streams() != streams:
                self._report.reasons |= {t.seed: "random numbers were drawn" for t in trials}
                return list(trials)
        return again

    def _step(self, group: Group, recording: Recording | None, batch: Any) -> list[Trial]:
        """One step of a group; returns those that leave it."""
        trials = tuple(group.trials)
        if group.site not in self._training.plans:  # another group of the site has failed
            group.trials = []
            return list(trials)
        kind = ("group", recording is None, *(trial.seed for trial in trials))
        outcome = attempt(
            lambda: self._ledger.run(kind, partial(group.step, self._shadow, recording, batch))
        )
        if isinstance(outcome, Exception):
            self._report.reasons[group.site] = describe(outcome)
            self._training.refuse(group.site, describe(outcome))
            group.trials = []
            return list(trials)
        if recording is None:
            self._report.num_whole_steps += len(trials)
        else:
            self._report.num_replayed_steps += len(trials)
            self._report.num_grouped_steps += len(trials) * (len(trials) > 1)
        return group.leavers()

    def _groups(self, trials: Sequence[Trial]) -> list[Group]:
        groups = []
        for site in dict.fromkeys(trial.site for trial in trials):
            there = [trial for trial in trials if trial.site == site]
            rows, most = None, 1
            if len(there) > 1:
                tail_size_bytes = self._training.plans[site].tail_size_bytes
                most = max(1, min(len(there), self._max_size_bytes // max(1, tail_size_bytes)))
            if most > 1:
                rows = self._rows.get(site) or prove_rows(self._training, site, most)
                self._rows[site] = rows
            if isinstance(rows, str):
                self._report.reasons[site] = rows
                rows, most = None, 1
            for start in range(0, len(there), most):
                some = there[start : start + most]
                layout = rows if len(some) > 1 else None
                groups.append(Group(some, self._training, layout, self._recipe))
        return groups

    # --- held-out losses -----------------------------------------------------------------------

    def measure(self, trials: Sequence[Trial], before: Tensor) -> None:
        """Set the gains of candidates.

        Each has passes of its own: their bits do not depend on who else is in the race.
        """
        together = [t for t in trials if t.fault is None and t.site in self._held.plans]
        losses = self._losses(together)
        for trial in trials:
            after = losses.get(trial.seed)
            if after is not None and bool(torch.isfinite(after).all()):
                trial.settle(before, after)
            elif trial.fault is None:
                self._ledger.total += self._ledger.of("held out")
                trial.measure(self._shadow, self._held_out, before)

    def _losses(self, trials: Sequence[Trial]) -> dict[str, Tensor]:
        """Held-out losses of those for which replay gave one for every piece."""
        self._held.keep_only({trial.site for trial in trials})
        self._shadow.mode(training=False)
        self._shadow.restore_buffers()
        found: dict[str, list[Tensor]] = {trial.seed: [] for trial in trials}
        for trial in trials:
            trial.module.blend(1.0)
            trial.module.eval()
        with isolated_rng(HELD_OUT_RNG_SEED):
            streams = rng_streams()
            for index in range(len(self._held_out)):
                recording = self._recording(self._held, index)
                if recording is not None:
                    for trial in trials:
                        loss = attempt(partial(self._loss, trial, recording, index))
                        if isinstance(loss, Tensor):
                            found[trial.seed].append(loss)
            if rng_streams() != streams:
                return {}
        return {
            trial.seed: torch.stack(found[trial.seed])
            for trial in trials
            if len(found[trial.seed]) == len(self._held_out) and trial.module.fault is None
        }

    def _loss(self, trial: Trial, recording: Recording, index: int) -> Tensor:
        body = ("body", trial.seed)
        if index == 0:
            output = recording.outputs[self._held.plans[trial.site].own]
            self._ledger.run(body, partial(_body_pass, trial, main_tensor(output)))
        self._ledger.total += self._held.tail_flops(trial.site) + self._ledger.of(body)
        loss = self._held.loss(trial.site, recording, self._held_out[index], trial.act)
        return loss.detach().double().cpu()

    def _recording(self, replay: Replay, index: int) -> Recording | None:
        recording = attempt(lambda: replay.recording(index))
        return None if isinstance(recording, Exception) else recording


def _body_pass(trial: Trial, host: Tensor | None) -> None:
    """A pass of a copy of the body alone, to count it."""
    with isolated_rng(HELD_OUT_RNG_SEED), torch.no_grad():
        attempt(lambda: copy.deepcopy(trial.module.body)(host))


def _stay() -> None:
    """For a trial that never left."""
