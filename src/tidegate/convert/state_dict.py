"""The recurrent layers of a state dict in a `.pt` or safetensors file, by the names and shapes of their weights."""

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.extras import require
from tidegate.nn import GRU, RNN, Dense, GRUCell, RNNCell
from tidegate.nn.spec import Recurrent

__all__ = ["StateDictLayer", "layers_of", "read_state_dict"]

#: What `max_bytes` is unless said otherwise: 8 GiB.
MOST_BYTES = 2**33
#: Where training scripts put the model's state dict in a checkpoint, in the order in which they are looked at.
_USUAL = ("state_dict", "model_state_dict", "model", "module", "net")
_DEPTH = 4
_WEIGHT = re.compile(
    r"(?P<where>(?:.*\.)?)(?P<name>(?:weight|bias|gain)_(?:ih|hh|hr)(?P<place>(?:_l(?P<depth>\d{1,18}))?(?:_reverse)?))"
)
#: What torch's and older parametrizations call that of which they compute a weight.
_COMPUTED = re.compile(
    r"(?P<where>(?:.*\.)?)(?:parametrizations\.(?P<new>(?:weight|bias)_(?:ih|hh)(?:_l\d+)?(?:_reverse)?)\..+"
    r"|(?P<old>(?:weight|bias)_(?:ih|hh)(?:_l\d+)?(?:_reverse)?)(?:_g|_v|_orig|_raw|_bar))"
)
#: What torch.load and the libraries under it raise for files that are not theirs, or are damaged.
_DAMAGE: tuple[type[Exception], ...] = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)
_DAMAGE += (AttributeError, AssertionError, pickle.UnpicklingError, zipfile.BadZipFile, MemoryError, struct.error)
_DAMAGE += (OverflowError, zlib.error)
#: What weights may be held in.
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class StateDictLayer:
    """One recurrent layer or cell of a state dict."""

    #: Where it stands in the model, "" for the model itself.
    name: str
    #: "GRU", "RNN", "LSTM", "GRUCell", "RNNCell", "LSTMCell" or "Dense".
    kind: str
    #: The layer with these weights in evaluation mode, torch.nn's for an LSTM; None where `refusal` says why.
    layer: nn.Module | None
    #: What the names and shapes don't tell, and how it was taken.
    notes: tuple[str, ...] = ()
    refusal: str | None = None


def read_state_dict(path: str | Path, *, max_bytes: int = MOST_BYTES) -> dict[str, Tensor]:
    """The model's state dict in a file of `torch.save` or safetensors, told apart by what is in it, on the CPU.

    Of a checkpoint that holds more than one dict with tensors, it is the one called `state_dict`, `model_state_dict`,
    `model`, `module` or `net`; if none is, the first that holds weights of a recurrent layer; or else that which lies
    the least deep. No code from the file is run: `torch.load` reads weights only.

    Raises:
        FileMissingError: there is no such file.
        FileError: it is truncated, of another kind, larger than `max_bytes` as it lies or unpacked, holds objects that
            only code could read, or no state dict.
        MissingExtraError: `tidegate[doctor]` is not installed, and the file is of safetensors.
    """
    path = Path(path)
    if type(max_bytes) is not int or max_bytes < 1:
        raise InputValueError(f"max_bytes must be an int of at least 1; got {max_bytes!r}")
    try:
        if not path.exists():
            raise FileMissingError(f"there is no file {str(path)!r}")
        if not path.is_file():
            raise FileError(f"{str(path)!r} must be a file")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if size > max_bytes:
        raise FileError(f"{str(path)!r} must hold at most max_bytes = {max_bytes}; it holds {size}")
    held = _of_safetensors(path) if head[8:9] == b"{" else _of_torch(path, max_bytes)
    state = _state_dict_in(held)
    if state is None:
        raise FileError(f"{str(path)!r} must hold a state dict, tensors by name; it holds {_kind_of(held)}")
    return state


