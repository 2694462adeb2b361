"""The variants of a GRU and of its cell: which system the arguments name, and the gains of a layer-normalised one."""

import torch
from torch import Tensor, nn

from tidegate.errors import InputTypeError, InputValueError
from tidegate.ops.functional import Reset, reset_of, system_of

__all__ = ["Gated", "add_gain", "gru_system", "reset_gains"]


class Gated:
    """What GRU and GRUCell tell of their variant. It is what `system` says, and is chosen when a layer is made."""

    system: str

    @property
    def reset(self) -> Reset:
        """What the reset gate multiplies: the product with the past ("after" it), the past ("before"), or None."""
        return reset_of(self.system)

    @property
    def layer_norm(self) -> bool:
        """Whether every product is normalised over the layer's units."""
        return self.system == "gru-layer-norm"

    def _printed_variant(self) -> str:
        """What differs from torch.nn's."""
        return ("" if self.reset == "after" else f", reset={self.reset!r}") + ", layer_norm=True" * self.layer_norm


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
