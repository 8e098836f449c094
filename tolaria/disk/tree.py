"""Nested state as JSON and tensors, and exactly back, without a byte of pickle.

The skeleton is plain JSON: None, bool, str, small integers and finite floats stand for
themselves, an array is a list, and an object with one key says what its value is, such as
{"tuple": [...]}. Names of tensors are their places in the tree.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

import torch

from leyline import CheckpointError
from tolaria.disk.tensor_file import TYPES

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Tree = Any
"""Whatever `pack` accepts; values of other people's state_dict() have no better type."""

_DEPTH: Final = 100
_INTEGER_LIMIT: Final = 2**53  # integers beyond it are rounded by other readers of JSON
_FACTORIES: Final[Mapping[str, Callable[[], Tree]]] = MappingProxyType(
    {factory.__name__: factory for factory in (dict, list, set, int, float, str)}
)
_ALLOWED: Final = (
    "allowed are None, bool, int, float, str, bytes, list, tuple, set, dict, OrderedDict, Counter, "
    "defaultdict, timedelta, torch.Size, torch.dtype and plain tensors: turn it into these where "
    "the state is made"
)


def pack(tree: Tree) -> tuple[Json, dict[str, torch.Tensor]]:
    """Take a tree apart.

    Tensors that are one object, or the same view of the same memory (tied weights), are stored
    once. The gradient, `requires_grad` and the class Parameter are not kept.

    Returns:
        The skeleton, which shares nothing with the tree, and the tensors by name: detached, and of
        types that every safetensors file can name. They may share memory with the tree, so copy
        them before it changes.

    Raises:
        CheckpointError: the tree holds something else, named by its place; or is nested deeper
            than 100 levels, or holds itself.
    """
    packer = _Packer()
    return packer.node(tree, "", 0), packer.tensors


def unpack(skeleton: Json, tensors: Mapping[str, torch.Tensor]) -> Tree:
    """Put a tree together again; tensors that were one object are one object again, on the CPU.

    Raises:
        CheckpointError: the skeleton is malformed, or a tensor is missing or does not fit.
    """
    try:
        return _Unpacker(tensors).value(skeleton)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        # RecursionError is a RuntimeError
        raise CheckpointError(f"the stored state is malformed: {error!r:.200}") from error


class _Packer:
    """One walk over a tree, collecting its tensors."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[Hashable, str] = {}

    def node(self, value: Tree, path: str, depth: int) -> Json:
        """One value as JSON, its tensors put aside under their paths.

        Raises:
            CheckpointError: it is nested too deep, or of a kind that is not kept.
        """
        if depth > _DEPTH:
            raise CheckpointError(f"{path:.200}... is nested deeper than {_DEPTH} levels, or loops")
        kind = type(value)
        if kind is list:
            return self._items(value, path, depth)
        if kind in (tuple, torch.Size):
            return {kind.__name__: self._items(value, path, depth)}
        if kind is set:
            members = [_key(member, path) for member in value]
            return {"set": sorted(members, key=json.dumps)}
        if kind in (dict, OrderedDict, Counter):
            return {kind.__name__: self._pairs(value, path, depth)}
        if kind is defaultdict:
            factory = getattr(value.default_factory, "__name__", None)
            if value.default_factory is not None and (
                _FACTORIES.get(str(factory)) is not value.default_factory
            ):
                raise CheckpointError(
                    f"{path or 'the state'} is a defaultdict of {value.default_factory!r}, which "
                    f"a checkpoint cannot hold: allowed are {', '.join(_FACTORIES)}"
                )
            return {"defaultdict": [factory, self._pairs(value, path, depth)]}
        if kind in (torch.Tensor, torch.nn.Parameter):
            return {"tensor": self._tensor(value, path)}
        return _scalar(value, path)

    def _items(self, values: Iterable[Tree], path: str, depth: int) -> list[Json]:
        held = list(values)
        if set(map(type, held)) == {int} and max(map(abs, held)) < _INTEGER_LIMIT:
            return held  # the states of random generators have a thousand of them
        return [self.node(value, f"{path}[{i}]", depth + 1) for i, value in enumerate(held)]

    def _pairs(self, mapping: Mapping[Tree, Tree], path: str, depth: int) -> list[Json]:
        dot = "." if path else ""
        return [
            [_key(key, path), self.node(value, f"{path}{dot}{key}", depth + 1)]
            for key, value in mapping.items()
        ]

    def _tensor(self, tensor: torch.Tensor, path: str) -> Json:
        """Store a tensor under its place, unless the same view of the same memory is there."""
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(
                f"{path or 'the state'} is a tensor of {tensor.dtype} and {tensor.layout} on "
                f"{tensor.device}, which a checkpoint cannot hold: allowed are dense tensors that "
                "have values and are not quantized"
            )
        lazy = (tensor.is_conj(), tensor.is_neg())
        memory: Hashable = (tensor.data_ptr(), tensor.shape, tensor.stride())
        view = (memory if tensor.numel() else id(tensor), tensor.dtype, tensor.device, lazy)
        name = self._names.get(view)
        values = tensor.detach() if tensor.requires_grad else tensor
        if any(lazy):
            values = values.resolve_conj().resolve_neg()
        if name is None:
            name = self._names[view] = self._free_name(path)
            if values.dtype in TYPES:
                self.tensors[name] = values
            else:  # it travels as bytes
                self.tensors[name] = values.contiguous().reshape(-1).view(torch.uint8)
        node: dict[str, Json] = {"name": name}
        if values.dtype not in TYPES:
            node |= {"dtype": str(values.dtype)[len("torch.") :], "shape": list(values.shape)}
        if order := _memory_order(values):
            node["order"] = list(order)
        return node

    def _free_name(self, path: str) -> str:
        """The path as a name that safetensors can write and that is not taken."""
        path = path.encode("utf-8", "backslashreplace").decode()
        name, number = path, 1
        while name in self.tensors or name == "__metadata__":
            number += 1
            name = f"{path}#{number}"
        return name


def _memory_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Axes from outermost to innermost in memory (channels_last, say); () when as usual.

    Other strides choose other kernels, and those other last bits.
    """
    if tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() != (
        tensor.stride()
    ):
        return ()
    strides = tensor.stride()
    return tuple(sorted(range(tensor.dim()), key=lambda axis: -strides[axis]))


