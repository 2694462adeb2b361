"""from_onnx: the recurrent nodes of an ONNX file as layers, and the whole as a module where the rest is simple."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from tidegate.convert.onnx.attributes import attributes_of
from tidegate.convert.onnx.file import DTYPES, MOST_BYTES, File, Source, read_file
from tidegate.convert.onnx.finish import LAYERS_KEY, VERSION_KEY
from tidegate.convert.onnx.functions import DOMAIN
from tidegate.convert.onnx.graph import InputSpec, NodeStep, OnnxModel, compute
from tidegate.convert.onnx.nodes import ATTRIBUTES, RecurrentNode, is_recurrent_node, read_recurrent
from tidegate.convert.onnx.operators import OPERATORS, Operator
from tidegate.convert.onnx.order import label
from tidegate.convert.onnx.weights import Direction
from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn import GRU, RNN

__all__ = ["OnnxFile", "OnnxLayer", "from_onnx"]

#: Inputs of nodes that are statistics, not weights, by operator and place.
_STATISTICS = {("BatchNormalization", 3), ("BatchNormalization", 4)}


@dataclass(frozen=True, eq=False)
class OnnxLayer:
    """One recurrent node of a file: the layer that it became, or why it became none."""

    name: str
    operator: str
    #: A layer with the node's weights, in the node's own axes, time before batch. One that runs backwards only has to
    #: be given its sequences reversed. None where `refusal` says why.
    layer: GRU | RNN | None
    #: "gru", "gru-reset-before", "update-only" or "rnn"; None where it is not known.
    variant: str | None
    direction: Direction | None
    input_size: int | None
    hidden_size: int | None
    #: What the node does beyond the layer.
    notes: tuple[str, ...] = ()
    refusal: str | None = None


class OnnxFile:
    """What an ONNX file holds, read without running it: `layers`, one record a recurrent node, and `model()`.

    `refusal` is why the rest of the graph cannot be run, or None. `metadata` is what the file says of itself; one of
    Tidegate's own says its `version` and, in `written`, what the model's recurrent layers were.
    """

    def __init__(self, file: File) -> None:
        self.metadata = file.metadata()
        self.version = self.metadata.get(VERSION_KEY)
        self.written = _written(self.metadata.get(LAYERS_KEY))
        self.opset = file.opset
        reading = _Reading(file)
        self.layers: tuple[OnnxLayer, ...] = tuple(reading.layers)
        self.refusal: str | None = reading.refusal
        self._reading = reading

    def model(self) -> OnnxModel:
        """The whole graph as a module, with the layers of `layers`; raises `InputValueError` with `refusal`."""
        if self.refusal is not None:
            raise InputValueError(self.refusal)
        return self._whole

    @cached_property
    def _whole(self) -> OnnxModel:
        return self._reading.model()


def from_onnx(source: Source, *, max_bytes: int = MOST_BYTES) -> OnnxFile:
    """Read an ONNX file: its GRU and RNN nodes as layers, and the graph as a module where all of it is known.

    Args:
        source: a path, the bytes of a file, or an `onnx.ModelProto`. Tensors that lie in other files are read from the
            folder of the path and below, and from nowhere else.
        max_bytes: the most that the file may hold, and its tensors may take.

    Raises:
        FileMissingError: the file is not there, or one beside it that holds its tensors.
        FileError: it is truncated, not ONNX, too large, or its graph is circular or incomplete.
        InputTypeError, InputValueError: an argument is wrong.
        MissingExtraError: `tidegate[onnx]` is not installed.
    """
    return OnnxFile(read_file(source, max_bytes))


class _Reading:
    """A file on its way into modules: constants found, recurrent nodes made layers, all others looked up."""

    def __init__(self, file: File) -> None:
        self.file, graph = file, file.proto.graph
        self.layers: list[OnnxLayer] = []
        self.refusal: str | None = None
        self.steps: list[NodeStep] = []
        self.recurrent: dict[str, RecurrentNode] = {}
        self.initial: dict[str, Tensor] = {tensor.name: file.tensor(tensor) for tensor in graph.initializer}
        given = {value.name for value in graph.input}
        #: What is the same in every run: an initializer that is an input too may be given another value.
        self.constants = {name: tensor for name, tensor in self.initial.items() if name not in given}
        self.inputs = sorted(
            (_input(value, value.name in self.initial) for value in graph.input), key=lambda one: one.optional
        )
        for value in graph.input:
            if value.type.tensor_type.elem_type not in DTYPES:
                self._refuse(f"its input {value.name!r} must be a tensor of a dtype that torch has")
        for number, node in enumerate(graph.node):
            self._read(node, number)

    def model(self) -> OnnxModel:
        """The module; every node has been looked up."""
        outputs = [value.name for value in self.file.proto.graph.output]
        read = {name for step in self.steps for name in step.reads} | set(outputs)
        needed = {name: tensor for name, tensor in {**self.constants, **self.initial}.items() if name in read}
        own = {name for step in self.steps if step.module is not None for name in step.reads[1:4]}
        own -= {name for step in self.steps if step.module is None for name in step.reads} | set(outputs)
        held = {step.module for step in self.steps if step.module and self.recurrent[step.module].layer is not None}
        for step in self.steps:
            if step.module is not None and step.module not in held:
                own -= set(step.reads)
        steps = [self._without_weights(step, own) for step in self.steps]
        fixed = frozenset(
            name
            for step in self.steps
            for place, name in enumerate(step.reads)
            if (step.operator, place) in _STATISTICS
        )
        kept = {name: tensor for name, tensor in needed.items() if name not in own}
        return OnnxModel(self.inputs, outputs, steps, self.recurrent, kept, fixed | _optional(self.inputs))

    def _without_weights(self, step: NodeStep, own: set[str]) -> NodeStep:
        """A recurrent step that no longer reads what its layer holds."""
        if step.module is None or self.recurrent[step.module].layer is None:
            return step
        reads = tuple("" if place in (1, 2, 3) and name in own else name for place, name in enumerate(step.reads))
        return replace(step, reads=reads)

    def _read(self, node: Any, number: int) -> None:
        if is_recurrent_node(node):
            self._read_recurrent(node, number)
            return
        if node.op_type == "LSTM" and node.domain in ("", "ai.onnx"):
            reason = f"{label(node, number)} is an LSTM, which no layer of Tidegate is"
            self.layers.append(OnnxLayer(node.name or str(number), "LSTM", None, None, None, None, None, (), reason))
            self._refuse(reason)
            return
        try:
            operator, attributes = self._look_up(node, number)
        except InputValueError as error:
            self._refuse(str(error))
            return
        step = NodeStep(label(node, number), node.op_type, attributes, tuple(node.input), tuple(node.output))
        if operator.lays_out and all(name in self.constants for name in node.input if name):
            self._fold(step)
        else:
            self.steps.append(step)

    def _read_recurrent(self, node: Any, number: int) -> None:
        what, name = label(node, number), node.name or str(number)
        try:
            attributes = attributes_of(self.file, node, what, {} if node.domain == DOMAIN else ATTRIBUTES)
            self._check_version(what, 7)
            module = read_recurrent(what, node, attributes, self.constants)
        except (InputValueError, InputTypeError) as error:
            self.layers.append(OnnxLayer(name, node.op_type, None, None, None, None, None, (), str(error)))
            self._refuse(str(error))
            return
        key = name if name not in self.recurrent else f"{name} {number}"
        self.recurrent[key] = module
        inputs = (*node.input, *[""] * (6 - len(node.input)))
        self.steps.append(NodeStep(what, node.op_type, {}, inputs, tuple(node.output), key))
        layer = module.layer
        self.layers.append(
            OnnxLayer(
                name,
                "GRU" if node.domain == DOMAIN else node.op_type,
                layer,
                module.system,
                module.direction,
                None if layer is None else layer.input_size,
                None if layer is None else layer.hidden_size,
                tuple(_notes(module, inputs, self.constants)),
                None if layer is not None else f"the weights of {what} are computed when the graph runs",
            )
        )

    def _look_up(self, node: Any, number: int) -> tuple[Operator, dict[str, Any]]:
        """The function of a node and its attributes, or `InputValueError` with what is not known of it."""
        what = label(node, number)
        known = node.domain in ("", "ai.onnx") and node.op_type in OPERATORS
        if not known:
            domain = f" of the domain {node.domain!r}" if node.domain not in ("", "ai.onnx") else ""
            raise InputValueError(f"{what} has an operator that is not known here: {node.op_type}{domain}")
        operator = OPERATORS[node.op_type]
        self._check_version(what, operator.since)
        attributes = attributes_of(self.file, node, what, operator.attributes)
        for name in sorted(operator.needs - attributes.keys()):
            raise InputValueError(f"{what} must have the attribute {name!r}")
        self._check_values(what, node, operator)
        if node.op_type == "Cast" and attributes.get("to") not in DTYPES:
            raise InputValueError(f"{what} must be to a dtype that torch has; got ONNX's number {attributes.get('to')}")
        return operator, attributes

    def _check_values(self, what: str, node: Any, operator: Operator) -> None:
        """The node reads and makes as many values as its operator does."""
        least, most = operator.inputs
        given = list(node.input)
        if most is None and not given:
            raise InputValueError(f"{what} must be given at least {least} input; got none")
        if most is not None and not least <= len(given) <= most:
            raise InputValueError(f"{what} must have {least} to {most} inputs; got {len(given)}")
        needed = len(given) if most is None else least
        if not all(given[:needed]):
            raise InputValueError(f"{what} must be given its first {needed} inputs; got {given}")
        if operator.outputs is not None and len(node.output) > operator.outputs:
            raise InputValueError(f"{what} must have at most {operator.outputs} outputs; got {len(node.output)}")

    def _check_version(self, what: str, since: int) -> None:
        if self.file.opset < since:
            raise InputValueError(
                f"{what} must be of version {since} of ONNX's operators or later; got {self.file.opset}"
            )

    def _fold(self, step: NodeStep) -> None:
        """Run a node of constants that only lays them out anew."""
        read = [self.constants[name] if name else None for name in step.reads]
        self.file.spend(8 * sum(one.numel() for one in read if one is not None), f"what {step.label} makes")
        try:
            made = compute(step, read)
        except InputValueError as error:
            self._refuse(str(error))
            return
        for name, tensor in zip(step.makes, made, strict=False):
            self.constants[name] = tensor.contiguous()

    def _refuse(self, reason: str) -> None:
        self.refusal = self.refusal or f"the graph cannot be run: {reason}"


def _input(value: Any, optional: bool) -> InputSpec:
    kind = value.type.tensor_type
    sizes: tuple[int | str | None, ...] | None = None
    if kind.HasField("shape"):
        sizes = tuple(
            int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim
        )
    return InputSpec(value.name, DTYPES.get(kind.elem_type), sizes, optional)


def _optional(inputs: list[InputSpec]) -> frozenset[str]:
    return frozenset(one.name for one in inputs if one.optional)


def _notes(module: RecurrentNode, inputs: tuple[str, ...], constants: dict[str, Tensor]) -> list[str]:
    notes = []
    if module.direction == "reverse":
        notes.append("runs backwards only, so that the layer must be given reversed sequences")
    if module.batch_major:
        notes.append("has the batch as its first axis (layout 1); the layer has time")
    if not inputs[3]:
        notes.append("has no biases")
    if inputs[4]:
        notes.append("is given lengths, which the layer takes as lengths")
    if inputs[5]:
        whence = "a constant" if inputs[5] in constants else "computed by the graph"
        notes.append(f"is given its initial state, {whence}, which the layer takes as hx")
    return notes


def _written(text: str | None) -> tuple[dict[str, Any], ...]:
    """The records that `to_onnx` left in a file."""
    if text is None:
        return ()
    try:
        records = json.loads(text)
    except (ValueError, RecursionError):
        return ()  # somebody else's, or damaged: the graph tells what is in the file, this only what it came from
    return tuple(record for record in records if isinstance(record, dict)) if isinstance(records, list) else ()
