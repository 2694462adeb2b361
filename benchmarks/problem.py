"""What every competitor is given, the same numbers for all, and what torch makes of them in float64."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.rounds import Results
from benchmarks.shapes import Shape

__all__ = ["WEIGHTS", "Problem"]

#: The weights of `torch.nn.GRU` without its suffix.
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Problem:
    """One layer with torch's initial weights, a random input, and what is to come out.

    `x` is (T, B, I); the loss of training is `(y*g).sum()` with `g` (T, B, H), and the gradients of the four weights
    are asked for.
    """

    shape: Shape
    x: NDArray[np.float32] = field(init=False, repr=False)
    g: NDArray[np.float32] = field(init=False, repr=False)
    weights: dict[str, NDArray[np.float32]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        batch, steps, inputs, units = self.shape
        set_once = object.__setattr__
        set_once(self, "x", random.standard_normal((steps, batch, inputs), dtype=np.float32))
        set_once(self, "g", random.standard_normal((steps, batch, units), dtype=np.float32))
        sizes = {"weight_ih": (3 * units, inputs), "weight_hh": (3 * units, units)}
        width = units**-0.5
        set_once(
            self,
            "weights",
            {name: random.uniform(-width, width, sizes.get(name, (3 * units,))).astype(np.float32) for name in WEIGHTS},
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights as `torch.nn.GRU` names them."""
        return {f"{name}_l0": torch.from_numpy(array) for name, array in self.weights.items()}

    @cached_property
    def output(self) -> Results:
        """What comes out, in float64."""
        with torch.no_grad():
            output, _ = self._exact()(torch.from_numpy(self.x).double())
        return {"output": output.numpy()}

    @cached_property
    def training(self) -> Results:
        """What comes out and the gradients, in float64."""
        exact = self._exact()
        output, _ = exact(torch.from_numpy(self.x).double())
        (output * torch.from_numpy(self.g)).sum().backward()
        gradients = {name: getattr(exact, f"{name}_l0").grad.numpy() for name in WEIGHTS}
        return {"output": output.detach().numpy(), **gradients}

    def _exact(self) -> torch.nn.GRU:
        exact = torch.nn.GRU(self.shape.inputs, self.shape.units).double()
        exact.load_state_dict(self.state_dict())
        return exact
