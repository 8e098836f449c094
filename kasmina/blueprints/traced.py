"""Traced modules: a few operations around plain torch modules, as a module of torch's own.

A Sequential cannot multiply two paths or transpose. A torch.fx.GraphModule can, and unlike a class
written here it needs no Esper import when it is exported, pickled or copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

Run = Callable[[str, Any], Any]
"""Runs the member of a name on a value; values are torch.fx.Proxy and behave like tensors."""


def traced(
    name: str, modules: Mapping[str, nn.Module], forward: Callable[[Run, Any], Any]
) -> nn.Module:
    """Build a module whose forward is what `forward` does to a stand-in for its input.

    Unlike torch.fx.symbolic_trace this patches nothing while it runs, so other threads may run
    modules meanwhile.

    Args:
        name: the class name that the module shows.
        modules: its members.
        forward: called once; may call members, tensor methods and torch functions, but may not
            branch on sizes.
    """
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)

    def run(member: str, value: Any) -> Any:
        return fx.Proxy(graph.call_module(member, (value.node,)), tracer)

    graph.output(forward(run, fx.Proxy(graph.placeholder("x"), tracer)).node)
    return fx.GraphModule(dict(modules), graph, class_name=name)
