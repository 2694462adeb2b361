"""What steers the steps of a call, as kernels take it: forced gates, factors of the candidate and the update gate."""

import struct
import sys
from typing import NamedTuple

import torch
from torch import Tensor

from tidegate.equations import Dropped, Pinned
from tidegate.ops.call import Call
from tidegate.ops.cpu.layout import LAYOUTS

__all__ = ["NOTHING", "Steering"]


class Steering(NamedTuple):
    """The tensors are contiguous and have three axes, each that of (T, B, H) or 1; None is not there."""

    #: Forced gates; NaN is free.
    update: Tensor | None = None
    reset: Tensor | None = None
    #: What the candidate is multiplied with.
    factor: Tensor | None = None
    #: What the update gate is multiplied with where it is not forced.
    write: float = 1.0

    @classmethod
    def of(cls, call: Call) -> "Steering":
        """The steering of a call."""
        (update, reset), factor, write = call.pins, call.dropped.candidate, call.dropped.write
        if update is None and reset is None and factor is None and write is None:
            return NOTHING
        write = 1.0 if write is None else write
        if write != 1 and "update" not in LAYOUTS[call.system].inputs:
            # a gate that is always open, scaled, is the same number everywhere: a pin, with an entry for every step
            free = call.x.new_full((call.x.shape[0], 1, 1), write)
            update = free if update is None else torch.where(update.isnan(), free, update)
            write = 1.0
        update, reset, factor = (
            None if one is None else _three_axes(one.to(call.x.dtype)) for one in (update, reset, factor)
        )
        return cls(update, reset, factor, write)

    @property
    def pinned(self) -> bool:
        """Whether a gate may be forced."""
        return self.update is not None or self.reset is not None

    @property
    def pins(self) -> Pinned:
        """The forced gates in the equations' terms."""
        return Pinned(self.update, self.reset)

    @property
    def dropped(self) -> Dropped:
        """What the steps leave out, in the equations' terms."""
        return Dropped(candidate=self.factor, write=None if self.write == 1 else self.write)

    def fields(self, like: Tensor) -> dict[str, int]:
        """The fields of a record, for states (…, H) like this one."""
        fields = {} if self.write == 1 else {"WRITE": _bits(self.write, like.dtype)}
        for name, tensor in zip(("PIN_UPDATE", "PIN_RESET", "FACTOR"), self[:3], strict=True):
            if tensor is not None:
                strides = zip(tensor.shape, tensor.stride(), strict=True)
                step, row, _ = (0 if size == 1 else stride for size, stride in strides)
                kind = 1 if tensor.shape[2] == like.shape[-1] else 2
                fields |= {name: tensor.data_ptr(), f"{name}_KIND": kind, f"{name}_STEP": step, f"{name}_ROW": row}
        return fields


#: Every gate is free, and nothing is dropped.
NOTHING = Steering()


def _three_axes(tensor: Tensor) -> Tensor:
    return tensor.reshape((1,) * (3 - tensor.ndim) + tuple(tensor.shape)).contiguous()


def _bits(number: float, dtype: torch.dtype) -> int:
    """The bits of a number of `dtype` as an integer."""
    return int.from_bytes(struct.pack("=f" if dtype == torch.float32 else "=d", number), sys.byteorder)
