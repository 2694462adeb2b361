"""Tidegate: gated recurrent networks whose memory can be seen and steered."""

from tidegate import convert
from tidegate.gates import Trace, counterfactual, gradient_flow, trace
from tidegate.nn import GRU, RNN, Dense, GRUCell, RNNCell, explain, init
from tidegate.ops import Pins
from tidegate.stream import Stream

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "RNN",
    "Dense",
    "GRUCell",
    "Pins",
    "RNNCell",
    "Stream",
    "Trace",
    "convert",
    "counterfactual",
    "explain",
    "gradient_flow",
    "init",
    "trace",
]
