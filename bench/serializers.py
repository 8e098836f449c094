"""Other ways to make bytes of the same columns: the peers of Leyline's codec."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pydantic import create_model

import leyline

Serialize = Callable[[], object]

_PROTO_TYPES = {"d": 1, "f": 2, "i": 5, "q": 3}
"""By item format: double, float, int32 and int64, as descriptor.proto numbers them."""


def memcpy(packet: leyline.StatePacket) -> Serialize:
    """Copy every column into one buffer: the least that making bytes of them can cost."""
    columns = [getattr(packet, name).cast("B") for name in leyline.COLUMN_FORMATS]
    target = memoryview(bytearray(sum(map(len, columns))))

    def copy() -> None:
        at = 0
        for column in columns:
            end = at + len(column)
            target[at:end] = column
            at = end

    return copy


def protobuf(packet: leyline.StatePacket) -> Serialize:
    """Packed repeated fields."""
    file = descriptor_pb2.FileDescriptorProto(name="state.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="State")
    for number, (name, item) in enumerate(leyline.COLUMN_FORMATS.items(), start=1):
        message.field.add(name=name, number=number, label=3, type=_PROTO_TYPES[item])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.State"))
    columns = {name: getattr(packet, name) for name in leyline.COLUMN_FORMATS}
    return lambda: kind(**columns).SerializeToString()


def orjson_arrays(packet: leyline.StatePacket) -> Serialize:
    """JSON, straight from numpy's arrays."""
    columns = {name: np.asarray(getattr(packet, name)) for name in leyline.COLUMN_FORMATS}
    return lambda: orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)


def pickled(packet: leyline.StatePacket) -> Serialize:
    """Pickle's newest protocol, from numpy's arrays."""
    columns = {name: np.asarray(getattr(packet, name)) for name in leyline.COLUMN_FORMATS}
    return lambda: pickle.dumps(columns, protocol=pickle.HIGHEST_PROTOCOL)


def pydantic_model(packet: leyline.StatePacket) -> Serialize:
    """A validated model of lists, dumped as JSON."""
    fields: dict[str, Any] = {
        name: (list[float] if item in "df" else list[int], ...)
        for name, item in leyline.COLUMN_FORMATS.items()
    }
    kind = create_model("State", **fields)
    columns = {name: getattr(packet, name) for name in leyline.COLUMN_FORMATS}
    return lambda: kind(
        **{name: column.tolist() for name, column in columns.items()}
    ).model_dump_json()


PEERS = {
    "protobuf": protobuf,
    "orjson": orjson_arrays,
    "pickle": pickled,
    "pydantic": pydantic_model,
}
