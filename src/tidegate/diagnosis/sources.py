"""The recurrent layers of whatever the doctor is given, a model or a file of one of the known kinds: a record each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from tidegate import conventions
from tidegate.conventions import Convention
from tidegate.convert.accelerate import prospects
from tidegate.convert.changes import sizes_of
from tidegate.diagnosis.program import model_of
from tidegate.diagnosis.words import layout_of
from tidegate.errors import FileError, InputTypeError, InputValueError
from tidegate.gates import evaluating
from tidegate.nn.run import choices
from tidegate.nn.spec import NAMES, Recurrent, describe, is_cell, is_recurrent, opaque
from tidegate.ops.call import SYSTEMS

__all__ = ["Found", "Source", "open_source"]


@dataclass(frozen=True, eq=False)
class Found:
    """One recurrent layer of a source."""

    name: str
    others: tuple[str, ...]
    kind: str
    sizes: str
    variant: str | None
    layout: str | None
    backend: str
    notes: tuple[str, ...]
    #: What can be run; None where it can't.
    layer: nn.Module | None
    #: What has the weights, if they were read.
    holder: nn.Module | None


@dataclass(frozen=True, eq=False)
class Source:
    """A model or file, opened."""

    #: In words.
    what: str
    layers: tuple[Found, ...]
    notes: tuple[str, ...]
    #: The whole, where it can be run on data; where it is None, only the layers can.
    model: nn.Module | None = None


def open_source(source: nn.Module | str | Path, *, batch_first: bool) -> Source:
    """Read the source, whatever it is; `batch_first` is for the layers of state dicts, which do not tell.

    Raises:
        FileMissingError, FileError: the file is not there, damaged, or of a kind that is not known.
        InputValueError, InputTypeError: the source is nothing of the sort, or the user's code fails.
    """
    if not isinstance(source, nn.Module | str | Path):
        raise InputTypeError(
            f"source must be a torch.nn.Module, a path or module:function; got {type(source).__name__}"
        )
    suffix = "" if isinstance(source, nn.Module) else Path(source).suffix.lower()
    if batch_first and suffix not in _STATE_DICTS:
        raise InputValueError("batch_first must be left out but for a state dict: everything else tells it; got True")
    if isinstance(source, nn.Module):
        return _of_model(f"the model, of class {type(source).__name__}", source)
    path = Path(source)
    if suffix in _STATE_DICTS:
        return _of_state_dict(path, batch_first)
    if suffix in _READERS:
        return _READERS[suffix](path)
    if not path.exists() and ":" in str(source):
        return _of_model(f"{str(source)!r}", model_of(str(source)))
    if suffix in (".h5", ".hdf5"):
        raise FileError(f"{str(path)!r} must be saved by Keras 3 as .keras: its older files are not read")
    known = ", ".join([*_STATE_DICTS, *_READERS])
    raise FileError(f"{str(path)!r} must be a file called {known}, or module:function, which returns a model")


def _of_model(what: str, model: nn.Module) -> Source:
    with evaluating(model):
        found = [
            _of_module(module, layer.name, layer.others, layer.kind, layer.reason, changes=layer.backend is not None)
            for module, layer in prospects(model)
        ]
    return Source(what, tuple(found), (), model)


def _of_module(
    module: nn.Module, name: str, others: tuple[str, ...], kind: str, reason: str, *, changes: bool
) -> Found:
    known = is_recurrent(module) and opaque(module) is None and not isinstance(module, torch.jit.ScriptModule)
    if isinstance(module, Recurrent) and known:
        backend = _chosen(module)
    elif changes:
        backend = f"torch.nn's own; after tg.accelerate(model) it {reason}"
    elif isinstance(module, Recurrent):
        backend = f"its own code: {opaque(module)}"
    else:
        own = "its own code" if is_recurrent(module) and not known else "torch.nn's own"
        backend = f"{own}; tg.accelerate(model) leaves it: {reason}"
    notes = ("the model calls it step by step",) if is_cell(module) else ()
    if not known:
        return Found(name, others, kind, sizes_of(module), None, None, backend, notes, None, module)
    return _found(name, others, kind, "torch.nn", SYSTEMS[describe(module).system].convention, backend, notes, module)


def _found(
    name: str,
    others: tuple[str, ...],
    kind: str,
    framework: str,
    convention: Convention,
    backend: str,
    notes: tuple[str, ...],
    layer: nn.Module,
) -> Found:
    """A layer that Tidegate can run."""
    spec = describe(layer)
    g = spec.activation if isinstance(spec.activation, str) else "an activation of its own"
    learned = ", a learned initial state" if spec.h_0 is not None else ""
    bias = spec.weights[0][0].bias_ih is not None
    layout = layout_of(framework, convention, bias=bias)
    return Found(
        name, others, kind, sizes_of(layer), f"{NAMES[spec.system]}, {g}{learned}", layout, backend, notes, layer, layer
    )


def _chosen(layer: nn.Module) -> str:
    """What runs a layer of Tidegate's on a short sequence, in evaluation and in training where that differs."""
    spec = describe(layer)
    x = spec.like.new_empty(1, 1, spec.input_size)
    with evaluating(layer):
        quiet = _in_words(layer, x)
        layer.training = True  # its parametrizations stay in evaluation, where they change nothing of themselves
        learning = _in_words(layer, x)
    return quiet if quiet == learning else f"{quiet}; in training {learning}"


