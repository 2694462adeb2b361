"""Tidegate: gated recurrent networks whose memory can be seen and steered."""

import importlib
from typing import TYPE_CHECKING, Any

from tidegate import convert
from tidegate.convert import accelerate, restore
from tidegate.gates import Trace, counterfactual, gate_health, gradient_flow, losses, trace
from tidegate.nn import GRU, RNN, Dense, Dropouts, GRUCell, RNNCell, explain, init
from tidegate.ops import Pins
from tidegate.stream import Stream

if TYPE_CHECKING:
    from tidegate.diagnosis.doctor import doctor

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

#: What loads when its name is asked for: the doctor; and what trains, on a floor above this front, with all it needs.
_LATER = {
    "GRUClassifier": "tidegate.train.estimators",
    "GRURegressor": "tidegate.train.estimators",
    "doctor": "tidegate.diagnosis.doctor",
    "fit": "tidegate.train.run",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_LATER]
