"""The activations that a recurrent node of ONNX can name, as activations of a layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tidegate.equations import ACTIVATIONS, Activation
from tidegate.errors import InputValueError

__all__ = ["Clipped", "read_activations"]

#: For each activation what alpha and beta are where the node does not say; None where it takes none.
_PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "Affine": (1.0, 0.0),
    "Elu": (1.0, None),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "Relu": (None, None),
    "ScaledTanh": (1.0, 1.0),
    "Sigmoid": (None, None),
    "Softplus": (None, None),
    "Softsign": (None, None),
    "Tanh": (None, None),
    "ThresholdedRelu": (1.0, None),
}
_PLAIN = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}


@dataclass(frozen=True)
class OnnxActivation:
    """One of ONNX's activations that `equations.ACTIVATIONS` has no name for."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def __call__(self, value: Tensor) -> Tensor:  # noqa: PLR0911 - one a name
        """The activation, unit by unit."""
        match self.name:
            case "Affine":
                return self.alpha * value + self.beta
            case "Elu":
                return functional.elu(value, self.alpha)
            case "HardSigmoid":
                return (self.alpha * value + self.beta).clamp(0, 1)
            case "LeakyRelu":
                return functional.leaky_relu(value, self.alpha)
            case "ScaledTanh":
                return self.alpha * torch.tanh(self.beta * value)
            case "Softplus":
                return torch.logaddexp(value, torch.zeros_like(value))
            case "Softsign":
                return functional.softsign(value)
        return torch.where(value > self.alpha, value, 0)  # ThresholdedRelu


@dataclass(frozen=True)
class Clipped:
    """An activation of what was first brought into ±`threshold`."""

    activation: str | Activation
    threshold: float

    def __call__(self, value: Tensor) -> Tensor:
        """The activation, unit by unit."""
        g = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        return g(value.clamp(-self.threshold, self.threshold))


def read_activations(
    what: str, operator: str, ways: int, names: Sequence[str] | None, alphas: Sequence[float], betas: Sequence[float]
) -> str | Activation:
    """The one activation `g` of a GRU or RNN node with these attributes; `what` is the node in a sentence.

    Alphas and betas are taken in turn by those activations that have one, as runtimes do.
    """
    each = ["Sigmoid", "Tanh"] if operator == "GRU" else ["Tanh"]
    given = list(each * ways if names is None else names)
    if len(given) != len(each) * ways:
        raise InputValueError(f"activations of {what} must be {len(each) * ways}; got {given}")
    known = {name.lower(): name for name in _PARAMETERS}
    unknown = [name for name in given if name.lower() not in known]
    if unknown:
        raise InputValueError(f"activations of {what} must be among {', '.join(_PARAMETERS)}; got {unknown[0]!r}")
    left_alphas, left_betas = list(alphas), list(betas)
    read: list[str | OnnxActivation] = []
    for name in (known[name.lower()] for name in given):
        alpha, beta = _PARAMETERS[name]
        alpha = left_alphas.pop(0) if alpha is not None and left_alphas else alpha
        beta = left_betas.pop(0) if beta is not None and left_betas else beta
        read.append(_PLAIN[name] if name in _PLAIN else OnnxActivation(name, alpha or 0.0, beta or 0.0))
    if left_alphas or left_betas:
        raise InputValueError(
            f"activation_alpha and activation_beta of {what} must be taken by its activations {given}"
        )
    directions = [read[start : start + len(each)] for start in range(0, len(read), len(each))]
    if any(direction != directions[0] for direction in directions):
        raise InputValueError(
            f"activations of {what} must be the same in both directions, as a layer's are; got {given}"
        )
    *gates, candidate = directions[0]
    if gates and gates[0] != "sigmoid":
        raise InputValueError(f"the first of the activations of {what}, its gates', must be Sigmoid; got {given[0]!r}")
    return "identity" if candidate == OnnxActivation("Affine", 1.0, 0.0) else candidate
