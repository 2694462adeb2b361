"""Every choice of a training run, in one record: from the command line, from YAML, and kept with the run."""

import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from tidegate.data.edl import frames_a_second
from tidegate.errors import FileError, FileMissingError, InputTypeError, InputValueError
from tidegate.extras import require

__all__ = ["UNGATED", "Settings", "read_settings"]


def option(default: Any, words: str) -> Any:
    """A setting with its default, and what it is in words: the help of the command line's option."""
    return field(default=default, metadata={"help": words})


#: What is forecast, and what is held out, where nobody says so.
_QUANTILES = (0.1, 0.5, 0.9)
_TEST = 0.15


@dataclass(frozen=True)
class Settings:
    """The choices of a run."""

    # ------------------------------------------------------------------ what is learned from
    data: tuple[str, ...] = option((), "A file, folder or glob pattern, or several.")
    id: str | None = option(None, "The column that names the sequence of a row.")
    time: str | None = option(None, "The column that orders the steps.")
    label: str | None = option(None, "The column that is to be told; to be forecast, one of the inputs.")
    features: tuple[str, ...] | None = option(None, "The columns that are inputs; every other one if not given.")
    categorical: tuple[str, ...] = option((), "Columns that are categories although their values are numbers.")
    ignore: tuple[str, ...] = option((), "Columns that are not looked at.")
    level: str | None = option(None, "Of text: a step is one of bytes, or of characters; bytes if not given.")
    per: str | None = option(None, "Of text: a sequence is a file, or a line; a file if not given.")
    encoding: str | None = option(None, "Of text in characters: its encoding; utf-8 if not given.")
    grid: str | None = option(None, "Of video: tiles of a frame, columns x rows; 11x9 if not given.")
    hold: str | None = option(None, "A column that is true at the steps of which nothing is to be remembered.")
    hold_edl: str | None = option(
        None, "An edit decision list of such steps; or beside, for the .edl file beside each recording."
    )
    edl_rate: float | None = option(
        None, "Frames a second of the lists' timecodes; as the list says, or the recording, if not given."
    )
    test_data: tuple[str, ...] = option((), "A file or folder of sequences that are asked about only at the end.")
    validation: float = option(
        0.15, "The share that tells when to stop: of the sequences, or of each one's steps when forecasting."
    )
    test: float = option(
        _TEST, "The share that is asked about only at the end, likewise; none where test_data is given."
    )
    gaps: str = option("auto", "Whether the time since the step before is an input: on, off, or auto, if it varies.")
    # ------------------------------------------------------------------ the question
    task: str = option("auto", "auto, classify, label-steps, regress, regress-steps or forecast.")
    loss: str = option("auto", "auto, cross-entropy, mse, mae, huber or pinball.")
    horizon: int | None = option(None, "Steps ahead that are forecast.")
    quantiles: tuple[float, ...] = option(_QUANTILES, "Quantiles of a forecast; 0.5, the median, is among them.")
    class_weights: str = option("none", "none or balanced.")
    # ------------------------------------------------------------------ the network
    variant: str = option("gru", "dense, rnn, update-only, gru, gru-reset-before or gru-layer-norm.")
    hidden_size: int = option(128, "Units of a layer.")
    num_layers: int = option(1, "Recurrent layers on top of each other.")
    bidirectional: bool = option(False, "Read each sequence both ways.")
    dropout: float = option(0.0, "Dropout between layers and before the answer.")
    recurrent_dropout: float = option(0.0, "Dropout of the state, the same units at every step.")
    input_dropout: float = option(0.0, "Dropout of a layer's inputs, the same at every step.")
    candidate_dropout: float = option(0.0, "Dropout of what a step would write.")
    weight_dropout: float = option(0.0, "Dropout of the recurrent weights.")
    zoneout: float = option(0.0, "The share of units that keep their old state, drawn at every step.")
    memory_steps: str = option(
        "auto",
        "Start the update gates with chrono initialisation: auto is the longest training sequence or lane, 0 is off.",
    )
    # ------------------------------------------------------------------ what the gates are taught
    hold_weight: float = option(1.0, "How much it counts that gates are shut at steps to hold.")
    write_budget: float | None = option(None, "The share of the time that update gates may be open, on average.")
    budget_weight: float = option(1.0, "How much it counts what goes beyond the budget.")
    # ------------------------------------------------------------------ how it is learned
    epochs: int = option(200, "Times through the training part, at most.")
    patience: int | None = option(
        None,
        "Epochs without a better validation loss before it stops; 30 if not given, but the last epoch counts where "
        "fewer than 30 sequences would choose that of a classification.",
    )
    batch_size: int = option(32, "Sequences a step of training.")
    learning_rate: float = option(3e-3, "The largest learning rate of the schedule.")
    schedule: str = option("cosine", "cosine, or constant, each after a warm-up.")
    weight_decay: float | None = option(
        None,
        "Decoupled weight decay; if not given, 0.1 / (learning_rate x the square root of all steps), but at most "
        "0.1 / (learning_rate x the steps of an epoch).",
    )
    clip_norm: float = option(1.0, "The gradient's largest norm; 0 leaves it as it is.")
    seed: int = option(0, "Draws the parts, the first weights and the order of the sequences.")
    precision: str = option("32", "32, or bf16 for the matrix products.")
    threads: int | None = option(None, "Threads; all cores if not given.")
    chunk: int | None = option(
        None,
        "Steps of a chunk of back-propagation; the state is carried on. Whole sequences if not given, but 128 where "
        "they are cut into lanes, and when forecasting.",
    )
    lanes: str = option(
        "auto", "Into how many stretches, read side by side, the training steps are cut: auto, or a number; 1 is whole."
    )
    recompute: bool = option(False, "Compute the gates anew on the way back: less memory, more time.")

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, _as_setting(one.name, getattr(self, one.name)))
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in (*allowed, None):
                raise InputValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        for name, (least, below, words) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value < below:
                raise InputValueError(f"{name} must be {words}; got {value}")
        if self.validation + self.test >= 1:
            raise InputValueError(
                f"validation and test must leave something to train on; got {self.validation} + {self.test}"
            )
        if self.test_data and self.test not in (0.0, _TEST):
            raise InputValueError(f"test must not be given with test_data; got {self.test}")
        if self.grid is not None and not _GRID.fullmatch(self.grid):
            raise InputValueError(f"grid must be columns x rows, such as 11x9; got {self.grid!r}")
        if self.memory_steps != "auto" and not _is_memory(self.memory_steps):
            raise InputValueError(f"memory_steps must be auto, 0 or at least 2; got {self.memory_steps!r}")
        self._check_pieces()
        self._check_teaching()
        self._check_forecast()

    def _check_pieces(self) -> None:
        if self.bidirectional and self.chunk is not None:
            raise InputValueError(
                f"chunk must not be given with bidirectional, which reads from the end too; got {self.chunk}"
            )
        if self.lanes != "auto" and not (self.lanes.isdecimal() and 1 <= int(self.lanes) < _COUNT[1]):
            raise InputValueError(f"lanes must be auto or a whole number, {_COUNT[2]}; got {self.lanes!r}")

    def _check_teaching(self) -> None:
        asked = [name for name in ("hold", "hold_edl", "write_budget") if getattr(self, name) is not None]
        if self.memory_steps != "auto" and float(self.memory_steps) != 0:  # a number, which was checked before
            asked.append("memory_steps")
        if asked and self.variant in UNGATED:
            raise InputValueError(
                f"{asked[0]} must not be given with variant {self.variant!r}, which has no update gate; "
                f"got {getattr(self, asked[0])!r}"
            )
        if self.hold is not None and self.hold_edl is not None:
            raise InputValueError(f"hold_edl must not be given with hold; got {self.hold_edl!r} and {self.hold!r}")
        holds = self.hold is not None or self.hold_edl is not None
        lists = self.hold_edl is not None or self.label == "edl"
        for name, unset, used, needs in (
            ("hold_weight", 1.0, holds, "hold or hold_edl"),
            ("budget_weight", 1.0, self.write_budget is not None, "write_budget"),
            ("edl_rate", None, lists, "hold_edl or the label edl"),
        ):
            if getattr(self, name) != unset and not used:
                raise InputValueError(f"{name} must be given with {needs}, or not at all; got {getattr(self, name):g}")
        if self.edl_rate is not None:
            frames_a_second(self.edl_rate)

    @property
    def reader_options(self) -> dict[str, Any]:
        """What `tidegate.data.read` is told of text and video, as far as it is told something."""
        tiles = None if self.grid is None else tuple(int(count) for count in self.grid.split("x"))
        options = {"level": self.level, "per": self.per, "encoding": self.encoding, "grid": tiles}
        return {name: value for name, value in options.items() if value is not None}

    def _check_forecast(self) -> None:
        if self.task != "forecast":
            if self.horizon is not None:
                raise InputValueError(f"horizon must be given with task 'forecast' alone; got {self.horizon}")
            if self.quantiles != _QUANTILES:
                raise InputValueError(
                    f"quantiles must be given with task 'forecast' alone; got {_listed(self.quantiles)}"
                )
            return
        if self.horizon is None:
            raise InputValueError("horizon must say how many steps ahead to forecast; got None")
        if self.bidirectional:
            raise InputValueError(
                "bidirectional must be off with task 'forecast': a network that reads from the end has seen the future"
            )
        rising = all(low < high for low, high in pairwise((0.0, *self.quantiles, 1.0)))
        if not rising or 0.5 not in self.quantiles:
            raise InputValueError(
                "quantiles must be rising numbers between 0 and 1, with 0.5, the prediction, among them; got "
                f"{_listed(self.quantiles)}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Settings by their names, as YAML and JSON hold them.

        Raises `InputValueError` for an unknown one, with the nearest known, and for one that is out of its range;
        `InputTypeError` for one that is of another type.
        """
        for name in values:
            _require_known(name)
        return cls(**{name: _as_setting(name, value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """The settings as YAML and JSON can hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def to_yaml(self) -> str:
        """The settings as `read_settings` reads them."""
        yaml = require("yaml", "train")
        text: str = yaml.dump(self.to_dict(), Dumper=_dumper(yaml), sort_keys=False, allow_unicode=True)
        return text


_CHOICES = {
    "class_weights": ("none", "balanced"),
    "gaps": ("auto", "on", "off"),
    "level": ("bytes", "characters"),
    "loss": ("auto", "cross-entropy", "mse", "mae", "huber", "pinball"),
    "per": ("file", "line"),
    "precision": ("32", "bf16"),
    "schedule": ("constant", "cosine"),
    "task": ("auto", "classify", "label-steps", "regress", "regress-steps", "forecast"),
    "variant": ("dense", "rnn", "update-only", "gru", "gru-reset-before", "gru-layer-norm"),
}

#: Variants without an update gate.
UNGATED = ("dense", "rnn")
_GRID = re.compile(r"[0-9]{1,3}x[0-9]{1,3}")

_INFINITE = float("inf")
_SHARE = (0, 1, "at least 0 and below 1")
_COUNT = (1, 2**31, "at least 1 and below 2**31")
_SIZE = (0, _INFINITE, "at least 0 and finite")
_COUNTS = ("hidden_size", "num_layers", "epochs", "batch_size", "patience", "chunk", "horizon")
#: At least, below, and both in words.
_RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(_COUNTS, _COUNT),
    **dict.fromkeys(("dropout", "test", "write_budget"), _SHARE),
    **dict.fromkeys(("recurrent_dropout", "input_dropout", "candidate_dropout", "weight_dropout", "zoneout"), _SHARE),
    "validation": (sys.float_info.min, 1, "above 0 and below 1"),
    **dict.fromkeys(("clip_norm", "hold_weight", "budget_weight"), _SIZE),
    # far more than these, and torch's step is no float32
    "learning_rate": (sys.float_info.min, 1e6, "above 0 and below 1e6"),
    "weight_decay": (0, 1e6, "at least 0 and below 1e6"),
    "seed": (0, 2**63, "in 0..2**63 - 1"),
    "threads": (1, 1025, "in 1..1024"),  # far more than there are cores ends the process without a word
}


