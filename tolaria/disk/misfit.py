"""Misfits: a stored state that is not what its readers take, refused as one kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kasmina.guard import describe
from leyline import CheckpointError, EsperError

MISFIT: Final = (
    ArithmeticError,
    AssertionError,  # safetensors', on an empty tensor without an empty axis
    AttributeError,
    LookupError,
    RuntimeError,  # also RecursionError
    TypeError,
    ValueError,
)
"""What taking over values of the wrong kind, size or shape raises."""


@contextmanager
def refusing_misfits(what: str) -> Iterator[None]:
    """Let what does not fit be refused.

    Args:
        what: what the error calls the thing, such as "PATH: its state of growth".

    Raises:
        CheckpointError: it does not fit. Other errors of Esper's pass as they are.
    """
    try:
        yield
    except EsperError:
        raise
    except MISFIT as error:
        raise CheckpointError(
            f"{what} is not what a run of this version writes ({describe(error):.200}); go on from "
            "a copy that is sound, or start another run in another run directory"
        ) from error
