"""What the files of the contract share: the systems by name, and the axes over which every promise is tested."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.contract.cases import (
    BACKENDS,
    SMALL,
    SYSTEMS,
    WIDE,
    Inputs,
    Size,
)
from tidegate.equations import Pinned
from tidegate.ops import Pins
from tidegate.ops.pins import resolve

DENSE, RNN, RNN_RELU, UPDATE_ONLY, GRU, GRU_RESET_BEFORE, GRU_LAYER_NORM = SYSTEMS
#: Those that a pin turns into an RNN: a normalised layer stays normalised.
GATED = [UPDATE_ONLY, GRU, GRU_RESET_BEFORE]
FLOAT32, FLOAT64 = torch.float32, torch.float64
NOT_FINITE = [torch.nan, torch.inf, -torch.inf]
Outputs = dict[str, Tensor]

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_system = pytest.mark.parametrize("case", SYSTEMS, ids=str)
both_sizes = pytest.mark.parametrize("size", [SMALL, WIDE], ids=str)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
both_dtypes = pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=["float32", "float64"])


def prefix_mask(size: Size) -> Tensor:
    """Lengths from nothing to everything, in no order."""
    lengths = torch.randperm(size.B) % (size.T + 1)
    lengths[0], lengths[-1] = 0, size.T
    return torch.arange(size.T).unsqueeze(-1) < lengths


MASKS: dict[str, Callable[[Size], Tensor]] = {
    "prefix": prefix_mask,
    "suffix": lambda size: prefix_mask(size).flip(0),
    "holes": lambda size: torch.rand(size.T, size.B) < 0.5,
    "one hole for all": lambda size: (torch.arange(size.T) != 2).unsqueeze(-1).expand(-1, size.B),
    "nothing": lambda size: torch.zeros(size.T, size.B, dtype=torch.bool),
    "everything": lambda size: torch.ones(size.T, size.B, dtype=torch.bool),
}


def pinned_to(inputs: Inputs, *pins: Pins) -> Pinned:
    """The pins, laid out for these inputs."""
    shape = (*inputs.x.shape[:2], inputs.h_0.shape[-1])
    return resolve(pins, shape, inputs.x)
