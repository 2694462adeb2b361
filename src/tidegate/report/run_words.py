"""What the page of a run says in sentences: the check of the map, where the memory lies, what no picture can show."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.report.numbers import count, percent, scientific
from tidegate.report.run_records import Check, DirectionRecord, ForecastRecord, RunRecord, SequenceRecord
from tidegate.report.timelines import full_colour

__all__ = ["Row", "Verdict", "finding_sentences", "notes_of", "question", "rows", "summary", "verdict"]

_QUESTIONS = {
    "classify": "tells the class of a whole sequence",
    "label-steps": "tells the class of every step",
    "regress": "predicts a number for a whole sequence",
    "regress-steps": "predicts a number for every step",
    "forecast": "forecasts one of its inputs",
}
#: A mean change up to this counts as left alone: probabilities of 5 % have moved, or a number by a 20th of its spread.
LEFT_ALONE = 0.05
#: What is remembered must count for at least so many times what is forgotten.
CLEARLY = 3.0


HALF = 0.5


@dataclass(frozen=True)
class Verdict:
    """What the check found."""

    #: "honest", "not honest", "nothing to tell" or "not checked".
    word: str
    meaning: str
    numbers: str
    #: The numbers in short.
    short: str = ""

    @property
    def sentence(self) -> str:
        """What it means, with all numbers."""
        return f"{self.meaning} {self.numbers}".strip()


def question(record: RunRecord) -> str:
    """What the network does, as in "tells the class of a whole sequence"."""
    told, forecast = _QUESTIONS.get(record.question, record.question), record.sequences[0].answer.forecast
    if forecast is None:
        return told
    return f"{told}, {count(forecast.horizon)} step{'' if forecast.horizon == 1 else 's'} ahead"


def verdict(check: Check | None) -> Verdict:
    """Whether the map is honest here, in one sentence with the numbers, whatever they are."""
    if check is None or not check.sequences:
        why = (
            "the map calls no step forgotten, or holds numbers that are not finite"
            if check is not None
            else "no sequence could be asked"
        )
        return Verdict("not checked", f"The memory map could not be checked: {why}.", "")
    found = check.sequences
    if not all(math.isfinite(one.forgotten_change + one.remembered_change) for one in found):
        return Verdict("not checked", "The memory map could not be checked: an answer is not a finite number.", "")
    total = len(found)
    forgotten = float(np.mean([one.forgotten_change for one in found]))
    remembered = float(np.mean([one.remembered_change for one in found]))
    held = float(np.mean([one.steps_share for one in found]))
    small, large = (
        float(np.mean([getattr(one, f"{kind}_share") for one in found])) for kind in ("forgotten", "remembered")
    )
    which = f"{count(total)} sequence{'' if total == 1 else 's'}"
    if check.classes:
        flips = [sum(getattr(one, f"{kind}_flip") for one in found) for kind in ("forgotten", "remembered")]
        moved = f"{check.moment} by {percent(forgotten)} of its probability on average and to another class in "
        moved += f"{flips[0]} of {which}"
        instead = f"{percent(remembered)} and {flips[1]}"
        short = f"{flips[0]} of {which} got another answer; without as many that it calls remembered, {flips[1]} did"
    else:
        moved = f"{check.moment} by {forgotten:.3f} of {check.unit} on average, over {which}"
        instead = f"{remembered:.3f}"
        short = f"answers moved by {forgotten:.3f} of {check.unit}; without as many that it calls "
        short += f"remembered, by {instead}"
    numbers = (
        f"Held out, the steps that the map calls forgotten ({percent(held, 0)} of a sequence, {percent(small)} of the "
        f"state) moved {moved}; at most as many that it calls remembered ({percent(large, 0)} of the state): {instead}."
    )
    if forgotten > LEFT_ALONE:
        word = "not honest"
        meaning = (
            "The memory map is not the whole story here: what it calls forgotten acted through what was written later."
        )
    elif remembered > LEFT_ALONE and remembered >= CLEARLY * forgotten:
        word, meaning = "honest", "The memory map is honest here: what it calls forgotten can be left out."
    else:
        word = "nothing to tell"
        meaning = (
            "The check says little about the memory map: neither what it calls forgotten nor what it calls remembered "
            "counts for much in the answer."
        )
    rest = f" In {count(check.without)} more the map calls no step forgotten." if check.without else ""
    return Verdict(word, meaning, f"{numbers}{rest}", f"Without what it calls forgotten, {short}.")


def finding_sentences(record: RunRecord) -> list[str]:
    """What is at the top of the page: the check, where the memory lies, and what is wrong with the gates."""
    found = verdict(record.check)
    sentences = [f"{found.meaning} {found.short}".strip(), _memory(record)]
    return [sentence for sentence in sentences if sentence]


def _memory(record: RunRecord) -> str:
    """How far back half of the memory lies, over the sequences that are shown."""
    if record.variant in ("dense", "rnn"):
        return ""
    back = [_half(one) for one in record.sequences]
    shares = float(np.median([steps / one.axis.steps for steps, one in zip(back, record.sequences, strict=True)]))
    return (
        f"Half of what the last state holds was written in the last {percent(shares, 0)} of a sequence (median of the "
        f"{len(back)} shown)." if len(back) > 1 else f"Half of what the last state holds was written in the last "
        f"{count(back[0])} of {count(record.sequences[0].axis.steps)} steps."
    )  # fmt: skip


def _half(sequence: SequenceRecord) -> int:
    """In how many of the last steps half of the last layer's final state was written."""
    return _back(sequence, next(one for one in reversed(sequence.directions) if not one.backward))


@dataclass(frozen=True)
class Row:
    """One sequence in the table."""

    name: str
    why: str
    steps: str
    said: str
    label: str
    mark: str
    update: str
    half: str
    initial: str
    gradient: str


