"""What the contract is run on: the systems, the backends, the sizes, inputs for them, and the answer that is expected.

A new system gets every test of the contract by one line in `SYSTEMS`; a new backend by its entry in `ops.BACKENDS`.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.contract.compare import Named
from tidegate import ops
from tidegate.conventions import Block, PackedWeights, unpack
from tidegate.equations import ACTIVATIONS, FREE, KEPT, Activation, Dropped, Pinned
from tidegate.ops import Call, Steps

__all__ = [
    "BACKENDS",
    "SIZES",
    "SMALL",
    "SYSTEMS",
    "WIDE",
    "Inputs",
    "Size",
    "SystemCase",
    "draw",
    "forward",
    "named_outputs",
    "part_of",
    "plain_loop",
    "values",
    "with_gradients",
]


@dataclass(frozen=True)
class SystemCase:
    """One row of the equations' table, with an activation."""

    name: str
    system: str
    activation: str | Activation = "tanh"
    #: How much more than a plain sum it makes of a rounding: normalising divides by a spread that may be small.
    condition: float = 1.0

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What the rows of its weights belong to, in order."""
        return ops.SYSTEMS[self.system].convention.blocks

    def __str__(self) -> str:
        return self.name


class Size(NamedTuple):
    """The sizes of a call."""

    T: int
    B: int
    I: int
    H: int

    def __str__(self) -> str:
        return "-".join(f"{axis}{size}" for axis, size in self._asdict().items())


SYSTEMS = [
    SystemCase("dense", "dense"),
    SystemCase("rnn-tanh", "rnn"),
    SystemCase("rnn-relu", "rnn", "relu"),
    SystemCase("update-only", "update-only"),
    SystemCase("gru", "gru"),
    SystemCase("gru-reset-before", "gru-reset-before"),
    SystemCase("gru-layer-norm", "gru-layer-norm", condition=20.0),
]
BACKENDS = list(ops.BACKENDS)

LENGTHS, BATCHES, WIDTHS = (1, 63), (1, 3, 17), (1, 7, 100, 128)
# A covering set, not the product: every batch with every width, T alternating between them, so that every pair of
# values occurs (a test says so) in half the runs. I is never H, and is 1, odd, even and larger than H in turn.
SIZES = [
    Size(LENGTHS[(i + j) % 2], B, I, H)
    for ((i, B), (j, H)), I in zip(
        product(enumerate(BATCHES), enumerate(WIDTHS)), (5, 1, 16, 33, 2, 3, 7, 1, 3, 130, 1, 10), strict=True
    )
]
#: For promises that need no large sizes: one that divides nothing, and one with more rows and units than a vector has.
SMALL, WIDE = Size(9, 3, 5, 7), Size(5, 17, 3, 100)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The tensors of a call: the leaves that gradients are asked for."""

    case: SystemCase
    x: Tensor
    h_0: Tensor
    weights: PackedWeights

    def named(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        tensors = {"x": self.x, "h_0": self.h_0, **self.weights._asdict()}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """The same with every tensor changed."""
        weights = PackedWeights(*(None if weight is None else change(weight) for weight in self.weights))  # type: ignore[arg-type]
        return Inputs(self.case, change(self.x), change(self.h_0), weights)

    def but(self, **changed: Any) -> "Inputs":
        """The same with other fields, among them those of the weights."""
        of_weights = {name: changed.pop(name) for name in PackedWeights._fields if name in changed}
        weights = changed.pop("weights", self.weights)._replace(**of_weights)
        return replace(self, **changed, weights=weights)

    def call(self, **options: Any) -> Call:
        """The call of these inputs."""
        return Call(self.case.system, self.x, self.h_0, self.weights, self.case.activation, **options)


def draw(case: SystemCase, size: Size, *, bias: bool = True, seed: int = 0) -> Inputs:
    """Inputs of `size`, in float32, so that float64 runs on the very same numbers; weights as torch.nn's, ±1/sqrt(H).

    A relu is not differentiable at 0, where float32 and float64 may lie on different sides: should such a unit turn
    up under a new rounding (one gradient off, all values right), another seed is the remedy.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{case} {size} {seed}".encode()))
    T, B, I, H = size
    rows, past = len(case.blocks) * H, case.system != "dense"

    bound = H**-0.5

    def weight(*shape: int) -> Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    weight_ih, weight_hh, bias_ih, bias_hh = weight(rows, I), weight(rows, H), weight(rows), weight(rows)
    gains = [1 + weight(rows) for _ in range(2)] if case.system == "gru-layer-norm" else []
    return Inputs(
        case,
        x=torch.randn(T, B, I, generator=generator),
        h_0=torch.rand(B, H, generator=generator) * 2 - 1,
        weights=PackedWeights(
            weight_ih,
            weight_hh if past else None,
            bias_ih if bias else None,
            bias_hh if bias and past else None,
            *gains,
        ),
    )


def part_of(inputs: Inputs, case: SystemCase) -> Inputs:
    """The inputs of a simpler system, its weights cut out of those of `inputs`: gradients reach the whole."""
    convention, size = ops.SYSTEMS[inputs.case.system].convention, inputs.h_0.shape[-1]

    def cut(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or len(case.blocks) == len(inputs.case.blocks):
            return tensor
        return torch.cat([tensor[convention.rows(block, size)] for block in case.blocks])

    weight_ih, weight_hh, bias_ih, bias_hh = (cut(tensor) for tensor in inputs.weights[:4])
    assert weight_ih is not None
    if case.system == "dense":
        weight_hh = bias_hh = None
    return Inputs(case, inputs.x, inputs.h_0, PackedWeights(weight_ih, weight_hh, bias_ih, bias_hh))


def forward(inputs: Inputs, backend: str, **options: Any) -> dict[str, Tensor]:
    """What `backend` computes, by name, with the gates unless said otherwise."""
    call = inputs.call(**{"gates": True, **options})
    return named_outputs(ops.run(call, backend), reverse=call.reverse)


def plain_loop(
    inputs: Inputs,
    *,
    mask: Tensor | None = None,
    pins: Pinned = FREE,
    reverse: bool = False,
    gates: bool = True,
    resets: Tensor | None = None,
    dropped: Dropped = KEPT,
) -> dict[str, Tensor]:
    """What every backend must compute: the equations, one step after the other, and nothing else."""
    system = ops.SYSTEMS[inputs.case.system]
    weights = unpack(system.convention, inputs.weights)
    g = inputs.case.activation
    g = ACTIVATIONS[g] if isinstance(g, str) else g
    T, B = inputs.x.shape[:2]
    rows: list[Any] = [None] * T
    hidden = inputs.h_0
    for t in range(T - 1, -1, -1) if reverse else range(T):
        pinned = Pinned(*(None if pin is None else pin[t] for pin in pins))
        used = torch.ones(B, 1, dtype=torch.bool) if mask is None else mask[t].unsqueeze(-1)
        x = torch.where(used, inputs.x[t], 0)
        if resets is not None:
            hidden = torch.where(resets[t].unsqueeze(-1), inputs.h_0, hidden)
        candidate = None if dropped.candidate is None else dropped.candidate[t]
        step = system.equation(x, hidden, weights, g, pinned, dropped._replace(candidate=candidate))
        hidden = torch.where(used, step.hidden, hidden)
        rows[t] = (hidden, *(torch.where(used, gate, 0) for gate in (step.update, step.reset, step.candidate)))
    steps = Steps(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
    return named_outputs(steps if gates else Steps(steps.hidden), reverse=reverse)


def named_outputs(steps: Steps, *, reverse: bool = False) -> dict[str, Tensor]:
    """The state after every step, the final state and, where they were given out, the gates."""
    named = steps._asdict() | {"h_n": steps.hidden[0 if reverse else -1]}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def with_gradients(
    compute: Callable[[Inputs], dict[str, Tensor]], inputs: Inputs, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What `compute` gives in `dtype`, and the gradient of every input under gradients that arrive on every output."""
    leaves = inputs.map(lambda tensor: tensor.detach().to(dtype).clone().requires_grad_())
    outputs = compute(leaves)
    loss = torch.stack([(output * _cotangent(name, output)).sum() for name, output in outputs.items()]).sum()
    named = leaves.named()
    gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    detached = {name: output.detach() for name, output in outputs.items()}
    return detached | {f"d_{name}": gradient for name, gradient in zip(named, gradients, strict=True)}


def values(named: dict[str, Tensor]) -> Named:
    """What was computed forwards: all but the gradients."""
    return {name: tensor for name, tensor in named.items() if not name.startswith("d_")}


def _cotangent(name: str, output: Tensor) -> Tensor:
    """The gradient that arrives on an output: random, and the same for the same name and shape in every dtype."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(output.shape, generator=generator).to(output)