def _is_memory(text: str) -> bool:
    try:
        steps = float(text)
    except ValueError:
        return False
    return steps == 0 or 2 <= steps < _INFINITE


def read_settings(path: str | Path) -> dict[str, Any]:
    """The options in a YAML file, as far as it says them; run no code.

    Raises:
        FileMissingError: there is no such file.
        FileError: it is not YAML, or not options by their names, or one is of another type.
    """
    yaml = require("yaml", "train")
    path = Path(path)
    if not path.is_file():
        raise FileMissingError(f"there is no file {str(path)!r}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _loader(yaml))
    except (yaml.YAMLError, *_DAMAGE) as error:
        raise FileError(f"{str(path)!r} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise FileError(f"{str(path)!r} must hold options by their names; it holds a {type(values).__name__}")
    told: dict[str, Any] = {}
    for name, value in values.items():
        if (plain := name.replace("-", "_")) in told:
            raise FileError(f"{str(path)!r} must name each option once; it names {plain!r} twice")
        try:
            _require_known(plain)
            _as_setting(plain, value)
        except (InputValueError, InputTypeError) as error:
            raise FileError(f"{str(path)!r}: {error}") from error
        told[plain] = value
    return told


#: What PyYAML raises of itself for a value that is not what its tag says, for numbers out of bounds, and for lists in
#: lists in lists.
_DAMAGE = (ValueError, AttributeError, IndexError, KeyError, TypeError, OverflowError, RecursionError)


@cache
def _loader(yaml: ModuleType) -> Any:
    """PyYAML's safe loader, which would let the second of two options of one name win; this one refuses it."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc,name-defined]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            for place, name in enumerate(names):
                if name in names[:place]:
                    raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", node.start_mark)
            return super().construct_mapping(node, deep)

    return Loader


@cache
def _dumper(yaml: ModuleType) -> Any:
    """PyYAML's safe dumper, which would write Unicode's own line ends as they are and read them back as spaces."""

    class Dumper(yaml.SafeDumper):  # type: ignore[misc,name-defined]
        pass

    def represent(dumper: Any, text: str) -> Any:
        style = '"' if any(end in text for end in "\x85\u2028\u2029") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)

    Dumper.add_representer(str, represent)
    return Dumper


def _require_known(name: str) -> None:
    """Refuse an option that there is not, with the nearest that there is."""
    names = [one.name for one in fields(Settings)]
    if name not in names:
        near = difflib.get_close_matches(str(name).replace("-", "_"), names, 1)
        hint = f": did you mean {near[0]!r}?" if near else f"; known are {', '.join(names)}"
        raise InputValueError(f"there is no option {name!r}{hint}")


_WRONG = object()


def _as_setting(name: str, value: Any) -> Any:
    """`value` as the type that the setting has; raises `InputTypeError` if it cannot be."""
    hint = get_type_hints(Settings)[name]
    found = _coerced(value, hint)
    if found is _WRONG:
        raise InputTypeError(f"{name} must be {_words(hint)}; got {value!r}")
    return found


def _coerced(value: Any, hint: Any) -> Any:  # noqa: C901, PLR0911 - one a type
    """`value` as the type that a setting has, as far as nothing is lost; `_WRONG` otherwise."""
    options = get_args(hint)
    if type(None) in options:
        if value is None:
            return None
        (hint,) = (one for one in options if one is not type(None))
    if get_args(hint) == (float, ...):
        return _numbers(value)
    if get_args(hint):  # a tuple of names
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return tuple(value)
        return _WRONG
    if hint is str:
        return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else _WRONG
    if hint is float:
        if isinstance(value, str):  # YAML 1.1 takes 3e-3 for a name
            try:
                return float(value)
            except ValueError:
                return _WRONG
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _WRONG
    return value if type(value) is hint else _WRONG


def _numbers(value: Any) -> Any:
    """Several numbers: a list of them, or words with commas between them."""
    pieces = value if isinstance(value, list | tuple) else [value]
    single = [one for piece in pieces for one in (piece.split(",") if isinstance(piece, str) else [piece])]
    read = [_coerced(one, float) for one in single]
    return _WRONG if any(one is _WRONG for one in read) else tuple(read)


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{one:g}" for one in numbers) or "none"


def _words(hint: Any) -> str:
    kinds = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    options = [one for one in get_args(hint) if one is not type(None)]
    if options == [float, Ellipsis]:
        return "a list of numbers"
    return kinds.get(hint) or ("a list of names" if Ellipsis in options else kinds.get(options[0], "a list of names"))
