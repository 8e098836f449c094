"""Averaged weights: Lightning's averaging callbacks pair parameters by position, and growth moves
positions, so an averaged model gets the seeds of the live one as soon as that has them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import lightning.pytorch as pl
from torch import nn

from kasmina import grow_on_load
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import SLOT, attached_seeds
from kasmina.structure import is_seed_key, match_structure
from leyline import Event, Fault, SeedReport
from tolaria.live_run import LiveRun

_LOG = logging.getLogger("esper")
_AVERAGING: Final = "WeightAveraging"
"""By the name of the class: not every Lightning has it, and there are two copies of Lightning."""


def follow_growth(average: nn.Module, model: nn.Module) -> None:
    """Give an averaged copy of a model the seeds that the model has now, in the same order.

    A seed that is new to the average starts as it is; one that it has keeps its average. Alphas
    are not averaged: a lagging one would leave a seed half blended for ever.

    Args:
        average: a copy of the model, such as `AveragedModel.module`.
    """
    live = {name: value for name, value in model.state_dict().items() if is_seed_key(name)}
    before = {id(seed) for _, _, seed in attached_seeds(average).values()}
    match_structure(average, live)
    own = average.state_dict()
    for site, _, seed in attached_seeds(average).values():
        if id(seed) in before:
            prefix = f"{site}.{SLOT}.{seed.seed.rsplit('/', 1)[-1]}.body."
            live.update({n: value for n, value in own.items() if n.startswith(prefix)})
    average.load_state_dict(live, strict=False)


class Averages:
    """The averaged models of a trainer, kept like the live one while it grows.

    Made in `setup`, when other callbacks may not have made their averages yet: these are looked up
    before a checkpoint is loaded and when the fit starts.
    """

    def __init__(self, trainer: pl.Trainer, model: nn.Module):
        self._callbacks = _averaging_callbacks(trainer)
        self._model = model
        self._averaged: list[Any] = []
        self._pairs: list[tuple[GraftedSeed, GraftedSeed]] = []
        self._is_stale = False
        untyped: Any = model
        self._handles = [untyped.register_load_state_dict_pre_hook(lambda *_: self._find())]

    def start(self, orchestrator: LiveRun) -> None:
        """Begin to follow the model of a run, and go back with it: its averages hold what broke."""
        self._find()
        orchestrator.recovery.parts.others.extend(self._averaged)
        orchestrator.session.recorder.listeners.append(self._note)
        self._is_stale = True
        self.follow()

    def follow(self) -> None:
        """Give the averages the live seeds, if these have changed, as far blended in as they are.

        It comes by itself before an average moves or is saved, not before it is swapped in.
        """
        if not self._averaged:
            return
        if self._is_stale:
            self._is_stale = False
            self._match()
        for averaged, live in self._pairs:
            averaged.alpha.copy_(live.alpha)
            averaged.active = live.active

    def remove(self) -> None:
        """Let go of the averaged models; they keep their seeds."""
        for handle in self._handles:
            handle.remove()
        for averaged in self._averaged:
            averaged.__dict__.pop("update_parameters", None)
        self._averaged, self._pairs = [], []

    def _note(self, event: Event) -> None:
        """Wherever a seed changes its state, or the run goes back, seeds may have come or gone."""
        self._is_stale = self._is_stale or isinstance(event, SeedReport | Fault)

    def _match(self) -> None:
        for averaged in self._averaged:
            follow_growth(averaged.module, self._model)
        live = attached_seeds(self._model)
        self._pairs = [
            (seed, live[name][2])
            for averaged in self._averaged
            for name, (_, _, seed) in attached_seeds(averaged.module).items()
        ]

    def _find(self) -> None:
        """Take on the averaged models that there are by now."""
        made = [getattr(callback, "_average_model", None) for callback in self._callbacks]
        for averaged in made:
            if averaged is None or any(averaged is known for known in self._averaged):
                continue
            self._averaged.append(averaged)
            averaged.__dict__["update_parameters"] = self._followed(averaged.update_parameters)
            self._handles += [
                averaged.register_state_dict_pre_hook(lambda *_: self.follow()),
                grow_on_load(averaged.module),
            ]

    def _followed(self, update: Callable[..., None]) -> Callable[..., None]:
        """An average's own update, after which alphas are what they are and no average."""

        def update_and_follow(model: nn.Module) -> None:
            self.follow()
            update(model)
            self.follow()

        return update_and_follow


def warn_of_order(trainer: pl.Trainer, esper: pl.Callback) -> None:
    """Say in the log which averaging callbacks take the live weights before Esper saves its last.

    Args:
        esper: the trainer's EsperCallback.
    """
    callbacks: list[Any] = list(getattr(trainer, "callbacks", ()))
    before = callbacks[: callbacks.index(esper)] if esper in callbacks else []
    for callback in _averaging_callbacks(trainer):
        if any(callback is other for other in before):
            _LOG.warning(
                "%s is listed before %s, so the run's last checkpoint will hold the average and "
                "not the live weights; list EsperCallback first",
                type(callback).__name__,
                type(esper).__name__,
            )


def _averaging_callbacks(trainer: pl.Trainer) -> list[Any]:
    return [
        callback
        for callback in getattr(trainer, "callbacks", ())
        if _AVERAGING in {kind.__name__ for kind in type(callback).__mro__}
    ]
