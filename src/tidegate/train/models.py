"""Models that answer a question about a sequence: normalise, remember, answer; built from a plain configuration."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tidegate.errors import InputValueError
from tidegate.nn import GRU, RNN, Dense

__all__ = ["ClassifierConfig", "SequenceClassifier", "SystemName"]

SystemName = Literal["dense", "rnn", "update-only", "gru", "gru-reset-before"]


_LENGTH = 4.0  # root mean square length of a normalised input


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that is needed to build a `SequenceClassifier` again, apart from its weights."""

    system: SystemName
    input_size: int
    hidden_size: int
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON can hold it."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassifierConfig":
        """The inverse of `to_dict`; raises `InputValueError` for a name or a value that cannot be."""
        names = [field.name for field in fields(cls)]
        if sorted(values) != sorted(names):
            raise InputValueError(f"a configuration must hold {', '.join(names)}; got {', '.join(values) or 'nothing'}")
        if values["system"] not in get_args(SystemName):
            raise InputValueError(f"system must be one of {', '.join(get_args(SystemName))}; got {values['system']!r}")
        for name in ("input_size", "hidden_size"):
            if type(values[name]) is not int or values[name] < 1:
                raise InputValueError(f"{name} must be an int of at least 1; got {values[name]!r}")
        classes = values["classes"]
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise InputValueError(f"classes must be a list of names; got {classes!r}")
        return cls(values["system"], values["input_size"], values["hidden_size"], tuple(classes))


class SequenceClassifier(nn.Module):
    """One recurrent layer over a sequence and one linear map from its final state to the classes' scores."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.input_size))
        self.register_buffer("scale", torch.ones(config.input_size))
        self.layer = _layer(config)
        self.head = nn.Linear(config.hidden_size, len(config.classes))

    def normalise_by(self, examples: Float[Tensor, "N I"]) -> None:
        """Fit the normalisation to training examples: each feature to mean 0 and one spread, and inputs to length 4.

        The length keeps a fresh layer's gates where their biases put them. PyTorch draws weights with a variance of
        1/(3H), so an input of length `l` moves each gate by `l/sqrt(3H)`; the unit spread of hundreds of pixels that
        move together would add up, saturate the gates and undo `chrono_`.
        """
        self.mean.copy_(examples.mean(0))
        self.scale.copy_(_LENGTH / examples.shape[1] ** 0.5 / examples.std(0).clamp_min(1e-3))

    def normalise(self, x: Float[Tensor, "T B I"]) -> Float[Tensor, "T B I"]:
        """The input as the recurrent layer takes it."""
        return (x - self.mean) * self.scale

    def forward(self, x: Float[Tensor, "T B I"]) -> Float[Tensor, "B C"]:
        """The classes' scores (logits) after the last step."""
        _, h_n = self.layer(self.normalise(x))
        scores: Tensor = self.head(h_n[-1])
        return scores


def _layer(config: ClassifierConfig) -> nn.Module:
    sizes = (config.input_size, config.hidden_size)
    match config.system:
        case "dense":
            return Dense(*sizes)
        case "rnn":
            return RNN(*sizes)
        case "update-only":
            return GRU(*sizes, reset=None)
        case "gru":
            return GRU(*sizes)
        case "gru-reset-before":
            return GRU(*sizes, reset="before")
