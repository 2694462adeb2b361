"""What `to_onnx` is given: example inputs, which of their axes vary, and what the file's values are called."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn.spec import describe, is_cell, is_recurrent

__all__ = ["Axes", "Given", "Inputs", "check_names", "read_axes", "read_inputs", "read_output_names", "varying"]

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Axes = Sequence[Sequence[str | None] | None]


@dataclass(frozen=True)
class Given:
    """The example inputs, by position and by name."""

    positional: tuple[Tensor, ...]
    named: dict[str, Tensor]
    names: list[str]

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in the order of `names`."""
        return [*self.positional, *self.named.values()]


def read_inputs(model: nn.Module, inputs: Inputs | None) -> Given:
    """The example inputs, if the model's forward takes such; a recurrent layer by itself needs none."""
    if inputs is None:
        if not is_recurrent(model):
            raise InputValueError("inputs must be an example of what the model takes; got None")
        inputs = (_example_input(model),)
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    given = _by_position_or_name(model, inputs)
    if not given.names:
        raise InputValueError("inputs must hold at least one tensor; got none")
    for name, tensor in zip(given.names, given.tensors, strict=True):
        if isinstance(tensor, PackedSequence):
            raise InputTypeError(f"{name} must be a tensor; got a PackedSequence, for which ONNX takes lengths")
        if not isinstance(tensor, Tensor):
            raise InputTypeError(f"{name} must be a torch.Tensor; got {type(tensor).__name__}")
    try:
        inspect.signature(model.forward).bind(*given.positional, **given.named)
    except TypeError as error:
        raise InputTypeError(f"inputs must be what the model's forward takes: {error}") from error
    return given


def _by_position_or_name(model: nn.Module, inputs: Sequence[Tensor] | Mapping[str, Tensor]) -> Given:
    if isinstance(inputs, Mapping):
        return Given((), _each_its_own(inputs), [str(name) for name in inputs])
    if not isinstance(inputs, list | tuple):
        raise InputTypeError(f"inputs must be a tensor, tensors or tensors by name; got {type(inputs).__name__}")
    parameters = inspect.signature(model.forward).parameters.values()
    plain = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    names = [plain[number] if number < len(plain) else f"input_{number}" for number in range(len(inputs))]
    return Given(tuple(_each_its_own(dict(enumerate(inputs))).values()), {}, names)


def _each_its_own(inputs: Mapping[Any, Any]) -> dict[Any, Any]:
    """The inputs, each another object: of one that is given twice, `torch.export` would make one input."""
    seen: set[int] = set()
    own = {}
    for name, value in inputs.items():
        own[name] = value.clone() if id(value) in seen and isinstance(value, Tensor) else value
        seen.add(id(value))
    return own


def _example_input(module: nn.Module) -> Tensor:
    """Zeros that fit a recurrent layer or cell."""
    spec = describe(module)
    if is_cell(module):
        return spec.like.new_zeros(2, spec.input_size)
    return (
        spec.like.new_zeros(2, 3, spec.input_size) if spec.batch_first else spec.like.new_zeros(3, 2, spec.input_size)
    )


def read_axes(model: nn.Module, given: Given, axes: Axes | None) -> dict[str, list[str | None] | None]:
    """The names of the axes by input, checked; without any, "" for those that vary by default."""
    if axes is None:
        return {name: _by_default(model, name, tensor) for name, tensor in zip(given.names, given.tensors, strict=True)}
    if isinstance(axes, str) or not isinstance(axes, Sequence):
        raise InputTypeError(f"axes must be a list, with an entry for each input; got {type(axes).__name__}")
    if len(axes) != len(given.names):
        raise InputValueError(f"axes must name the axes of {len(given.names)} inputs; got {len(axes)}")
    read: dict[str, list[str | None] | None] = {}
    for name, tensor, own in zip(given.names, given.tensors, axes, strict=True):
        if own is None:
            read[name] = None
            continue
        if isinstance(own, str) or not isinstance(own, Sequence):
            raise InputTypeError(f"axes of {name} must be a list of names or None; got {type(own).__name__}")
        if (odd := next((word for word in own if word is not None and not isinstance(word, str)), None)) is not None:
            raise InputTypeError(f"axes of {name} must be names or None; one is an {type(odd).__name__}")
        if len(own) != tensor.ndim:
            raise InputValueError(f"axes of {name} must be {tensor.ndim} names or None; got {len(own)}")
        if (twice := next((word for word in own if word is not None and own.count(word) > 1), None)) is not None:
            raise InputValueError(f"axes of {name} must have a name each; got {twice!r} twice")
        read[name] = list(own)
    return read


def _by_default(model: nn.Module, name: str, tensor: Tensor) -> list[str | None]:
    """All axes vary but the last of a floating input, and the layers of a state that is given to a layer."""
    vary = [True] * (tensor.ndim - 1) + [not tensor.is_floating_point()] * bool(tensor.ndim)
    if name == "hx" and is_recurrent(model) and not is_cell(model):
        vary[0] = False
    return ["" if one else None for one in vary]


def varying(given: Given, axes: Mapping[str, Sequence[str | None] | None]) -> list[dict[int, Any]]:
    """For each input, the axes that vary, as `torch.export` is told them."""
    told: list[dict[int, Any]] = []
    for name, tensor in zip(given.names, given.tensors, strict=True):
        vary = [axis for axis, word in enumerate(axes[name] or ()) if word is not None]
        for axis in vary:
            if tensor.shape[axis] < 2:
                raise InputValueError(
                    f"{name} must hold at least 2 along axis {axis}, which varies (axes says which do);"
                    f" got {tuple(tensor.shape)}"
                )
        told.append(dict.fromkeys(vary, torch.export.Dim.DYNAMIC))
    return told


def read_output_names(names: list[str], given: Sequence[str] | None) -> list[str]:
    """What the outputs are called: by the caller, or else by the model."""
    if given is None:
        return list(names)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputTypeError(f"output_names must be a list of names; got {type(given).__name__}")
    if (odd := next((name for name in given if not isinstance(name, str)), None)) is not None:
        raise InputTypeError(f"output_names must be a list of names; one is an {type(odd).__name__}")
    if len(given) != len(names) or len(set(given)) != len(given) or not all(given):
        raise InputValueError(f"output_names must be {len(names)} different names; got {list(given)}")
    return list(given)


def check_names(inputs: Iterable[str], outputs: Sequence[str], states: Sequence[str]) -> None:
    """No two values of a file have one name."""
    for name in inputs:
        if name in states:
            raise InputValueError(
                f"inputs must not be called {name!r}, the file's name of a state (states=False leaves it out)"
            )
    for name in outputs:
        if name in states or name in inputs or outputs.count(name) > 1:
            raise InputValueError(
                f"output_names must not be what an input or a state is called; got {name!r} (without any, the model's "
                "own names are taken)"
            )
