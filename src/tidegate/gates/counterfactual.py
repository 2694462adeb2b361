"""Counterfactuals: what the output would have been, had some steps never been let in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate.errors import InputTypeError
from tidegate.gates.inside import observe
from tidegate.gates.trace import trace_of
from tidegate.ops.pins import Pins, resolve

__all__ = ["Counterfactual", "counterfactual"]


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The output with and without some steps, beside what the memory map said of them.

    The map says what share of the final state was *written* at those steps. A small share and a large `change` mean
    that the steps acted through what was written after them.
    """

    #: What the model returned (of several things, the first).
    output: Tensor
    #: The same with the update gate held at 0 during the steps.
    output_without: Tensor
    #: The share of the final state (last layer, forward direction) that was written at the steps, by the memory map.
    share: Float[Tensor, "B H"]

    @property
    def change(self) -> Tensor:
        """`output_without - output`."""
        return self.output_without - self.output


def counterfactual(
    model: nn.Module,
    x: Tensor | PackedSequence,
    steps: int | slice | Sequence[int] | Tensor,
    hx: Tensor | None = None,
    *,
    layer: str | None = None,
    lengths: Tensor | Iterable[int] | None = None,
    mask: Tensor | None = None,
    reset_at: Tensor | None = None,
) -> Counterfactual:
    """Run `model` twice in evaluation mode, as it is and with `steps` held out of every layer and direction (`Gu=0`).

    Args:
        model: a recurrent layer, or a model that contains one.
        x, hx, lengths, mask, reset_at: as for `trace`.
        steps: an int, a slice, ints, or bools (T,) or (T, B): as in `Pins`.
        layer: which layer of a model that contains several, by its name in `named_modules()`.
    """
    pin = Pins(update=0.0, steps=steps)
    asked: dict[str, Any] = {"lengths": lengths, "mask": mask, "reset_at": reset_at}
    output, ran = observe(model, x, hx, layer=layer, evaluate=True, gates=True, **asked)
    without, _ = observe(model, x, hx, layer=layer, evaluate=True, pins=pin, **asked)
    seen = trace_of(ran).layers[-1]
    held = resolve([pin], seen.update.shape, seen.update).update  # type: ignore[arg-type]  # a shape of three sizes
    assert held is not None
    return Counterfactual(_first(output), _first(without), (seen.memory()[1:] * (held == 0)).sum(0))


def _first(output: Any) -> Tensor:
    """The tensor to compare: the output, its first part, or what a packed sequence holds."""
    if isinstance(output, PackedSequence):
        return output.data
    if isinstance(output, tuple | list) and output:
        return _first(output[0])
    if not isinstance(output, Tensor):
        raise InputTypeError(
            f"the model must return a tensor, or a tuple that starts with one; got {type(output).__name__}"
        )
    return output