def rows(record: RunRecord) -> list[Row]:
    """The table of the sequences: everything that the pictures say, as numbers."""
    return [_row(sequence, record) for sequence in record.sequences]


def _row(sequence: SequenceRecord, record: RunRecord) -> Row:
    answer, last = sequence.answer, sequence.directions[-1]
    forward = next((one for one in reversed(sequence.directions) if not one.backward), last)
    mark = "" if answer.right is None else "right" if answer.right else "wrong"
    update = "1 by definition" if forward.update is None else f"{_mean(sequence, forward):.3f}"
    gradient = "–"
    if forward.flow is not None and np.isfinite(forward.flow.log10.mean).any():
        first = forward.flow.log10.mean[0]
        over = "" if forward.flow.followed >= sequence.axis.steps else f" over {count(forward.flow.followed)}"
        gradient = f"{scientific(10.0 ** float(first)) if math.isfinite(first) and first > -300 else '0'}{over}"
    return Row(
        sequence.name,
        sequence.why,
        count(sequence.axis.steps),
        _error(answer.forecast) or answer.told or answer.said if record.per_step else answer.said,
        "–" if answer.label is None else answer.label,
        mark or (answer.told if not record.per_step else ""),
        update,
        count(_half(sequence)),
        percent(forward.initial),
        gradient,
    )


def _error(forecast: ForecastRecord | None) -> str:
    """How wrong forecasts were, in short; nothing where that is not known."""
    if forecast is None or math.isnan(forecast.error):
        return ""
    told = f"MAE {forecast.error:.4g}"
    if forecast.naive_error > 0:
        told += f", {forecast.error / forecast.naive_error:.2f} of the naive forecast's"
    return told


def _mean(sequence: SequenceRecord, direction: DirectionRecord) -> float:
    """The mean update gate over units and steps."""
    assert direction.update is not None
    return float(np.average(direction.update.mean, weights=np.diff(sequence.axis.bounds)))


def notes_of(sequence: SequenceRecord, direction: DirectionRecord) -> dict[str, str]:
    """A sentence for every panel of a layer: what it says in numbers, or why there is no picture."""
    time = sequence.axis
    if direction.update is None:
        kind = "A dense layer" if direction.reset_fixed == 0 else "An RNN"
        gates = f"{kind} has no gates: by definition Gu = 1 and Gr = {direction.reset_fixed:g}."
        memory = (
            f"{kind} has no update gate and overwrites its whole state at every step, so that its map is the last step "
            "alone. What it may still know of earlier ones lies in what it wrote there, which no map can show."
        )
        if direction.reset_fixed == 0:
            memory = "A dense layer remembers nothing: its state is made of the last step alone."
        notes = {"gates": gates, "memory": memory, "reset": "", "update": "", "held": ""}
    else:
        end = "first" if direction.backward else "last"
        no_reset = "No reset gate: by definition Gr = 1, so that every candidate uses the past in full."
        notes = {
            "gates": "",
            "update": f"On average {_mean(sequence, direction):.3f}; half of a unit's state is overwritten after "
            f"{_steps(float(np.median(direction.half_life)))} (median of {direction.units} units).",
            "reset": "" if direction.reset else no_reset,
            "memory": f"The state after the {end} step: half of it was written in the last "
            f"{count(_back(sequence, direction))} of the {count(time.steps)} steps that this direction read; "
            f"{percent(direction.initial)} is still the initial state. {_full(direction.memory, 'of a unit')}",
            "held": "" if direction.held is None else _full(direction.held, "of a state"),
        }
    notes["flow"] = _flow_note(sequence, direction)
    return notes


def _full(shares: NDArray[np.float64], of: str) -> str:
    """What the colours of a map mean."""
    return f"The full colour is {percent(full_colour(shares), 0)} {of} or more."


def _back(sequence: SequenceRecord, direction: DirectionRecord) -> int:
    """In how many of the steps that a direction read last half of its final state was written, in whole columns."""
    share, bounds = direction.share, sequence.axis.bounds
    if direction.tail is not None and direction.tail.sum() >= HALF:
        share, bounds = direction.tail, np.arange(len(direction.tail) + 1)
    if direction.backward:
        share, bounds = share[::-1], bounds[-1] - bounds[::-1]
    column = min(int(np.searchsorted(np.cumsum(share[::-1]), HALF)), len(share) - 1)
    return int(bounds[-1] - bounds[len(share) - 1 - column])


def _steps(value: float) -> str:
    if math.isnan(value):
        return "an unknown number of steps, for gates are not finite numbers"
    if math.isinf(value):
        return "no number of steps: they never write"
    return f"{value:.1f} steps" if value < 100 else f"{count(round(value))} steps"


def _flow_note(sequence: SequenceRecord, direction: DirectionRecord) -> str:
    flow = direction.flow
    if flow is None:
        return "A dense layer never looks back: no gradient reaches an earlier state."
    if not np.isfinite(flow.log10.mean).any():
        return "The gradient is not a finite number anywhere."
    told = ""
    if flow.followed < sequence.axis.steps:
        end = "first" if direction.backward else "last"
        steps = f"{count(flow.followed)} of {count(sequence.axis.steps)} steps"
        told = f"Followed over the {end} {steps}, for each costs the cube of the units. "
    if not np.isfinite(flow.log10.mean).all():
        told += "Where nothing is drawn, it is exactly 0."
    return told.strip()


def summary(sequence: SequenceRecord) -> str:
    """The answer beside the label, in words."""
    answer = sequence.answer
    if answer.label is None:
        return f"{answer.said}{f'; {answer.told}' if answer.told else ''}"
    return f"{answer.said}; label {answer.label}{f', {answer.told}' if answer.told else ''}"
