"""Between a layer and a framework's arrays: one set of arrays for each layer and direction, in the order of `h_n`.

Nothing here knows a framework: what differs between them is read from their records in `conventions.py`.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import TypeVar

import torch
from torch import Tensor, nn

from tidegate.conventions import Convention, Framework, PackedWeights, fit, pack, read, unfit, unpack, write
from tidegate.convert.arrays import is_array, to_tensor
from tidegate.equations import Activation
from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn import GRU, RNN
from tidegate.nn.spec import NAMES, Spec, describe, opaque
from tidegate.ops.call import SYSTEMS
from tidegate.ops.functional import Reset, reset_of

__all__ = ["agreed", "cells_of", "layer_of", "place"]

T = TypeVar("T")


def cells_of(framework: Framework, layer: nn.Module) -> list[dict[str, Tensor]]:
    """The weights of a layer or cell as the arrays of `framework`: copies, one dict for each layer and direction.

    Raises:
        InputTypeError: the layer is not one that Tidegate knows, or one that the framework does not have.
        InputValueError: the framework has no room for a bias, for the activation or for a learned initial state.
    """
    spec = describe(layer)
    convention = _convention(framework, spec, layer)
    cells = []
    for number, packed in enumerate(packed for directions in spec.weights for packed in directions):
        own = PackedWeights(*(None if part is None else part.detach() for part in packed))  # type: ignore[arg-type]
        weights = unpack(SYSTEMS[spec.system].convention, own)
        reason = unfit(convention, weights)
        if reason is not None:
            raise InputValueError(
                f"layer must be one that {framework.name} can hold; {place(number, spec.directions)}: {reason}"
            )
        arrays = write(convention, fit(convention, weights))
        cells.append({name: array.clone(memory_format=torch.contiguous_format) for name, array in arrays.items()})
    return cells


def layer_of(
    framework: Framework,
    cells: Sequence[Mapping[str, object]],
    *,
    reset: Reset = "after",
    activation: str | Activation = "tanh",
    bidirectional: bool = False,
    batch_first: bool = False,
) -> GRU | RNN:
    """The layer whose weights are these arrays of `framework`, one set for each layer and direction.

    Raises:
        InputTypeError, InputValueError: an array is missing, unknown, of a wrong shape or dtype; nothing is made.
    """
    directions = 2 if bidirectional else 1
    if not cells or len(cells) % directions:
        expected = "two for each layer, forward and backward" if bidirectional else "one for each layer"
        raise InputValueError(f"cells must hold sets of arrays, {expected}; got {len(cells)}")
    systems = {_recognise(framework, cell, reset, place(number, directions)) for number, cell in enumerate(cells)}
    if len(systems) > 1:
        kinds = " and ".join(f"a {NAMES.get(system, system)}" for system in sorted(systems))
        raise InputValueError(f"cells must be of one kind to be one layer; got {kinds}: convert them one by one")
    (system,) = systems
    convention = framework.systems[system]
    sizes = _sizes(convention, cells, directions)
    packed = []
    for number, cell in enumerate(cells):
        arrays = _checked(convention, cell, sizes[number], place(number, directions))
        own = SYSTEMS[system].convention
        packed.append(pack(own, fit(own, read(convention, arrays))))
    _check_alike(packed, directions)
    return _made(system, packed, sizes[0], activation, bidirectional, batch_first)


def place(number: int, directions: int) -> str:
    """Where the set of arrays `number` stands in a stack, in words."""
    return f"layer {number // directions}{', backward' if number % directions else ''}"


def agreed(name: str, given: T | None, told: T) -> T:
    """What a source tells of itself, if an argument, where one was given, says the same."""
    if given is not None and given != told:
        raise InputValueError(f"{name} must be left out, or be {told!r} as the layer itself tells; got {given!r}")
    return told


def _convention(framework: Framework, spec: Spec, layer: nn.Module) -> Convention:
    """The layout of the layer's system, if the framework can hold such a layer."""
    reason = opaque(layer)
    if reason is not None:
        raise InputTypeError(f"layer must run as Tidegate's or torch.nn's do; {reason}")
    if spec.system not in framework.systems:
        has = " and ".join(f"a {NAMES.get(system, system)}" for system in framework.systems)
        raise InputTypeError(
            f"layer must be one that {framework.name} has, {has}; got a {NAMES.get(spec.system, spec.system)}"
        )
    activations = framework.activations[spec.system]
    if not isinstance(spec.activation, str) or spec.activation not in activations:
        known = ", ".join(f'"{name}"' for name in activations)
        got = repr(spec.activation) if isinstance(spec.activation, str) else "a function"
        raise InputValueError(f"layer must have an activation that {framework.name} has there, {known}; got {got}")
    if spec.h_0 is not None:
        raise InputValueError(f"layer must start from zeros, since {framework.name} keeps no h_0; it has learned one")
    if spec.dropouts.zoneout:
        raise InputValueError(
            f"layer must have no zoneout, which scales the update gate in evaluation too and which {framework.name} "
            f"does not have; it has {spec.dropouts.zoneout}"
        )
    if spec.like.is_meta:
        raise InputValueError("layer must have its weights; those on the meta device have no values")
    return framework.systems[spec.system]


