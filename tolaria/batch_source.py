"""Where trials get their batches: given by a hand-written loop, or kept from live steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Protocol

from kasmina import BatchBuffer, isolated_rng
from leyline import ConfigError


class BatchSource(Protocol):
    """Training and held-out batches for trials and counterfactuals."""

    def want(self, *, train: bool, held_out: bool) -> None:
        """Say which batches the coming epoch should be kept for."""

    def example(self) -> Any | None:
        """One training batch, for the dry run that finds sites; None before the first."""

    def train_batches(self) -> list[Any]:
        """Training batches, at most as many as the config allows."""

    def held_out_batches(self) -> list[Any]:
        """Batches that no step has trained on."""


class KeptBatches:
    """Batches kept as they pass in live steps; no loader is iterated a second time."""

    def __init__(self, max_batches: int, max_size_bytes: int):
        self._train = BatchBuffer(max_batches, max_size_bytes)
        self._held_out = BatchBuffer(max_batches, max_size_bytes)
        self._example = BatchBuffer(1, max_size_bytes)
        self._wants_train = False
        self._wants_held_out = False

    def want(self, *, train: bool, held_out: bool) -> None:
        """Start afresh with what the coming epoch is kept for."""
        self._wants_train, self._wants_held_out = train, held_out
        self._train.clear()
        self._held_out.clear()

    def offer_train(self, batch: Any) -> None:
        """A training batch has passed."""
        self._example.offer(batch)
        if self._wants_train:
            self._train.offer(batch)

    def begin_held_out(self) -> None:
        """A validation pass begins; only the latest one counts."""
        self._held_out.clear()

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


class GivenBatches:
    """Batches that a hand-written loop hands over: training ones and held-out ones.

    Args:
        data: a pair (training, held out), or a mapping or object with `train` and `held_out`; each
            an iterable of batches that can be iterated again, such as a list or a DataLoader.
    """

    def __init__(self, data: Any, max_batches: int):
        self._train, self._held_out = _pair(data)
        self._max_batches = max_batches

    def want(self, *, train: bool, held_out: bool) -> None:
        """Nothing to prepare: the batches are there whenever they are asked for."""

    def example(self) -> Any | None:
        """The first training batch."""
        with isolated_rng(0):
            return next(iter(self._train), None)

    def train_batches(self) -> list[Any]:
        """The first training batches."""
        return self._first(self._train)

    def held_out_batches(self) -> list[Any]:
        """The first held-out batches."""
        return self._first(self._held_out)

    def _first(self, batches: Iterable[Any]) -> list[Any]:
        # A loader draws from the global streams when it is iterated; the run must not notice.
        with isolated_rng(0):
            return list(islice(iter(batches), self._max_batches))


def _pair(data: Any) -> tuple[Iterable[Any], Iterable[Any]]:
    if data is None:
        return (), ()
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    if isinstance(data, Mapping):
        train, held_out = data.get("train"), data.get("held_out")
    else:
        train, held_out = getattr(data, "train", None), getattr(data, "held_out", None)
    if train is None or held_out is None:
        raise ConfigError(
            f"data is a {type(data).__name__}; give a pair (training batches, held-out batches), "
            "or a mapping with the keys 'train' and 'held_out'"
        )
    return train, held_out
