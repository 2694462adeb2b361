"""`.keras` files read as data: a zip of JSON and HDF5, from which no code is run and no class is made."""

import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.convert.arrays import Array
from tidegate.convert.keras_record import GATES, KerasLayer, plain_config, record
from tidegate.errors import FileError, FileMissingError, InputTypeError, InputValueError
from tidegate.extras import require

__all__ = ["read_keras_file"]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_CONFIG_BYTES = 2**26
_DEPTH = 32
_HDF5 = "a file whose weights are HDF5"
#: What zipfile, zlib and h5py raise where bytes are missing or wrong.
_DAMAGE: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, KeyError)
_DAMAGE += (NotImplementedError, OverflowError, TypeError, ValueError)
#: What concerns training alone is not looked at, whatever it is.
_TRAINING = ("compile_config", "_initializer", "_regularizer", "_constraint")


def read_keras_file(path: str | Path, *, max_bytes: int = 2**31) -> list[KerasLayer]:
    """Every GRU, SimpleRNN and LSTM of a model that Keras 3 saved as `.keras`, in the order of the model.

    Looks into models inside the model, `Bidirectional`, `TimeDistributed` and `RNN`. No code from the file is run:
    layers are not made, and what would need code to be understood is refused.

    Args:
        path: the file.
        max_bytes: how large the weights may be, in the file and in memory.

    Raises:
        InputTypeError, InputValueError: an argument is wrong.
        FileMissingError: there is no such file.
        FileError: it is truncated, not such a file or too large; holds a Lambda layer, a layer or model of somebody's
            own; or its weights are missing or do not fit the configuration.
    """
    if not isinstance(path, str | Path):
        raise InputTypeError(f"path must be a str or a Path; got {type(path).__name__}")
    if type(max_bytes) is not int or max_bytes < 1:
        raise InputValueError(f"max_bytes must be an int of at least 1; got {max_bytes!r}")
    path = Path(path)
    try:
        there = path.exists()
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if not there:
        raise FileMissingError(f"there is no file {str(path)!r}")
    if path.is_dir():
        raise FileError(f"{str(path)!r} is a folder; a .keras file is expected")
    if not path.is_file():
        raise FileError(f"{str(path)!r} must be a file")
    with _told(path, "a zip file"), zipfile.ZipFile(path) as archive:
        config = _json(_member(archive, path, _CONFIG, _CONFIG_BYTES), path)
        weights = _member(archive, path, _WEIGHTS, max_bytes)
    _check_no_code(config, path)
    h5py = require("h5py", "doctor")
    with _told(path, _HDF5):
        store = h5py.File(io.BytesIO(weights), "r")
    with store:
        return list(_Reader(path, store, h5py, max_bytes).layers(config, "", 0))


@contextmanager
def _told(path: Path, kind: str) -> Iterator[None]:
    """What the libraries say of a damaged file, as one sentence of ours."""
    try:
        yield
    except FileError:
        raise
    except _DAMAGE as error:
        told = " ".join(str(error).split())
        raise FileError(f"{str(path)!r} is truncated or not {kind}: {told}") from error


def _member(archive: zipfile.ZipFile, path: Path, name: str, limit: int) -> bytes:
    """The bytes of one file in the zip, if it is there and not larger than `limit`."""
    held = [info for info in archive.infolist() if info.filename == name]
    if len(held) != 1:
        names = ", ".join(archive.namelist()[:4])
        raise FileError(
            f"{str(path)!r} must hold {name} once, as a model that Keras 3 saved; it holds {names or 'nothing'}"
        )
    if held[0].file_size > limit:
        raise FileError(f"{str(path)!r} must hold at most {limit:,} bytes of {name}; it holds {held[0].file_size:,}")
    return archive.read(held[0])


