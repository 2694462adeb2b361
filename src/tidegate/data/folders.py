"""What readers of one sequence a file share: names and labels from where the files lie."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.data.files import Found
from tidegate.data.sequences import Columns, Label
from tidegate.errors import InputValueError

__all__ = ["NO_COLUMNS", "FolderLabel", "folder_label", "offsets_of", "require_no_columns"]

#: "folder": the name of the folder that a file lies in.
FolderLabel = Literal["folder"] | None

NO_COLUMNS = Columns()


def folder_label(files: Sequence[Found], label: FolderLabel, columns: Columns) -> Label | None:
    """The class of each file, the name of the folder that it lies in, if `label` or `columns.label` is "folder"."""
    if columns.label == "folder":
        label = "folder"
    if label is None:
        return None
    if label != "folder":
        raise InputValueError(f"label must be 'folder', the name of each file's folder, or None; got {label!r}")
    categories = tuple(sorted({found.folder for found in files}))
    codes = [categories.index(found.folder) for found in files]
    return Label("folder", np.array(codes, np.float64), False, categories)


def offsets_of(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where sequences of these lengths begin and end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def require_no_columns(columns: Columns, what: str, *, labels: tuple[str, ...] = ("folder",)) -> None:
    """Refuse the id, time and label of a table where there is none; `labels` are no columns but words."""
    given = {name: getattr(columns, name) for name in ("id", "time", "label") if getattr(columns, name) is not None}
    if given.get("label") in labels:
        del given["label"]
    if given:
        told = ", ".join(f"columns.{name}={value!r}" for name, value in given.items())
        raise InputValueError(f"{what} have no columns, and no label but {' or '.join(map(repr, labels))}; got {told}")
