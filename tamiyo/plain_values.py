"""Plain values: what a policy may save, because a checkpoint gives back exactly that."""

from __future__ import annotations

import math
from typing import Any, Final

from leyline import PolicyError

_MAX_DEPTH: Final = 32
_MAX_VALUES: Final = 100_000
_MAX_TEXT: Final = 1_000_000
_LARGEST_INT: Final = 2**63 - 1


def plain_state(state: Any) -> dict[str, Any]:
    """A copy of what a policy saves; tuples become lists, as in a checkpoint.

    Raises:
        PolicyError: it holds what no checkpoint could give back.
    """
    if not isinstance(state, dict):
        raise PolicyError(f"state_dict() gave a {type(state).__name__}; it must give a dict")
    copied: dict[str, Any] = _Copy().of(state, "state_dict()", 0)
    return copied


class _Copy:
    """One copy, and how many values it has by now."""

    def __init__(self) -> None:
        self._num_values = 0

    def of(self, value: Any, where: str, depth: int) -> Any:
        """A copy of a value that is plain all through.

        Args:
            where: its place, for the error.
            depth: how many containers it lies in.

        Raises:
            PolicyError: it is not plain, too deep, or one of too many.
        """
        self._num_values += 1
        if self._num_values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise PolicyError(
                f"{where} is too large: at most {_MAX_VALUES:,} values, {_MAX_DEPTH} deep, are kept"
            )
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) <= _LARGEST_INT:
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        if isinstance(value, str) and _can_be_written(value):
            return str(value)
        if isinstance(value, list | tuple):
            return [self.of(each, f"{where}[{i}]", depth + 1) for i, each in enumerate(value)]
        if isinstance(value, dict) and all(
            type(key) is str and _can_be_written(key) for key in value
        ):
            return {key: self.of(value[key], f"{where}[{key!r}]", depth + 1) for key in value}
        raise PolicyError(
            f"{where} is {_shown(value)}, which a checkpoint does not keep; use None, booleans, "
            "64-bit integers, finite floats, text, and lists and dicts with text keys of these"
        )


def _can_be_written(text: str) -> bool:
    return len(text) <= _MAX_TEXT and not any("\ud800" <= each <= "\udfff" for each in text)


def _shown(value: Any) -> str:
    """A number as it is, of anything else its type: its own words may be long, or fail."""
    return repr(value) if type(value) in (int, float) else f"a {type(value).__name__}"