def layers_of(state: Mapping[str, Tensor]) -> tuple[StateDictLayer, ...]:
    """Every recurrent layer and cell of a state dict, in its order.

    The kind follows from the blocks of H rows that the weights have: 1 for an RNN, 2 update-only GRU, 3 GRU, 4 LSTM.

    Raises `InputValueError` where weights are missing, too many or of shapes that no layer has.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    computed: dict[str, str] = {}
    for name, tensor in state.items():
        if found := _WEIGHT.fullmatch(name):
            groups.setdefault(found["where"], {})[found["name"]] = tensor
        elif found := _COMPUTED.fullmatch(name):
            groups.setdefault(found["where"], {})
            computed[found["where"]] = found["new"] or found["old"]
    layers = []
    for where, weights in groups.items():
        if where in computed:
            layers.append(_parametrized(where, computed[where], weights))
        else:
            layers += _of_group(where, weights, state.get(f"{where}h_0"))
    return tuple(layers)


def _of_safetensors(path: Path) -> object:
    safetensors = require("safetensors.torch", "doctor")
    try:
        held: object = safetensors.load_file(path)
    except (require("safetensors", "doctor").SafetensorError, *_DAMAGE) as error:
        raise FileError(f"{str(path)!r} is truncated or not a safetensors file: {_first_line(error)}") from error
    return held


def _of_torch(path: Path, max_bytes: int) -> object:
    _check_archive(path, max_bytes)
    try:
        # as a file, not a path: by their names torch would open some files in other ways
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are damaged: it reads them, or it doesn't
            held: object = torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        if needed := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
            raise FileError(
                f"{str(path)!r} must be a state dict (torch.save(model.state_dict(), ...)), to be read without running "
                f"code; it holds an object of {needed[1]}"
            ) from error
        told = "it is a pickle of something else" if "Weights only load failed" in str(error) else _first_line(error)
        raise FileError(f"{str(path)!r} is truncated or not a file of torch.save: {told}") from error
    return held


def _check_archive(path: Path, max_bytes: int) -> None:
    """Raise if the file is an archive that holds a program, or more than it seems to."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _DAMAGE:
        return  # no archive, or a damaged one: torch.load will say what is wrong with it
    names = [member.filename.partition("/")[2] or member.filename for member in members]
    if any(name.startswith(("code/", "models/")) or name == "constants.pkl" for name in names):
        raise FileError(f"{str(path)!r} must be a state dict; it is a program (TorchScript or torch.export)")
    unpacked = sum(member.file_size for member in members)
    if unpacked > max_bytes:
        raise FileError(f"{str(path)!r} must hold at most max_bytes = {max_bytes}; unpacked it holds {unpacked}")


def _state_dict_in(held: object) -> dict[str, Tensor] | None:
    """The state dict in what a file held."""
    found = list(_mappings(held, (), set()))
    for usual in _USUAL:
        for path, mapping in found:
            if path[-1:] == (usual,):
                return mapping
    if not found:
        return None
    recurrent = [one for one in found if any(_WEIGHT.fullmatch(name) for name in one[1])]
    # tensors by name at the top come first; an optimizer's state lies deeper
    return min(recurrent or found, key=lambda one: len(one[0]))[1]


