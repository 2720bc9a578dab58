"""What an exported program computes, in one spelling, and whether it always computes the same."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from skd_cache.errors import InputError

_KEPT = (torch.dtype, torch.layout, torch.memory_format, complex)


def graph_digest(program: ExportedProgram) -> str:
    """The sha256 of what the program does with its tensors, 64 hex digits.

    Over the canonical JSON of: kind and name of every input and output; of every node in order its
    operator and arguments, nodes being numbers. Names of nodes, sizes that vary, devices, places
    in source files and all else that torch remembers do not count, nor do the tensors' values.
    """
    signature = program.graph_signature
    told = {
        "inputs": [[spec.kind.name, spec.target] for spec in signature.input_specs],
        "outputs": [[spec.kind.name, spec.target] for spec in signature.output_specs],
        "nodes": _nodes(program.graph_module),
    }
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _nodes(module: nn.Module) -> list[Any]:
    number: dict[fx.Node, int] = {}
    told: list[Any] = []
    if not isinstance(module, fx.GraphModule):
        raise InputError(f"The exported program calls a {type(module).__name__}.")
    for node in module.graph.nodes:
        if node.op == "placeholder":
            what: Any = _shape(node.meta.get("val"))
        elif node.op == "get_attr":  # of the branches of control flow
            what = _nodes(module.get_submodule(node.target))
        else:
            what = _operator(node.target)
        kwargs = {name: _argument(value, number) for name, value in node.kwargs.items()}
        told.append([node.op, what, [_argument(value, number) for value in node.args], kwargs])
        number[node] = len(number)
    return told


def _shape(value: object) -> Any:
    if not isinstance(value, Tensor):
        return None
    sides = [side if isinstance(side, int) else "?" for side in value.shape]
    return [str(value.dtype), sides]


def _operator(target: Any) -> str:
    if isinstance(target, str):
        return target  # "output"
    return str(target) if isinstance(target, torch._ops.OpOverload) else str(target.__name__)


def _argument(value: Any, number: dict[fx.Node, int]) -> Any:
    if isinstance(value, fx.Node):
        return {"node": number[value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.device):
        return "device"
    if isinstance(value, _KEPT):
        return str(value)
    if isinstance(value, list | tuple):
        return [_argument(one, number) for one in value]
    if isinstance(value, dict):
        return {str(name): _argument(one, number) for name, one in value.items()}
    raise InputError(f"The exported program has an argument of the type {type(value).__name__}.")


def require_inference(program: ExportedProgram, source: str) -> None:
    """See that the program answers the same whenever, and about whatever else, it is asked.

    Raises:
        InputError: it updates its own buffers, or drops units or normalises as in training.
    """
    outputs = program.graph_signature.output_specs
    changes = any(spec.kind is not OutputKind.USER_OUTPUT for spec in outputs)
    graphs = (
        module for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)
    )
    nodes = [node for graph in graphs for node in graph.graph.nodes]
    if changes or any(_trains(node) for node in nodes):
        raise InputError(
            f"'{source}' was exported in training mode: export it after model.eval(), so that it "
            "gives an image the same logits every time."
        )


def _trains(node: fx.Node) -> bool:
    """Whether an operator is random, or takes its statistics from the batch."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    names = [argument.name for argument in node.target._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    training = [given[name] for name in ("train", "training") if name in given]
    if any(training):
        return True
    random = torch.Tag.nondeterministic_seeded in node.target.tags
    if "dropout_p" in names:  # of attention
        return bool(given.get("dropout_p", 0.0) != 0)
    return random and not training
