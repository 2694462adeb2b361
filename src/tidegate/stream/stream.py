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
from tidegate.nn.spec import describe
from tidegate.ops import Call, Stepper
from tidegate.ops.checks import check_shape

__all__ = ["Stream"]

Signal = TypeVar("Signal", Tensor, NDArray[np.floating])


class Stream:
    """A recurrent layer that takes one step at a time and keeps its state: `y_t = stream(x_t)`.

    `x_t` is (I,), or (B, I) for B signals at once, NumPy or torch, in the dtype of the layer; `y_t` is the last layer's
    state after the step, (H,) or (B, H), and of the same kind. The numbers are those of a run over the whole sequence,
    in evaluation (no dropout, no gradients). The first step decides how many signals there are, until `reset()`.

    The weights are taken as they are when the stream is made, or `reset()`: training goes on without it. Threads may
    share a stream; their steps follow each other.

    Args:
        layer: a GRU, an RNN or one of their cells, Tidegate's or torch.nn's, that runs one way only.

    Raises:
        InputTypeError: `layer` is none of these.
        InputValueError: the layer also runs backwards, for which a live signal would have to end first.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._lock = threading.Lock()
        self._spec = describe(layer)
        if self._spec.directions > 1:
            raise InputValueError("layer must run one way: a backward direction begins at the end; got bidirectional")
        self._dtype = torch.empty(0, dtype=self._spec.like.dtype).numpy().dtype if self._on_cpu else None
        self._stepper: Stepper | None = None
        self._shape: tuple[int, ...] = ()

    @property
    def _on_cpu(self) -> bool:
        return self._spec.like.device.type == "cpu"

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
                if out is not None and not (type(out) is np.ndarray and self._fits(out)):
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
        if isinstance(x, np.ndarray):
            if not self._on_cpu:
                raise InputTypeError(f"x must be a torch tensor on {self._spec.like.device}; got a NumPy array")
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
        self._begin(tuple(x.shape))
        if out is not None and (not isinstance(out, type(x)) or not self._fits(out)):
            self._refuse_out(x, out)
        assert self._stepper is not None
        given = torch.from_numpy(np.ascontiguousarray(x)) if isinstance(x, np.ndarray) else x.detach()
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

    def _fits(self, out: Signal) -> bool:
        dtype = self._dtype if isinstance(out, np.ndarray) else self._spec.like.dtype
        return isinstance(out, np.ndarray | Tensor) and tuple(out.shape) == self._out_shape and out.dtype == dtype

    def _refuse_out(self, x: Signal, out: object) -> None:
        kind = "a NumPy array" if isinstance(x, np.ndarray) else "a torch tensor"
        got = f"{type(out).__name__} {tuple(getattr(out, 'shape', ()))} of {getattr(out, 'dtype', None)}"
        raise InputTypeError(f"out must be {kind} {self._out_shape} of {x.dtype} like x; got {got}")

    def _step(self) -> int:
        assert self._stepper is not None
        return self._stepper.step()

    def _begin(self, shape: tuple[int, ...]) -> None:
        """Have the stepper for inputs of this shape, or refuse it where there is one for another."""
        spec = self._spec
        if len(shape) not in (1, 2) or shape[-1] != spec.input_size or 0 in shape:
            raise InputValueError(f"x must be (I,) or (B, I) with I = {spec.input_size}; got {shape}")
        if self._stepper is not None:
            check_shape("x", torch.empty(shape, device="meta"), self._shape, "what it was in the first step,")
            return
        batch = shape[0] if len(shape) == 2 else 1
        calls = []
        for depth, (weights,) in enumerate(spec.weights):
            size = spec.hidden_size if depth else spec.input_size
            x, h_0 = spec.like.new_zeros(1, batch, size), spec.like.new_zeros(batch, spec.hidden_size)
            dropped = left_out(spec.dropouts, (1, batch, spec.hidden_size), x, training=False, draw=False)
            calls.append(Call(spec.system, x, h_0, weights, spec.activation, dropped=dropped))
        with torch.no_grad():
            stepper = ops.stepper(calls, spec.backend)
            if spec.h_0 is not None:
                stepper.state = spec.h_0.detach().unsqueeze(1).expand(-1, batch, -1).clone()
        self._stepper, self._shape = stepper, shape
        self._out_shape = (*shape[:-1], spec.hidden_size)
        if self._on_cpu:
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
            self._spec = describe(self._layer)
            self._stepper, self._shape = None, ()
