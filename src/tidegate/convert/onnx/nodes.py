"""A GRU or RNN node of a graph, as a module that runs it with a layer of Tidegate's."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from tidegate import ops
from tidegate.convert.onnx.activations import Clipped, read_activations
from tidegate.convert.onnx.functions import DOMAIN, read_name
from tidegate.convert.onnx.weights import DIRECTIONS, Direction, OnnxNode, check_weights, directions_of, fill, layer_of
from tidegate.equations import Activation
from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn import GRU, RNN
from tidegate.nn.spec import describe
from tidegate.ops.checks import check_lengths, check_shape
from tidegate.ops.functional import reset_of

__all__ = ["ATTRIBUTES", "RecurrentNode", "is_recurrent_node", "read_recurrent"]

#: The attributes of a GRU or RNN node, and their types.
ATTRIBUTES: dict[str, Any] = {
    "activation_alpha": list[float],
    "activation_beta": list[float],
    "activations": list[str],
    "clip": float,
    "direction": str,
    "hidden_size": int,
    "layout": int,
    "linear_before_reset": int,
    "output_sequence": int,
}


def is_recurrent_node(node: Any) -> bool:
    """Whether a node is one that `read_recurrent` reads."""
    if node.domain == DOMAIN:
        return read_name(node.op_type) is not None
    return node.domain in ("", "ai.onnx") and node.op_type in ("GRU", "RNN")


class RecurrentNode(nn.Module):
    """One GRU or RNN node: takes and gives what the node does, in the node's own axes.

    Its weights are those of `layer`; where the graph computes them, they come with the inputs and `layer` is None.
    """

    def __init__(
        self,
        system: str,
        direction: Direction,
        activation: str | Activation,
        *,
        batch_major: bool,
        layer: GRU | RNN | None,
    ) -> None:
        super().__init__()
        self.system, self.direction, self.activation, self.batch_major = system, direction, activation, batch_major
        self.layer = layer

    def forward(
        self,
        x: Tensor,
        W: Tensor,
        R: Tensor,
        B: Tensor | None = None,
        lengths: Tensor | None = None,
        h_0: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`Y`, (T, D, B, H), and `Y_h`, (D, B, H); with the batch first, (B, T, D, H) and (B, D, H)."""
        if x.ndim != 3:
            raise InputValueError(f"X must be (T, B, I), or (B, T, I) with the layout 1; got {tuple(x.shape)}")
        if self.batch_major:
            x, h_0 = x.transpose(0, 1), None if h_0 is None else h_0.transpose(0, 1)
        if self.layer is not None and self.direction != "reverse":
            y, y_h = self.layer(x, h_0, lengths=lengths)
            y = y.unflatten(2, (-1, self.layer.hidden_size)).transpose(1, 2)
        else:
            y, y_h = self._run(x, W, R, B, lengths, h_0)
        return (y.permute(2, 0, 1, 3), y_h.transpose(0, 1)) if self.batch_major else (y, y_h)

    def _run(
        self, x: Tensor, W: Tensor, R: Tensor, B: Tensor | None, lengths: Tensor | None, h_0: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Each direction by itself: for weights that only come now, and for a node that runs backwards only."""
        if self.layer is not None:
            (weights,) = describe(self.layer).weights
        else:
            check_weights(self.system, DIRECTIONS[self.direction], W, R, B)
            weights = directions_of(self.system, W, R, B)
        if h_0 is None:
            hidden_size = len(weights[0].weight_ih) // ops.SYSTEMS[self.system].blocks
            h_0 = x.new_zeros(len(weights), x.shape[1], hidden_size)
        check_shape("h_0", h_0, (len(weights), x.shape[1], h_0.shape[-1]), "(D, B, H)")
        inside = None
        if lengths is not None:
            values = check_lengths(lengths, x.shape[1], x.shape[0], x.device)
            inside = torch.arange(x.shape[0], device=x.device).unsqueeze(-1) < values
        hidden, finals = [], []
        for way, packed in enumerate(weights):
            reverse = self.direction == "reverse" or bool(way)
            run = self._one(x, h_0[way], packed, inside, reverse)
            finals.append(run[0 if reverse else -1])
            hidden.append(run if inside is None else torch.where(inside.unsqueeze(-1), run, 0))
        return torch.stack(hidden, 1), torch.stack(finals)

    def _one(self, x: Tensor, h_0: Tensor, packed: Any, inside: Tensor | None, reverse: bool) -> Tensor:
        options: dict[str, Any] = {"activation": self.activation, "mask": inside, "reverse": reverse}
        if self.system != "rnn":
            return ops.gru(x, h_0, *packed[:4], reset=reset_of(self.system), **options).hidden
        return ops.rnn(x, h_0, *packed[:4], **options).hidden


def read_recurrent(
    what: str, node: Any, attributes: Mapping[str, Any], constants: Mapping[str, Tensor]
) -> RecurrentNode:
    """The module of a GRU or RNN node; `what` is the node in a sentence, `constants` what is known of its inputs."""
    inputs = _inputs_of(what, node)
    if node.domain == DOMAIN:
        return _own_function(node, inputs, constants)
    direction = cast("Direction", attributes.get("direction", "forward"))
    if direction not in DIRECTIONS:
        raise InputValueError(f"direction of {what} must be one of {', '.join(DIRECTIONS)}; got {direction!r}")
    activation = read_activations(
        what,
        node.op_type,
        DIRECTIONS[direction],
        attributes.get("activations"),
        attributes.get("activation_alpha", ()),
        attributes.get("activation_beta", ()),
    )
    clip = attributes.get("clip", 0.0)
    if clip > 0:
        if node.op_type == "GRU":
            raise InputValueError(f"clip of {what} must be absent, for no layer clips what its gates are computed from")
        activation = Clipped(activation, clip)
    before = attributes.get("linear_before_reset", 0)
    system = "rnn" if node.op_type == "RNN" else "gru" if before else "gru-reset-before"
    layer = None
    if all(name in constants for name in inputs[1:4] if name):
        W, R = constants[inputs[1]], constants[inputs[2]]
        B = constants[inputs[3]] if inputs[3] else None
        hidden = attributes.get("hidden_size", R.shape[-1] if R.ndim else 0)
        if not R.ndim or R.shape[-1] != hidden:
            raise InputValueError(f"R of {what} must be (D, G*H, H) with H = {hidden}; got {tuple(R.shape)}")
        try:
            whole = OnnxNode(node.op_type, W, R, B, direction, bool(before), activation)
        except (InputValueError, InputTypeError) as error:
            raise InputValueError(f"the weights of {what} do not fit: {error}") from error
        layer = layer_of([whole])
    if (layout := attributes.get("layout", 0)) not in (0, 1):
        raise InputValueError(f"layout of {what} must be 0 or 1; got {layout}")
    return RecurrentNode(system, direction, activation, batch_major=bool(layout), layer=layer)


def _inputs_of(what: str, node: Any) -> list[str]:
    """The names of the node's six inputs, "" for those that are left out."""
    inputs = [*node.input, *[""] * (6 - len(node.input))]
    if len(inputs) > 6 or not all(inputs[:3]):
        raise InputValueError(f"{what} must have the inputs X, W and R, and at most six; got {list(node.input)}")
    if len(node.output) > 2:
        raise InputValueError(f"{what} must have at most 2 outputs; got {len(node.output)}")
    return inputs


def _own_function(node: Any, inputs: list[str], constants: Mapping[str, Tensor]) -> RecurrentNode:
    """The update-only GRU, which `to_onnx` writes as a function; its body in the file is not looked at."""
    read = read_name(node.op_type)
    assert read is not None
    activation, reverse = read
    layer = None
    if all(name in constants for name in inputs[1:4]):
        W, R, B = (constants[name] for name in inputs[1:4])
        check_weights("update-only", 1, W, R, B)
        layer = GRU(W.shape[2], R.shape[2], reset=None, activation=activation, device="meta")
        fill(layer, [directions_of("update-only", W, R, B)])
    direction: Direction = "reverse" if reverse else "forward"
    return RecurrentNode("update-only", direction, activation, batch_major=False, layer=layer)
