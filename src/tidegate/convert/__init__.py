"""Weights and whole models in and out: torch.nn, Keras, Flax NNX, Equinox, ONNX, and the notes' own layout."""

from tidegate.convert.accelerate import accelerate, restore
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
from tidegate.convert.torch_nn import from_torch, to_torch

__all__ = [
    "Changes",
    "KerasLayer",
    "Layer",
    "OnnxFile",
    "OnnxLayer",
    "OnnxModel",
    "OnnxNode",
    "accelerate",
    "from_equinox",
    "from_flax",
    "from_keras",
    "from_notes",
    "from_onnx",
    "from_onnx_nodes",
    "from_torch",
    "read_keras_file",
    "restore",
    "to_equinox",
    "to_flax",
    "to_keras",
    "to_notes",
    "to_onnx",
    "to_onnx_nodes",
    "to_torch",
]
