"""to_onnx: a trained model as an ONNX file, its recurrent layers as nodes whose state goes in and comes out.

torch's own exporter writes everything else. Recurrent layers are traced as one operator each (`standins.py`), which
becomes a GRU or RNN node; the file is then given names for its axes, initial states and a word on what is in it.
"""

import copy
import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate.convert.onnx.finish import Described, finish
from tidegate.convert.onnx.standins import Slot, StandIn, check_writable
from tidegate.errors import FileError, InputTypeError, InputValueError
from tidegate.extras import require
from tidegate.nn.spec import describe, is_cell, is_recurrent, opaque

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

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Axes = Sequence[Sequence[str | None] | None]


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
    given = _read_inputs(model, inputs)
    size = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])
    if size > _MOST_BYTES:
        raise InputValueError(f"model must hold under 2 GiB to be one ONNX file; got {size / 2**30:.1f} GiB")
    double, uses, outputs = _try(model, given)
    for name, use in uses.items():
        if opset < 22 and describe(use.module).like.dtype == torch.bfloat16:
            raise InputValueError(f"opset must be at least 22 for module {name!r} of torch.bfloat16; got {opset}")
    if states:
        _check_states(double, uses)
    slots = _stand_in(uses)
    carried = [name for name, use in uses.items() if states and use.own_state]
    traced = _Traced(double, [slots[name] for name in carried], states)
    examples = [_example(uses[name]) for name in carried]
    varying = _varying(given, axes)
    with torch.no_grad(), _quiet():
        program = _trace(traced, given, examples, varying)
        names = [*given.names, *(_state_name("state_in", name, carried) for name in carried)]
        outs = _output_names(outputs if traced.keeps_last(outputs) else outputs[:1], output_names)
        outs += [_state_name("state_out", name, carried) for name in carried]
        proto = _write(program, names, outs, opset)
    described = [
        Described(name, uses[name].module, slots[name], *_pair(name, carried)) for name in uses if uses[name].times
    ]
    finish(proto, described, dict(zip(given.names, axes, strict=True)) if axes is not None else {}, opset)
    if path is not None:
        _save(proto, Path(path))
    return proto


# ---------------------------------------------------------------------------------------------------------------------
# What came


@dataclass(frozen=True)
class _Given:
    """The example inputs, by position and by name."""

    positional: tuple[Tensor, ...]
    named: dict[str, Tensor]
    names: list[str]

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in the order of `names`."""
        return [*self.positional, *self.named.values()]


def _read_inputs(model: nn.Module, inputs: Inputs | None) -> _Given:
    if inputs is None:
        if not is_recurrent(model):
            raise InputValueError("inputs must be an example of what the model takes; got None")
        inputs = (_example_input(model),)
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if isinstance(inputs, Mapping):
        given = _Given((), dict(inputs), [str(name) for name in inputs])
    elif isinstance(inputs, list | tuple):
        parameters = list(inspect.signature(model.forward).parameters.values())
        plain = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        names = [plain[number] if number < len(plain) else f"input_{number}" for number in range(len(inputs))]
        given = _Given(tuple(inputs), {}, names)
    else:
        raise InputTypeError(f"inputs must be a tensor, tensors or tensors by name; got {type(inputs).__name__}")
    if not given.names:
        raise InputValueError("inputs must hold at least one tensor; got none")
    for name, tensor in zip(given.names, given.tensors, strict=True):
        if isinstance(tensor, PackedSequence):
            raise InputTypeError(f"{name} must be a tensor; got a PackedSequence, for which ONNX takes lengths")
        if not isinstance(tensor, Tensor):
            raise InputTypeError(f"{name} must be a torch.Tensor; got {type(tensor).__name__}")
    return given


def _example_input(module: nn.Module) -> Tensor:
    """Zeros that fit a recurrent layer or cell."""
    spec = describe(module)
    if is_cell(module):
        return spec.like.new_zeros(2, spec.input_size)
    return (
        spec.like.new_zeros(2, 3, spec.input_size) if spec.batch_first else spec.like.new_zeros(3, 2, spec.input_size)
    )


def _varying(given: _Given, axes: Axes | None) -> list[dict[int, Any]]:
    """For each input, the axes that vary, as `torch.export` is told them."""
    if axes is not None and len(axes) != len(given.names):
        raise InputValueError(f"axes must name the axes of {len(given.names)} inputs; got {len(axes)}")
    told: list[dict[int, Any]] = []
    for number, (name, tensor) in enumerate(zip(given.names, given.tensors, strict=True)):
        if axes is None:
            vary = list(range(tensor.ndim - (1 if tensor.is_floating_point() and tensor.ndim else 0)))
        else:
            own = axes[number] or [None] * tensor.ndim
            if len(own) != tensor.ndim:
                raise InputValueError(f"axes of {name} must be {tensor.ndim} names or None; got {len(own)}")
            vary = [axis for axis, word in enumerate(own) if word is not None]
        for axis in vary:
            if tensor.shape[axis] < 2:
                raise InputValueError(
                    f"{name} must hold at least 2 along axis {axis}, which varies (axes says which do);"
                    f" got {tuple(tensor.shape)}"
                )
        told.append(dict.fromkeys(vary, torch.export.Dim.DYNAMIC))
    return told


# ---------------------------------------------------------------------------------------------------------------------
# The model, run once as it is, to see what it does with its recurrent layers


@dataclass(eq=False)
class _Use:
    """How the model used one recurrent layer."""

    module: nn.Module
    times: int = 0
    #: The layer began with its own initial state.
    own_state: bool = False
    batch: int = 1
    batched: bool = True
    inputs: list[str] = field(default_factory=list)


def _try(model: nn.Module, given: _Given) -> tuple[nn.Module, dict[str, _Use], list[str]]:
    """A double of the model that shares its tensors, run once; the uses of its layers; its outputs' names."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    double = copy.deepcopy(model, shared).eval()
    uses = {name: _Use(part) for name, part in double.named_modules() if is_recurrent(part)}
    watching = []
    for name, use in uses.items():
        if (reason := opaque(use.module)) is not None:
            raise InputTypeError(f"module {name!r} cannot be written to ONNX: {reason}")
        check_writable(name, use.module)
        watching.append(use.module.register_forward_pre_hook(_watch(name, use), with_kwargs=True))
    with torch.no_grad():
        result = double(*given.positional, **given.named)
    for hook in watching:
        hook.remove()
    return double, uses, _names_of(double, result)


