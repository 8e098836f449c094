"""Which modules run through torch.compile, and how to make a copy run as they do, or eagerly.

Told by attributes and not by class: importing torch._dynamo takes a second, and a model that has
compiled modules has imported it already.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import nn

_WRAPPED = "_torchdynamo_orig_callable"


def compiled_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every compiled module with its name: wrapped by `torch.compile`, or by its own `compile`."""
    for name, module in model.named_modules():
        if _WRAPPED in module.__dict__ or module._compiled_call_impl is not None:
            yield name, module


def run_eagerly(copied: nn.Module) -> None:
    """Let a deep copy run as it is written; deepcopy itself forgets what `compile` has set."""
    for module in copied.modules():
        if _WRAPPED in module.__dict__:
            module.__dict__["forward"] = cast(Any, module)._orig_mod.__call__


def compile_alike(copied: nn.Module, module: nn.Module) -> None:
    """Compile one module of a copy as its original is; how cannot always be found out."""
    if _WRAPPED in module.__dict__:
        compiler: Callable[[Any], Any] = cast(Any, module).dynamo_ctx
        copied.__dict__["forward"] = compiler(cast(Any, copied)._orig_mod.__call__)
    elif module._compiled_call_impl is not None:
        held = inspect.getclosurevars(module._compiled_call_impl).nonlocals
        if callable(held.get("self")):
            copied._compiled_call_impl = held["self"](copied._call_impl)


def nothing_compiled() -> AbstractContextManager[None]:
    """Run what is compiled as it was written; where nothing can be, its import is saved."""
    if "torch._dynamo" in sys.modules:
        stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
        return stance
    return nullcontext()
