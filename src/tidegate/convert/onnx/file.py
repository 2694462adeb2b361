"""An ONNX file, read and checked: its size and its tensors. Nothing in it is run."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tidegate.convert.onnx.order import check_order, version_of
from tidegate.errors import FileError, FileMissingError, InputTypeError, InputValueError
from tidegate.extras import require

__all__ = ["DTYPES", "MOST_BYTES", "File", "Source", "read_file"]

#: What `max_bytes` is unless said otherwise: 1 GiB.
MOST_BYTES = 2**30

Source = str | Path | bytes | Any

#: ONNX's numbers for the dtypes that torch has too.
DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
#: The typed field of a tensor where its numbers lie if they are not raw; `int32_data` for all others.
_FIELDS = {torch.float32: "float_data", torch.float64: "double_data", torch.int64: "int64_data"}
#: Of these the typed field holds the bits, not the number.
_HALVES = (torch.float16, torch.bfloat16)


class File:
    """An ONNX model, and how to read its tensors: those beside it too, from its own folder alone."""

    def __init__(self, proto: Any, name: str, folder: Path | None, room: int) -> None:
        self.proto, self.name, self._folder, self._room = proto, name, folder, room
        self._max_bytes = room

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return version_of(self.proto)

    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return {entry.key: entry.value for entry in self.proto.metadata_props}

    def spend(self, size: int, what: str) -> None:
        """Count what is held in memory against the limit."""
        self._room -= size
        if self._room < 0:
            raise FileError(f"{self.name} must take at most max_bytes = {self._max_bytes}; {what} goes beyond it")

    def tensor(self, proto: Any) -> Tensor:
        """A tensor of the file, with its own memory."""
        what = f"tensor {proto.name!r} of {self.name}"
        if proto.data_type not in DTYPES:
            names = require("onnx", "onnx").TensorProto.DataType.Name
            kind = names(proto.data_type) if proto.data_type in range(27) else proto.data_type
            raise FileError(f"{what} must hold numbers of a dtype that torch has; it holds {kind}")
        dtype = DTYPES[proto.data_type]
        if any(size < 0 for size in proto.dims):
            raise FileError(f"{what} must have sizes of at least 0; it has {list(proto.dims)}")
        count, width = math.prod(proto.dims), dtype.itemsize
        if math.prod(max(1, size) for size in proto.dims) * width >= 2**63:  # of a tensor without numbers, too
            self.spend(count * width, what)
            raise FileError(f"{what} must have sizes that can be counted; it has {list(proto.dims)}")
        self.spend(count * width, what)
        if proto.data_location == proto.EXTERNAL:
            raw = self._beside(proto, what, count * width)
        elif proto.HasField("raw_data"):
            raw = bytes(proto.raw_data)
        else:
            return self._typed(getattr(proto, _FIELDS.get(dtype, "int32_data")), dtype, count, what).reshape(
                tuple(proto.dims)
            )
        if len(raw) != count * width:
            raise FileError(f"{what} must hold {count * width} bytes for {list(proto.dims)}; it holds {len(raw)}")
        if not count:
            return torch.empty(tuple(proto.dims), dtype=dtype)
        swapped = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        if sys.byteorder == "big":
            swapped = swapped.reshape(-1, width).flip(1).flatten()
        return swapped.view(dtype).reshape(tuple(proto.dims))

    def _typed(self, field: Any, dtype: torch.dtype, count: int, what: str) -> Tensor:
        if len(field) != count:
            raise FileError(f"{what} must hold {count} numbers; it holds {len(field)}")
        if dtype in _HALVES:
            return torch.tensor(list(field), dtype=torch.int32).to(torch.int16).view(dtype)
        if not dtype.is_floating_point:
            least, most = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
            for number in field:
                if not least <= number <= most:
                    raise FileError(f"{what} must hold numbers of its dtype, {dtype}; it holds {number}")
        return torch.tensor(list(field), dtype=dtype)

    def _beside(self, proto: Any, what: str, size: int) -> bytes:
        """The bytes of a tensor that lies in another file of the same folder, or below it."""
        told: dict[str, str] = {entry.key: entry.value for entry in proto.external_data}
        if self._folder is None:
            raise FileError(
                f"{what} lies in another file, {told.get('location')!r}; give the path of the model instead"
            )
        try:
            return self._read_beside(told, what, size)
        except FileError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, a loop of links
            raise FileError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from error

    def _read_beside(self, told: Mapping[str, str], what: str, size: int) -> bytes:
        location = told.get("location", "")
        path = self._place(location, what)
        offset, length = (
            _whole(told.get(key, default), what) for key, default in (("offset", "0"), ("length", str(size)))
        )
        there = path.stat().st_size
        if length != size or offset + length > there:
            raise FileError(
                f"{what} must be {size} bytes at {offset} in {location!r}; told are {length}, there {there}"
            )
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def _place(self, location: str, what: str) -> Path:
        """The file that is said to hold a tensor, if it is there and in the model's folder or below."""
        assert self._folder is not None
        folder = self._folder.resolve()
        path = (folder / location).resolve()
        if not location or not path.is_relative_to(folder) or Path(location).is_absolute():
            raise FileError(f"{what} must lie in the folder of the model or below; it is said to lie in {location!r}")
        if not path.is_file():
            raise FileMissingError(f"{what} lies in {location!r}, which is not there")
        return path


def _whole(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise FileError(f"{what} must be said to lie at a whole number of bytes; got {text!r}")
    return int(text)


def read_file(source: Source, max_bytes: int) -> File:
    """The model at a path, in bytes, or already read, if it is whole and its graph is in order."""
    onnx = require("onnx", "onnx")
    if type(max_bytes) is not int or max_bytes < 1:
        raise InputValueError(f"max_bytes must be an int of at least 1; got {max_bytes!r}")
    folder: Path | None = None
    if isinstance(source, onnx.ModelProto):
        name, proto, size = "the model", source, source.ByteSize()
        if size > max_bytes:
            raise FileError(f"{name} must hold at most max_bytes = {max_bytes}; it holds {size}")
        check_order(proto, name)
        return File(proto, name, None, max_bytes)
    if isinstance(source, bytes | bytearray | memoryview):
        name, content = "the file", bytes(source)
        if len(content) > max_bytes:
            raise FileError(f"{name} must hold at most max_bytes = {max_bytes}; it holds {len(content)}")
    elif isinstance(source, str | Path):
        path = Path(source)
        name, folder, content = repr(str(path)), path.parent, _content(path, max_bytes)
    else:
        raise InputTypeError(f"source must be a path, bytes or an onnx.ModelProto; got {type(source).__name__}")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except require("google.protobuf.message", "onnx").DecodeError as error:
        raise FileError(f"{name} is truncated or not an ONNX file") from error
    check_order(proto, name)
    return File(proto, name, folder, max_bytes)


def _content(path: Path, max_bytes: int) -> bytes:
    try:
        if not path.exists():
            raise FileMissingError(f"there is no file {str(path)!r}")
        if not path.is_file():
            raise FileError(f"{str(path)!r} must be a file")
        size = path.stat().st_size
        if size > max_bytes:
            raise FileError(f"{str(path)!r} must hold at most max_bytes = {max_bytes}; it holds {size}")
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{str(path)!r} cannot be read: {error.strerror}") from error