def _check_states(double: nn.Module, uses: dict[str, _Use]) -> None:
    """Refuse a model whose states cannot all come in and go out."""
    for name, part in double.named_modules():
        if isinstance(part, nn.LSTM | nn.LSTMCell):
            raise InputValueError(f"states must be False: nothing carries the state of module {name!r}, an LSTM")
    for name, use in uses.items():
        if use.times > 1 and use.own_state:
            raise InputValueError(
                f"states must be False: module {name!r} runs {use.times} times, with a state each time"
            )


def _watch(name: str, use: _Use) -> Any:
    """A hook that notes how a layer is called, and refuses what its node could not do."""

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        known = dict(zip(("input", "hx"), args, strict=False)) | kwargs
        x = known["input"]
        if isinstance(x, PackedSequence):
            raise InputTypeError(f"module {name!r} is given a PackedSequence, for which ONNX takes lengths")
        for key in ("mask", "pins"):
            if known.get(key) is not None:
                raise InputValueError(f"module {name!r} is given {key}, which no node of ONNX takes; lengths it does")
        if known.get("lengths") is not None and not isinstance(known["lengths"], Tensor):
            raise InputTypeError(f"module {name!r} must be given lengths as a tensor, or they could not vary")
        use.times += 1
        use.own_state = use.own_state or known.get("hx") is None
        use.batched = x.ndim == (2 if is_cell(module) else 3)
        if use.batched:
            use.batch = x.shape[0 if is_cell(module) or getattr(module, "batch_first", False) else 1]

    return see


def _names_of(model: nn.Module, result: Any) -> list[str]:
    """A name for each tensor that the model returned."""
    leaves = torch.utils._pytree.tree_leaves(result)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise InputTypeError("model must return tensors, alone or in tuples, lists and dicts, for ONNX to have them")
    if isinstance(result, Mapping) and len(leaves) == len(result):
        return [str(name) for name in result]
    if is_recurrent(model):
        return ["output", "h_n"][: len(leaves)]
    return ["output"] if len(leaves) == 1 else [f"output_{number}" for number in range(len(leaves))]


def _output_names(names: list[str], given: Sequence[str] | None) -> list[str]:
    if given is None:
        return list(names)
    if len(given) != len(names) or len(set(given)) != len(given):
        raise InputValueError(f"output_names must be {len(names)} different names; got {list(given)}")
    return list(given)


# ---------------------------------------------------------------------------------------------------------------------
# The double, traced and written


def _stand_in(uses: dict[str, _Use]) -> dict[str, Slot]:
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


def _example(use: _Use) -> Tensor:
    spec = describe(use.module)
    return spec.like.new_zeros(spec.states, use.batch if use.batched else 1, spec.hidden_size)


def _state_name(kind: str, name: str, carried: list[str]) -> str:
    return kind if len(carried) == 1 else f"{kind}.{name}"


def _pair(name: str, carried: list[str]) -> tuple[str | None, str | None]:
    if name not in carried:
        return None, None
    return _state_name("state_in", name, carried), _state_name("state_out", name, carried)


def _trace(traced: _Traced, given: _Given, examples: list[Tensor], varying: list[dict[int, Any]]) -> Any:
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


def _fixed(given: _Given, error: BaseException) -> str:
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
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(proto.SerializeToString())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FileError(f"path must be a file that can be written; {str(path)!r} cannot: {error.strerror}") from error
