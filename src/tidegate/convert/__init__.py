"""Weights and whole models in and out of Tidegate."""

from tidegate.convert.accelerate import accelerate, restore
from tidegate.convert.changes import Changes, Layer

__all__ = ["Changes", "Layer", "accelerate", "restore"]
