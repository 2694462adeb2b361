"""What stands in for a recurrent layer while a model is written to ONNX: one node a layer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.convert.onnx.functions import DOMAIN, name_of
from tidegate.convert.onnx.weights import node_weights, unwritable
from tidegate.errors import InputValueError
from tidegate.nn.spec import describe, is_cell

__all__ = ["NAME_KEY", "Slot", "StandIn", "check_writable"]

#: Under which a node carries its name through torch's exporter.
NAME_KEY = "tidegate.name"

#: How a GRU or RNN node of ONNX is told its activation: the name, and the alpha and beta that it takes.
NODE_ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "tanh": ("Tanh", None, None),
    "relu": ("Relu", None, None),
    "sigmoid": ("Sigmoid", None, None),
    "identity": ("Affine", 1.0, 0.0),
}


@dataclass(eq=False)
class Slot:
    """Where a layer finds its initial state while its model is traced, and leaves its final one."""

    #: (L*D, S, H), S being the batch or 1; None where the layer begins with its own initial state.
    state_in: Tensor | None = None
    state_out: Tensor | None = None
    #: What the traced program calls the number of steps and of sequences that the layer met.
    steps: str = ""
    batch: str = ""


class StandIn(nn.Module):
    """A recurrent layer or cell as the exporter traces it: the same `forward`, its weights as ONNX has them."""

    def __init__(self, name: str, module: nn.Module, slot: Slot) -> None:
        super().__init__()
        self.name = name
        spec = describe(module)
        self.system, self.batch_first, self.cell = spec.system, spec.batch_first, is_cell(module)
        self.depths, self.directions, self.hidden_size = len(spec.weights), spec.directions, spec.hidden_size
        self.input_size = spec.input_size
        assert isinstance(spec.activation, str)
        self.activation, self.slot = spec.activation, slot
        for depth, ways in enumerate(spec.weights):
            by_itself = spec.system == "update-only"  # whose functions run one direction each
            for number, nodes_ways in enumerate([[way] for way in ways] if by_itself else [ways]):
                W, R, B = node_weights(spec.system, nodes_ways)
                if B is None and by_itself:
                    B = W.new_zeros(len(W), 2 * W.shape[1])  # a function of ONNX has no inputs that may be left out
                for letter, tensor in {"W": W, "R": R, "B": B}.items():
                    self.register_buffer(f"{letter}{depth}{'_reverse' * number}", tensor)
        h_0 = spec.like.new_zeros(spec.states, spec.hidden_size) if spec.h_0 is None else spec.h_0
        self.register_buffer("h_0", h_0.detach().unsqueeze(1).clone())

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        mask: None = None,  # noqa: ARG002 - as the layers have them; refused before anything is traced
        pins: None = None,  # noqa: ARG002
    ) -> Any:
        """As the layer's own."""
        x, batched = input, input.ndim == (2 if self.cell else 3)
        if self.cell:
            x, hx = x.unsqueeze(0), None if hx is None else hx.unsqueeze(0)
        if not batched:
            x, hx = x.unsqueeze(1), None if hx is None else hx.unsqueeze(1)
        elif self.batch_first and not self.cell:
            x = x.transpose(0, 1)
        self._check(x, hx)
        self.slot.steps, self.slot.batch = str(x.shape[0]), str(x.shape[1])
        y, h_n = self._run(x, hx, None if lengths is None else lengths.to(torch.int32))
        if hx is None:
            self.slot.state_out = h_n
        if not batched:
            y, h_n = y.squeeze(1), h_n.squeeze(1)
        elif self.batch_first:
            y = y.transpose(0, 1)
        return h_n.squeeze(0) if self.cell else (y, h_n)

    def _check(self, x: Tensor, hx: Tensor | None) -> None:
        """Compare sizes as the layer does, so that the trace knows which of them cannot vary."""
        if x.shape[2] != self.input_size:
            raise InputValueError(f"input must have I = {self.input_size}; got {tuple(x.shape)}")
        states = self.depths * self.directions
        if hx is not None and (hx.shape[0] != states or hx.shape[1] != x.shape[1] or hx.shape[2] != self.hidden_size):
            raise InputValueError(f"hx must be ({states}, B, {self.hidden_size}); got {tuple(hx.shape)}")

    def _run(self, x: Tensor, hx: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        state = hx if hx is not None else self.h_0 if self.slot.state_in is None else self.slot.state_in
        assert isinstance(state, Tensor)
        if hx is None:
            state = _one_a_row(state, x)
        finals = []
        for depth in range(self.depths):
            h_0 = state[depth * self.directions : (depth + 1) * self.directions]
            run = self._functions if self.system == "update-only" else self._node
            x, h_n = run(x, h_0, depth, lengths, f"{self.name}.layer{depth}".removeprefix("."))
            finals.append(h_n)
        return x, torch.cat(finals) if len(finals) > 1 else finals[0]

    def _weights(self, suffix: str) -> list[Tensor | None]:
        return [getattr(self, f"{letter}{suffix}") for letter in "WRB"]

    def _node(self, x: Tensor, h_0: Tensor, depth: int, lengths: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
        """One layer as a GRU or RNN node: (T, B, D*H) and (D, B, H)."""
        gates = [] if self.system in ("rnn", "dense") else ["Sigmoid"]
        activation, alpha, beta = NODE_ACTIVATIONS[self.activation]
        attributes: dict[str, Any] = {"hidden_size": self.hidden_size}
        if self.directions == 2:
            attributes["direction"] = "bidirectional"
        if activation != "Tanh":
            attributes["activations"] = [*gates, activation] * self.directions
        if alpha is not None:
            attributes |= {"activation_alpha": [alpha] * self.directions, "activation_beta": [beta] * self.directions}
        if gates:
            attributes["linear_before_reset"] = int(self.system == "gru")
        y, y_h = _call(
            "GRU" if gates else "RNN", (x, *self._weights(f"{depth}"), lengths, h_0), attributes, name, self.directions
        )
        if lengths is not None:  # of a sequence without steps runtimes give 0, and the state is what it was
            y_h = torch.where(lengths.unsqueeze(-1) > 0, y_h, h_0)
        return y.transpose(1, 2).flatten(2) if self.directions > 1 else y.squeeze(1), y_h

    def _functions(
        self, x: Tensor, h_0: Tensor, depth: int, lengths: Tensor | None, name: str
    ) -> tuple[Tensor, Tensor]:
        """One layer of an update-only GRU: a function a direction."""
        if lengths is None:
            lengths = x.new_full((x.shape[1],), x.shape[0], dtype=torch.int32)
        ran = []
        for way in range(self.directions):
            operator = f"{DOMAIN}::{name_of(self.activation, bool(way))}"
            suffix = "_reverse" * way
            inputs = (x, *self._weights(f"{depth}{suffix}"), lengths, h_0[way : way + 1])
            ran.append(_call(operator, inputs, {}, name + suffix, 1))
        return torch.cat([y.squeeze(1) for y, _ in ran], -1), torch.cat([y_h for _, y_h in ran])


def _call(
    operator: str, inputs: tuple[Tensor | None, ...], attributes: dict[str, Any], name: str, ways: int
) -> tuple[Tensor, Tensor]:
    """A node of ONNX in the traced program, with what a GRU or RNN gives: `Y` (T, D, B, H) and `Y_h` (D, B, H)."""
    x, h_0 = inputs[0], inputs[-1]
    assert x is not None
    assert h_0 is not None
    steps, batch, hidden = x.shape[0], x.shape[1], h_0.shape[2]
    y, y_h = torch.onnx.ops.symbolic_multi_out(
        operator,
        inputs,
        attributes,
        dtypes=(x.dtype, x.dtype),
        shapes=((steps, ways, batch, hidden), (ways, batch, hidden)),
        version=1 if operator.startswith(DOMAIN) else None,
        metadata_props={NAME_KEY: name},
    )
    return y, y_h


def _one_a_row(state: Tensor, x: Tensor) -> Tensor:
    """The state (L*D, S, H), S being the batch or 1, as (L*D, B, H).

    `torch.expand` would take S for one of the two while the model is traced; ONNX's Expand decides when it is run.
    """
    symbolic, batch = torch.onnx.ops.symbolic, x.shape[1]
    rows = symbolic("Shape", (x,), {"start": 1, "end": 2}, dtype=torch.int64, shape=[1])
    shape = torch.cat([rows, torch.ones(1, dtype=torch.int64)])
    return symbolic("Expand", (state, shape), dtype=state.dtype, shape=[state.shape[0], batch, state.shape[2]])


def check_writable(name: str, module: nn.Module) -> None:
    """Refuse a recurrent module whose steps or activation ONNX has nothing for."""
    spec = describe(module)
    if (reason := unwritable(spec)) is not None:
        raise InputValueError(f"module {name!r} cannot be written to ONNX: {reason}")
    activation = spec.activation
    if not isinstance(activation, str):
        known = ", ".join(f'"{key}"' for key in NODE_ACTIVATIONS)
        raise InputValueError(f"module {name!r} must have one of the activations {known}; got {activation!r}")