def _scalar(value: Tree, path: str) -> Json:
    kind = type(value)
    if value is None or kind in (bool, str):
        return value  # type: ignore[no-any-return]  # narrowed by its exact type
    if kind is int:
        return value if abs(value) < _INTEGER_LIMIT else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if kind is torch.dtype:
        return {"dtype": str(value)[len("torch.") :]}
    if kind is timedelta:
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    raise CheckpointError(
        f"{path or 'the state'} is a {kind.__name__}, which a checkpoint cannot hold: {_ALLOWED}"
    )


def _key(key: Tree, path: str) -> Json:
    """A key of a dict or a member of a set: a scalar, or a tuple of such."""
    if type(key) is tuple:
        return {"tuple": [_key(part, path) for part in key]}
    return _scalar(key, f"a key in {path or 'the state'}")


class _Unpacker:
    """One walk over a skeleton, which is not to be trusted."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self._tensors = tensors
        self._made: dict[str, torch.Tensor] = {}

    def value(self, node: Json) -> Tree:
        if isinstance(node, list):
            return [self.value(item) for item in node]
        if not isinstance(node, dict):
            return node
        ((tag, body),) = node.items()
        return self._tagged(tag, body)

    def _tagged(self, tag: str, body: Tree) -> Tree:
        match tag:
            case "tuple" | "Size" | "set":
                kind = {"tuple": tuple, "Size": torch.Size, "set": set}[tag]
                return kind([self.value(item) for item in _array(body)])
            case "dict" | "OrderedDict" | "Counter":
                empty = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}[tag]()
                return self._fill(empty, body)
            case "defaultdict":
                factory, pairs = body
                made = _FACTORIES[factory] if factory is not None else None
                return self._fill(defaultdict(made), pairs)
            case "tensor":
                return self._tensor(**body)
            case "int":
                return int(body, 16)
            case "float":
                return float(body)
            case "bytes":
                return base64.b64decode(body, validate=True)
            case "dtype":
                return _dtype(body)
            case "timedelta":
                return timedelta(*body)
        raise CheckpointError(f"the stored state holds a {tag!r:.100}, which this version does not")

    def _fill(self, empty: dict[Tree, Tree], pairs: Json) -> dict[Tree, Tree]:
        for key, value in map(_array, _array(pairs)):
            # not through Counter.update, which would add
            empty[self.value(key)] = self.value(value)
        return empty

    def _tensor(
        self,
        name: str,
        dtype: str | None = None,
        shape: list[int] | None = None,
        order: Tree = None,
    ) -> torch.Tensor:
        if name in self._made:
            return self._made[name]
        if name not in self._tensors:
            raise CheckpointError(f"tensor {name!r:.200} is missing from the stored state")
        tensor = self._tensors[name]
        if dtype is not None:
            tensor = tensor.view(_dtype(dtype)).reshape(shape or ())
        if order is not None:
            places = [_array(order).index(axis) for axis in range(tensor.dim())]
            tensor = tensor.permute(order).contiguous().permute(places)
        self._made[name] = tensor
        return tensor


def _array(node: Json) -> list[Json]:
    if not isinstance(node, list):
        raise CheckpointError(f"the stored state has {node!r:.100} in the place of an array")
    return node


def _dtype(name: str) -> torch.dtype:
    dtype = vars(torch).get(name)  # not getattr, which would import what the name asks for
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"the stored state names {name!r:.100} as a type of tensor")
    return dtype
