"""Where trials get their batches: given by a hand-written loop, or kept from live steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol, cast

import torch

from kasmina import BatchBuffer, isolated_rng
from kasmina.trials.batches import size_bytes
from leyline import ConfigError


class BatchSource(Protocol):
    """Training and held-out batches for trials and counterfactuals."""

    def want(self, *, train: bool, held_out: bool, afresh: bool = True) -> None:
        """Say which batches should be kept from here on.

        Args:
            afresh: False keeps what is still wanted, as within an epoch.
        """

    def example(self) -> Any | None:
        """One training batch, for the dry run that finds sites; None before the first."""

    def train_batches(self) -> list[Any]:
        """Training batches, at most as many as the config allows."""

    def held_out_batches(self) -> list[Any]:
        """Batches that no step has trained on."""

    def awaits_held_out(self) -> bool:
        """Whether there are no held-out batches yet, but there will be in a later epoch."""

    def awaits_example(self) -> bool:
        """Whether no training batch has passed yet, but one will."""


class KeptBatches:
    """Batches kept as they pass in live steps; no loader is iterated a second time.

    Held-out batches are those of this very epoch: a resumed run has no others either.

    Args:
        validates: whether the run has a validation loop.
    """

    def __init__(self, max_batches: int, max_size_bytes: int, *, validates: bool):
        self._validates = validates
        self._has_validated = False
        self._train = BatchBuffer(max_batches, max_size_bytes)
        self._held_out = BatchBuffer(max_batches, max_size_bytes)
        self._example = BatchBuffer(1, max_size_bytes)
        self._wants_train = False
        self._wants_held_out = False
        self._has_trained = False

    def want(self, *, train: bool, held_out: bool, afresh: bool = True) -> None:
        """Say what to keep; afresh, or on top of what is still wanted."""
        if afresh or not (train and self._wants_train):
            self._train.clear()
        if afresh or not (held_out and self._wants_held_out):
            self._held_out.clear()
            self._has_validated = False
        self._wants_train, self._wants_held_out = train, held_out

    def never_validates(self) -> None:
        """The validation loop turned out to have no batches."""
        self._validates = False

    def offer_train(self, batch: Any) -> None:
        """A training batch has passed."""
        self._has_trained = True
        self._example.offer(batch)
        if self._wants_train:
            self._train.offer(batch)

    def begin_held_out(self) -> None:
        """A validation pass begins; only the latest one counts."""
        self._held_out.clear()
        self._has_validated = True

    def offer_held_out(self, batch: Any) -> None:
        """A validation batch has passed."""
        if self._wants_held_out:
            self._held_out.offer(batch)

    def example(self) -> Any | None:
        """The run's first training batch."""
        kept = self._example.batches()
        return kept[0] if kept else None

    def train_batches(self) -> list[Any]:
        """What was kept in this epoch."""
        return self._train.batches()

    def held_out_batches(self) -> list[Any]:
        """What was kept in the last validation pass."""
        return self._held_out.batches()

    def awaits_held_out(self) -> bool:
        """Whether validation has not run in this epoch, but is to run in a later one."""
        return self._validates and not self._has_validated

    def awaits_example(self) -> bool:
        """Whether a run that was resumed at an epoch's end has not trained yet."""
        return not self._has_trained


class GivenBatches:
    """Batches that a hand-written loop hands over: training ones and held-out ones.

    Args:
        data: a pair (training, held out), or a mapping or object with `train` and `held_out`; each
            an iterable of batches that can be iterated again, such as a list or a DataLoader.
    """

    def __init__(self, data: Any, max_batches: int, max_size_bytes: int):
        self._train, self._held_out = _pair(data)
        self._max_batches = max_batches
        self._max_size_bytes = max_size_bytes
        self._example: Any | None = None

    def want(self, *, train: bool, held_out: bool, afresh: bool = True) -> None:
        """Nothing to prepare: the batches are there whenever they are asked for."""

    def example(self) -> Any | None:
        """The first training batch."""
        if self._example is None:
            self._example = next(iter(self._first(self._train, 1)), None)
        return self._example

    def train_batches(self) -> list[Any]:
        """The first training batches."""
        return self._first(self._train, self._max_batches)

    def held_out_batches(self) -> list[Any]:
        """The first held-out batches."""
        return self._first(self._held_out, self._max_batches)

    def awaits_held_out(self) -> bool:
        """Never: they are there from the beginning."""
        return False

    def awaits_example(self) -> bool:
        """Never: what is not there now will not come."""
        return False

    def _first(self, batches: Iterable[Any], num_batches: int) -> list[Any]:
        """The first batches, at least one and not many more bytes than allowed."""
        found: list[Any] = []
        total_bytes = 0
        # A loader draws from the global streams when it is iterated; the run must not notice.
        with isolated_rng(0), _generators_kept(batches):
            for batch in islice(iter(batches), num_batches):
                found.append(batch)
                total_bytes += size_bytes(batch)
                if total_bytes >= self._max_size_bytes:
                    break
        return found


@contextmanager
def _generators_kept(loader: Any) -> Iterator[None]:
    """Put a loader's own random streams back: it may be the one that the run trains from."""
    samplers = [getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    samplers.append(getattr(samplers[-1], "sampler", None))
    held = [getattr(owner, "generator", None) for owner in (loader, *samplers)]
    states = [(g, g.get_state()) for g in held if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _pair(data: Any) -> tuple[Iterable[Any], Iterable[Any]]:
    if data is None:
        return (), ()
    if isinstance(data, tuple | list) and len(data) == 2:
        train, held_out = data
    elif isinstance(data, Mapping):
        train, held_out = data.get("train"), data.get("held_out")
    else:
        train, held_out = getattr(data, "train", None), getattr(data, "held_out", None)
    if train is None or held_out is None:
        raise ConfigError(
            f"data is a {type(data).__name__}; give a pair (training batches, held-out batches), "
            "or a mapping with the keys 'train' and 'held_out'"
        )
    return _iterable(train, "training"), _iterable(held_out, "held-out")


def _iterable(batches: Any, kind: str) -> Iterable[Any]:
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise ConfigError(
            f"the {kind} batches are a {type(batches).__name__}; give a list or a DataLoader"
        )
    if isinstance(batches, Iterator):
        raise ConfigError(
            f"the {kind} batches are a {type(batches).__name__}, which can be iterated only once; "
            "give a list or a DataLoader"
        )
    return cast(Iterable[Any], batches)
