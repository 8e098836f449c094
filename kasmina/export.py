"""Export: the grown network as an ordinary module that needs no Esper import to run."""

from __future__ import annotations

import inspect
import operator
from typing import Any

from torch import fx, nn

from kasmina.slot import GraftedSeed, attached_seeds, detach_seed
from kasmina.task import copy_module
from leyline import ExportError


def export(model: nn.Module) -> nn.Module:
    """Copy a grown model into plain torch modules.

    Each module with seeds becomes a torch.fx.GraphModule that calls the host's own module and
    adds what the seeds add, with alpha baked in; seeds at alpha 0 are left out. Everything else is
    the user's own module, so names below a grown site gain the prefix `host.`.

    Args:
        model: a grown (or ungrown) module; it is not changed.

    Returns:
        A module with the same outputs, bit for bit on the CPU in float32, and the same mode.

    Raises:
        ExportError: a grown module's forward takes *args or **kwargs.
        TrialError: the model cannot be copied.
    """
    plain = copy_module(model)
    sites = {site: module for site, module, _ in attached_seeds(plain).values()}
    # Innermost first: an outer grown block then already holds its plain inner ones.
    for site, module in sorted(sites.items(), key=lambda item: -item[0].count(".")):
        replacement = _plain(site, module)
        if not site:
            return replacement
        parent, _, name = site.rpartition(".")
        plain.get_submodule(parent)._modules[name] = replacement
    return plain


def _plain(site: str, module: nn.Module) -> fx.GraphModule:
    seeds = [seed for _, held, seed in attached_seeds(module).values() if held is module]
    for seed in seeds:
        detach_seed(module, seed)
    graph = fx.Graph()
    arguments, keywords = _placeholders(site, module, graph)
    output = graph.call_module("host", arguments, keywords)
    root: dict[str, Any] = {"host": module}
    for number, seed in enumerate(s for s in seeds if s.active):
        root[f"seed_{number}"] = seed.body
        output = _add(graph, output, f"seed_{number}", seed)
    graph.output(output)
    replacement = fx.GraphModule(root, graph, class_name=type(module).__name__)
    return replacement.train(module.training)


def _add(graph: fx.Graph, host: fx.Node, target: str, seed: GraftedSeed) -> fx.Node:
    grown = graph.call_module(target, (host,))
    alpha = float(seed.alpha)
    if alpha != 1.0:
        grown = graph.call_function(operator.mul, (grown, alpha))
    return graph.call_function(operator.add, (host, graph.call_method("type_as", (grown, host))))


def _placeholders(
    site: str, module: nn.Module, graph: fx.Graph
) -> tuple[tuple[fx.Node, ...], dict[str, Any]]:
    arguments: list[fx.Node] = []
    keywords: dict[str, Any] = {}
    for parameter in inspect.signature(module.forward).parameters.values():
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
