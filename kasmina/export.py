"""Export: the grown network as an ordinary module that needs no Esper import to run."""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree

from kasmina.sites.layout import layout_of
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attached_seeds, detach_seed
from kasmina.trials.task import copy_module
from leyline import ExportError


def export(model: nn.Module) -> nn.Module:
    """Copy a grown model into plain torch modules.

    Each module with seeds keeps its class, its names and its attributes, so code that looks into
    it goes on working. Its forward becomes a torch.fx.GraphModule, its child `grown_0`, that runs
    the class's own forward and adds what the seeds add, with alpha baked in; seeds at alpha 0 are
    left out. A Sequential must not gain a member, so its last one is wrapped instead, and only
    there do names change: they gain the prefix `host.`.

    A module that returns more than a tensor goes on doing so; a dataclass must be known to torch
    by `torch.export.register_dataclass`, as those of Hugging Face are.

    Args:
        model: a grown (or ungrown) module; it is not changed.

    Returns:
        A module with the same outputs, bit for bit on the CPU in float32 (to rounding where seeds
        on chunks run side by side, which a plain module does one by one), and the same mode.

    Raises:
        ExportError: a grown module's forward takes *args or **kwargs, or it is a Sequential with a
            forward of its own.
        TrialError: the model cannot be copied.
    """
    plain = copy_module(model)
    sites = {site: module for site, module, _ in attached_seeds(plain).values()}
    # Innermost first: an outer grown block then already holds its plain inner ones.
    for site, module in sorted(sites.items(), key=lambda item: -item[0].count(".")):
        seeds = [seed for _, held, seed in attached_seeds(module).values() if held is module]
        for seed in seeds:
            detach_seed(module, seed)
        active = [seed for seed in seeds if seed.active]
        if active:
            _make_plain(site, module, active)
    return plain


def _make_plain(site: str, module: nn.Module, seeds: list[GraftedSeed]) -> None:
    if not isinstance(module, nn.Sequential):
        grown = _graph_module(site, module, _own_forward(module), seeds)
        number = next(n for n in itertools.count() if not hasattr(module, f"grown_{n}"))
        module.add_module(f"grown_{number}", grown)
        module.__dict__["forward"] = grown
    elif type(module).forward is nn.Sequential.forward:
        name, last = list(module._modules.items())[-1]
        assert last is not None
        module._modules[name] = _graph_module(site, last, last, seeds)
    else:
        raise ExportError(
            f"site {site!r}: {type(module).__name__} is a Sequential with a forward of its own, "
            "which plain modules cannot extend; export to .safetensors instead"
        )


def _own_forward(module: nn.Module) -> nn.Module:
    """A module without names of its own that runs the forward of another one's class."""
    return _calling(functools.partial(type(module).forward, module), training=module.training)


def _calling(function: Callable[..., Any], *, training: bool) -> nn.Module:
    """A plain module that calls a function: a graph read back from a file keeps it as a call."""
    module = nn.Identity().train(training)
    module.__dict__["forward"] = function
    return module


def _graph_module(
    site: str, module: nn.Module, host: nn.Module, seeds: list[GraftedSeed]
) -> fx.GraphModule:
    graph = fx.Graph()
    arguments, keywords = _placeholders(site, module, graph)
    output = graph.call_module("host", arguments, keywords)
    root: dict[str, Any] = {"host": host}
    packing = None if _returns_tensor(module) else _Packing(graph, output)
    main = output if packing is None else packing.main
    for number, seed in enumerate(seeds):
        root[f"seed_{number}"] = seed.body
        main = _add(graph, main, f"seed_{number}", seed)
    graph.output(main if packing is None else packing.around(main))
    if packing is not None:
        root["flatten"] = _calling(pytree.tree_flatten, training=module.training)
        root["unflatten"] = _calling(pytree.tree_unflatten, training=module.training)
    grown = fx.GraphModule(root, graph, class_name=type(module).__name__)
    grown.training = module.training
    return grown


def _returns_tensor(module: nn.Module) -> bool:
    """Whether a module of torch is known to return a tensor; of others only a call can tell."""
    return layout_of(module) is not None and not isinstance(
        module, nn.RNNBase | nn.MultiheadAttention
    )


class _Packing:
    """The nodes that take the first tensor out of whatever a module returns, and put one back."""

    def __init__(self, graph: fx.Graph, output: fx.Node):
        self._graph = graph
        flat = graph.call_module("flatten", (output,))
        self._leaves = graph.call_function(operator.getitem, (flat, 0))
        self._spec = graph.call_function(operator.getitem, (flat, 1))
        self.main = graph.call_function(operator.getitem, (self._leaves, 0))

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


def _placeholders(
    site: str, module: nn.Module, graph: fx.Graph
) -> tuple[tuple[fx.Node, ...], dict[str, Any]]:
    arguments: list[fx.Node] = []
    keywords: dict[str, Any] = {}
    # A module grown above has a module for its forward, whose own forward tells the names.
    forward = getattr(module.forward, "forward", module.forward)
    for parameter in inspect.signature(forward).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ExportError(
                f"site {site!r}: {type(module).__name__}.forward takes *{parameter.name}, which "
                "plain modules cannot pass on; export to .safetensors instead"
            )
        node = graph.placeholder(parameter.name, default_value=parameter.default)
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = node
        else:
            arguments.append(node)
    return tuple(arguments), keywords