def _recognise(framework: Framework, cell: object, reset: Reset, where: str) -> str:
    """The system whose arrays `cell` holds, told by their names and by how many blocks the recurrent one has."""
    if not isinstance(cell, Mapping):
        raise InputTypeError(f"{where}: the arrays must be a mapping by name; got {type(cell).__name__}")
    names = set(map(str, cell))
    by_name = {system: convention for system, convention in framework.systems.items() if _has_names(convention, names)}
    if not by_name:
        layouts = dict.fromkeys(", ".join(stored.name for stored in c.arrays) for c in framework.systems.values())
        raise InputValueError(f"{where}: the arrays must be {'; or '.join(layouts)}; got {', '.join(map(str, cell))}")
    of_blocks = {system for system, convention in by_name.items() if _fits(convention, cell)}
    if not of_blocks:
        raise InputValueError(f"{where}: {_recurrent_sentence(by_name, cell)}")
    gated = {system for system in of_blocks if framework.systems[system].reset in (None, reset)}
    if len(gated) != 1:
        raise InputValueError(f'{where}: reset must be "after" or "before" for these arrays; got {reset!r}')
    return gated.pop()


def _has_names(convention: Convention, names: Set[str]) -> bool:
    """Whether arrays of these names can be of that convention: every one but a bias, and no other."""
    needed = {stored.name for stored in convention.arrays if not _is_bias(stored.fields)}
    return needed <= names <= {stored.name for stored in convention.arrays}


def _is_bias(fields: Sequence[str]) -> bool:
    return all(field.startswith("bias") for field in fields)


def _recurrent(convention: Convention) -> tuple[str, int, bool]:
    """The name of the first array of recurrent weights, how many blocks it has, and whether it lies on its side."""
    stored = next(stored for stored in convention.arrays if stored.fields == ("weight_hh",))
    return stored.name, len(stored.blocks), stored.transposed


def _hidden_size(convention: Convention, cell: Mapping[str, object]) -> int | None:
    """The size that the recurrent weights tell, or None where they are not H by G*H."""
    name, blocks, transposed = _recurrent(convention)
    shape = tuple(getattr(cell[name], "shape", ()))
    if len(shape) != 2:
        return None
    width, rows = shape if transposed else shape[::-1]
    return width if width and rows == blocks * width else None


def _fits(convention: Convention, cell: Mapping[str, object]) -> bool:
    return _hidden_size(convention, cell) is not None


def _recurrent_sentence(conventions: Mapping[str, Convention], cell: Mapping[str, object]) -> str:
    """What the recurrent weights should have been."""
    layouts = [_recurrent(convention) for convention in conventions.values()]
    forms = dict.fromkeys(f"(H, {_times(g)})" if transposed else f"({_times(g)}, H)" for _, g, transposed in layouts)
    name = layouts[0][0]
    got = getattr(cell[name], "shape", type(cell[name]).__name__)
    return f"{name} must be {' or '.join(forms)}; got {tuple(got) if is_array(cell[name]) else got}"


def _times(blocks: int) -> str:
    return "H" if blocks == 1 else f"{blocks}*H"


