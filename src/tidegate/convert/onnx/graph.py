"""A graph of ONNX as a torch module: its nodes in their order, recurrent ones as layers, the others as functions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.convert.onnx.nodes import RecurrentNode
from tidegate.convert.onnx.operators import OPERATORS
from tidegate.errors import InputTypeError, InputValueError

__all__ = ["InputSpec", "NodeStep", "OnnxModel", "compute"]


@dataclass(frozen=True)
class InputSpec:
    """An input of a graph: its name, and what the file says of its dtype and sizes, None where it does not."""

    name: str
    dtype: torch.dtype | None
    sizes: tuple[int | str | None, ...] | None
    #: It may be left out: the file has a value for it.
    optional: bool

    def check(self, value: object) -> Tensor:
        """`value`, if it is such an input."""
        if not isinstance(value, Tensor):
            raise InputTypeError(f"{self.name} must be a torch.Tensor; got {type(value).__name__}")
        if self.dtype is not None and value.dtype != self.dtype:
            raise InputTypeError(f"{self.name} must be {self.dtype}; got {value.dtype}")
        if self.sizes is not None:
            pairs = list(zip(self.sizes, value.shape, strict=False))
            if len(self.sizes) != value.ndim or any(isinstance(size, int) and size != got for size, got in pairs):
                axes = ", ".join("?" if size is None else str(size) for size in self.sizes)
                raise InputValueError(f"{self.name} must be ({axes}); got {tuple(value.shape)}")
        return value


@dataclass(frozen=True)
class NodeStep:
    """One node that runs: what it is called, its operator or module, and the values that it reads and makes."""

    label: str
    operator: str
    attributes: Mapping[str, Any]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    module: str | None = None


#: What torch raises where shapes, dtypes or numbers do not go together, and what the operators here do.
_MISFITS = (RuntimeError, ValueError, IndexError, TypeError, OverflowError)


def compute(step: NodeStep, read: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """What a node that is not recurrent makes of what it reads; raises `InputValueError` where the two don't fit."""
    operator = OPERATORS[step.operator]
    told = {"outputs": len(step.makes)} if operator.counts_outputs else {}
    try:
        made = operator.function(*read, **step.attributes, **told)
    except _MISFITS as error:
        raise InputValueError(f"{step.label} cannot be computed: {str(error).partition(chr(10))[0]}") from error
    return (made,) if isinstance(made, Tensor) else tuple(made)


class OnnxModel(nn.Module):
    """A graph of ONNX as a torch module: takes the graph's inputs, by position or by name, and gives its outputs.

    Recurrent nodes hold Tidegate's layers, to be traced and trained like any other. Floating tensors of the file with
    at least one axis are parameters, the others buffers: ONNX does not say which of them were trained.
    """

    def __init__(
        self,
        inputs: Sequence[InputSpec],
        outputs: Sequence[str],
        steps: Sequence[NodeStep],
        recurrent: Mapping[str, RecurrentNode],
        constants: Mapping[str, Tensor],
        fixed: frozenset[str],
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._steps = list(steps)
        self._modules_of = dict(zip(recurrent, _identifiers(recurrent), strict=True))
        for name, module in recurrent.items():
            self.add_module(self._modules_of[name], module)
        self._constants = dict(zip(constants, _identifiers(constants, self._modules_of.values()), strict=True))
        for name, tensor in constants.items():
            if tensor.is_floating_point() and tensor.ndim and name not in fixed:
                self.register_parameter(self._constants[name], nn.Parameter(tensor))
            else:
                self.register_buffer(self._constants[name], tensor)
        last = {name: number for number, step in enumerate(steps) for name in step.reads}
        self._done_with = [
            [name for name in {*step.reads, *step.makes} if last.get(name, -1) <= number and name not in self.outputs]
            for number, step in enumerate(steps)
        ]

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs' names, in the order of the arguments; those with a value of their own come last."""
        return tuple(one.name for one in self.inputs)

    def forward(self, *positional: Tensor, **named: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the graph: its only output, or all of them in the order of `outputs`."""
        values = {name: getattr(self, attribute) for name, attribute in self._constants.items()}
        values |= self._read(positional, named)
        for step, done in zip(self._steps, self._done_with, strict=True):
            read = [values[name] if name else None for name in step.reads]
            made = self._run(step, read)
            for name, value in zip(step.makes, made, strict=False):
                values[name] = value
            for name in done:
                values.pop(name, None)
        results = tuple(values[name] for name in self.outputs)
        return results[0] if len(results) == 1 else results

    def _run(self, step: NodeStep, read: list[Tensor | None]) -> tuple[Tensor, ...]:
        if step.module is None:
            return compute(step, read)
        module = self.get_submodule(self._modules_of[step.module])
        made: tuple[Tensor, ...] = module(
            *(one if one is not None or number > 2 else torch.empty(0) for number, one in enumerate(read))
        )
        return made

    def _read(self, positional: Sequence[object], named: Mapping[str, object]) -> dict[str, Tensor]:
        names = self.input_names
        if len(positional) > len(names):
            raise InputTypeError(f"the model takes {len(names)} inputs, {', '.join(names)}; got {len(positional)}")
        given = dict(zip(names, positional, strict=False))
        for name, value in named.items():
            if name not in names:
                raise InputTypeError(f"the inputs are called {', '.join(names)}; got {name!r}")
            if name in given:
                raise InputTypeError(f"{name} must be given once; got it by position and by name")
            given[name] = value
        for one in self.inputs:
            if one.name not in given and not one.optional:
                raise InputTypeError(f"the model needs {one.name}; got {', '.join(given) or 'nothing'}")
        return {one.name: one.check(given[one.name]) for one in self.inputs if one.name in given}


def _identifiers(names: Any, taken: Any = ()) -> list[str]:
    """A name for each of `names` that a module's attribute can have."""
    used = {*taken, *dir(nn.Module)}
    made = []
    for name in names:
        plain = re.sub(r"\W", "_", name) or "node"
        plain = f"n{plain}" if plain[0].isdigit() or plain[0] == "_" else plain
        one, number = plain, 2
        while one in used:
            one, number = f"{plain}_{number}", number + 1
        used.add(one)
        made.append(one)
    return made
