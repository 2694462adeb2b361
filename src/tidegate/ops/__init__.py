"""Recurrence as differentiable operators, and the only place that chooses a backend."""

from tidegate.ops.backends import BACKENDS, Choice, Stepper, choose, run, stepper
from tidegate.ops.call import SYSTEMS, Call, Steps
from tidegate.ops.functional import gru, rnn
from tidegate.ops.pins import Pins

__all__ = [
    "BACKENDS",
    "SYSTEMS",
    "Call",
    "Choice",
    "Pins",
    "Stepper",
    "Steps",
    "choose",
    "gru",
    "rnn",
    "run",
    "stepper",
]
