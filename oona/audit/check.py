"""Whether the rows of an audit trail are those that were written."""

from __future__ import annotations

from typing import Final

from leyline import RunError
from oona.audit.chain import GENESIS, Chain
from oona.audit.head import Head
from oona.audit.row import Row

_NUM_NAMED: Final = 5


class Check:
    """Takes all rows of a trail in order of position, then says what is wrong.

    Args:
        chain: computes what their hashes must be.
        sealed: the head that the store keeps; the chain ends there exactly.
        noted: the head in the file beside it, which may lag behind; None: there is no such file.
    """

    def __init__(self, chain: Chain, sealed: Head, noted: Head | None):
        self._chain, self._sealed, self._noted = chain, sealed, noted
        self._noted_is_met = noted is None or noted.num_rows == 0
        self._last: int = 0
        self._before: bytes | None = GENESIS
        self._flaws: list[str] = []
        self._num_flaws = 0

    def take(self, position: int, row: Row, found: bytes) -> None:
        """Look at the next row, which the store has with this hash.

        Raises:
            RunError: the table was made anew with other types, so no row can be told from another.
        """
        if type(position) is not int or type(found) is not bytes:
            raise RunError(
                f"after row {self._last} comes one with the position {position!r:.40} and the hash "
                f"{found!r:.40}, which no trail has: the table events is not the one Esper made"
            )
        if position < self._last + 1:
            self._say(f"row {position} stands before the first")
        elif position > self._last + 1:
            self._say(_missing(self._last + 1, position - 1))
            self._before = None  # what the row after a gap followed cannot be known
        if self._before is not None and self._chain.link(self._before, position, row) != found:
            self._say(
                f"row {position} (event {row.sequence} of run {row.run_id!r}) is not the one "
                "written there, or does not follow the one before it"
            )
        self._before, self._last = found, position
        self._noted_is_met |= self._noted is not None and self._noted[:2] == (position, found)

    def flaws(self) -> list[str]:
        """What is wrong, in words, after the last row; the first few one by one, then a count."""
        last, sealed, noted = self._last, self._sealed, self._noted
        for head in dict.fromkeys((sealed, noted)):
            if head is not None and not head.has_seal_of(self._chain):
                self._say(
                    f"the end noted with row {head.num_rows} does not have the seal of who wrote "
                    "the trail: somebody else put it there"
                )
        if last < sealed.num_rows:
            self._say(f"{_missing(last + 1, sealed.num_rows)}: the end was cut off")
        elif (last, self._before) != sealed[:2]:
            self._say(f"it ends with row {last}, not as it was sealed, with row {sealed.num_rows}")
        if noted is None and sealed.num_rows:
            self._say("the file that notes where it ends is missing")
        elif noted is not None and not self._noted_is_met:
            self._say(
                f"the file beside it notes row {noted.num_rows} with the hash "
                f"{noted.last_hash.hex()[:16]}..., which is not there: rows were cut off, or all "
                "was written anew"
            )
        more = self._num_flaws - len(self._flaws)
        return self._flaws + ([f"and {more} more flaws"] if more else [])

    def _say(self, flaw: str) -> None:
        self._num_flaws += 1
        if len(self._flaws) < _NUM_NAMED:
            self._flaws.append(flaw)


def _missing(first: int, last: int) -> str:
    return f"row {first} is missing" if first == last else f"rows {first} to {last} are missing"
