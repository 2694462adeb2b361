"""The settings of a run as options of the command line: each once, where it is defined."""

import inspect
import types
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from tidegate.train.settings import Settings

__all__ = ["with_settings"]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """`command(*own, given)` as a command that takes its own parameters and one option for every setting.

    `given` holds the settings that were typed. A setting that is a list may be given several times.
    """
    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "given"]
    taken = {parameter.name for parameter in own}
    hints = get_type_hints(Settings)
    settings = [one for one in fields(Settings) if one.name not in taken]
    options = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _typed(hints[one.name]),
                typer.Option(help=_help(one.metadata["help"], one.default), show_default=False),
            ],
        )
        for one in settings
    ]

    def run(**arguments: Any) -> None:
        given = {one.name: arguments.pop(one.name) for one in settings}
        command(**arguments, given={name: value for name, value in given.items() if value not in (None, [])})

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *options]}
    return run


def _typed(hint: Any) -> Any:
    """The type of an option that may be left out."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    return list[str] | None if get_origin(hint) is tuple else hint | None


def _help(words: str, default: Any) -> str:
    if default in (None, ()):
        return words
    told = (
        str(default).lower() if isinstance(default, bool) else f"{default:g}" if isinstance(default, float) else default
    )
    return f"{words} [default: {told}]"
