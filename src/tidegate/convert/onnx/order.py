"""Whether an ONNX file is whole and in order: its text, its names, and that every value is made before it is read."""

from collections import Counter
from typing import Any

from tidegate.errors import FileError

__all__ = ["check_order", "label", "version_of"]

#: The newest version of ONNX's operators whose meaning this importer was written for.
NEWEST_OPSET = 28


def check_order(proto: Any, name: str) -> None:
    """Raise `FileError` unless the file says what it must and every node comes after what it reads."""
    graph = proto.graph
    if (field := _not_text(proto)) is not None:
        raise FileError(f"{name} is damaged: its {field} is not text")
    if not proto.ir_version or not graph.output:
        raise FileError(f"{name} is truncated or not an ONNX file: it has no graph with outputs")
    if sum(one.domain in ("", "ai.onnx") for one in proto.opset_import) != 1:
        raise FileError(f"{name} is truncated: it must say once which version of ONNX's operators it uses")
    if not 1 <= version_of(proto) <= NEWEST_OPSET:
        raise FileError(f"{name} must use ONNX's operators of version 1 to {NEWEST_OPSET}; got {version_of(proto)}")
    if graph.sparse_initializer:
        raise FileError(f"{name} must hold its tensors whole; it holds sparse ones")
    _check_names(graph, name)
    _check_values(graph, name)


def _not_text(message: Any) -> str | None:
    """The name of a field whose text is no UTF-8, which protobuf gives as bytes."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if isinstance(value, bytes) or (
                not isinstance(value, str) and any(isinstance(one, bytes) for one in value)
            ):
                return str(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for one in [value] if hasattr(value, "ListFields") else value:
                if (found := _not_text(one)) is not None:
                    return found
    return None


def _check_names(graph: Any, name: str) -> None:
    """Inputs have names, and no two of them one; nor have initializers."""
    for kind, values in (("input", graph.input), ("initializer", graph.initializer)):
        held = Counter(value.name for value in values)
        if kind == "input" and "" in held:
            raise FileError(f"{name} must name its inputs; one has no name")
        if (twice := next((one for one, count in held.items() if count > 1), None)) is not None:
            raise FileError(f"{name} must make every value once; {twice!r} is an {kind} twice")


def _check_values(graph: Any, name: str) -> None:
    """Every value is made once, before it is read."""
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    made_by: dict[str, str] = {}
    for number, node in enumerate(graph.node):
        for output in node.output:
            if output and (output in made_by or output in known):
                raise FileError(f"{name} must make every value once; {output!r} is made anew by {label(node, number)}")
            made_by[output] = label(node, number)
    for number, node in enumerate(graph.node):
        for needed in node.input:  # what a subgraph reads is not looked at: a node that has one is refused
            if needed in known:
                continue
            if needed in made_by:
                later = made_by[needed]
                raise FileError(
                    f"{name} has a graph that is circular or out of order: {label(node, number)} reads {needed!r},"
                    f" which {later} makes after it"
                )
            raise FileError(f"{label(node, number)} of {name} reads {needed!r}, which nothing makes")
        known |= set(node.output)
    for value in graph.output:
        if value.name not in known or not value.name:
            raise FileError(f"{name} must make its output {value.name!r}; nothing does")


def version_of(proto: Any) -> int:
    """The version of ONNX's own operators."""
    return next(int(one.version) for one in proto.opset_import if one.domain in ("", "ai.onnx"))


def label(node: Any, number: int) -> str:
    """A node in a sentence."""
    return f"node {node.name or number!r} ({node.op_type})"
