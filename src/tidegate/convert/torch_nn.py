"""torch.nn's layers, as layers of their own: the weights are the same, and are copied."""

import torch
from torch import nn

from tidegate.conventions import TORCH
from tidegate.convert.cells import cells_of, layer_of
from tidegate.nn import GRU, RNN
from tidegate.nn.spec import describe, is_cell

__all__ = ["from_torch", "to_torch"]


def to_torch(layer: nn.Module) -> nn.GRU | nn.RNN:
    """A new `torch.nn.GRU` or `torch.nn.RNN` with the layer's weights, dropout, mode, dtype and device.

    A cell becomes a layer of one. Raises `InputTypeError` or `InputValueError` for what torch.nn does not have: a reset
    gate before the product or none, an activation other than tanh (and relu, for an RNN), a learned `h_0`.
    """
    cells, spec = cells_of(TORCH, layer), describe(layer)
    bias = spec.weights[0][0].bias_ih is not None
    sizes = (spec.input_size, spec.hidden_size, len(spec.weights))
    both = spec.directions == 2
    twin: nn.GRU | nn.RNN
    if spec.system == "gru":
        twin = nn.GRU(*sizes, bias, spec.batch_first, bidirectional=both, device="meta", dtype=spec.like.dtype)
    else:
        g = str(spec.activation)
        twin = nn.RNN(*sizes, g, bias, spec.batch_first, bidirectional=both, device="meta", dtype=spec.like.dtype)
    twin.to_empty(device=spec.like.device)
    twin.dropout = float(getattr(layer, "dropout", 0.0))
    with torch.no_grad():
        for names, cell in zip(twin._all_weights, cells, strict=True):
            for name in names:
                getattr(twin, name).copy_(cell[name.partition("_l")[0]])
    return twin.train(layer.training)


def from_torch(module: nn.Module) -> GRU | RNN:
    """A new `tidegate.GRU` or `tidegate.RNN` with the weights, dropout, mode, dtype and device of torch.nn's layer.

    A cell becomes a layer of one. Raises `InputTypeError` for any other module.
    """
    spec = describe(module)
    layer = layer_of(
        TORCH,
        cells_of(TORCH, module),
        activation=spec.activation,
        bidirectional=spec.directions == 2,
        batch_first=spec.batch_first,
    )
    layer.dropout = 0.0 if is_cell(module) else float(getattr(module, "dropout", 0.0))
    return layer.to(spec.like.device).train(module.training)
