"""What a recurrent module computes, read from the module: Tidegate's own, torch.nn's as they stand, and the cells."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from tidegate.conventions import PackedWeights
from tidegate.equations import Activation
from tidegate.errors import InputTypeError
from tidegate.nn.dropouts import Dropouts, read_dropouts
from tidegate.ops.call import SYSTEMS
from tidegate.ops.checks import check_activation

__all__ = ["NAMES", "Recurrent", "Spec", "describe", "is_cell", "is_recurrent", "opaque"]

#: What a system is called in a sentence.
NAMES = {
    "dense": "layer without a memory",
    "rnn": "simple RNN",
    "update-only": "GRU without a reset gate",
    "gru": "GRU with the reset after the product",
    "gru-reset-before": "GRU with the reset before the product",
    "gru-layer-norm": "layer-normalised GRU",
}


class Recurrent:
    """What Tidegate's modules add to torch.nn's: which system they are, their activation and how they are run."""

    system: str
    activation: str | Activation
    backend: str
    recompute: bool = False
    recurrent_dropout: Dropouts = Dropouts()
    #: Set by `convert.accelerate`: the layer was torch.nn's, and can be again.
    accelerated: bool = False
    #: The `forward` that `run` stands for: a subclass with another one computes something else.
    own_forward: ClassVar[Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class Spec:
    """The system, sizes and weights of a stack of recurrent layers."""

    system: str
    activation: str | Activation
    input_size: int
    hidden_size: int
    #: The weights of each layer: forward, and backward where the layer runs both ways.
    weights: tuple[tuple[PackedWeights, ...], ...]
    batch_first: bool
    #: Between layers; 0 unless the module is training.
    dropout: float
    #: A learned initial state, (L*D, H).
    h_0: Tensor | None
    backend: str
    #: Compute the gates anew on the way back, instead of keeping them.
    recompute: bool
    #: What is left out at random in training; in evaluation zoneout is still seen.
    dropouts: Dropouts
    training: bool
    #: Take a batch of no sequences, as torch.nn's layers do: what was accelerated must meet what it met before.
    empty_batches: bool

    @property
    def directions(self) -> int:
        """1, or 2 where every layer also runs backwards."""
        return len(self.weights[0])

    @property
    def states(self) -> int:
        """How many states of (B, H) the stack carries: layers times directions."""
        return len(self.weights) * self.directions

    @property
    def like(self) -> Tensor:
        """A tensor with the dtype and device of the weights."""
        return self.weights[0][0].weight_ih


_TORCH_FORWARD = {kind: kind.forward for kind in (nn.GRU, nn.RNN, nn.GRUCell, nn.RNNCell)}


def is_cell(module: object) -> bool:
    """Whether `module` is one recurrent step."""
    return isinstance(module, nn.GRUCell | nn.RNNCell)


def is_recurrent(module: object) -> bool:
    """Whether `module` is a layer or cell that Tidegate can run: its own, torch.nn's, or a subclass of one."""
    return isinstance(module, (Recurrent, *_TORCH_FORWARD))


def opaque(module: nn.Module) -> str | None:
    """Why the gates of a recurrent module cannot be looked into, or None if they can."""
    if "forward" in vars(module):
        return "its forward has been replaced, so that what it computes is not known"
    own = [type(module).own_forward] if isinstance(module, Recurrent) else list(_TORCH_FORWARD.values())
    forward = type(module).forward
    if not any(forward is known for known in own):
        return f"{type(module).__name__} has a forward of its own, so that what it computes is not known"
    return None


def describe(module: nn.Module) -> Spec:
    """The `Spec` of a recurrent layer or cell; raises `InputTypeError` for any other module."""
    if not is_recurrent(module):
        raise InputTypeError(f"the layer must be a GRU, an RNN or one of their cells; got {type(module).__name__}")
    gated = isinstance(module, nn.GRU | nn.GRUCell)
    if isinstance(module, Recurrent):
        check_activation("activation", module.activation)
    system = module.system if isinstance(module, Recurrent) else "gru" if gated else "rnn"
    return Spec(
        system=system,
        activation=module.activation if isinstance(module, Recurrent) else getattr(module, "nonlinearity", "tanh"),
        input_size=int(getattr(module, "input_size")),  # noqa: B009 - nn.Module types every attribute as a tensor
        hidden_size=int(getattr(module, "hidden_size")),  # noqa: B009
        weights=tuple(tuple(_weights(module, system, way) for way in layer) for layer in _suffixes(module)),
        batch_first=bool(getattr(module, "batch_first", False)),
        dropout=float(getattr(module, "dropout", 0.0)) if module.training else 0.0,
        h_0=getattr(module, "h_0", None) if isinstance(module, Recurrent) and not is_cell(module) else None,
        backend=module.backend if isinstance(module, Recurrent) else "auto",
        recompute=module.recompute if isinstance(module, Recurrent) else False,
        dropouts=read_dropouts(module.recurrent_dropout) if isinstance(module, Recurrent) else Dropouts(),
        training=module.training,
        empty_batches=isinstance(module, Recurrent) and module.accelerated,
    )


def _suffixes(module: nn.Module) -> list[list[str]]:
    """How the names of the weights end, per layer and direction: torch.nn's names."""
    if is_cell(module):
        return [[""]]
    ways = ["", "_reverse"] if getattr(module, "bidirectional", False) else [""]
    layers = int(getattr(module, "num_layers", 1))
    return [[f"_l{layer}{way}" for way in ways] for layer in range(layers)]


def _weights(module: nn.Module, system: str, suffix: str) -> PackedWeights:
    """The weights by the names that the system has them under; a module may hold more that it does not run with."""
    names = [stored.name for stored in SYSTEMS[system].convention.arrays]
    held: dict[str, Any] = dict.fromkeys(PackedWeights._fields)
    held |= {name: getattr(module, f"{name}{suffix}", None) for name in names}
    for name in names:
        if name.startswith("weight") and not isinstance(held[name], Tensor):
            got = "none" if held[name] is None else f"a {type(held[name]).__name__}"
            raise InputTypeError(f"the layer's {name}{suffix} must be a tensor; there is {got}")
    return PackedWeights(**held)
