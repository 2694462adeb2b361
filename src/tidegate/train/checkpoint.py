"""What a training run needs to go on, in one file that is written whole or not at all: safetensors and JSON."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tidegate.errors import FileError, FileMissingError
from tidegate.extras import require

__all__ = [
    "Checkpoint",
    "clear_unfinished",
    "optimizer_state",
    "read_checkpoint",
    "restore_optimizer",
    "unfinished",
    "whole_file",
    "write_checkpoint",
    "write_whole",
]

_FORMAT = "tidegate.checkpoint/1"
_KEY = "tidegate"
_UNFINISHED = "-unfinished"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state of training: tensors by name, and everything else as JSON can hold it."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write the file beside `path` and put it in its place in one move, so that a crash leaves the old one or the new.

    Raises `FileError` if the disk is full or the folder cannot be written; what was there before is then still there.
    """
    safetensors = require("safetensors.torch", "train")
    # copies, for safetensors refuses tensors that share memory
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in checkpoint.tensors.items()
    }
    metadata = {_KEY: json.dumps({"format": _FORMAT, **checkpoint.state}, allow_nan=False)}
    write_whole(path, safetensors.save(tensors, metadata))


def write_whole(path: Path, content: bytes) -> None:
    """Make `path` hold `content`, all of it or what it held before, whatever happens in between.

    Raises `FileError` in a sentence for whatever the disk says.
    """
    with whole_file(path) as beside, beside.open("wb") as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place when all is done; on any error nothing of it stays.

    Raises `FileError` in a sentence for whatever the disk says.
    """
    beside = unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _sync(beside, os.O_RDWR)
        beside.replace(path)
        with suppress(OSError):  # not every system lets folders be synchronised
            _sync(path.parent, os.O_RDONLY)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and not isinstance(error, FileError):
            raise FileError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
        raise


def unfinished(path: Path) -> Path:
    """Where `path` is written until it is whole; a process that is killed leaves this behind."""
    return path.with_name(f".{path.name}{_UNFINISHED}")


def clear_unfinished(folder: Path) -> None:
    """Remove what processes that were killed left unfinished in a folder and the folders in it."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """The inverse of `write_checkpoint`; no code from the file is run.

    Raises:
        FileMissingError: there is no such file.
        FileError: it is damaged, or no checkpoint.
    """
    safetensors = require("safetensors", "train")
    if not path.is_file():
        raise FileMissingError(f"there is no file {str(path)!r}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # copies, for a tensor that looks into the file ends the process (SIGBUS) once somebody cuts the file short
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except safetensors.SafetensorError as error:
        raise FileError(f"{str(path)!r} is truncated or not a safetensors file: {error}") from error
    try:
        state = json.loads(metadata.get(_KEY, ""))
    except json.JSONDecodeError:
        state = None
    if not isinstance(state, dict) or state.pop("format", None) != _FORMAT:
        raise FileError(f"{str(path)!r} is not a checkpoint of the format {_FORMAT!r}")
    return Checkpoint(tensors, state)


def optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Tensor]:
    """The tensors of an optimizer, named after the parameters that they belong to."""
    held = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            held[f"{names[id(parameter)]}/{key}"] = torch.as_tensor(value)
    return held


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], held: Mapping[str, Tensor]
) -> None:
    """Give an optimizer the state that `optimizer_state` told."""
    for name, tensor in held.items():
        parameter, _, key = name.rpartition("/")
        optimizer.state[parameters[parameter]][key] = tensor.clone()


def _sync(path: Path, access: int) -> None:
    """Have the disk hold what was written to a file, or which files are in a folder."""
    handle = os.open(path, access)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