def _json(text: bytes, path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{str(path)!r} must hold JSON in {_CONFIG}: {type(error).__name__}") from error
    if not isinstance(config, dict):
        raise FileError(f"{str(path)!r} must hold a model's description in {_CONFIG}; got a {type(config).__name__}")
    return config


def _check_no_code(config: Mapping[str, Any], path: Path) -> None:
    """Refuse what can only be understood by running it: lambdas, and classes that are not Keras's."""
    left: list[Any] = [config]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            class_name, module = node.get("class_name"), node.get("module", "keras")
            if class_name in ("Lambda", "__lambda__"):
                raise FileError(f"{str(path)!r} must be readable without running code; it holds a lambda")
            described = isinstance(node.get("config"), dict)
            if described and not (isinstance(module, str) and module.partition(".")[0] in ("keras", "builtins")):
                raise FileError(
                    f"{str(path)!r} must be readable without running code; {class_name!r} in it is not Keras's own"
                )
            left.extend(value for key, value in node.items() if not key.endswith(_TRAINING))
        elif isinstance(node, list):
            left.extend(node)


@dataclass(frozen=True)
class _Reader:
    """Walks a model's description and fetches the weights of its recurrent layers."""

    path: Path
    store: Any
    h5py: Any
    max_bytes: int
    #: The bytes of each array that was read.
    taken: list[int] = field(default_factory=list)

    def layers(self, described: Any, at: str, depth: int) -> Iterator[KerasLayer]:
        """The recurrent layers in what is described; `at` is where its weights lie in the HDF5 file."""
        class_name, config = self._description(described, at)
        if depth > _DEPTH:
            raise self._refusal(f"it nests models more than {_DEPTH} deep")
        if "layers" in config:
            yield from self._members(class_name, config["layers"], _join(at, "layers"), depth)
        elif class_name == "TimeDistributed":
            yield from self.layers(config.get("layer"), _join(at, "layer"), depth + 1)
        elif class_name == "Bidirectional":
            yield self._both_ways(config, at)
        elif class_name == "RNN" and self._description(config.get("cell"), at)[0] == "StackedRNNCells":
            cells = self._description(config["cell"], at)[1].get("cells")
            for name, cell in self._named(cells, at):
                one = {"class_name": "RNN", "config": {**config, "cell": cell}}
                yield self._alone(one, _join(at, "cell/cells", name), "vars")
        elif class_name in GATES or class_name == "RNN":
            yield self._alone(described, at, "cell/vars")
        elif _mentions_recurrence(config):
            raise self._refusal(f"it holds a recurrent layer inside {class_name!r}, which is not looked into")

    def _members(self, class_name: str, layers: Any, at: str, depth: int) -> Iterator[KerasLayer]:
        """The layers of a model; a Sequential does not count its input."""
        for name, layer in self._named(layers, at, leave_out="InputLayer" if class_name == "Sequential" else None):
            yield from self.layers(layer, _join(at, name), depth + 1)

    def _named(self, described: Any, at: str, leave_out: str | None = None) -> Iterator[tuple[str, Any]]:
        """What a list describes, under the names that Keras gives to the members of a list: `gru`, `gru_1`."""
        if not isinstance(described, list):
            raise self._refusal(f"it does not list the layers of {at!r}")
        seen: Counter[str] = Counter()
        for one in described:
            class_name = self._description(one, at)[0]
            if class_name != leave_out:
                name = _snake_case(class_name)
                yield (name if not seen[name] else f"{name}_{seen[name]}"), one
                seen[name] += 1

    def _description(self, described: Any, at: str) -> tuple[str, dict[str, Any]]:
        """The class and the configuration of what is described."""
        if not isinstance(described, dict):
            raise self._refusal(f"it does not describe a layer at {at or 'the top'!r}")
        class_name, config = described.get("class_name"), described.get("config")
        if not isinstance(class_name, str) or not isinstance(config, dict):
            raise self._refusal(f"it does not describe a layer at {at or 'the top'!r}")
        return class_name, config

    def _alone(self, described: dict[str, Any], at: str, inside: str) -> KerasLayer:
        class_name, config = self._kind(described, at)
        return self._record(at, class_name, config, [(config, _join(at, inside))], None)

    def _both_ways(self, config: dict[str, Any], at: str) -> KerasLayer:
        class_name, forward = self._kind(config.get("layer"), at)
        other, backward = self._kind(config.get("backward_layer"), at)
        if other != class_name:
            raise self._refusal(f"{at!r} runs a {class_name} forwards and a {other} backwards")
        ways = [(forward, _join(at, "forward_layer/cell/vars")), (backward, _join(at, "backward_layer/cell/vars"))]
        return self._record(at, class_name, forward, ways, config)

    def _kind(self, described: Any, at: str) -> tuple[str, Mapping[str, Any]]:
        """The kind and the configuration of a recurrent layer."""
        class_name, config = self._description(described, at)
        if class_name == "RNN":
            self._description(config.get("cell"), at)
        class_name, plain = plain_config(described)
        if class_name not in GATES:
            raise self._refusal(f"it holds a recurrent {class_name!r} at {at!r}, which is not read")
        return class_name, plain

    def _record(
        self,
        at: str,
        class_name: str,
        config: Mapping[str, Any],
        ways: list[tuple[Mapping[str, Any], str]],
        around: Mapping[str, Any] | None,
    ) -> KerasLayer:
        weights = [array for told, inside in ways for array in self._arrays(inside, told)]
        try:
            return record(at, class_name, config, weights, around)
        except InputValueError as error:
            raise self._refusal(f"of its layer {at!r}, {error}") from error

    def _arrays(self, at: str, config: Mapping[str, Any]) -> list[Array]:
        """The arrays in a group of the HDF5 file, in their order."""
        group = self._open(at, self.h5py.Group)
        expected = 3 if config.get("use_bias") else 2
        with _told(self.path, _HDF5):
            names = sorted(group.keys())
        if names != [str(number) for number in range(expected)]:
            raise self._refusal(f"its weights {at!r} must be {expected} arrays; there are {len(names)}")
        return [self._array(_join(at, str(number))) for number in range(expected)]

    def _array(self, at: str) -> Array:
        dataset = self._open(at, self.h5py.Dataset)
        with _told(self.path, _HDF5):
            elsewhere, size = bool(dataset.external) or dataset.is_virtual, int(dataset.nbytes)
        if elsewhere:
            raise self._refusal(f"its weights {at!r} lie in another file")
        self.taken.append(size)
        if sum(self.taken) > self.max_bytes:
            raise self._refusal(
                f"its weights are {sum(self.taken):,} bytes or more; at most {self.max_bytes:,} are read"
            )
        with _told(self.path, _HDF5):
            array: Array = np.asarray(dataset[()])
            told = dataset.attrs.get("dtype")
        if isinstance(told, str) and told == "bfloat16" and array.dtype.itemsize == 2:
            return array.view(require("ml_dtypes", "doctor").bfloat16)
        if array.dtype.kind != "f":
            raise self._refusal(f"its weights {at!r} must be floating numbers; they are {array.dtype}")
        return array

    def _open(self, at: str, kind: type) -> Any:
        """The group or dataset at `at`, reached by nothing but plain links."""
        node = self.store
        for part in at.split("/"):
            with _told(self.path, _HDF5):
                link = node.get(part, getlink=True) if isinstance(node, self.h5py.Group) else None
            if link is None:
                raise self._refusal(f"it holds no weights {at!r}")
            if not isinstance(link, self.h5py.HardLink):
                raise self._refusal(f"its weights {at!r} are a link to elsewhere")
            with _told(self.path, _HDF5):
                node = node[part]
        if not isinstance(node, kind):
            raise self._refusal(f"its weights {at!r} must be a {kind.__name__.lower()}")
        return node

    def _refusal(self, why: str) -> FileError:
        return FileError(f"{str(self.path)!r} cannot be read as a model that Keras 3 saved: {why}")


def _mentions_recurrence(config: Any) -> bool:
    """Whether a recurrent layer is described anywhere inside."""
    left = [config]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            if node.get("class_name") in (*GATES, "RNN", "Bidirectional"):
                return True
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)
    return False


def _snake_case(name: str) -> str:
    """`SimpleRNN` as `simple_rnn`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Za-z0-9])(?=[A-Z][a-z])", "_", name).lower()


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
