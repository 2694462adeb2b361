"""What the page of a trained run shows, as plain records: numbers, names and pictures, nothing of PyTorch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Ahead",
    "Answer",
    "Beyond",
    "Check",
    "Checked",
    "DirectionRecord",
    "Flow",
    "ForecastRecord",
    "Gate",
    "HealthRecord",
    "InputMap",
    "Line",
    "Pictures",
    "RunRecord",
    "SequenceRecord",
    "Series",
    "TimeAxis",
]

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TimeAxis:
    """The columns of a sequence: one a step, or, of a long one, as many steps each as makes a page of bounded size."""

    #: (n+1,) the first step of each column, and the number of steps.
    bounds: NDArray[np.int64]
    #: (n+1,) the columns' borders and (n,) their middles, on the axis.
    edges: Numbers
    middles: Numbers
    #: Such as "step" or "seconds".
    title: str

    @property
    def steps(self) -> int:
        """How many steps the sequence has."""
        return int(self.bounds[-1])

    @property
    def columns(self) -> int:
        """How many columns they are drawn in."""
        return len(self.middles)

    @property
    def steps_a_column(self) -> int:
        """The most steps that a column stands for."""
        return int(np.diff(self.bounds).max())


@dataclass(frozen=True, eq=False)
class Series:
    """A number over the columns, (n,) each: mean, lowest and highest of a column's steps; NaN where it is missing."""

    mean: Numbers
    low: Numbers
    high: Numbers


@dataclass(frozen=True, eq=False)
class Line:
    """One input, or an answer: a number, 0 or 1, or a category's code (of a column, the most frequent)."""

    name: str
    values: Series
    #: (n,) the share of the steps where it is missing.
    missing: Numbers
    categories: tuple[str, ...] = ()
    boolean: bool = False


@dataclass(frozen=True, eq=False)
class InputMap:
    """Many inputs at once, as a heat map."""

    names: tuple[str, ...]
    #: (rows, n) in the inputs' own units, NaN where missing; and as it is shaded.
    values: Numbers
    shades: Numbers
    #: What the shade is, and which of how many inputs are shown.
    note: str


@dataclass(frozen=True, eq=False)
class Pictures:
    """Some frames of a video, as the network sees them."""

    frames: NDArray[np.uint8]  # (k, height, width, 3)
    edges: Numbers  # (k+1,) where they stand on the axis
    steps: NDArray[np.int64]  # (k,)


@dataclass(frozen=True, eq=False)
class Ahead:
    """What was forecast so many steps before, over the columns of the steps that it is about."""

    steps: int
    median: Series
    #: (n,) the lowest of the lowest quantile and the highest of the highest in a column.
    low: Numbers
    high: Numbers


@dataclass(frozen=True, eq=False)
class Beyond:
    """The last steps of a sequence, and what is forecast for those after its end."""

    #: Of both; `bounds` count from the sequence's first step.
    axis: TimeAxis
    #: (n,) what came; NaN beyond the end.
    came: Numbers
    #: (n, Q) the quantiles, and (n,) their median; NaN before the end.
    quantiles: Numbers
    median: Numbers


