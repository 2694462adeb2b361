"""What a file gets once torch has written it: names for axes and nodes, initial states, a word on what is in it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from tidegate.convert.onnx.file import DTYPES
from tidegate.convert.onnx.functions import DOMAIN, read_name, update_only
from tidegate.convert.onnx.standins import NAME_KEY, Slot
from tidegate.extras import require
from tidegate.nn.spec import describe, is_cell

__all__ = ["LAYERS_KEY", "VERSION_KEY", "Described", "finish"]

VERSION_KEY, LAYERS_KEY = "tidegate.version", "tidegate.layers"


@dataclass(frozen=True, eq=False)
class Described:
    """One recurrent layer of the model that was written, and the file's names for its state."""

    name: str
    module: nn.Module
    slot: Slot
    state_in: str | None
    state_out: str | None

    def record(self) -> dict[str, Any]:
        """What the file's metadata says of it."""
        spec = describe(self.module)
        return {
            "name": self.name,
            "variant": spec.system,
            "activation": spec.activation,
            "cell": is_cell(self.module),
            "input_size": spec.input_size,
            "hidden_size": spec.hidden_size,
            "num_layers": len(spec.weights),
            "directions": spec.directions,
            "state_in": self.state_in,
            "state_out": self.state_out,
        }


def finish(
    proto: Any, layers: Sequence[Described], axes: Mapping[str, Sequence[str | None] | None], opset: int
) -> None:
    """Finish the file in place."""
    _name_nodes(proto.graph)
    _forget_the_trace(proto)
    _name_axes(proto.graph, layers, axes)
    _add_functions(proto, opset)
    _add_initial_states(proto.graph, layers)
    records = json.dumps([layer.record() for layer in layers])
    for key, value in ((VERSION_KEY, version("tidegate")), (LAYERS_KEY, records)):
        proto.metadata_props.add(key=key, value=value)


def _forget_the_trace(proto: Any) -> None:
    """Without torch's notes on every node: they hold the paths of the files that the model was written in."""
    graph = proto.graph
    for one in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del one.metadata_props[:]
        one.doc_string = ""
    del proto.metadata_props[:]


def _name_axes(graph: Any, layers: Sequence[Described], axes: Mapping[str, Sequence[str | None] | None]) -> None:
    """Call the axes what the caller calls them, or what the recurrent layers take them for, instead of s27."""
    names = _axis_names(graph, layers, axes)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _axis_names(
    graph: Any, layers: Sequence[Described], axes: Mapping[str, Sequence[str | None] | None]
) -> dict[str, str]:
    """What torch's symbols are to be called."""
    dims = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    names: dict[str, str] = {}
    for name, words in axes.items():
        for dim, word in zip(dims[name], words or (), strict=False):
            if word and dim.dim_param:
                names.setdefault(dim.dim_param, word)
    for layer in layers:
        for symbol, word in ((layer.slot.batch, "batch"), (layer.slot.steps, "time")):
            if word not in names.values():
                names.setdefault(symbol, word)
    for layer in layers:
        if layer.state_in is not None:
            names[dims[layer.state_in][1].dim_param] = f"{names.get(layer.slot.batch, layer.slot.batch)}_or_1"
    names.pop("", None)  # an axis that does not vary
    return names


def _name_nodes(graph: Any) -> None:
    """Call a layer's node what the model calls the layer, with a number where it runs more than once."""
    taken = {node.name for node in graph.node}
    for node in graph.node:
        for entry in node.metadata_props:
            if entry.key == NAME_KEY:
                node.name, number = entry.value, 2
                while node.name in taken:
                    node.name, number = f"{entry.value}_{number}", number + 1
                taken.add(node.name)


def _add_functions(proto: Any, opset: int) -> None:
    """The functions of Tidegate's own that the graph calls."""
    onnx = require("onnx", "onnx")
    kinds = {onnx.TensorProto.FLOAT: "float", onnx.TensorProto.DOUBLE: "double"}
    kinds |= {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    called = {node.op_type: node for node in proto.graph.node if node.domain == DOMAIN}
    for name, node in sorted(called.items()):
        read = read_name(name)
        assert read is not None
        proto.functions.append(update_only(*read, kind=kinds[types[node.input[1]]], opset=opset))
    if called and not any(one.domain == DOMAIN for one in proto.opset_import):
        proto.opset_import.add(domain=DOMAIN, version=1)


def _add_initial_states(graph: Any, layers: Sequence[Described]) -> None:
    """What each `state_in` is where it is left out, for ONNX takes an initializer of an input's name as its default."""
    numbers = {dtype: number for number, dtype in DTYPES.items()}
    for layer in layers:
        if layer.state_in is not None:
            h_0 = layer.module.get_submodule("onnx").get_buffer("h_0").cpu().contiguous()
            raw = h_0.view(torch.uint8).numpy().tobytes()
            graph.initializer.add(name=layer.state_in, data_type=numbers[h_0.dtype], dims=h_0.shape, raw_data=raw)
