"""What a training run needs to go on, in one file that is written whole or not at all: safetensors and JSON."""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tidegate.errors import FileError, FileMissingError
from tidegate.extras import require

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint", "write_whole"]

_FORMAT = "tidegate.checkpoint/1"
_KEY = "tidegate"


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
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    metadata = {_KEY: json.dumps({"format": _FORMAT, **checkpoint.state})}
    write_whole(path, safetensors.save(tensors, metadata))


def write_whole(path: Path, content: bytes) -> None:
    """Make `path` hold `content`, all of it or what it held before, whatever happens in between.

    Raises `FileError` in a sentence for whatever the disk says.
    """
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp makes a file that nobody else may read
        Path(name).replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        if name is not None:
            with suppress(OSError):
                Path(name).unlink()
        if isinstance(error, OSError):
            raise FileError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
        raise


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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
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


def _sync_folder(folder: Path) -> None:
    """Have the disk remember the move itself, where the system lets folders be synchronised."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
