"""The weights of ONNX's GRU and RNN nodes, from layers and back into layers, without losing a bit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tidegate.conventions import ONNX_GRU, ONNX_RNN, ONNX_UPDATE_ONLY, Convention, PackedWeights, pack, unpack
from tidegate.equations import Activation
from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn import GRU, RNN
from tidegate.nn.spec import Spec, describe, opaque
from tidegate.ops import SYSTEMS
from tidegate.ops.checks import check_activation, check_like, check_shape, check_tensor

__all__ = [
    "DIRECTIONS",
    "Direction",
    "OnnxNode",
    "check_weights",
    "directions_of",
    "fill",
    "from_onnx_nodes",
    "layer_of",
    "node_weights",
    "to_onnx_nodes",
    "unwritable",
]

Direction = Literal["forward", "reverse", "bidirectional"]
Layer = TypeVar("Layer", bound=GRU | RNN)
DIRECTIONS: dict[str, int] = {"forward": 1, "reverse": 1, "bidirectional": 2}

#: How ONNX lays out the weights of each system; `dense` is its RNN with recurrent weights of zero.
CONVENTIONS: dict[str, Convention] = {
    "dense": ONNX_RNN,
    "rnn": ONNX_RNN,
    "gru": ONNX_GRU,
    "gru-reset-before": ONNX_GRU,
    "update-only": ONNX_UPDATE_ONLY,
}


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """One recurrent node of ONNX: its weights as ONNX lays them out, and what its attributes say that it computes.

    `W` holds what is multiplied by the input, `R` what by the past, one matrix a direction, their rows in the blocks
    `z, r, h` for a GRU; `B` holds both biases, the input's before the past's. `linear_before_reset` is "reset after".
    """

    operator: Literal["GRU", "RNN"]
    W: Float[Tensor, "D GH I"]
    R: Float[Tensor, "D GH H"]
    B: Float[Tensor, "D 2*GH"] | None = None
    direction: Direction = "forward"
    linear_before_reset: bool = False
    activation: str | Activation = "tanh"

    def __post_init__(self) -> None:
        """Check that all parts fit each other."""
        if self.operator not in ("GRU", "RNN"):
            raise InputValueError(f'operator must be "GRU" or "RNN"; got {self.operator!r}')
        if self.direction not in DIRECTIONS:
            known = ", ".join(f'"{name}"' for name in DIRECTIONS)
            raise InputValueError(f"direction must be one of {known}; got {self.direction!r}")
        check_activation("activation", self.activation)
        check_weights(self.system, DIRECTIONS[self.direction], self.W, self.R, self.B)

    @property
    def system(self) -> str:
        """The name of what it computes, as in `ops.SYSTEMS`."""
        return "rnn" if self.operator == "RNN" else "gru" if self.linear_before_reset else "gru-reset-before"


def check_weights(system: str, directions: int, W: Tensor, R: Tensor, B: Tensor | None) -> None:
    """The weights of one node fit the system, the number of directions and each other."""
    if check_tensor("R", R).ndim != 3 or check_tensor("W", W).ndim != 3:
        raise InputValueError(f"W must be (D, G*H, I) and R (D, G*H, H); got {tuple(W.shape)} and {tuple(R.shape)}")
    hidden, rows = R.shape[2], len(CONVENTIONS[system].blocks) * R.shape[2]
    if not hidden or not W.shape[2]:
        raise InputValueError(f"W and R must hold a column each; got {tuple(W.shape)} and {tuple(R.shape)}")
    check_shape("R", R, (directions, rows, hidden), "(D, G*H, H)")
    check_shape("W", W, (directions, rows, W.shape[2]), "(D, G*H, I)")
    check_like("W", W, "R", R)
    if B is not None:
        check_shape("B", check_tensor("B", B), (directions, 2 * rows), "(D, 2*G*H)")
        check_like("B", B, "R", R)


def to_onnx_nodes(layer: nn.Module) -> tuple[OnnxNode, ...]:
    """The weights of a GRU or RNN, Tidegate's or torch.nn's, or of a cell, as ONNX has them: one node a layer.

    Raises:
        InputTypeError: `layer` is not recurrent, or computes what is not known.
        InputValueError: `layer` is a dense layer or an update-only GRU, for which ONNX has no node (`to_onnx` can).
    """
    spec = describe(layer)
    if (reason := opaque(layer)) is not None:
        raise InputTypeError(f"the layer cannot be converted: {reason}")
    if (reason := unwritable(spec)) is not None:
        raise InputValueError(f"layer must be what a GRU or RNN node of ONNX computes: {reason}")
    if spec.system in ("dense", "update-only"):
        instead = "to_onnx writes it as a function of its own"
        raise InputValueError(f"layer must be what a GRU or RNN node of ONNX computes; got {spec.system}: {instead}")
    return tuple(node_of(spec, depth) for depth in range(len(spec.weights)))


def unwritable(spec: Spec) -> str | None:
    """What these layers do that nothing in an ONNX file does, or None."""
    if spec.system not in CONVENTIONS:
        return f"it is a {spec.system}, which ONNX does not have"
    if spec.dropouts.zoneout:
        return "zoneout scales its update gate in evaluation too, which no node of ONNX does"
    return None


def node_of(spec: Spec, depth: int) -> OnnxNode:
    """One layer of a stack as a node."""
    W, R, B = node_weights(spec.system, spec.weights[depth])
    operator: Literal["GRU", "RNN"] = "RNN" if spec.system == "rnn" else "GRU"
    direction: Direction = "forward" if spec.directions == 1 else "bidirectional"
    return OnnxNode(operator, W, R, B, direction, spec.system == "gru", spec.activation)


def node_weights(system: str, ways: Sequence[PackedWeights]) -> tuple[Tensor, Tensor, Tensor | None]:
    """`W`, `R` and `B` of one layer, from its weights in torch's layout, one set a direction."""
    convention = SYSTEMS[system].convention
    packed = [pack(CONVENTIONS[system], unpack(convention, way)) for way in ways]
    W = torch.stack([way.weight_ih for way in packed]).detach()
    size = W.shape[1] // len(convention.blocks)
    R = torch.stack([W.new_zeros(W.shape[1], size) if way.weight_hh is None else way.weight_hh for way in packed])
    if any(way.bias_ih is None for way in packed):
        return W, R.detach(), None
    zeros = W.new_zeros(W.shape[1])
    biases = [torch.cat([bias for bias in (way.bias_ih, way.bias_hh) if bias is not None]) for way in packed]
    B = torch.stack([bias if len(bias) == 2 * W.shape[1] else torch.cat([bias, zeros]) for bias in biases])
    return W, R.detach(), B.detach()


