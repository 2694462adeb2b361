"""Tidegate: gated recurrent networks whose memory can be seen and steered."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate import convert
    from tidegate.convert.accelerate import accelerate, restore
    from tidegate.diagnosis.doctor import doctor
    from tidegate.gates import losses
    from tidegate.gates.counterfactual import counterfactual
    from tidegate.gates.flow import gradient_flow
    from tidegate.gates.health import gate_health
    from tidegate.gates.trace import Trace, trace
    from tidegate.nn import init
    from tidegate.nn.cells import GRUCell, RNNCell
    from tidegate.nn.dense import Dense
    from tidegate.nn.dropouts import Dropouts
    from tidegate.nn.layers import GRU, RNN
    from tidegate.nn.run import explain
    from tidegate.ops.pins import Pins
    from tidegate.stream.stream import Stream

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "RNN",
    "Dense",
    "Dropouts",
    "GRUCell",
    "GRUClassifier",
    "GRURegressor",
    "Pins",
    "RNNCell",
    "Stream",
    "Trace",
    "accelerate",
    "convert",
    "counterfactual",
    "doctor",
    "explain",
    "fit",
    "gate_health",
    "gradient_flow",
    "init",
    "losses",
    "restore",
    "trace",
]

#: Each name, and the module that it is in: all load when they are first asked for, so that the command line answers at
#: once where it needs no torch. What trains is on a floor above this front, with all that it needs.
_IN = {
    **dict.fromkeys(("accelerate", "restore"), "tidegate.convert"),
    **dict.fromkeys(("GRUClassifier", "GRURegressor"), "tidegate.train.estimators"),
    **dict.fromkeys(("Trace", "counterfactual", "gate_health", "gradient_flow", "losses", "trace"), "tidegate.gates"),
    **dict.fromkeys(("GRU", "RNN", "Dense", "Dropouts", "GRUCell", "RNNCell", "explain", "init"), "tidegate.nn"),
    "Pins": "tidegate.ops",
    "Stream": "tidegate.stream",
    "doctor": "tidegate.diagnosis.doctor",
    "fit": "tidegate.train.run",
}
_MODULES = ("conventions", "convert", "equations", "errors", "extras", "gates", "nn", "ops", "stream")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(_IN[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_IN, *_MODULES})