@dataclass(frozen=True, eq=False)
class ForecastRecord:
    """The forecasts of one sequence."""

    horizon: int
    quantiles: tuple[float, ...]
    #: The mean absolute error of the medians, and of the last known value in their place; NaN where no value came.
    error: float
    naive_error: float
    #: Of the next step, and of the farthest if that is another.
    aheads: tuple[Ahead, ...]
    beyond: Beyond


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says of a sequence, and what is right."""

    said: str
    #: None where it is not known; then `right` is, too. For answers of every step, `right` is the share that is right.
    label: str | None
    right: bool | None
    #: A sentence about answers of every step.
    told: str = ""
    #: The likeliest classes, for an answer of a whole sequence.
    probabilities: tuple[tuple[str, float], ...] = ()
    #: Over time: (classes, n) probabilities of these classes, or numbers; both None if there is no answer on the way.
    classes: tuple[str, ...] = ()
    shares: Numbers | None = None
    numbers: Line | None = None
    #: The label over time: codes into `classes` (-1 for none of them), or numbers; what is forecast, as it came.
    truth: Series | None = None
    forecast: ForecastRecord | None = None


@dataclass(frozen=True, eq=False)
class Gate:
    """One gate of one layer and direction."""

    #: (n,) the mean over units and a column's steps; the 10th and 90th of 100 units, lowest and highest of its steps.
    mean: Numbers
    low: Numbers
    high: Numbers
    #: (n, rows) per unit, or mean of some units that lie beside each other; the mean of a column's steps.
    units: Numbers


@dataclass(frozen=True, eq=False)
class Flow:
    """How much of a small change of a state is left in the last one."""

    #: (k,) where on the axis, and the logarithm to base 10 of the norm: mean, lowest, highest; -inf for exactly 0.
    places: Numbers
    log10: Series
    #: Over how many of the last steps it was followed.
    followed: int


@dataclass(frozen=True, eq=False)
class DirectionRecord:
    """One layer in one direction on one sequence."""

    #: Such as "layer 0, backward"; empty if there is only one.
    place: str
    backward: bool
    #: None for a gate that the system does not have; then it is, by definition, `update_fixed` or `reset_fixed`.
    update: Gate | None
    reset: Gate | None
    update_fixed: float | None
    reset_fixed: float | None
    #: (n, rows) the share of the final state that was written in each column; the same order as the gates'.
    memory: Numbers
    #: (n,) the same, mean over all units, and what of the initial state is left.
    share: Numbers
    initial: float
    #: (k,) the same step by step, for the k steps that were read last, in the order of the input; None if `share` is.
    tail: Numbers | None
    #: (n, n) row: the state after a column; column: what it holds of it, mean over units. None if only the end counts.
    held: Numbers | None
    #: (H,) steps; infinite for units that never write.
    half_life: Numbers
    #: How many units a row stands for, at most.
    units_a_row: int
    units: int
    flow: Flow | None


@dataclass(frozen=True, eq=False)
class SequenceRecord:
    """One sequence, and what went on while the network read it."""

    name: str
    #: Why it is shown, in words.
    why: str
    axis: TimeAxis
    answer: Answer
    lines: tuple[Line, ...]
    map: InputMap | None
    pictures: Pictures | None
    #: Text, a symbol a step, from step `text_start` on; and the share of the final state that each holds.
    text: tuple[str, ...]
    text_start: int
    text_shares: Numbers | None
    directions: tuple[DirectionRecord, ...]


@dataclass(frozen=True)
class Checked:
    """One sequence of the check: how the answer changed without what the map calls forgotten, and remembered."""

    name: str
    forgotten_change: float
    remembered_change: float
    #: Of a classification, whether the answer became another.
    forgotten_flip: bool
    remembered_flip: bool
    #: The shares of the state that the map says of each, and of the steps that were held out each time.
    forgotten_share: float
    remembered_share: float
    steps_share: float


@dataclass(frozen=True)
class Check:
    """Does holding out what the map calls forgotten leave the answer alone?"""

    sequences: tuple[Checked, ...]
    #: Sequences of which the map calls nothing forgotten.
    without: int
    #: What is called forgotten has together at most this share of the state.
    least: float
    #: Changes are of probabilities; otherwise of a number, over its spread.
    classes: bool
    #: Which state was asked, in words.
    moment: str
    #: What changes of a number are told in, in words.
    unit: str = "the label's spread"


@dataclass(frozen=True)
class HealthRecord:
    """One layer and direction over some sequences."""

    place: str
    update: float | None
    reset: float | None
    #: In steps, the median of the units; and the factor of a gradient per step back.
    half_life: float
    gradient: float
    #: Sentences and advice.
    findings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything the page of a run shows."""

    name: str
    #: Such as "tells the class of a whole sequence", and of what.
    question: str
    label: str
    #: In words, such as "GRU of 128 units".
    network: str
    #: Of the system: "gru", "rnn", ...
    variant: str
    per_step: bool
    #: What is measured, and the number as it is read.
    facts: tuple[tuple[str, str], ...]
    sequences: tuple[SequenceRecord, ...]
    #: Sequences in the data, and of those how many were asked to choose the ones shown.
    given: int
    asked: int
    #: Layers and directions that are not shown, for there are too many.
    left_out: int
    #: Whether they are the files that the network learned from.
    learned_from: bool
    check: Check | None
    health: tuple[HealthRecord, ...]
    health_note: str
    files: tuple[str, ...]
    versions: dict[str, str]
