"""Export: the grown network as an ordinary module that needs no Esper import to run."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Final, get_type_hints

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from kasmina.guard import attempt
from kasmina.sites.layout import layout_of
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import detach_seed, slot_of
from kasmina.trials.task import copy_module
from leyline import ExportError


def export(model: nn.Module) -> nn.Module:
    """Copy a grown model into plain torch modules.

    Each module with seeds keeps its class, its names and its attributes, so code that looks into
    it goes on working. Its forward is the class's own with whatever arguments come, followed by a
    torch.fx.GraphModule, its child `grown_0`, that adds what the seeds add, with alpha baked in;
    seeds at alpha 0 are left out. A Sequential must not gain a member, so its last one is wrapped
    instead, and only there do names change: they gain the prefix `host.`.

    A module that returns more than a tensor goes on doing so. A dataclass must be known to torch
    by `torch.export.register_dataclass`, as those of Hugging Face are; one that only a call can
    tell of is an AssertionError in that call, which names the site and this way out.

    Args:
        model: a grown (or ungrown) module; it is not changed.

    Returns:
        A module with the same outputs, bit for bit on the CPU in float32 (to rounding where seeds
        on chunks run side by side, which a plain module does one by one), and the same mode.

    Raises:
        ExportError: a grown module's forward is annotated to return a dataclass that torch does
            not know, or it is a Sequential with a forward of its own.
        TrialError: the model cannot be copied.
    """
    plain = copy_module(model)
    # Innermost first: an outer grown block then already holds its plain inner ones.
    for site, module in reversed(list(plain.named_modules())):
        slot = slot_of(module)
        seeds = [] if slot is None else list(slot.seeds())
        for seed in seeds:
            detach_seed(module, seed)
        active = [seed for seed in seeds if seed.active]
        if active:
            _make_plain(site, module, active)
    return plain


def _make_plain(site: str, module: nn.Module, seeds: list[GraftedSeed]) -> None:
    if not isinstance(module, nn.Sequential):
        _check_annotation(site, module)
        graph = fx.Graph()
        _, _, output = (graph.placeholder(name) for name in ("module", "args", "output"))
        grown = _graph_module(site, module, output, {}, seeds)
        number = next(n for n in itertools.count() if not hasattr(module, f"grown_{n}"))
        module.add_module(f"grown_{number}", grown)
        module.__dict__["forward"] = _followed(module, grown)
    elif type(module).forward is nn.Sequential.forward:
        name, last = list(module._modules.items())[-1]
        assert last is not None
        graph = fx.Graph()
        output = graph.call_module("host", (graph.placeholder("input"),))
        module._modules[name] = _graph_module(site, last, output, {"host": last}, seeds)
    else:
        raise ExportError(
            f"site {site!r}: {type(module).__name__} is a Sequential with a forward of its own, "
            "which plain modules cannot extend; export to .safetensors instead"
        )


def _followed(module: nn.Module, grown: nn.Module) -> Callable[..., Any]:
    """The forward of a module's class, with any arguments, and then what a graph makes of it.

    A hook does that for every signature, where a graph cannot pass *args and **kwargs on. It is on
    a module that is no child: hooks on children switch off fast paths. fx traces through it, for
    the call is not looked up on the class.
    """
    own = _calling(functools.partial(type(module).forward, module), training=module.training)
    own.register_forward_hook(grown)
    return functools.partial(nn.Module.__call__, own)


def _calling(function: Callable[..., Any], *, training: bool) -> nn.Module:
    """A plain module that calls a function: a graph read back from a file keeps it as a call."""
    module = nn.Identity().train(training)
    module.__dict__["forward"] = function
    return module


def _graph_module(
    site: str,
    module: nn.Module,
    output: fx.Node,
    root: dict[str, nn.Module],
    seeds: list[GraftedSeed],
) -> fx.GraphModule:
    """The graph so far, up to a module's output, with what the seeds add to that."""
    graph = output.graph
    packing = None if _returns_tensor(module) else _Packing(site, output)
    main = output if packing is None else packing.main
    for number, seed in enumerate(seeds):
        root[f"seed_{number}"] = seed.body
        main = _add(graph, main, f"seed_{number}", seed)
    graph.output(main if packing is None else packing.around(main))
    if packing is not None:
        root |= {n: _calling(f, training=module.training) for n, f in packing.FUNCTIONS.items()}
    grown = fx.GraphModule(root, graph, class_name=type(module).__name__)
    grown.training = module.training
    return grown


def _returns_tensor(module: nn.Module) -> bool:
    """Whether a forward of torch's own is known to return a tensor; of others only a call tells."""
    return (
        layout_of(module) is not None
        and type(module).forward.__module__.startswith("torch.nn.")
        and not isinstance(module, nn.RNNBase | nn.MultiheadAttention)
    )


def _check_annotation(site: str, module: nn.Module) -> None:
    hints = attempt(lambda: get_type_hints(type(module).forward))
    kind = hints.get("return") if isinstance(hints, dict) else None
    if isinstance(kind, type) and is_dataclass(kind) and kind not in pytree.SUPPORTED_NODES:
        name = kind.__name__
        raise ExportError(
            f"site {site!r}: {type(module).__name__} returns a {name}, a dataclass that torch does "
            f"not know; call torch.export.register_dataclass({name}) first, also where the export "
            "is to run, or export to .safetensors instead"
        )


class _Packing:
    """The nodes that take the first tensor out of whatever a module returns, and put one back."""

    FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
        "flatten": pytree.tree_flatten,
        "unflatten": pytree.tree_unflatten,
        "is_tensor": torch.is_tensor,
    }
    """What the nodes call, by target."""

    def __init__(self, site: str, output: fx.Node):
        self._graph = graph = output.graph
        flat = graph.call_module("flatten", (output,))
        self._leaves = graph.call_function(operator.getitem, (flat, 0))
        self._spec = graph.call_function(operator.getitem, (flat, 1))
        self.main = graph.call_function(operator.getitem, (self._leaves, 0))
        known = graph.call_module("is_tensor", (self.main,))
        advice = (
            f"site {site!r} returned something in which torch.utils._pytree finds no tensor first; "
            "make its class known by torch.export.register_dataclass or register_pytree_node"
        )
        graph.call_function(torch._assert, (known, advice))

    def around(self, main: fx.Node) -> fx.Node:
        """The same output with another first tensor."""
        rest = self._graph.call_function(operator.getitem, (self._leaves, slice(1, None)))
        leaves = self._graph.call_function(operator.add, ([main], rest))
        return self._graph.call_module("unflatten", (leaves, self._spec))


def _add(graph: fx.Graph, host: fx.Node, target: str, seed: GraftedSeed) -> fx.Node:
    """What the seed adds to the whole of the output, or to its chunk of the channels."""
    (number, num_chunks), axis = seed.chunk, seed.shape.channel_axis
    start, width = number * seed.shape.channels, seed.shape.channels
    part = host
    if num_chunks > 1:
        part = graph.call_method("narrow", (host, axis, start, width))
    grown = graph.call_module(target, (part,))
    alpha = float(seed.alpha)
    if alpha != 1.0:
        grown = graph.call_function(operator.mul, (grown, alpha))
    grown = graph.call_function(operator.add, (part, graph.call_method("type_as", (grown, part))))
    if num_chunks > 1:
        grown = graph.call_method("slice_scatter", (host, grown, axis, start, start + width))
    return grown
