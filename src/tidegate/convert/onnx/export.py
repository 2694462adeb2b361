"""to_onnx: a trained model as an ONNX file, its recurrent layers as nodes whose state goes in and comes out.

torch's own exporter writes everything else. Recurrent layers are traced as one operator each (`standins.py`), which
becomes a GRU or RNN node; the file is then given names for its axes, initial states and a word on what is in it.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.convert.onnx.finish import Described, finish
from tidegate.convert.onnx.given import (
    Axes,
    Given,
    Inputs,
    check_names,
    read_axes,
    read_inputs,
    read_output_names,
    varying,
)
from tidegate.convert.onnx.standins import Slot, StandIn
from tidegate.convert.onnx.uses import Use, check_model, check_states, try_out
from tidegate.errors import FileError, InputTypeError, InputValueError
from tidegate.extras import require
from tidegate.nn.spec import describe, is_cell, is_recurrent

__all__ = ["to_onnx"]

#: The most that one protobuf message, and so one ONNX file, can hold.
_MOST_BYTES = 2**31 - 2**20
#: 18 is the first with all that is written, the last the newest that torch's exporter was tested with.
_OPSETS = range(18, 24)
_OPSET = 20

#: How torch's exporter says which operator it does not know, and torch.export which axis cannot vary.
_NO_TRANSLATION = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_FIXED_AXIS = re.compile(
    r"L\['(positional|named)'\]\[(\d+|'\w+')\]\.size\(\)\[(\d+)\] as dynamic but your code specialized .* \((\d+)\)"
)


def to_onnx(
    model: nn.Module,
    path: str | Path | None = None,
    inputs: Inputs | None = None,
    *,
    states: bool = True,
    axes: Axes | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = _OPSET,
) -> Any:
    """`model` in ONNX, in evaluation mode, and written to `path` if one is given; the model itself is not touched.

    Every recurrent layer, Tidegate's or torch.nn's, becomes one node for each of its layers, with axes that vary. Where
    the model leaves its initial state to the layer, the file has an input `state_in` and an output `state_out` for it,
    (L*D, B, H): what came out is fed back for the next piece of the sequence, of one step or many. Left out, `state_in`
    is what the layer begins with, zero or its learned `h_0`. In a model with several such layers the two are called
    `state_in.NAME` and `state_out.NAME`. What a backward direction gives depends on the end of the piece: a
    bidirectional layer has its states, but cannot be run piece by piece.

    Args:
        model: any module that `torch.export` can trace; what is refused is said by name.
        path: a file; one that is there is replaced, and nothing is written unless all went well.
        inputs: an example of what `model.forward` takes, by position or by name, with at least 2 along every axis that
            is to vary. A recurrent layer or cell by itself needs none; `{"input": x, "lengths": lengths}` gives the
            file lengths too.
        states: False leaves out `state_in` and `state_out`: every run begins anew.
        axes: for each input, a name for each axis that varies and None for those that do not; None for an input whose
            axes do not vary at all. By default all axes vary but the last of a floating input, which holds features.
        output_names: what the outputs of the model are called.
        opset: which version of ONNX's operators to write, 18 to 23.

    Returns:
        The file as `onnx.ModelProto`.

    Raises:
        InputValueError, InputTypeError: a module cannot be written, or an argument does not fit.
        FileError: `path` cannot be written.
        MissingExtraError: `tidegate[onnx]` is not installed.
    """
    require("onnx", "onnx"), require("onnxscript", "onnx")
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if type(opset) is not int or opset not in _OPSETS:
        raise InputValueError(f"opset must be {_OPSETS[0]} to {_OPSETS[-1]}; got {opset!r}")
    if path is not None and not isinstance(path, str | Path):
        raise InputTypeError(f"path must be a str or a Path; got {type(path).__name__}")
    model = _as_written(model)
    check_model(model)
    given = read_inputs(model, inputs)
    named_axes = read_axes(model, given, axes)
    size = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])
    if size > _MOST_BYTES:
        raise InputValueError(f"model must hold under 2 GiB to be one ONNX file; got {size / 2**30:.1f} GiB")
    with torch.compiler.set_stance("force_eager"):  # what is compiled is traced as it was written
        return _exported(model, given, named_axes, states, output_names, opset, path)


def _exported(
    model: nn.Module,
    given: Given,
    axes: dict[str, list[str | None] | None],
    states: bool,
    output_names: Sequence[str] | None,
    opset: int,
    path: str | Path | None,
) -> Any:
    """The file of a model and arguments that were read, and written if there is a path."""
    double, uses, outputs = try_out(model, given)
    for name, use in uses.items():
        if opset < 22 and describe(use.module).like.dtype == torch.bfloat16:
            raise InputValueError(f"opset must be at least 22 for module {name!r} of torch.bfloat16; got {opset}")
    if states:
        check_states(double, uses)
    slots = _stand_in(uses)
    carried = [name for name, use in uses.items() if states and use.own_state]
    traced = _Traced(double, [slots[name] for name in carried], states)
    examples = [_example(uses[name]) for name in carried]
    vary = varying(given, axes)
    with torch.no_grad(), _quiet():
        program = _trace(traced, given, examples, vary)
        names = [*given.names, *(_state_name("state_in", name, carried) for name in carried)]
        outs = read_output_names(outputs if traced.keeps_last(outputs) else outputs[:1], output_names)
        pairs = [_state_name(kind, name, carried) for kind in ("state_in", "state_out") for name in carried]
        check_names(given.names, outs, pairs)
        outs += [_state_name("state_out", name, carried) for name in carried]
        proto = _write(program, names, outs, opset)
    described = [
        Described(name, uses[name].module, slots[name], *_pair(name, carried)) for name in uses if uses[name].times
    ]
    finish(proto, described, axes, opset)
    if path is not None:
        _save(proto, Path(path))
    return proto


# ---------------------------------------------------------------------------------------------------------------------
# The double, traced and written


def _as_written(model: nn.Module) -> nn.Module:
    """The model itself, where `torch.compile` was put around it."""
    own: nn.Module = model.get_submodule("_orig_mod") if type(model).__name__ == "OptimizedModule" else model
    return own


def _stand_in(uses: dict[str, Use]) -> dict[str, Slot]:
    """Have every recurrent layer of the double run as its stand-in; it stays what it is for who asks for its sizes."""
    slots = {}
    for name, use in uses.items():
        slots[name] = Slot()
        stand_in = StandIn(name, use.module, slots[name])
        use.module.add_module("onnx", stand_in)
        use.module.forward = stand_in.forward
    return slots


class _Traced(nn.Module):
    """The model with the states of its layers among its inputs and outputs."""

    def __init__(self, model: nn.Module, slots: list[Slot], states: bool) -> None:
        super().__init__()
        self.model, self.slots = model, slots
        # the final state of a layer by itself is its state_out
        self.alone = states and bool(slots) and is_recurrent(model) and not is_cell(model)

    def keeps_last(self, outputs: list[str]) -> bool:
        """Whether all of the model's own outputs are among those of the file."""
        return not self.alone or len(outputs) == 1

    def forward(self, positional: tuple[Tensor, ...], named: dict[str, Tensor], states: tuple[Tensor, ...]) -> Any:
        """What the model returns, flat, and the states after it."""
        for slot, state in zip(self.slots, states, strict=True):
            slot.state_in = state
        result = torch.utils._pytree.tree_leaves(self.model(*positional, **named))
        outputs = result[:1] if self.alone else result
        return (*outputs, *(slot.state_out for slot in self.slots))


