"""Look and steer: traces, memory maps, gradient flow and counterfactuals."""

from tidegate.gates.counterfactual import Counterfactual, counterfactual
from tidegate.gates.flow import GradientFlow, gradient_flow
from tidegate.gates.inside import recurrent_layers
from tidegate.gates.trace import DirectionTrace, LayerTrace, Trace, trace

__all__ = [
    "Counterfactual",
    "DirectionTrace",
    "GradientFlow",
    "LayerTrace",
    "Trace",
    "counterfactual",
    "gradient_flow",
    "recurrent_layers",
    "trace",
]
