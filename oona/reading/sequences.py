"""A set of positive integers that mostly follow one another, kept as ranges."""

from __future__ import annotations

from bisect import bisect_right


class SequenceSet:
    """Remembers which events of a run were seen, in little memory however long the run is."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, number: int) -> bool:
        """Add a number; False if it was there already."""
        firsts, lasts = self._firsts, self._lasts
        after = bisect_right(firsts, number)
        before = after - 1
        if before >= 0 and number <= lasts[before]:
            return False
        extends = before >= 0 and lasts[before] == number - 1
        precedes = after < len(firsts) and firsts[after] == number + 1
        if extends and precedes:
            lasts[before] = lasts.pop(after)
            del firsts[after]
        elif extends:
            lasts[before] = number
        elif precedes:
            firsts[after] = number
        else:
            firsts.insert(after, number)
            lasts.insert(after, number)
        return True

    def is_complete(self, last: int) -> bool:
        """Say whether every number from 1 to `last` is there."""
        return bool(self._firsts) and self._firsts[0] == 1 and self._lasts[0] >= last

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """The ranges, ends included, of the numbers from `first` to `last` that are not there."""
        found: list[tuple[int, int]] = []
        start = max(0, bisect_right(self._firsts, first) - 1)
        for there, until in zip(self._firsts[start:], self._lasts[start:], strict=True):
            if there > last:
                break
            if there > first:
                found.append((first, there - 1))
            first = max(first, until + 1)
        return [*found, (first, last)] if first <= last else found

    def add_range(self, first: int, last: int) -> None:
        """Add all numbers of a range, its ends included."""
        start = bisect_right(self._lasts, first - 2)
        end = bisect_right(self._firsts, last + 1)
        if start < end:
            first, last = min(first, self._firsts[start]), max(last, self._lasts[end - 1])
        self._firsts[start:end], self._lasts[start:end] = [first], [last]

    def ranges(self) -> list[tuple[int, int]]:
        """All numbers that are there, as ranges with their ends included."""
        return list(zip(self._firsts, self._lasts, strict=True))
