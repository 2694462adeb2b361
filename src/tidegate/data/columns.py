"""Which columns of a table are read, and as what; a name that is not there is refused with the nearest that is."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.data.sequences import Columns, Feature, Label
from tidegate.errors import InputValueError

__all__ = ["Roles", "nearest", "roles_of"]


@dataclass(frozen=True)
class Roles:
    """The columns of a table by what they are."""

    id: str | None
    time: str | None
    label: str | None
    features: tuple[str, ...]
    #: Features and labels that are categories whatever they hold.
    categorical: frozenset[str]

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that is read."""
        return (*(name for name in (self.id, self.time, self.label) if name is not None), *self.features)


def roles_of(
    columns: Columns, names: Sequence[str], known: Sequence[Feature] | None = None, known_label: Label | None = None
) -> Roles:
    """What each column of a table with these `names` is.

    With `known` features, these are the features, and other columns are not looked at.

    Raises:
        InputValueError: a column is not there, is named for two purposes, or no feature is left.
    """
    single = {"id": columns.id, "time": columns.time, "label": columns.label}
    if known is None:
        single["hold"] = columns.hold
    taken = {purpose: (name,) for purpose, name in single.items() if name is not None}
    if known is None:
        listed = {"features": columns.features or (), "ignore": columns.ignore}
    else:
        listed = {"features": tuple(item.name for item in known)}
    _check_there({**taken, **listed}, names)
    _check_once({**taken, **listed})
    if known is None:
        left = [name for name in names if name not in columns.ignore and name not in single.values()]
        features = tuple(left) if columns.features is None else columns.features
        features += taken.get("hold", ())  # the last, and taken out of the features once all is read
        categories = set(columns.categorical)
        if "" in features:
            raise InputValueError(
                f"every column must have a name; column {list(names).index('') + 1} has none "
                "(name it, or leave it out with ignore)"
            )
        _check_categorical(columns.categorical, names, (*features, *taken.get("label", ())))
    else:
        features = listed["features"]
        categories = {item.name for item in known if item.kind == "category"}
    if not set(features) - set(taken.get("hold", ())):
        raise InputValueError("features must be one column or more; no column of the table is left for them")
    if known_label is not None:
        categories -= {columns.label or ""}
        if columns.label is not None and known_label.categories is not None:
            categories.add(columns.label)
    return Roles(columns.id, columns.time, columns.label, features, frozenset(categories))


def _check_there(purposes: Mapping[str, Sequence[str]], names: Sequence[str]) -> None:
    for purpose, wanted in purposes.items():
        for name in wanted:
            if name not in names:
                raise InputValueError(f"{purpose} must name columns of the table; {_absent(name, names)}")


def _check_once(purposes: Mapping[str, Sequence[str]]) -> None:
    seen: dict[str, str] = {}
    for purpose, wanted in purposes.items():
        for name in wanted:
            if name in seen:
                both = f"twice in {purpose}" if seen[name] == purpose else f"both as {seen[name]} and in {purpose}"
                raise InputValueError(f"a column must be one thing; {name!r} is named {both}")
            seen[name] = purpose


def _check_categorical(categorical: Sequence[str], names: Sequence[str], usable: Sequence[str]) -> None:
    for name in categorical:
        if name not in names:
            raise InputValueError(f"categorical must name columns of the table; {_absent(name, names)}")
        if name not in usable:
            raise InputValueError(f"categorical must name features or the label; {name!r} is neither")


def _absent(name: str, names: Sequence[str]) -> str:
    close = nearest(name, names)
    shown = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
    return f"it has no column {name!r}" + (f" (did you mean {close!r}?)" if close else f" (it has {shown})")


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The name most like the one given; None if none is like it."""
    folded = {other.casefold(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1)
    return folded[close[0]] if close else None
