"""Weights and whole models in and out: torch.nn, Keras, Flax NNX, Equinox, ONNX, and the notes' own layout.

Each format's module loads when a name of it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tidegate.convert.accelerate import accelerate, restore

if TYPE_CHECKING:
    from tidegate.convert.changes import Changes, Layer
    from tidegate.convert.equinox import from_equinox, to_equinox
    from tidegate.convert.flax import from_flax, to_flax
    from tidegate.convert.keras import from_keras, to_keras
    from tidegate.convert.keras_file import read_keras_file
    from tidegate.convert.keras_record import KerasLayer
    from tidegate.convert.notes import from_notes, to_notes
    from tidegate.convert.onnx import (
        OnnxFile,
        OnnxLayer,
        OnnxModel,
        OnnxNode,
        from_onnx,
        from_onnx_nodes,
        to_onnx,
        to_onnx_nodes,
    )
    from tidegate.convert.state_dict import StateDictLayer, layers_of, read_state_dict
    from tidegate.convert.torch_nn import from_torch, to_torch

__all__ = [
    "Changes",
    "KerasLayer",
    "Layer",
    "OnnxFile",
    "OnnxLayer",
    "OnnxModel",
    "OnnxNode",
    "StateDictLayer",
    "accelerate",
    "from_equinox",
    "from_flax",
    "from_keras",
    "from_notes",
    "from_onnx",
    "from_onnx_nodes",
    "from_torch",
    "layers_of",
    "read_keras_file",
    "read_state_dict",
    "restore",
    "to_equinox",
    "to_flax",
    "to_keras",
    "to_notes",
    "to_onnx",
    "to_onnx_nodes",
    "to_torch",
]

#: The names that each module has.
_NAMES = {
    "changes": ("Changes", "Layer"),
    "equinox": ("from_equinox", "to_equinox"),
    "flax": ("from_flax", "to_flax"),
    "keras": ("from_keras", "to_keras"),
    "keras_file": ("read_keras_file",),
    "keras_record": ("KerasLayer",),
    "notes": ("from_notes", "to_notes"),
    "onnx": (
        "OnnxFile", "OnnxLayer", "OnnxModel", "OnnxNode", "from_onnx", "from_onnx_nodes", "to_onnx", "to_onnx_nodes",
    ),
    "state_dict": ("StateDictLayer", "layers_of", "read_state_dict"),
    "torch_nn": ("from_torch", "to_torch"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
