"""Look and steer: traces, memory maps, gradient flow and counterfactuals."""

from tidegate.gates.counterfactual import Counterfactual, counterfactual
from tidegate.gates.flow import GradientFlow, gradient_flow
from tidegate.gates.health import Finding, GateHealth, GateUse, gate_health
from tidegate.gates.inside import evaluating, recurrent_layers
from tidegate.gates.trace import DirectionTrace, LayerTrace, Trace, trace

__all__ = [
    "Counterfactual",
    "DirectionTrace",
    "Finding",
    "GateHealth",
    "GateUse",
    "GradientFlow",
    "LayerTrace",
    "Trace",
    "counterfactual",
    "evaluating",
    "gate_health",
    "gradient_flow",
    "recurrent_layers",
    "trace",
]
