"""Linear ramps of many seeds, kept as columns so that ten thousand alphas move in microseconds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


class LinearRamps:
    """Alpha = steps done / length of every ramp: exactly 0 at the start, exactly 1 at the end."""

    def __init__(self) -> None:
        self._seeds: list[str] = []
        self._places: dict[str, int] = {}
        self._rows = np.empty(4, dtype=np.intp)
        self._done = np.empty(4, dtype=np.int32)
        self._length = np.empty(4, dtype=np.int32)
        self._alpha = np.empty(4, dtype=np.float32)
        self._target: slice | NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self._seeds)

    def __iter__(self) -> Iterator[str]:
        return iter(self._seeds)

    def __contains__(self, seed: str) -> bool:
        return seed in self._places

    def begin(self, seed: str, row: int, num_steps: int, steps_done: int = 0) -> None:
        """Add a ramp of at least one step, or start that of the seed over.

        Args:
            row: where the seed's alpha is in the column that `step` is given.
        """
        place = self._places.setdefault(seed, len(self._seeds))
        if place == len(self._seeds):
            self._seeds.append(seed)
        if place == len(self._rows):
            for name in ("_rows", "_done", "_length", "_alpha"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.empty_like(column)]))
        self._rows[place] = row
        self._length[place] = max(1, num_steps)
        self._done[place] = min(steps_done, self._length[place])
        self._target = None

    def end(self, seed: str) -> None:
        """Drop the seed's ramp, if it has one."""
        place = self._places.pop(seed, None)
        if place is None:
            return
        last = self._seeds.pop()
        if last != seed:
            self._seeds[place] = last
            self._places[last] = place
            for column in (self._rows, self._done, self._length):
                column[place] = column[len(self._seeds)]
        self._target = None

    def step(self, alpha: NDArray[np.float32]) -> None:
        """Move every ramp on by one step and write its alpha into its row of the column."""
        if self._target is None:
            self._target = self._find_target()
        size = len(self._seeds)
        done, length, values = self._done[:size], self._length[:size], self._alpha[:size]
        np.add(done, done < length, out=done)
        # In double precision: a float32 cannot tell 2**24 steps from one more.
        np.true_divide(done, length, out=values, casting="unsafe")
        alpha[self._target] = values

    def position(self, seed: str) -> tuple[int, int]:
        """Steps done and length of a seed's ramp."""
        place = self._places[seed]
        return int(self._done[place]), int(self._length[place])

    def _find_target(self) -> slice | NDArray[np.intp]:
        """The rows; as a slice where they follow one another, which is ten times as fast."""
        rows = self._rows[: len(self._seeds)]
        if len(rows) and bool((np.diff(rows) == 1).all()):
            return slice(int(rows[0]), int(rows[-1]) + 1)
        return rows