def _sizes(convention: Convention, cells: Sequence[Mapping[str, object]], directions: int) -> list[tuple[int, int]]:
    """The input size and hidden size of every set of arrays; they must be those of one stack."""
    hidden = [_hidden_size(convention, cell) for cell in cells]
    first = hidden[0]
    assert first is not None
    for number, size in enumerate(hidden):
        if size != first:
            raise InputValueError(
                f"cells must have one hidden size to be one layer; {place(0, directions)} has {first}, "
                f"{place(number, directions)} has {size}: convert them one by one"
            )
    stored = next(stored for stored in convention.arrays if stored.fields == ("weight_ih",))
    shape = tuple(getattr(cells[0][stored.name], "shape", ()))
    if len(shape) != 2 or 0 in shape:
        axes = f"(I, {_times(len(stored.blocks))})" if stored.transposed else f"({_times(len(stored.blocks))}, I)"
        raise InputValueError(f"{place(0, directions)}: {stored.name} must be {axes}; got {shape}")
    inputs = shape[0] if stored.transposed else shape[1]
    return [(inputs if number < directions else directions * first, first) for number in range(len(cells))]


def _checked(
    convention: Convention, cell: Mapping[str, object], sizes: tuple[int, int], where: str
) -> dict[str, Tensor]:
    """The arrays as tensors, all of them there, of the shape that the sizes ask for and of one dtype."""
    biases = [stored.name for stored in convention.arrays if _is_bias(stored.fields)]
    absent = [name for name in biases if cell.get(name) is None]
    if absent and (convention.needs_bias or len(absent) < len(biases)):
        raise InputValueError(f"{where}: the arrays must hold {', '.join(biases)}; missing: {', '.join(absent)}")
    arrays: dict[str, Tensor] = {}
    for stored in convention.arrays:
        if stored.name in absent:
            continue
        tensor = to_tensor(f"{where}: {stored.name}", cell[stored.name])
        if tuple(tensor.shape) != stored.shape(*sizes):
            raise InputValueError(
                f"{where}: {stored.name} must be {stored.shape(*sizes)} where the input has {sizes[0]} and the state "
                f"{sizes[1]} numbers; got {tuple(tensor.shape)}"
            )
        arrays[stored.name] = tensor
    return arrays


def _check_alike(packed: Sequence[PackedWeights], directions: int) -> None:
    """One layer has one dtype, and biases everywhere or nowhere."""
    first = packed[0]
    for number, weights in enumerate(packed):
        where = place(number, directions)
        for tensor in weights:
            if tensor is not None and tensor.dtype != first.weight_ih.dtype:
                expected, got = first.weight_ih.dtype, tensor.dtype
                raise InputTypeError(f"{where}: all arrays must have one dtype, {expected} as the first; got {got}")
        if (weights.bias_ih is None) != (first.bias_ih is None):
            raise InputValueError(
                f"{where}: the biases must be there in all cells or in none; they differ from layer 0"
            )


def _made(
    system: str,
    packed: Sequence[PackedWeights],
    sizes: tuple[int, int],
    activation: str | Activation,
    bidirectional: bool,
    batch_first: bool,
) -> GRU | RNN:
    """A layer with these weights; no random number is drawn for it."""
    first = packed[0]
    directions = 2 if bidirectional else 1
    make: Callable[..., GRU | RNN] = RNN if system == "rnn" else GRU
    options: dict[str, object] = {} if system == "rnn" else {"reset": reset_of(system)}
    if system == "rnn" and activation in ("tanh", "relu"):
        options["nonlinearity"] = activation  # torch.nn's own name for it, which other tools look at
    else:
        options["activation"] = activation
    layer = make(
        *sizes,
        num_layers=len(packed) // directions,
        bias=first.bias_ih is not None,
        bidirectional=bidirectional,
        batch_first=batch_first,
        device="meta",
        dtype=first.weight_ih.dtype,
        **options,
    )
    layer.to_empty(device="cpu")
    with torch.no_grad():
        for number, weights in enumerate(packed):
            suffix = f"_l{number // directions}{'_reverse' if number % directions else ''}"
            for name, tensor in weights._asdict().items():
                if tensor is not None:
                    getattr(layer, name + suffix).copy_(tensor)
    return layer
