"""What a trained network does with some sequences: a record of answers, gates, memory, gradients, and their check."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tidegate.data.sequences import Sequences
from tidegate.errors import InputTypeError, InputValueError
from tidegate.gates.health import GateHealth, health_of
from tidegate.gates.inside import observe
from tidegate.nn.spec import NAMES
from tidegate.ops.call import SYSTEMS
from tidegate.report.run_records import (
    Answer,
    DirectionRecord,
    Flow,
    Gate,
    HealthRecord,
    Line,
    RunRecord,
    SequenceRecord,
    Series,
    TimeAxis,
)
from tidegate.train.batches import Batches
from tidegate.train.forecast import Forecast
from tidegate.train.forecast_inspection import Foretold
from tidegate.train.honesty import check_map
from tidegate.train.looking import COLUMNS, Carrying, DirectionView, Piece, columns_of, flow, look, pieces, reduced
from tidegate.train.model import SequenceModel
from tidegate.train.showing import series, shown_inputs, time_axis
from tidegate.train.tasks import Task

__all__ = ["Asked", "inspect"]

#: Sequences that are shown if nobody says how many, and at most.
_SHOWN, _MOST = 6, 24
#: Sequences that are asked to find some that are answered right and some wrong, and their steps at most.
_CANDIDATES, _CANDIDATE_STEPS = 256, 2**20
#: Sequences of the check beside those shown, and their steps at most.
_CHECKED, _CHECKED_STEPS = 64, 2**18
#: Of T*H^3, and of T, over all sequences, layers and directions that are shown: what following gradients may cost, some
#: seconds.
_FLOW_WORK, _FLOW_STEPS = 2 * 10**9, 6000
#: Rows of a map, and of all maps of one kind together; points of a gradient's curve; classes over time, and of an
#: answer.
_ROWS, _ALL_ROWS, _POINTS, _CLASSES, _LIKELY = 128, 6144, 480, 12, 5
#: Sequences and steps of each that gate health is read from.
_HEALTHY, _HEALTH_STEPS = 4, 1000
#: Layers and directions that a page shows.
_PLACES = 8
_METRICS = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "naive_mae": "Naive MAE",
    "relative_mae": "MAE / naive MAE",
    "coverage": "Coverage",
}


@dataclass(frozen=True)
class Asked:
    """Which sequences and layers are asked for."""

    #: How many sequences; the page's choice if None.
    sequences: int | None = None
    ids: tuple[str, ...] = ()
    #: From 0; all if empty.
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.sequences is not None and (type(self.sequences) is not int or not 1 <= self.sequences <= _MOST):
            raise InputValueError(f"sequences must be a whole number in 1..{_MOST}; got {self.sequences!r}")
        if len(self.ids) > _MOST:
            raise InputValueError(f"id must name at most {_MOST} sequences; got {len(self.ids)}")


@torch.no_grad()
def inspect(
    model: SequenceModel,
    task: Task,
    facts: Any,
    sequences: Sequences,
    asked: Asked = Asked(),
    *,
    name: str = "run",
    time: str | None = None,
) -> RunRecord:
    """Look inside a trained model while it reads some of `sequences`; `time` is what their times are called.

    However many and however long they are, memory and the record's size are bounded; a model that reads both ways holds
    a sequence whole. Raises `InputValueError` if there is no sequence, or none of an id that is asked for, or no such
    layer.
    """
    if not len(sequences):
        raise InputValueError("data must hold sequences to look at; got none")
    every = _places(model, asked.layers)
    places = every[-_PLACES:]
    candidates = _within(_spread(sequences), sequences, _CANDIDATES, _CANDIDATE_STEPS)
    known = _known(sequences)
    goodness = _goodness(model, task, sequences, candidates) if known else None
    shown = _named(sequences, asked.ids) or _chosen(
        task, sequences, candidates, goodness, asked.sequences or min(_SHOWN, len(sequences))
    )
    followed = min(_FLOW_WORK // model.config.hidden_size**3, _FLOW_STEPS) // (len(shown) * len(places))
    rows = max(1, min(_ROWS, _ALL_ROWS // (len(shown) * len(places))))
    records = [_sequence(model, task, sequences, number, why, places, followed, rows, time) for number, why in shown]
    numbers = [number for number, _ in shown]
    more = [number for number in _within(candidates, sequences, _CHECKED, _CHECKED_STEPS) if number not in numbers]
    checked = [*numbers, *more[: max(0, _CHECKED - len(numbers))]]
    health, note = _health(model, sequences, numbers, places)
    config = model.config
    return RunRecord(
        name=name,
        question=task.name,
        label=task.label,
        network=_network(model),
        variant=config.variant,
        per_step=task.per_step,
        facts=_facts(facts, task, goodness),
        sequences=tuple(records),
        given=len(sequences),
        asked=len(candidates) if known else 0,
        left_out=len(every) - len(places),
        learned_from=bool(set(sequences.files) & set(facts["data"]["files"])),
        check=check_map(model, task, sequences, checked),
        health=health,
        health_note=note,
        files=tuple(sequences.files),
        versions=dict(facts["versions"]),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Which sequences


def _spread(sequences: Sequences) -> list[int]:
    """The longest sequence, then the others in an order whose every beginning is spread over all of them."""
    count = len(sequences)
    longest = int(np.argmax(np.diff(sequences.offsets)))
    evenly = np.linspace(0, count - 1, min(count, _CANDIDATES)).round().astype(int)
    order = np.random.default_rng(0).permutation(evenly)  # the same whenever the same data are asked
    return [longest, *(int(number) for number in order if number != longest)]


def _within(numbers: Sequence[int], sequences: Sequences, most: int, steps: int) -> list[int]:
    """The first of some sequences, as many as have no more than `steps` together; one at least."""
    lengths = sequences.lengths[np.asarray(numbers, int)]
    fitting = int((np.cumsum(lengths) <= steps).sum())
    return list(numbers[: max(1, min(most, fitting))])


def _known(sequences: Sequences) -> bool:
    return sequences.label is not None and bool((~np.isnan(sequences.label.values)).any())


def _goodness(model: SequenceModel, task: Task, sequences: Sequences, numbers: list[int]) -> NDArray[np.float64]:
    """How good the answers are: the share of steps that is right, or minus the mean error over its spread; NaN where
    no label is known.
    """
    found = []
    for number in numbers:
        good, known = 0.0, 0
        for piece in pieces(model, sequences, number, gates=False):
            label = piece.batch.label
            assert label is not None
            told = task.told(piece.scores).double()
            right = _right(task, told, label)
            there = ~label.isnan()
            good, known = good + float(right[there].sum()), known + int(there.sum())
        found.append(good / known if known else np.nan)
    return np.array(found)


def _right(task: Task, told: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """1 or 0 for a class, minus the error over its spread for a number."""
    if task.categories is not None:
        return (told.argmax(-1) == label).double()
    return -(task.number(told) - label).abs() / task.spread


def _named(sequences: Sequences, ids: Iterable[str]) -> list[tuple[int, str]]:
    found = []
    for asked in dict.fromkeys(ids):
        number = next((number for number, name in enumerate(sequences.ids) if name == asked), None)
        if number is None:
            near = difflib.get_close_matches(asked, list(sequences.ids), 1, 0.0)
            raise InputValueError(
                f"id must name a sequence of the data; there is no {asked!r}: the nearest is {near[0]!r}"
            )
        found.append((number, "asked for"))
    return found


def _chosen(
    task: Task, sequences: Sequences, candidates: list[int], goodness: NDArray[np.float64] | None, count: int
) -> list[tuple[int, str]]:
    """The longest, some that are answered well and some badly; without labels, some of all."""
    shown = {candidates[0]: "the longest" if len(sequences) > 1 else ""}
    if goodness is None or np.isnan(goodness).all():
        rest = candidates[1:]
        return [*shown.items(), *((number, "") for number in rest[: count - 1])]
    order = [int(at) for at in np.argsort(goodness, kind="stable") if not np.isnan(goodness[at])]
    if task.categories is not None and not task.per_step:
        wrong = [candidates[at] for at in order if goodness[at] == 0]
        right = _by_class(sequences, [candidates[at] for at in order if goodness[at] == 1])
        wrong, right = ([number for number in group if number not in shown] for group in (wrong, right))
        few = wrong[: max(count // 2 if right else count, count - 1 - len(right))]
        picked = [(number, "answered wrong") for number in few] + [(number, "answered right") for number in right]
    else:
        places = np.linspace(0, len(order) - 1, max(0, min(count - 1, len(order)))).round().astype(int)
        words = {0: "the worst answers", len(order) - 1: "the best answers"}
        picked = [(candidates[order[at]], words.get(int(at), "")) for at in dict.fromkeys(map(int, places))]
        picked += [(candidates[at], "") for at in order]
    for number, why in picked:
        if len(shown) < count:
            shown.setdefault(number, why)
        if number in shown and shown[number] == "the longest" and why:
            shown[number] = f"the longest; {why}"
    return list(shown.items())


def _by_class(sequences: Sequences, numbers: list[int]) -> list[int]:
    """Sequences so ordered that the classes take turns."""
    assert sequences.label is not None
    seen: dict[float, int] = {}
    turns = []
    for number in numbers:
        label = float(sequences.label.values[number])
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    return [numbers[at] for at in np.argsort(turns, kind="stable")]


# ---------------------------------------------------------------------------------------------------------------------
# One sequence


def _places(model: SequenceModel, layers: tuple[int, ...]) -> list[tuple[int, bool]]:
    """The layers and directions that are shown."""
    config = model.config
    for layer in layers:
        if type(layer) is not int:
            raise InputTypeError(f"layer must be an int; got {type(layer).__name__}")
        if not 0 <= layer < config.num_layers:
            raise InputValueError(f"layer must lie in 0..{config.num_layers - 1}; got {layer}")
    ways = (False, True) if config.bidirectional else (False,)
    return [(depth, way) for depth in sorted(set(layers) or range(config.num_layers)) for way in ways]


def _sequence(
    model: SequenceModel,
    task: Task,
    sequences: Sequences,
    number: int,
    why: str,
    places: list[tuple[int, bool]],
    followed: int,
    rows: int,
    time: str | None,
) -> SequenceRecord:
    bounds = columns_of(int(sequences.lengths[number]))
    axis = time_axis(sequences, number, bounds, time or "seconds")
    last = model.config.num_layers - 1  # answers come from there
    views = {
        place: DirectionView(bounds, model.config.hidden_size, held=task.per_step and place[0] == last)
        for place in places
    }
    tails = {place: DirectionView(_tail_bounds(axis.steps, place[1]), model.config.hidden_size) for place in places}
    flows: dict[tuple[int, bool], NDArray[np.float64]] = {}
    told, said = [], torch.empty(0)
    foretold = Foretold(task, sequences, number) if isinstance(task, Forecast) else None
    for piece in pieces(model, sequences, number):
        look(views, piece)
        if axis.steps_a_column > 1:
            look(tails, piece)
        if foretold is not None:
            foretold.add(piece)
        else:
            told.append(_on_the_way(model, task, piece))
            said = task.told(piece.scores)
        if piece.batch.last:
            flows = {
                place: flow(piece, place[0], backward=place[1], steps=max(1, followed)).double().numpy()
                for place in places
            }
    shown = shown_inputs(sequences, number, axis, *model.encoder.learned())
    directions = tuple(
        _direction(model, axis, place, views[place], tails[place], flows[place], len(places), rows) for place in places
    )
    if foretold is not None:
        answer = foretold.answer(axis, time or "seconds")
    else:
        over_time = None if told[0] is None else np.concatenate([one for one in told if one is not None])
        answer = _answer(task, sequences, number, axis, over_time, said)
    shares = None
    if shown.text:
        a_step = directions[-1].share / np.diff(bounds)
        shares = np.repeat(a_step, np.diff(bounds))[shown.text_start :]
    return SequenceRecord(
        sequences.ids[number], why, axis, answer, shown.lines, shown.map, shown.pictures, shown.text, shown.text_start,
        shares, directions,
    )  # fmt: skip


def _on_the_way(model: SequenceModel, task: Task, piece: Piece) -> NDArray[np.float64] | None:
    """(T, ...) what the model says after every step; of a whole sequence, as if it had ended there.

    None for one that is read both ways as a whole: there is no such answer.
    """
    if task.per_step:
        scores = piece.scores[:, 0]
    elif model.config.bidirectional:
        return None
    else:
        scores = model.head(piece.ran.layers[-1][0].steps.hidden[:, 0])
    told: NDArray[np.float64] = task.told(scores).double().numpy()
    return told


def _answer(
    task: Task,
    sequences: Sequences,
    number: int,
    axis: TimeAxis,
    over_time: NDArray[np.float64] | None,
    last: torch.Tensor,
) -> Answer:
    label = sequences.label
    values = None
    if label is not None:
        values = label.values[sequences.rows(number)] if label.per_step else label.values[number : number + 1]
    if task.categories is not None:
        return _class_answer(task, axis, over_time, last, values)
    line = None if over_time is None else Line(task.label, series(over_time, axis), np.zeros(axis.columns))
    if task.per_step:
        truth = None if values is None or np.isnan(values).all() else series(values, axis)
        told = ""
        if over_time is not None and values is not None and truth is not None:
            told = f"mean absolute error {np.nanmean(np.abs(over_time - values)):.4g} over {axis.steps:,} steps"
        return Answer("a number a step", None, None, told, numbers=line, truth=truth)
    truth_number = None if values is None or np.isnan(values[0]) else float(values[0])
    said = float(last[0])
    told = "" if truth_number is None else f"off by {abs(said - truth_number):.4g}"
    constant = None if truth_number is None else Series(*[np.full(axis.columns, truth_number)] * 3)
    return Answer(
        f"{said:.5g}", None if truth_number is None else f"{truth_number:.5g}", None, told, numbers=line, truth=constant
    )


def _class_answer(
    task: Task,
    axis: TimeAxis,
    over_time: NDArray[np.float64] | None,
    last: torch.Tensor,
    values: NDArray[np.float64] | None,
) -> Answer:
    assert task.categories is not None
    names = np.array(task.categories, object)
    known = values is not None and bool((~np.isnan(values)).any())
    shares, classes, truth = None, (), None
    if over_time is not None:
        weight = over_time.max(0)
        if known and values is not None:
            there = values[~np.isnan(values) & (values >= 0)].astype(int)
            weight = weight + 2 * np.bincount(there, minlength=len(names))[: len(names)] / max(len(there), 1)
        kept = np.sort(np.argsort(-weight, kind="stable")[:_CLASSES])
        shares, classes = reduced(over_time, axis.bounds)[0][:, kept].T, tuple(names[kept])
        if known and values is not None:
            place = np.full(len(names) + 1, -1.0)
            place[kept] = np.arange(len(kept))
            steps = values if task.per_step else np.full(axis.steps, values[0])
            codes = np.where(np.isnan(steps), np.nan, place[np.nan_to_num(steps, nan=-1).astype(int)])
            truth = _most_frequent(codes, axis)
    if task.per_step:
        assert over_time is not None
        told = ""
        if known and values is not None:
            there = ~np.isnan(values)
            right = (over_time.argmax(1) == values)[there].mean()
            told = f"right at {100 * right:.1f} % of {int(there.sum()):,} labelled steps"
        return Answer("a class a step", None, None, told, (), classes, shares, None, truth)
    chances = last[0].double().numpy()
    likely = np.argsort(-chances, kind="stable")[:_LIKELY]
    probabilities = tuple((str(names[at]), float(chances[at])) for at in likely)
    right_label = None
    if known and values is not None:
        right_label = str(names[int(values[0])]) if values[0] >= 0 else "a class not seen in training"
    said = probabilities[0][0]
    right_answer = None if right_label is None else said == right_label
    return Answer(said, right_label, right_answer, "", probabilities, classes, shares, None, truth)


def _most_frequent(codes: NDArray[np.float64], axis: TimeAxis) -> Series:
    """The most frequent code of every column."""
    found = np.full(axis.columns, np.nan)
    for column in range(axis.columns):
        here = codes[axis.bounds[column] : axis.bounds[column + 1]]
        here = here[~np.isnan(here)]
        if len(here):
            numbers, counts = np.unique(here, return_counts=True)
            found[column] = numbers[counts.argmax()]
    return Series(found, found, found)


def _direction(
    model: SequenceModel,
    axis: TimeAxis,
    place: tuple[int, bool],
    view: DirectionView,
    tail: DirectionView,
    log_norm: NDArray[np.float64],
    places: int,
    most: int,
) -> DirectionRecord:
    _, backward = place
    system = model.config.variant
    blocks = SYSTEMS[system].convention.blocks
    units = model.config.hidden_size
    order = _by_age(view, backward=backward)
    group = -(-units // most)

    def rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
        starts = np.arange(0, units, group)
        sizes = np.diff([*starts, units])
        grouped: NDArray[np.float64] = np.add.reduceat(values[:, order], starts, axis=1) / sizes
        return grouped

    update = Gate(view.update.mean(1), *view.update_band, rows(view.update)) if "update" in blocks else None
    reset = Gate(view.reset.mean(1), *view.reset_band, rows(view.reset)) if "reset" in blocks else None
    return DirectionRecord(
        place=_place_in_words(model, place) if places > 1 or model.config.num_layers > 1 else "",
        backward=backward,
        update=update,
        reset=reset,
        update_fixed=None if update else 1.0,
        reset_fixed=None if reset else 0.0 if system == "dense" else 1.0,
        memory=rows(view.memory),
        share=view.memory.mean(1),
        initial=float(view.initial.mean()),
        tail=_tail(tail, backward=backward) if axis.steps_a_column > 1 else None,
        held=view.held,
        half_life=view.half_life,
        units_a_row=group,
        units=units,
        flow=None if system == "dense" else _flow(axis, log_norm, backward=backward),
    )


def _tail_bounds(steps: int, backward: bool) -> NDArray[np.int64]:
    """The bounds of columns of one step each where a direction ends, and of one for all that it read before."""
    single = min(steps - 1, COLUMNS)
    if backward:
        return np.append(np.arange(single + 1), steps)
    return np.insert(np.arange(steps - single, steps + 1), 0, 0)


def _tail(view: DirectionView, *, backward: bool) -> NDArray[np.float64]:
    share: NDArray[np.float64] = view.memory.mean(1)
    return share[:-1] if backward else share[1:]


def _by_age(view: DirectionView, *, backward: bool) -> NDArray[np.intp]:
    """(H,) the units, those with the oldest memories first: by the mean place of what they hold."""
    columns = len(view.memory)
    age = np.arange(columns, 0, -1.0) if not backward else np.arange(1.0, columns + 1)
    held = age @ view.memory + (columns + 1) * view.initial
    return np.argsort(-held, kind="stable")


def _flow(axis: TimeAxis, log_norm: NDArray[np.float64], *, backward: bool) -> Flow:
    """The curve over the axis, at most `_POINTS` points: row r of the log norm is the state after r of the steps."""
    followed = len(log_norm) - 1
    steps = np.arange(axis.steps - followed - 1, axis.steps, dtype=float)
    if backward:
        steps, log_norm = axis.steps - 1 - steps[::-1], log_norm[::-1]
    exact = np.where(np.isneginf(log_norm), np.nan, log_norm) / np.log(10)
    bounds = np.linspace(0, len(steps), min(len(steps), _POINTS) + 1).round().astype(np.int64)
    middles = (axis.bounds[:-1] + axis.bounds[1:] - 1) / 2
    if axis.columns > 1:
        slope = (axis.middles[1] - axis.middles[0]) / (middles[1] - middles[0])
        places = np.interp(steps, middles, axis.middles, left=np.nan, right=np.nan)
        before = axis.middles[0] + slope * (steps - middles[0])
        end = (axis.middles[-1] - axis.middles[-2]) / (middles[-1] - middles[-2])
        after = axis.middles[-1] + end * (steps - middles[-1])
        places = np.where(steps < middles[0], before, np.where(steps > middles[-1], after, places))
    else:
        places = axis.middles[0] + (steps - middles[0]) * (axis.edges[1] - axis.edges[0])
    return Flow(reduced(places, bounds)[0], Series(*reduced(exact, bounds)), followed)


def _place_in_words(model: SequenceModel, place: tuple[int, bool]) -> str:
    depth, backward = place
    way = (", backward" if backward else ", forward") if model.config.bidirectional else ""
    return f"layer {depth}{way}"


# ---------------------------------------------------------------------------------------------------------------------
# The run


def _health(
    model: SequenceModel, sequences: Sequences, numbers: list[int], places: list[tuple[int, bool]]
) -> tuple[tuple[HealthRecord, ...], str]:
    """The health of gates over the longest of the sequences that are shown."""
    if model.config.variant == "dense":
        return (), "A dense layer has no gates and no state: there is no health to speak of."
    longest = sorted(numbers, key=lambda number: -int(sequences.lengths[number]))[:_HEALTHY]
    batch = next(iter(Batches(sequences, longest, len(longest), chunk=_HEALTH_STEPS, sort=False)))
    watched = Carrying(model, lengths=batch.lengths)
    _, ran = observe(watched, batch.values, layer="model.layer", evaluate=True, gates=True)
    healths = {(one.depth, one.reverse): one for one in health_of(ran, _FLOW_WORK // (4 * len(places)))}
    several = len(places) > 1 or model.config.num_layers > 1
    records = [
        _health_record(healths[place], _place_in_words(model, place) if several else "all units") for place in places
    ]
    steps = int(batch.lengths.max())
    cut = f"the first {steps:,} steps of " if int(sequences.lengths[longest[0]]) > steps else ""
    which = "the sequence shown" if len(longest) == 1 else f"the {len(longest)} longest sequences shown"
    return tuple(records), f"Over {cut}{which}."


def _health_record(health: GateHealth, place: str) -> HealthRecord:
    return HealthRecord(
        place,
        None if health.update is None else health.update.mean,
        None if health.reset is None else health.reset.mean,
        float(health.half_life.double().median()),
        health.gradient_per_step,
        tuple((finding.sentence, finding.advice) for finding in health.findings),
    )


def _network(model: SequenceModel) -> str:
    config = model.config
    layers = "one layer" if config.num_layers == 1 else f"{config.num_layers} layers"
    ways = ", read both ways" if config.bidirectional else ""
    return f"{NAMES[config.variant]}, {layers} of {config.hidden_size} units{ways}"


def _facts(facts: Any, task: Task, goodness: NDArray[np.float64] | None) -> tuple[tuple[str, str], ...]:
    """The scores of the run, and of the sequences that were asked here."""
    part = "test" if facts["test"] else "validation"
    told = [
        (f"{_METRICS.get(name, name)} ({part} part)", f"{value:.3f}")
        for name, value in facts[part].items()
        if value is not None and name != "loss"
    ]
    if goodness is not None and not np.isnan(goodness).all():
        good = float(np.nanmean(goodness))
        asked = int((~np.isnan(goodness)).sum())
        if task.categories is None:
            told.append((f"Mean error of {asked:,} sequences here", f"{-good * task.spread:.4g}"))
        else:
            what = "Steps right, mean of" if task.per_step else "Right of"
            told.append((f"{what} {asked:,} sequences here", f"{100 * good:.1f} %"))
    return tuple(told)
