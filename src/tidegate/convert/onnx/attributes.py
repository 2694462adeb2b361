"""The attributes of a node, read and held to the types that they must have."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tidegate.convert.onnx.file import File
from tidegate.errors import FileError, InputValueError
from tidegate.extras import require

__all__ = ["attributes_of"]

#: ONNX's words for the types of attributes.
_TYPES = {
    int: "INT", float: "FLOAT", str: "STRING", Tensor: "TENSOR",
    list[int]: "INTS", list[float]: "FLOATS", list[str]: "STRINGS",
}  # fmt: skip


def attributes_of(file: File, node: Any, what: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a node, `what` in a sentence; `InputValueError` unless each is of its type in `kinds`."""
    read: dict[str, Any] = {}
    types = require("onnx", "onnx").AttributeProto.AttributeType
    for entry in node.attribute:
        if entry.name in read:
            raise InputValueError(f"{what} has the attribute {entry.name!r} twice")
        if entry.name not in kinds:
            raise InputValueError(f"{what} has the attribute {entry.name!r}, which is not known here")
        value, expected = _attribute(file, node, entry), _TYPES[kinds[entry.name]]
        if (got := types.Name(entry.type)) != expected:
            raise InputValueError(f"attribute {entry.name!r} of {what} must be {_a(expected)}; got {_a(got)}")
        read[entry.name] = value
    return read


def _a(kind: str) -> str:
    return kind if kind.endswith("S") else f"{'an' if kind[0] == 'I' else 'a'} {kind}"


def _attribute(file: File, node: Any, entry: Any) -> Any:  # noqa: PLR0911 - one a type
    """The value of an attribute; graphs, sparse tensors and types have none that is used here."""
    kinds = require("onnx", "onnx").AttributeProto
    match entry.type:
        case kinds.INT:
            return int(entry.i)
        case kinds.FLOAT:
            return float(entry.f)
        case kinds.STRING:
            return _text(file, node, entry, entry.s)
        case kinds.TENSOR:
            return file.tensor(entry.t)
        case kinds.INTS:
            return [int(one) for one in entry.ints]
        case kinds.FLOATS:
            return [float(one) for one in entry.floats]
        case kinds.STRINGS:
            return [_text(file, node, entry, one) for one in entry.strings]
    kind = kinds.AttributeType.Name(entry.type).lower() if entry.type in range(15) else entry.type
    raise InputValueError(
        f"attribute {entry.name!r} of a {node.op_type} node must be numbers, text or a tensor; got {kind}"
    )


def _text(file: File, node: Any, entry: Any, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"attribute {entry.name!r} of a {node.op_type} node of {file.name} must be text") from error
