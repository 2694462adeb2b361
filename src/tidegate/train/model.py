"""The network that is trained on sequences: encode, remember, answer; built from a plain configuration."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from tidegate.data.sequences import Feature
from tidegate.errors import InputValueError
from tidegate.gates import Trace, trace
from tidegate.nn import GRU, RNN, Dense, Dropouts
from tidegate.train.encoder import Encoder

__all__ = ["ModelConfig", "SequenceModel", "Variant"]

Variant = Literal["dense", "rnn", "update-only", "gru", "gru-reset-before", "gru-layer-norm"]


#: The dropouts of a recurrent layer, and what each is called in `Dropouts`.
_DROPOUTS = {
    "recurrent_dropout": "state",
    "input_dropout": "inputs",
    "candidate_dropout": "candidate",
    "weight_dropout": "weight",
    "zoneout": "zoneout",
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is needed to build a `SequenceModel` again, apart from its weights."""

    features: tuple[Feature, ...]
    #: Which features have an input more that says where they are missing.
    flagged: tuple[bool, ...]
    #: How many numbers an answer has: one score a class, one number, or h steps ahead times the quantiles.
    outputs: int
    #: One answer after every step, not one a sequence.
    per_step: bool
    variant: Variant = "gru"
    hidden_size: int = 128
    num_layers: int = 1
    bidirectional: bool = False
    #: Between layers and before the answer.
    dropout: float = 0.0
    #: Of the state, drawn once a sequence (Gal & Ghahramani 2016).
    recurrent_dropout: float = 0.0
    #: See `tidegate.Dropouts`: its `inputs`, `candidate`, `weight` and `zoneout`.
    input_dropout: float = 0.0
    candidate_dropout: float = 0.0
    weight_dropout: float = 0.0
    zoneout: float = 0.0

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise InputValueError(f"variant must be one of {', '.join(get_args(Variant))}; got {self.variant!r}")
        for name in ("per_step", "bidirectional"):
            if type(getattr(self, name)) is not bool:
                raise InputValueError(f"{name} must be true or false; got {getattr(self, name)!r}")
        for name in ("outputs", "hidden_size", "num_layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputValueError(f"{name} must be an int of at least 1; got {value!r}")
        for name in ("dropout", *_DROPOUTS):
            value = getattr(self, name)
            if not isinstance(value, float | int) or not 0 <= value < 1:
                raise InputValueError(f"{name} must be a number of at least 0 and below 1; got {value!r}")
        if self.variant == "dense":
            alone = {"num_layers": 1, "bidirectional": False, **dict.fromkeys(_DROPOUTS, 0)}
            got = [f"{name}={getattr(self, name)}" for name, only in alone.items() if getattr(self, name) != only]
            if got:
                raise InputValueError(
                    "variant 'dense' has one layer, one direction and nothing recurrent to drop; got " + ", ".join(got)
                )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON can hold it."""
        record = asdict(self)
        record["features"] = [asdict(feature) | {"categories": list(feature.categories)} for feature in self.features]
        record["flagged"] = list(self.flagged)
        return record

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`; raises `InputValueError` for a name or a value that cannot be."""
        names = [field.name for field in fields(cls)]
        if sorted(values) != sorted(names):
            raise InputValueError(f"a model must have {', '.join(names)}; got {', '.join(values) or 'nothing'}")
        features = values["features"]
        try:
            read = tuple(Feature(str(one["name"]), one["kind"], tuple(map(str, one["categories"]))) for one in features)
            flagged = tuple(bool(flag) for flag in values["flagged"])
        except (KeyError, TypeError) as error:
            raise InputValueError(
                f"features must be a list of names, kinds and categories; got {features!r}"
            ) from error
        return cls(**{**values, "features": read, "flagged": flagged})


class SequenceModel(nn.Module):
    """An encoder, a stack of recurrent layers, and one linear map from their states to the answer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.features, config.flagged)
        self.layer = _layer(config, self.encoder.width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden_size * (2 if config.bidirectional else 1), config.outputs)

    def forward(
        self,
        values: Shaped[Tensor, "T B F"],
        lengths: Int[Tensor, "B"] | None = None,
        hx: Float[Tensor, "LD B H"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The answers, (T, B, outputs) per step or (B, outputs) after each sequence's last, and the final states.

        Args:
            values: the features of every step as a reader gives them: NaN where missing, codes of categories.
            lengths: the steps of each sequence; T if not given.
            hx: the states to go on from.
        """
        states, h_n = self.read(values, lengths, hx)
        return self._answers(states, h_n), h_n

    def traced(
        self,
        values: Shaped[Tensor, "T B F"],
        lengths: Int[Tensor, "B"] | None = None,
        hx: Float[Tensor, "LD B H"] | None = None,
    ) -> tuple[Tensor, Trace]:
        """The answers, and what every gate did for them, differentiable; the final states are the trace's `h_n`."""
        seen = trace(self.layer, self.encoder(values, self.head.weight.dtype), hx, lengths=lengths)
        assert isinstance(seen.output, Tensor)
        return self._answers(seen.output, seen.h_n), seen

    def read(
        self,
        values: Shaped[Tensor, "T B F"],
        lengths: Int[Tensor, "B"] | None = None,
        hx: Float[Tensor, "LD B H"] | None = None,
    ) -> tuple[Float[Tensor, "T B DH"], Float[Tensor, "LD B H"]]:
        """The last layer's states after every step, and the final states of all; arguments as of `forward`."""
        states: Tensor
        states, h_n = self.layer(self.encoder(values, self.head.weight.dtype), hx, lengths=lengths)
        return states, h_n

    def at_end(self, h_n: Float[Tensor, "LD B H"]) -> Float[Tensor, "B outputs"]:
        """The answers after each sequence's last step, from the final states."""
        directions = 2 if self.config.bidirectional else 1
        last = h_n[-directions:].transpose(0, 1).flatten(1)
        answers: Tensor = self.head(self.dropout(last))
        return answers

    def _answers(self, states: Tensor, h_n: Tensor) -> Tensor:
        if not self.config.per_step:
            return self.at_end(h_n)
        answers: Tensor = self.head(self.dropout(states))
        return answers


def _layer(config: ModelConfig, width: int) -> nn.Module:
    sizes = (width, config.hidden_size)
    if config.variant == "dense":
        return Dense(*sizes)
    options: dict[str, Any] = {
        "num_layers": config.num_layers,
        "bidirectional": config.bidirectional,
        "dropout": config.dropout if config.num_layers > 1 else 0.0,
        "recurrent_dropout": Dropouts(**{short: getattr(config, name) for name, short in _DROPOUTS.items()}),
    }
    match config.variant:
        case "rnn":
            return RNN(*sizes, **options)
        case "update-only":
            return GRU(*sizes, reset=None, **options)
        case "gru":
            return GRU(*sizes, **options)
        case "gru-reset-before":
            return GRU(*sizes, reset="before", **options)
        case "gru-layer-norm":
            return GRU(*sizes, layer_norm=True, **options)
