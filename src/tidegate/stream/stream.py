"""Stream: a recurrent layer on a live signal, one step at a time, in constant memory."""

import threading
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tidegate import ops
from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn.dropouts import left_out
from tidegate.nn.spec import describe, opaque
from tidegate.ops import Call, Stepper
from tidegate.ops.checks import check_shape

__all__ = ["Stream"]

#: NumPy's names of torch's dtypes.
_NUMPY = {
    torch.float16: np.dtype(np.float16),
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
Signal = TypeVar("Signal", Tensor, NDArray[np.floating])


class Stream:
    """A recurrent layer that takes one step at a time and keeps its state: `y_t = stream(x_t)`.

    `x_t` is (I,), or (B, I) for B signals at once, NumPy or torch, in the dtype of the layer; `y_t` is the last layer's
    state after the step, (H,) or (B, H), and of the same kind. The numbers are those of a run over the whole sequence,
    in evaluation (no dropout, no gradients). The first step decides how many signals there are, until `reset()`.

    The weights are taken as they are in the first step, and in the first after `reset()`: training goes on without it.
    Threads may share a stream; their steps follow each other.

    Args:
        layer: a GRU, an RNN or one of their cells, Tidegate's or torch.nn's, that runs one way only.

    Raises:
        InputTypeError: `layer` is none of these, or a subclass with a `forward` of its own.
        InputValueError: the layer also runs backwards, for which a live signal would have to end first.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._lock = threading.Lock()
        self._look_at_layer()

    def _look_at_layer(self) -> None:
        self._spec = describe(self._layer)
        if reason := opaque(self._layer):
            raise InputTypeError(f"layer must be one whose steps are known: {reason}")
        if self._spec.directions > 1:
            raise InputValueError("layer must run one way: a backward direction begins at the end; got bidirectional")
        like = self._spec.like
        #: The layer's dtype in NumPy; None where NumPy has none, or no arrays on the layer's device.
        self._dtype = _NUMPY.get(like.dtype) if like.device.type == "cpu" else None
        self._stepper: Stepper | None = None
        self._shape: tuple[int, ...] | None = None

    def __call__(self, x: Signal, out: Signal | None = None) -> Signal:
        """Take one step.

        Args:
            x: (I,) or (B, I).
            out: where to put the result, (H,) or (B, H), of the kind and dtype of `x`; then nothing is allocated.

        Returns:
            The last layer's state after the step, (H,) or (B, H): `out`, or memory of its own.

        Raises:
            InputTypeError, InputValueError: `x` or `out` has another kind, dtype or shape than the stream.
        """
        with self._lock:
            # what is checked here is what a step costs: all else is looked at when something differs
            if type(x) is np.ndarray and x.shape == self._shape and x.dtype is self._dtype:
                if out is not None and not (type(out) is np.ndarray and self._fits(out, self._shape)):
                    self._refuse_out(x, out)
                self._x_array[...] = x
                result = self._arrays[self._step()]
                if out is None:
                    return result.copy()
                out[...] = result
                return out
            return self._other(x, out)

    def _other(self, x: Signal, out: Signal | None) -> Signal:
        """A first step, a torch tensor, or something to refuse."""
        self._check_kind(x)
        self._check_shape(tuple(x.shape))
        if out is not None and (not isinstance(out, type(x)) or not self._fits(out, tuple(x.shape))):
            self._refuse_out(x, out)
        if self._stepper is None:
            self._begin(tuple(x.shape))
        assert self._stepper is not None
        given = torch.from_numpy(np.array(x)) if isinstance(x, np.ndarray) else x.detach()
        with torch.inference_mode(mode=False), torch.no_grad():
            self._stepper.x.copy_(given.reshape(self._stepper.x.shape))
        result = self._stepper.outputs[self._step()].reshape(self._out_shape)
        if isinstance(x, Tensor):
            if out is None:
                return result.clone()
            assert isinstance(out, Tensor)
            return out.copy_(result)
        if out is None:
            return result.numpy().copy()
        out[...] = result.numpy()
        return out

    def _fits(self, out: Signal, shape: tuple[int, ...]) -> bool:
        if not isinstance(out, np.ndarray | Tensor) or tuple(out.shape) != (*shape[:-1], self._spec.hidden_size):
            return False
        if isinstance(out, np.ndarray):
            return out.dtype == self._dtype and out.flags.writeable
        return out.dtype == self._spec.like.dtype

    def _refuse_out(self, x: Signal, out: object) -> None:
        kind = "a NumPy array" if isinstance(x, np.ndarray) else "a torch tensor"
        read_only = "a read-only " if isinstance(out, np.ndarray) and not out.flags.writeable else ""
        got = f"{read_only}{type(out).__name__} {tuple(getattr(out, 'shape', ()))} of {getattr(out, 'dtype', None)}"
        shape = (*x.shape[:-1], self._spec.hidden_size)
        raise InputTypeError(f"out must be {kind} {shape} of {x.dtype} like x, to write to; got {got}")

    def _step(self) -> int:
        assert self._stepper is not None
        return self._stepper.step()

    def _check_kind(self, x: object) -> None:
        if isinstance(x, np.ndarray):
            if self._dtype is None:
                like = self._spec.like
                raise InputTypeError(f"x must be a torch tensor, {like.dtype} on {like.device}; got a NumPy array")
            if x.dtype != self._dtype:
                raise InputTypeError(f"x must have the dtype of the layer, {self._dtype}; got {x.dtype}")
        elif isinstance(x, Tensor):
            like = self._spec.like
            if x.dtype != like.dtype or x.device != like.device:
                raise InputTypeError(
                    f"x must be {like.dtype} on {like.device} like the layer; got {x.dtype} on {x.device}"
                )
        else:
            raise InputTypeError(f"x must be a NumPy array or a torch tensor; got {type(x).__name__}")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        size = self._spec.input_size
        if len(shape) not in (1, 2) or shape[-1] != size or 0 in shape:
            raise InputValueError(f"x must be (I,) or (B, I) with I = {size}; got {shape}")
        if self._shape is not None:
            check_shape("x", torch.empty(shape, device="meta"), self._shape, "what it was in the first step,")

    def _begin(self, shape: tuple[int, ...]) -> None:
        """Have the stepper for inputs of this shape."""
        spec = self._spec
        batch = shape[0] if len(shape) == 2 else 1
        calls = []
        with torch.inference_mode(mode=False), torch.no_grad():  # what is made here is written to in every step
            for depth, (weights,) in enumerate(spec.weights):
                size = spec.hidden_size if depth else spec.input_size
                x, h_0 = spec.like.new_zeros(1, batch, size), spec.like.new_zeros(batch, spec.hidden_size)
                dropped = left_out(spec.dropouts, (1, batch, spec.hidden_size), x, training=False, draw=False)
                calls.append(Call(spec.system, x, h_0, weights, spec.activation, dropped=dropped))
            stepper = ops.stepper(calls, spec.backend)
            if spec.h_0 is not None:
                stepper.state = spec.h_0.detach().unsqueeze(1).expand(-1, batch, -1).clone()
        self._stepper, self._shape = stepper, shape
        self._out_shape = (*shape[:-1], spec.hidden_size)
        if self._dtype is not None:
            self._x_array = stepper.x.numpy().reshape(shape)
            self._arrays = [output.numpy().reshape(self._out_shape) for output in stepper.outputs]

    @property
    def state(self) -> Tensor | None:
        """The state of every layer, (L, H) or (L, B, H), a copy; None before the first step."""
        with self._lock:
            if self._stepper is None:
                return None
            return self._stepper.state.clone().reshape(-1, *self._out_shape)

    def reset(self) -> None:
        """Begin again from the initial state, with the layer's weights as they are now, and any number of signals."""
        with self._lock:
            self._look_at_layer()
