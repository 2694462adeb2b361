"""rnn() and gru(): one layer over a whole sequence as a function of its tensors, like `torch.nn.functional`."""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor

from tidegate.conventions import PackedWeights
from tidegate.equations import Activation
from tidegate.errors import InputValueError
from tidegate.ops.backends import run
from tidegate.ops.call import SYSTEMS, Call, Steps
from tidegate.ops.checks import check_activation, check_like, check_mask, check_reset_at, check_shape, check_tensor
from tidegate.ops.pins import Pins, read_pins, resolve

__all__ = ["Reset", "gru", "reset_of", "rnn", "system_of"]

Reset = Literal["after", "before"] | None
_GRU_SYSTEMS: dict[Reset, str] = {"after": "gru", "before": "gru-reset-before", None: "update-only"}


def system_of(reset: Reset) -> str:
    """The system's name for a GRU's `reset` argument."""
    if not isinstance(reset, str | None) or reset not in _GRU_SYSTEMS:
        raise InputValueError(f'reset must be "after", "before" or None; got {reset!r}')
    return _GRU_SYSTEMS[reset]


def reset_of(system: str) -> Reset:
    """The inverse of `system_of`; a layer-normalised GRU resets after the product."""
    return {**{name: reset for reset, name in _GRU_SYSTEMS.items()}, "gru-layer-norm": "after"}[system]


def gru(
    x: Tensor,
    h_0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    gain_ih: Tensor | None = None,
    gain_hh: Tensor | None = None,
    reset: Reset = "after",
    activation: str | Activation = "tanh",
    mask: Tensor | None = None,
    reset_at: Tensor | None = None,
    pins: Pins | Iterable[Pins] | None = None,
    reverse: bool = False,
    gates: bool = False,
    recompute: bool = False,
    backend: str = "auto",
) -> Steps:
    """A gated recurrent unit over a sequence (`equations.gru`, `gru_reset_before`, `update_only`, `gru_layer_norm`).

    Shapes: `x` (T, B, I), `h_0` (B, H), `weight_ih` (G*H, I), `weight_hh` (G*H, H), biases (G*H,), `mask` (T, B) bool.
    G is 3, in `torch.nn.GRU`'s order `reset, z, candidate`; 2 without the reset rows where `reset` is None. Gains
    (G*H,), of both products or of neither, make it a layer-normalised one, which resets after the product.
    Returns `Steps`: `hidden` (T, B, H) and, with `gates=True`, `update`, `reset` and `candidate` of the same shape.
    Where `reset_at` (T, B) is True the state becomes `h_0` before the step, in the order in which steps are taken.
    With `recompute=True` the way back computes the gates anew, instead of keeping them: less memory, more time.
    Raises `InputValueError` or `InputTypeError` for a wrong shape or dtype, `BackendError` for a backend that cannot.
    """
    weights = PackedWeights(weight_ih, weight_hh, bias_ih, bias_hh, gain_ih, gain_hh)
    system = system_of(reset)
    if (gain_ih is None) != (gain_hh is None):
        absent, there = ("gain_ih", "gain_hh") if gain_ih is None else ("gain_hh", "gain_ih")
        raise InputValueError(f"{absent} must be given with {there}; got None")
    if gain_ih is not None:
        if reset != "after":
            raise InputValueError(f'reset must be "after" with gains; got {reset!r}')
        system = "gru-layer-norm"
    return _recurrence(system, x, h_0, weights, activation, mask, reset_at, pins, reverse, gates, recompute, backend)


def rnn(
    x: Tensor,
    h_0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    activation: str | Activation = "tanh",
    mask: Tensor | None = None,
    reset_at: Tensor | None = None,
    pins: Pins | Iterable[Pins] | None = None,
    reverse: bool = False,
    gates: bool = False,
    recompute: bool = False,
    backend: str = "auto",
) -> Steps:
    """A recurrent layer without gates over a sequence (`equations.rnn`); shapes and errors as `gru`, with G = 1."""
    weights = PackedWeights(weight_ih, weight_hh, bias_ih, bias_hh)
    return _recurrence("rnn", x, h_0, weights, activation, mask, reset_at, pins, reverse, gates, recompute, backend)


def _recurrence(
    system: str,
    x: Tensor,
    h_0: Tensor,
    weights: PackedWeights,
    activation: str | Activation,
    mask: Tensor | None,
    reset_at: Tensor | None,
    pins: Pins | Iterable[Pins] | None,
    reverse: bool,
    gates: bool,
    recompute: bool,
    backend: str,
) -> Steps:
    check_activation("activation", activation)
    if check_tensor("x", x).ndim != 3 or 0 in x.shape[:2]:
        raise InputValueError(f"x must be (T, B, I) with at least one step and one sequence; got {tuple(x.shape)}")
    steps, batch, size = x.shape
    if check_tensor("h_0", h_0).ndim != 2:
        raise InputValueError(f"h_0 must be (B, H); got {tuple(h_0.shape)}")
    hidden = h_0.shape[1]
    if not hidden:
        raise InputValueError(f"h_0 must be (B, H) with at least one unit; got {tuple(h_0.shape)}")
    rows = SYSTEMS[system].blocks * hidden
    expected = {
        "weight_ih": ((rows, size), "(G*H, I)"),
        "weight_hh": ((rows, hidden), "(G*H, H)"),
        "bias_ih": ((rows,), "(G*H,)"),
        "bias_hh": ((rows,), "(G*H,)"),
        "gain_ih": ((rows,), "(G*H,)"),
        "gain_hh": ((rows,), "(G*H,)"),
    }
    check_shape("h_0", h_0, (batch, hidden), "(B, H)")
    check_like("h_0", h_0, "x", x)
    for name, tensor in weights._asdict().items():
        if tensor is not None or name in ("weight_ih", "weight_hh"):
            check_shape(name, check_tensor(name, tensor), *expected[name])
            check_like(name, check_tensor(name, tensor), "x", x)
    if mask is not None:
        check_mask(mask, (steps, batch), "(T, B)", x.device)
    if reset_at is not None:
        check_reset_at(reset_at, (steps, batch), "(T, B)", x.device)
    pins = read_pins(pins, system, directions=("reverse",) if reverse else ("forward",))
    pinned = resolve(pins, (steps, batch, hidden), x, reverse=reverse)
    call = Call(system, x, h_0, weights, activation, mask, pinned, reverse, gates, recompute, reset_at)
    return run(call, backend)
