"""Tidegate: gated recurrent networks whose memory can be seen and steered."""

from tidegate import convert
from tidegate.convert import accelerate, restore
from tidegate.diagnosis import doctor
from tidegate.gates import Trace, counterfactual, gate_health, gradient_flow, trace
from tidegate.nn import GRU, RNN, Dense, Dropouts, GRUCell, RNNCell, explain, init
from tidegate.ops import Pins
from tidegate.stream import Stream

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "RNN",
    "Dense",
    "Dropouts",
    "GRUCell",
    "Pins",
    "RNNCell",
    "Stream",
    "Trace",
    "accelerate",
    "convert",
    "counterfactual",
    "doctor",
    "explain",
    "gate_health",
    "gradient_flow",
    "init",
    "restore",
    "trace",
]
