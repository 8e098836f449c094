"""Hypothesis strategies for every message, read from the fields' own types."""

from __future__ import annotations

import struct
import types
from array import array
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

import leyline
from leyline import COLUMN_FORMATS, Message, StatePacket

MESSAGES: tuple[type[Message], ...] = get_args(leyline.AnyMessage)
"""Every message that may stand alone."""


def _items(item_format: str, size: int) -> st.SearchStrategy[memoryview]:
    """One column of so many items of any bits."""
    num_bytes = size * struct.calcsize(item_format)
    whole = st.binary(min_size=num_bytes, max_size=num_bytes)
    return whole.map(lambda data: memoryview(array(item_format, data)))


@st.composite
def _packets(draw: st.DrawFn) -> StatePacket:
    num_seeds = draw(st.integers(0, 4))
    sizes = dict.fromkeys(COLUMN_FORMATS, num_seeds) | {"metrics": draw(st.integers(0, 3))}
    hints = get_type_hints(StatePacket, include_extras=True)
    plain = {name: draw(_of(hint)) for name, hint in hints.items() if name not in COLUMN_FORMATS}
    columns = {name: draw(_items(COLUMN_FORMATS[name], size)) for name, size in sizes.items()}
    return StatePacket(**plain, **columns)


def messages(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Messages of one type."""
    if kind is StatePacket:
        return _packets()
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: _of(hint) for name, hint in hints.items()})


def any_message() -> st.SearchStrategy[Any]:
    """Messages of every type."""
    return st.one_of([messages(kind) for kind in MESSAGES])


def _of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of one field."""
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(-(2**63), 2**64 - 1),
        float: st.floats(),
        str: st.text(max_size=20),
    }
    if hint in simple:
        return simple[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        longest = arguments[1].max_length
        return st.one_of(st.text(max_size=20), st.just("n" * longest))
    if origin is tuple and arguments[-1] is not ...:
        return st.tuples(*map(_of, arguments))
    if origin is tuple:
        return st.lists(_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_of(arguments[0]), _of(arguments[1]), max_size=3)
    if origin in (Union, types.UnionType):
        return st.one_of([_of(argument) for argument in arguments])
    return st.deferred(lambda: messages(hint))


def exact(value: Any) -> Any:
    """The value in a form whose == compares types, and floats and columns by their bits."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, memoryview):
        return value.tobytes()
    if isinstance(value, tuple):
        return tuple(exact(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, exact(item)) for key, item in value.items())
    if isinstance(value, Message):
        return type(value), exact(msgspec.structs.astuple(value))
    return type(value), value
