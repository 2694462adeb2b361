"""`doctor`: what a model or a file holds that is recurrent and, on data, how its gates do."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tidegate.diagnosis.records import Diagnosis, LayerDiagnosis
from tidegate.diagnosis.sources import Found, Source, open_source
from tidegate.diagnosis.unchanged import unchanged
from tidegate.errors import InputTypeError, InputValueError
from tidegate.gates import Finding, GateHealth, evaluating, gate_health, recurrent_layers
from tidegate.nn.spec import describe

__all__ = ["doctor"]

Array = Tensor | NDArray[Any]
#: The health of a layer; or why it was not looked at; or None, if nobody asked.
Seen = tuple[GateHealth, ...] | str | None


def doctor(
    source: nn.Module | str | Path, data: Array | None = None, *, layer: str | None = None, batch_first: bool = False
) -> Diagnosis:
    """Every recurrent layer of a model or file: what it computes, how its weights lie, what runs it and why.

    With `data` also the health of its gates, as `gate_health` tells it, with a line of advice for whatever is wrong.
    Files are read without running code from them. A model is left as it was: its weights and buffers, attributes and
    modes, and torch's random state; only what its own `forward` changes in place elsewhere is beyond reach.

    Args:
        source: a model; or the path of a `.pt`, `.pth`, `.ckpt`, `.bin` or `.safetensors` file with a state dict, of a
            `.keras` file or of a `.onnx` file; or "module:function", which is imported and called, and returns a model.
        data: numbers to run the model on, in evaluation mode: the one argument of its `forward`. A state dict and a
            Keras file tell the layers, not how the model runs: there they go to one layer, as (T, B, I) in a state dict
            and (B, T, I) in Keras. Floating numbers are taken in the dtype of the weights.
        layer: the layer whose gates are looked at; a model's all if not given; a file's that takes as many numbers
            a step as the data have.
        batch_first: the layers of a state dict take (B, T, I); other sources tell that themselves.

    Raises:
        FileMissingError, FileError: the file is not there, damaged, or of a kind that is not known.
        InputValueError, InputTypeError: an argument is wrong, the model cannot be run on the data, or a function
            of the user's fails.
        MissingExtraError: a package that the file needs is not installed.
    """
    opened = open_source(source, batch_first=batch_first)
    names = [found.name for found in opened.layers]
    if layer is not None and layer not in names:
        listed = ", ".join(map(repr, names)) or "none"
        raise InputValueError(f"layer must be one of the recurrent layers, {listed}; got {layer!r}")
    if layer is not None and data is None:
        raise InputValueError(f"layer must be left out where there are no data to look at it on; got {layer!r}")
    seen: list[Seen] = [None] * len(names) if data is None else _look(opened, data, layer)
    return Diagnosis(opened.what, tuple(map(_diagnosis, opened.layers, seen)), opened.notes)


def _diagnosis(found: Found, seen: Seen) -> LayerDiagnosis:
    return LayerDiagnosis(
        name=found.name,
        others=found.others,
        kind=found.kind,
        sizes=found.sizes,
        variant=found.variant,
        layout=found.layout,
        backend=found.backend,
        notes=found.notes,
        findings=() if found.holder is None else _of_weights(found.holder),
        health=seen if isinstance(seen, tuple) else (),
        unseen=seen if isinstance(seen, str) else None,
    )


def _of_weights(layer: nn.Module) -> tuple[Finding, ...]:
    """What is wrong with the weights themselves."""
    bad = [name for name, weight in layer.named_parameters() if not weight.is_meta and not weight.isfinite().all()]
    if not bad:
        return ()
    return (
        Finding(
            "not finite",
            f"{', '.join(bad)} hold NaN or infinite numbers",
            "training went wrong before this was saved: go back to an earlier checkpoint, and clip the gradient",
        ),
    )


def _look(source: Source, data: Array, layer: str | None) -> list[Seen]:
    """The health of each layer, as far as it is looked at."""
    if source.model is None:
        receiver = _receiver(source, data, layer)
        x = _as_tensor(data, describe(_layer(receiver)).like, whole=False)
        health = gate_health(_layer(receiver), x)
        elsewhere = f"the data went to {receiver.name!r}, and the file does not tell what reaches this one"
        return [health if found is receiver else elsewhere for found in source.layers]
    with unchanged(source.model):
        return _look_inside(source, source.model, data, layer)


def _look_inside(source: Source, model: nn.Module, data: Array, layer: str | None) -> list[Seen]:
    """The health of each layer of a model that is run whole."""
    held = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    if any(parameter.is_meta for parameter in held):
        raise InputValueError("the model must have its weights to be run on data; some are on the meta device")
    alone = any(found.layer is model for found in source.layers)
    x = _as_tensor(data, held[0] if held else torch.empty(0), whole=not alone)
    if alone:
        return [gate_health(model, x)]
    _check_runs(model, x)
    layers = recurrent_layers(model)
    return [
        _seen(model, x, found, inside=found.name in layers) if layer is None or found.name == layer else None
        for found in source.layers
    ]


def _seen(model: nn.Module, x: Tensor, found: Found, *, inside: bool) -> Seen:
    """The health of one layer of a model that runs, or why it cannot be looked into."""
    if found.layer is None:
        return "what it computes is not known"
    try:
        if not inside:
            return "it is a cell, which the model calls step by step"
        return gate_health(model, x, layer=found.name)
    except (InputTypeError, InputValueError) as error:
        return str(error)


def _receiver(source: Source, data: Array, layer: str | None) -> Found:
    """The layer of a file that the data are for."""
    able = [found for found in source.layers if found.layer is not None and (layer is None or found.name == layer)]
    if not able:
        raise InputValueError("data must be left out: the file holds no layer that can be run on them")
    width = data.shape[-1] if data.ndim else 0
    fitting = [found for found in able if describe(_layer(found)).input_size == width]
    if len(fitting) == 1:
        return fitting[0]
    sizes = ", ".join(f"{found.name!r} {describe(_layer(found)).input_size}" for found in able)
    if not fitting:
        raise InputValueError(
            f"data must have as many numbers a step as a layer takes, {sizes}; got {tuple(data.shape)}"
        )
    names = ", ".join(repr(found.name) for found in fitting)
    raise InputValueError(f"layer must say which one the data are for, {names}; got None")


def _layer(found: Found) -> nn.Module:
    assert found.layer is not None
    return found.layer


def _as_tensor(data: Array, like: Tensor, *, whole: bool) -> Tensor:
    """The data where the weights are, floating numbers in their dtype; `whole` ones stay so, as torch's indices."""
    if isinstance(data, np.ndarray):
        if data.dtype.kind not in "fiub":
            raise InputTypeError(f"data must be real numbers; got {data.dtype}")
        tensor = torch.from_numpy(data.astype(data.dtype.newbyteorder("=")))
    elif isinstance(data, Tensor):
        tensor = data.detach()
    else:
        raise InputTypeError(f"data must be a tensor or an array; got {type(data).__name__}")
    if tensor.is_floating_point() or not whole:
        return tensor.to(like.device, like.dtype)
    return tensor.to(like.device, tensor.dtype if tensor.dtype == torch.bool else torch.int64)


def _check_runs(model: nn.Module, x: Tensor) -> None:
    """Raise with the model's own error, in a sentence, if it does not run on `x`."""
    try:
        with evaluating(model), torch.no_grad():
            model(x)
    except Exception as error:  # the user's own code: anything
        told = str(error).strip().partition("\n")[0]
        raise InputValueError(
            f"the model cannot be run on data of {tuple(x.shape)}, {x.dtype}: {type(error).__name__}: {told}"
        ) from error
