"""The table of ONNX's operators: a function a name, and what its signature says of a node."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from torch import Tensor

from tidegate.errors import InputValueError

__all__ = ["OPERATORS", "Operator", "numbers", "operator", "place_of"]


@dataclass(frozen=True)
class Operator:
    """A function of tensors, and what may be asked of it."""

    function: Callable[..., Any]
    since: int
    #: The type of each attribute: `int`, `list[float]`, `Tensor`, …
    attributes: Mapping[str, Any]
    #: The attributes that a node must have.
    needs: frozenset[str]
    #: How many inputs it takes, at least and at most; None for any number.
    inputs: tuple[int, int | None]
    #: How many outputs it makes at most; None where the node says so.
    outputs: int | None
    #: Told how many outputs are wanted, by the keyword `outputs`.
    counts_outputs: bool
    #: It only lays numbers out anew: of constants it makes a constant, of no more numbers than all that it reads.
    lays_out: bool


OPERATORS: dict[str, Operator] = {}


def operator(
    name: str, *, since: int = 7, lays_out: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function under its name.

    It takes its inputs in ONNX's order (None for one that is left out) and its attributes as keywords; what it has no
    keyword for is refused. `since` is the version of ONNX's operators from which on the function says what they do.
    """

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        parameters = signature.parameters.values()
        plain = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        least, most = sum(one.default is one.empty for one in plain), len(plain)
        several = any(one.kind is one.VAR_POSITIONAL for one in parameters)
        keywords = {one.name: one for one in parameters if one.kind is one.KEYWORD_ONLY}
        counts = keywords.pop("outputs", None) is not None
        OPERATORS[name] = Operator(
            function,
            since,
            {key: _plain(one.annotation) for key, one in keywords.items()},
            frozenset(key for key, one in keywords.items() if one.default is one.empty),
            (1, None) if several else (least, most),
            None if counts else _count(signature.return_annotation),
            counts,
            lays_out,
        )
        return function

    return enter


def _plain(annotation: Any) -> Any:
    """A type without the None that stands for what a node leaves out."""
    if isinstance(annotation, UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    return annotation


def _count(annotation: Any) -> int:
    """How many tensors a function returns."""
    return len(get_args(annotation)) if get_origin(annotation) is tuple else 1


def numbers(tensor: Tensor) -> list[int]:
    """A tensor of sizes or axes as ints."""
    whole: list[int] = tensor.flatten().tolist()
    return whole


def place_of(axis: int, rank: int) -> int:
    """An axis counted from the start; refused where there is none such."""
    if not -rank <= axis < rank:
        raise InputValueError(f"axis must lie in {-rank}..{rank - 1}; got {axis}")
    return axis % rank
