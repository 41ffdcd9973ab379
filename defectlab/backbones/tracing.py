"""The computation graph of a network: its layers, their dependencies, and the part that given layers need."""

import logging
import math
import operator
import re
from collections.abc import Mapping

import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import NodePathTracer

logger = logging.getLogger(__name__)


class TracedGraph:
    """The graph of a network in eval mode, with a dotted name for every node (torchvision's naming)."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        modes = {module: module.training for module in network.modules()}
        try:
            tracer = _tracer(network)
            self.graph = tracer.trace(network.eval())
        finally:
            for module, training in modes.items():
                module.training = training
        self.names: dict[fx.Node, str] = dict(tracer.node_to_qualname)

    def find(self, layer: str) -> fx.Node | None:
        """Return the last node of the module or operation `layer`, or None if there is no such node."""
        under = f"{layer}."
        for node in reversed(self.graph.nodes):
            name = self.names.get(node)
            if name is not None and node.op != "output" and (name == layer or name.startswith(under)):
                return node
        return None

    def results(self, layer: str) -> list[str]:
        """Return the names of the nodes in module `layer` whose output is used outside of it, in their order.

        More than one: the module returns several values, and none of them is "the" output of the layer.
        """
        under = f"{layer}."
        inside = [
            node for node in self.graph.nodes if self.names.get(node, "").startswith(under) and node.op != "output"
        ]
        members = set(inside)
        return [self.names[node] for node in inside if any(user not in members for user in node.users)]

    def needed_tensors(self, node: fx.Node) -> set[str]:
        """Return the state-dict keys on which the output of `node` depends."""
        keys: set[str] = set()
        for before in _ancestors(node):
            if before.op == "call_module":
                inside = self.network.get_submodule(str(before.target)).state_dict()
                keys.update(f"{before.target}.{key}" for key in inside)
            elif before.op == "get_attr":
                keys.add(str(before.target))
        return keys

    def main_layers(self) -> list[str]:
        """Return a short list of layers to choose from: top-level modules, or the members of a few big ones."""
        names = list(dict.fromkeys(name for node, name in self.names.items() if node.op == "call_module"))
        top = list(dict.fromkeys(name.split(".")[0] for name in names))
        if len(top) > 4:
            return top
        return list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))

    def pruned(self, nodes: Mapping[str, fx.Node]) -> fx.GraphModule:
        """Return a module that computes {layer: output} in the order of `nodes` and holds nothing else.

        Its state-dict keys are those of the network. The tensors are shared with it.
        """
        needed = set().union(*(_ancestors(node) for node in nodes.values()))
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.graph.nodes:
            if node in needed or node.op == "placeholder":
                copies[node] = graph.node_copy(node, lambda old: copies[old])
        outputs = {layer: _output_node(graph, copies[node], self.network) for layer, node in nodes.items()}
        graph.output(outputs)
        graph.lint()
        return fx.GraphModule(self.network, graph, type(self.network).__name__)


def _tracer(network: nn.Module) -> NodePathTracer:
    leaves: list[type[nn.Module]] = [
        kind for kind in vars(torchvision.ops).values() if isinstance(kind, type) and issubclass(kind, nn.Module)
    ]
    functions = []
    if any(type(module).__module__.startswith("timm.") for module in network.modules()):
        from timm.models import get_notrace_functions, get_notrace_modules

        leaves += (
            get_notrace_modules()
        )  # padding computed from the size at run time ("same" convolutions) cannot be traced
        functions += get_notrace_functions()
    return NodePathTracer(
        leaf_modules=leaves, autowrap_modules=(math, torchvision.ops), autowrap_functions=tuple(functions)
    )


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += current.all_input_nodes
    return seen


_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem}


def _output_node(graph: fx.Graph, node: fx.Node, network: nn.Module) -> fx.Node:
    """Return `node`, or a copy of its output if a later operation overwrites it (``bn2`` of a ResNet block)."""
    if not any(_overwrites(user, network) for user in node.users):
        return node
    with graph.inserting_after(node):
        return graph.call_function(torch.clone, (node,))


def _overwrites(user: fx.Node, network: nn.Module) -> bool:
    if user.op == "call_module":
        return bool(getattr(network.get_submodule(str(user.target)), "inplace", False))
    if user.op == "call_method":
        return re.fullmatch(r"[a-z]\w*[a-z0-9]_", str(user.target)) is not None
    return user.target in _IN_PLACE or user.kwargs.get("inplace") is True
