"""Closures: what a function holds on to without naming it."""

from __future__ import annotations

from types import FunctionType
from typing import Any


def held_by_function(function: FunctionType) -> list[Any]:
    """The values of its defaults and of its closure's cells; one that is not filled has none."""
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:
            continue
    return held
