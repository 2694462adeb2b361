"""The gains of a layer-normalised GRU: which system it is, its parameters, and their first value."""

import torch
from torch import Tensor, nn

from tidegate.errors import InputTypeError, InputValueError
from tidegate.ops.functional import Reset, system_of

__all__ = ["add_gain", "gru_system", "reset_gains"]


def gru_system(reset: Reset, *, layer_norm: bool) -> str:
    """The system's name for a GRU's arguments."""
    system = system_of(reset)
    if not isinstance(layer_norm, bool):
        raise InputTypeError(f"layer_norm must be a bool; got {type(layer_norm).__name__}")
    if not layer_norm:
        return system
    if reset != "after":
        raise InputValueError(f'layer_norm must be False unless reset is "after"; got True with reset={reset!r}')
    return "gru-layer-norm"


def add_gain(module: nn.Module, weight: str) -> None:
    """Give the module the gain that goes with its weight of this name: ones, for each of its rows."""
    rows = getattr(module, weight)
    assert isinstance(rows, Tensor)
    gain = torch.nn.Parameter(rows.detach().new_ones(rows.shape[0]))
    module.register_parameter(weight.replace("weight", "gain", 1), gain)


@torch.no_grad()
def reset_gains(module: nn.Module) -> None:
    """Every gain of the module itself becomes 1."""
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("gain_"):
            parameter.fill_(1)
