"""Folders of results: models as safetensors and JSON, and a folder that is filled whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.train.models import ClassifierConfig, SequenceClassifier

__all__ = ["check_out", "load_classifier", "save_classifier", "staged"]

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_FORMAT = "tidegate.classifier/1"


def save_classifier(model: SequenceClassifier, folder: Path) -> None:
    """Write `model.safetensors` and `config.json` into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / _WEIGHTS)
    config = {"format": _FORMAT, **model.config.to_dict()}
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_classifier(folder: str | Path) -> SequenceClassifier:
    """The model that `save_classifier` wrote, ready to answer; no code from the files is run.

    Raises:
        FileMissingError: the folder or one of its two files is not there.
        FileError: a file is damaged, the weights do not fit the configuration, or one is NaN or infinite.
    """
    folder = Path(folder)
    model = SequenceClassifier(_read_config(folder / _CONFIG))
    path = folder / _WEIGHTS
    weights = _read_weights(path)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise FileError(f"{str(path)!r} must hold {name} of {expected.get(name)}; it holds {found.get(name)}")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise FileError(f"{str(path)!r} must hold finite numbers; {name} holds NaN or infinity")
    model.load_state_dict(weights)
    return model.eval()


def _read_config(path: Path) -> ClassifierConfig:
    if not path.is_file():
        raise FileMissingError(f"there is no file {str(path)!r}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{str(path)!r} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.pop("format", None) != _FORMAT:
        raise FileError(f"{str(path)!r} is not a configuration of the format {_FORMAT!r}")
    try:
        return ClassifierConfig.from_dict(config)
    except InputValueError as error:
        raise FileError(f"{str(path)!r} is not a classifier's configuration: {error}") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileMissingError(f"there is no file {str(path)!r}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise FileError(f"{str(path)!r} is truncated or not a safetensors file: {error}") from error


def check_out(out: str | Path, *, overwrite: bool) -> None:
    """Raise `InputValueError` unless results may be written to the folder `out`: new, empty, or `overwrite`."""
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputValueError(f"out must be a folder; {str(out)!r} is a file")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputValueError(f"out must be new or empty; {str(out)!r} holds files (--overwrite replaces its results)")


@contextmanager
def staged(out: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, whose files are moved to `out` when all is done; on any error nothing of it stays.

    Files of `out` that are not written anew are left alone.
    """
    check_out(out, overwrite=overwrite)
    out = Path(out).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-unfinished-", dir=out.parent))
    try:
        yield staging
        staging.chmod(0o755)
        for path in sorted(staging.rglob("*")):
            target = out / path.relative_to(staging)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