def _in_words(layer: nn.Module, x: torch.Tensor) -> str:
    told = {place: f"{choice.backend} ({choice.reason})" for place, choice in choices(layer, x)}
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{place}: {words}" for place, words in told.items())


def _of_state_dict(path: Path, batch_first: bool) -> Source:
    from tidegate.convert.state_dict import layers_of, read_state_dict  # noqa: PLC0415 - loads what this file needs

    state = read_state_dict(path)
    try:
        layers = layers_of(state)
    except InputValueError as error:
        raise FileError(f"{str(path)!r} holds weights that fit no layer: {error}") from error
    found = []
    for one in layers:
        if one.layer is None or not is_recurrent(one.layer):
            sizes = "" if one.layer is None else sizes_of(one.layer)
            reason = one.refusal or "Tidegate does not have it"
            backend = f"nothing here: {reason}"
            found.append(Found(one.name, (), one.kind, sizes, None, None, backend, one.notes, None, one.layer))
            continue
        if hasattr(one.layer, "batch_first"):
            vars(one.layer)["batch_first"] = batch_first
        convention = SYSTEMS[describe(one.layer).system].convention
        found.append(_found(one.name, (), one.kind, "torch.nn", convention, _chosen(one.layer), one.notes, one.layer))
    names = ", ".join([*list(state)[:3], *(["..."] if len(state) > 3 else [])])
    notes = () if found else (f"no weights are called weight_ih or weight_hh; its {len(state)} tensors are {names}",)
    return Source(repr(str(path)), tuple(found), notes)


def _of_keras(path: Path) -> Source:
    from tidegate.convert.keras import from_keras  # noqa: PLC0415 - loads what this file needs
    from tidegate.convert.keras_file import read_keras_file  # noqa: PLC0415

    found = []
    for one in read_keras_file(path):
        both = ", both ways" if one.bidirectional else ""
        sizes = f"{one.input_size} to {one.units}{both}"
        try:
            layer = from_keras(one, batch_first=True)
        except (InputTypeError, InputValueError) as error:
            reason = "Tidegate does not have it" if one.class_name == "LSTM" else str(error)
            found.append(
                Found(one.path, (), one.class_name, sizes, None, None, f"nothing here: {reason}", (), None, None)
            )
            continue
        convention = conventions.KERAS.systems[describe(layer).system]
        found.append(_found(one.path, (), one.class_name, "Keras", convention, _chosen(layer), (), layer.eval()))
    return Source(repr(str(path)), tuple(found), ())


_ONNX: dict[str, Convention] = {
    "rnn": conventions.ONNX_RNN,
    "update-only": conventions.ONNX_UPDATE_ONLY,
    "gru": replace(conventions.ONNX_GRU, reset="after"),
    "gru-reset-before": replace(conventions.ONNX_GRU, reset="before"),
}


def _of_onnx(path: Path) -> Source:
    from tidegate.convert.onnx import from_onnx  # noqa: PLC0415 - loads onnx

    file = from_onnx(path)
    model = None if file.refusal is not None else file.model().eval()
    names = {} if model is None else {id(module): name for name, module in model.named_modules()}
    found = []
    for one in file.layers:
        if one.layer is None or one.variant is None:
            reason = f"nothing here: {one.refusal}"
            found.append(Found(one.name, (), one.operator, "", one.variant, None, reason, one.notes, None, None))
            continue
        name = names.get(id(one.layer), one.name)
        convention = _ONNX[one.variant]
        found.append(
            _found(name, (), one.operator, "ONNX", convention, _chosen(one.layer), one.notes, one.layer.eval())
        )
    notes = [] if file.version is None else [f"written by Tidegate {file.version}"]
    notes += [] if file.refusal is None else [file.refusal]
    return Source(repr(str(path)), tuple(found), tuple(notes), model)


_STATE_DICTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
_READERS: dict[str, Callable[[Path], Source]] = {".keras": _of_keras, ".onnx": _of_onnx}