def _example(use: Use) -> Tensor:
    spec = describe(use.module)
    return spec.like.new_zeros(spec.states, use.batch if use.batched else 1, spec.hidden_size)


def _state_name(kind: str, name: str, carried: list[str]) -> str:
    return kind if len(carried) == 1 else f"{kind}.{name}"


def _pair(name: str, carried: list[str]) -> tuple[str | None, str | None]:
    if name not in carried:
        return None, None
    return _state_name("state_in", name, carried), _state_name("state_out", name, carried)


def _trace(traced: _Traced, given: Given, examples: list[Tensor], varying: list[dict[int, Any]]) -> Any:
    split = len(given.positional)
    states = tuple({1: torch.export.Dim.DYNAMIC} if state.shape[1] > 1 else {} for state in examples)
    named = dict(zip(given.named, varying[split:], strict=True))
    arguments = (given.positional, given.named, tuple(examples))
    try:
        return torch.export.export(
            traced, arguments, dynamic_shapes=(tuple(varying[:split]), named, states), strict=False
        )
    except (RuntimeError, ValueError) as error:  # whatever torch.export has to say about the model
        raise InputValueError(f"model cannot be traced by torch.export: {_fixed(given, error)}") from error


def _write(program: Any, names: list[str], outs: list[str], opset: int) -> Any:
    from torch.onnx.errors import OnnxExporterError  # noqa: PLC0415 - takes a second to load

    try:
        written = torch.onnx.export(
            program,
            input_names=names,
            output_names=outs,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    except OnnxExporterError as error:
        raise InputValueError(f"model cannot be written to ONNX: {_unknown(program, error)}") from error
    assert written is not None
    return written.model_proto


def _unknown(program: Any, error: BaseException) -> str:
    """Which module calls what has no counterpart in ONNX."""
    found = _NO_TRANSLATION.search(str(error))
    if found is None:
        return _sentence(error)
    name = found[1].rpartition(".")[2]  # the operator may be what torch takes the module's own call apart into
    for node in program.graph.nodes:
        if node.op == "call_function" and name in str(node.target):
            paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            module = paths[-1].removeprefix("model").removeprefix(".") if paths else ""
            return f"module {module!r} calls {node.target}, which torch's exporter has no translation for"
    return f"it calls {found[1]}, which torch's exporter has no translation for"


def _fixed(given: Given, error: BaseException) -> str:
    """Which axis the model takes to be always the same, or else the first words of the error."""
    found = _FIXED_AXIS.search(str(error))
    if found is None:
        return _sentence(error)
    place, key, axis, size = found.groups()
    name = given.names[int(key)] if place == "positional" else key.strip("'")
    return f"axis {axis} of {name} is to vary, but the model takes it to be {size} (axes says which vary)"


def _sentence(error: BaseException) -> str:
    """The first line of what an error says that has words in it."""
    lines = [line.strip(" -=*:") for line in str(error).splitlines()]
    return next((line for line in lines if any(letter.isalpha() for letter in line)), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of itself: packages that it does not need here, names that it will drop."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
        try:
            yield
        finally:
            logger.setLevel(level)


def _save(proto: Any, path: Path) -> None:
    """Write the file whole or not at all."""
    part = path.parent / f"{path.name}.part"
    try:
        part.write_bytes(proto.SerializeToString())
        part.replace(path)
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        with suppress(OSError, ValueError):
            part.unlink()
        told = getattr(error, "strerror", None) or error
        raise FileError(f"path must be a file that can be written; {str(path)!r} cannot: {told}") from error