def directions_of(system: str, W: Tensor, R: Tensor, B: Tensor | None) -> tuple[PackedWeights, ...]:
    """The inverse of `node_weights`: torch's layout, one set of weights a direction; differentiable."""
    convention = CONVENTIONS[system]
    ways = []
    for way in range(len(W)):
        bias_ih, bias_hh = (None, None) if B is None else B[way].chunk(2)
        packed = PackedWeights(W[way], R[way], bias_ih, bias_hh)
        ways.append(pack(SYSTEMS[system].convention, unpack(convention, packed)))
    return tuple(ways)


def from_onnx_nodes(nodes: OnnxNode | Sequence[OnnxNode], *, batch_first: bool = False) -> GRU | RNN:
    """A layer with the weights of a node, or a stack of layers with those of several, the first the lowest.

    Raises:
        InputTypeError: what is given is no node.
        InputValueError: the nodes do not fit on top of each other, or one runs backwards only, as no layer does.
    """
    if isinstance(nodes, str) or not isinstance(nodes, OnnxNode | Sequence):
        raise InputTypeError(f"nodes must be an OnnxNode or a list of such; got {type(nodes).__name__}")
    nodes = (nodes,) if isinstance(nodes, OnnxNode) else tuple(nodes)
    if not nodes:
        raise InputValueError("nodes must hold at least one node; got none")
    for number, node in enumerate(nodes):
        if not isinstance(node, OnnxNode):
            raise InputTypeError(f"nodes[{number}] must be an OnnxNode; got {type(node).__name__}")
        if node.direction == "reverse":
            raise InputValueError(f'nodes[{number}] must run "forward" or "bidirectional", as layers do; got "reverse"')
    return layer_of(nodes, batch_first=batch_first)


def layer_of(nodes: Sequence[OnnxNode], *, batch_first: bool = False) -> GRU | RNN:
    """As `from_onnx_nodes`; a node that runs backwards only becomes a layer that has to be run backwards."""
    first = nodes[0]
    ways, hidden = DIRECTIONS[first.direction], first.R.shape[2]
    for number, node in enumerate(nodes[1:], 1):
        for name in ("system", "direction", "activation"):
            one, other = getattr(first, name), getattr(node, name)
            if one != other:
                raise InputValueError(f"nodes[{number}] must have the {name} of nodes[0], {one!r}; got {other!r}")
        if (node.B is None) != (first.B is None):
            raise InputValueError(f"nodes[{number}] must hold B if nodes[0] does, and only then")
        expected = (ways, first.W.shape[1], ways * hidden)
        check_shape(f"nodes[{number}].W", node.W, expected, "(D, G*H, D*H)")
        check_shape(f"nodes[{number}].R", node.R, first.R.shape, "(D, G*H, H)")
        check_like(f"nodes[{number}].W", node.W, "nodes[0].W", first.W)
    sizes = (first.W.shape[2], hidden, len(nodes))
    options = {"bias": first.B is not None, "batch_first": batch_first, "bidirectional": ways == 2, "device": "meta"}
    layer: GRU | RNN
    if first.operator == "RNN":
        plain = first.activation in ("tanh", "relu")
        own = {"nonlinearity": first.activation} if plain else {"activation": first.activation}
        layer = RNN(*sizes, **options, **own)  # type: ignore[arg-type, misc]
    else:
        reset: Literal["after", "before"] = "after" if first.linear_before_reset else "before"
        layer = GRU(*sizes, **options, reset=reset, activation=first.activation)  # type: ignore[arg-type]
    weights = [directions_of(node.system, node.W, node.R, node.B) for node in nodes]
    return fill(layer, weights)


def fill(layer: Layer, weights: Sequence[Sequence[PackedWeights]]) -> Layer:
    """Give a layer made without memory copies of these weights as its parameters."""
    for depth, ways in enumerate(weights):
        for way, packed in zip(("", "_reverse"), ways, strict=False):
            for name, tensor in packed._asdict().items():
                if tensor is not None:
                    setattr(layer, f"{name}_l{depth}{way}", nn.Parameter(tensor.detach().clone().contiguous()))
    return layer