def _mappings(
    held: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dict with tensors by name; `seen` are those that were entered, for a dict may hold itself."""
    if not isinstance(held, Mapping) or len(path) > _DEPTH or id(held) in seen:
        return
    seen.add(id(held))
    tensors = {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in held.items():
        if isinstance(name, str):
            yield from _mappings(value, (*path, name), seen)


def _kind_of(held: object) -> str:
    if isinstance(held, Mapping):
        return "a dict of " + (", ".join(map(str, list(held)[:4])) or "nothing")
    return f"a {type(held).__name__}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _parametrized(where: str, weight: str, weights: Mapping[str, Tensor]) -> StateDictLayer:
    return StateDictLayer(
        where.removesuffix("."),
        "recurrent layer" if "_l" in weight or any("_l" in name for name in weights) else "recurrent cell",
        None,
        refusal=f"its {weight} is computed from other parameters, in a way that the file does not tell",
    )


def _of_group(where: str, weights: dict[str, Tensor], h_0: Tensor | None) -> Iterator[StateDictLayer]:
    """The layer whose weights these are; or the layer and the cell, if a module is called as its weights would be."""
    name = where.removesuffix(".")
    stacked = {key: tensor for key, tensor in weights.items() if "_l" in key}
    for own, cell in ((stacked, False), ({key: weights[key] for key in weights.keys() - stacked}, True)):
        if own:
            yield _layer(name, {key: weights[key] for key in weights if key in own}, None if cell else h_0, cell=cell)


def _layer(name: str, weights: dict[str, Tensor], h_0: Tensor | None, *, cell: bool) -> StateDictLayer:
    told = name or "the model"
    suffix = "" if cell else "_l0"
    weight_ih, weight_hh = weights.get(f"weight_ih{suffix}"), weights.get(f"weight_hh{suffix}")
    dense = weight_hh is None and not cell and set(weights) <= {"weight_ih_l0", "bias_ih_l0"}
    if weight_ih is None or (weight_hh is None and not dense):
        missing = f"weight_{'ih' if weight_ih is None else 'hh'}{suffix}"
        raise InputValueError(f"{told} must have {missing}; it has {', '.join(weights)}")
    if weight_hh is not None and h_0 is not None:
        weights = weights | {"h_0": h_0}
    for key, tensor in weights.items():
        if key.startswith("weight") and (tensor.ndim != 2 or 0 in tensor.shape):
            raise InputValueError(f"{key} of {told} must be a matrix; got {tuple(tensor.shape)}")
        if tensor.dtype not in _FLOATING or tensor.dtype != weight_ih.dtype or tensor.layout != torch.strided:
            layout = "" if tensor.layout == torch.strided else f", {tensor.layout}"
            raise InputValueError(
                f"{key} of {told} must hold floating numbers, dense, of one dtype with the others; got "
                f"{tensor.dtype}{layout}"
            )
    rows, width = (1, 1) if weight_hh is None else weight_hh.shape
    projected = f"weight_hr{suffix}" in weights  # an LSTM, whose state has fewer numbers than its gates
    blocks, rest = (4, rows % 4) if projected else divmod(rows, width)
    if rest or blocks not in (1, 2, 3, 4):
        assert weight_hh is not None
        raise InputValueError(
            f"weight_hh{suffix} of {told} must be (G*H, H) with G = 1 (RNN), 2 (update-only GRU), 3 (GRU) or 4 (LSTM); "
            f"got {tuple(weight_hh.shape)}"
        )
    like = _like(weights, weight_ih, blocks, cell=cell, dense=dense)
    _check_same(told, like.state_dict(), weights)
    like.load_state_dict(weights, assign=True)
    return StateDictLayer(name, type(like).__name__, like.eval(), _notes(like))


def _like(weights: Mapping[str, Tensor], weight_ih: Tensor, blocks: int, *, cell: bool, dense: bool) -> nn.Module:
    """A layer without memory that has the sizes and options which the names and the first shapes tell."""
    sizes = (weight_ih.shape[1], weight_ih.shape[0] // blocks)
    if 0 in sizes:
        raise InputValueError(f"weights must have {blocks} blocks of rows; got {tuple(weight_ih.shape)}")
    options: dict[str, Any] = {"device": "meta", "dtype": weight_ih.dtype}
    options["bias"] = any(key.startswith("bias") for key in weights)
    if dense:
        return Dense(*sizes, **options)
    if blocks in (2, 3):
        options["layer_norm"] = any(key.startswith("gain") for key in weights) and blocks == 3
        options["reset"] = None if blocks == 2 else "after"
    if cell:
        kinds: dict[int, type[nn.Module]] = {1: RNNCell, 2: GRUCell, 3: GRUCell, 4: nn.LSTMCell}
        return kinds[blocks](*sizes, **options)
    depths = {int(found["depth"]) for key in weights if (found := _WEIGHT.fullmatch(key)) and found["depth"]}
    if depths != set(range(len(depths))):
        raise InputValueError(f"layers must be numbered from 0 on; got {', '.join(map(str, sorted(depths)))}")
    options["num_layers"] = len(depths)
    options["bidirectional"] = any(key.endswith("_reverse") for key in weights)
    if blocks == 4:
        proj = weights.get("weight_hr_l0")
        return nn.LSTM(*sizes, proj_size=0 if proj is None else proj.shape[0], **options)
    options["learn_h_0"] = "h_0" in weights
    return RNN(*sizes, **options) if blocks == 1 else GRU(*sizes, **options)


def _check_same(told: str, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    missing = [key for key in expected if key not in weights]
    unknown = [key for key in weights if key not in expected]
    if missing or unknown:
        words = [
            f"{', '.join(keys)} {word}" for keys, word in ((missing, "is missing"), (unknown, "is unknown")) if keys
        ]
        raise InputValueError(f"{told} must have the weights of one layer; {'; '.join(words)}")
    for key, tensor in weights.items():
        if tensor.shape != expected[key].shape:
            raise InputValueError(
                f"{key} of {told} must be {tuple(expected[key].shape)} to go with the others; got {tuple(tensor.shape)}"
            )


def _notes(layer: nn.Module) -> tuple[str, ...]:
    """What the weights don't tell."""
    untold = []
    if isinstance(layer, GRU | GRUCell) and layer.system == "gru":
        untold.append("whether the reset comes before or after the product (taken as after)")
    if isinstance(layer, Recurrent):
        untold.append("the activation (taken as tanh)")
    if isinstance(layer, Recurrent) and hasattr(layer, "batch_first"):
        untold.append("whether the batch comes first")
    if not untold:
        return ()
    return (f"a state dict does not tell {', nor '.join(untold)}",)
