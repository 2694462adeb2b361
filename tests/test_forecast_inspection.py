"""Forecasts on the page of a run: the numbers are those of `predict` and of the scores, whatever is missing."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tidegate as tg
from tests.test_inspection import FACTS
from tests.train_helpers import sequences_of
from tidegate.data.derived import with_change
from tidegate.data.gaps import GAP, with_gaps
from tidegate.data.sequences import Feature, Sequences
from tidegate.report.run_records import RunRecord
from tidegate.report.run_words import question, rows, summary, verdict
from tidegate.train import looking
from tidegate.train.forecast import Forecast, with_target
from tidegate.train.honesty import check_map, parted, shares_of
from tidegate.train.inspection import Asked, inspect
from tidegate.train.looking import Carrying
from tidegate.train.model import ModelConfig, SequenceModel
from tidegate.train.predict import answers
from tidegate.train.settings import Settings
from tidegate.train.showing import shown_inputs, time_axis


def task_of(horizon: int, quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)) -> Forecast:
    return Forecast("forecast", "x0", "pinball", mean=7.0, spread=2.0, horizon=horizon, quantiles=quantiles)


def data_of(lengths: tuple[int, ...], horizon: int, missing: float = 0.0, times: str = "none", seed=1) -> Sequences:
    rng = np.random.default_rng(seed)
    pieces = [np.cumsum(rng.normal(size=(length, 2)), 0) for length in lengths]
    for piece in pieces:
        piece[rng.random(len(piece)) < missing, 0] = np.nan
    steps = [np.full(length, 60.0) if times != "uneven" else rng.uniform(1, 9, length) for length in lengths]
    at = None if times == "none" else np.concatenate([1.6e9 + np.cumsum(one) for one in steps])
    found = with_change(with_target(sequences_of(pieces, times=at), "x0", horizon), "x0")
    return with_gaps(found) if times == "uneven" else found


def model_of(task: Forecast, data: Sequences, **config) -> SequenceModel:
    torch.manual_seed(0)
    return SequenceModel(
        ModelConfig(data.features, (False,) * len(data.features), task.outputs, True, hidden_size=5, **config)
    ).eval()


def looked(task: Forecast, data: Sequences, **asked) -> tuple[SequenceModel, RunRecord]:
    model = model_of(task, data)
    return model, inspect(model, task, FACTS, data, Asked(**asked))


def changes(model: SequenceModel, task: Forecast, data: Sequences, number: int) -> np.ndarray:
    """(T, h, Q) what is told after every step."""
    with torch.no_grad():
        scores, _ = model(torch.from_numpy(np.asarray(data.values[data.rows(number)]))[:, None])
    told: np.ndarray = task.told(scores)[:, 0].numpy()
    return told


def known_at(values: np.ndarray, step: int) -> float:
    """The last value that is known at a step."""
    known = values[: step + 1][~np.isnan(values[: step + 1])]
    return float(known[-1]) if len(known) else np.nan


def shifted(values: np.ndarray, told: np.ndarray, ahead: int) -> np.ndarray:
    """(T, Q) what was forecast of every step, so many steps before."""
    found = np.full((len(values), told.shape[2]), np.nan)
    for step in range(len(values) - ahead):
        found[step + ahead] = known_at(values, step) + told[step, ahead - 1]
    return found


def errors(values: np.ndarray, medians: np.ndarray) -> tuple[list[float], list[float]]:
    """Of each forecast of a value that came, medians (T, h), and of the naive one."""
    steps, horizon = medians.shape
    pairs = [(step, by) for step in range(steps) for by in range(1, horizon + 1) if step + by < steps]
    changes = [(values[step + by] - known_at(values, step), medians[step, by - 1]) for step, by in pairs]
    known = [(change, median) for change, median in changes if not np.isnan(change)]
    return [abs(median - change) for change, median in known], [abs(change) for change, _ in known]


# ---------------------------------------------------------------------------------------------------------------------
# The numbers


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=3),
    st.integers(1, 5),
    st.sampled_from([(0.5,), (0.1, 0.5, 0.9), (0.05, 0.2, 0.5, 0.8)]),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.integers(0, 99),
)
def test_forecasts_stand_at_the_step_that_they_are_about(lengths, horizon, quantiles, missing, seed):
    task = task_of(horizon, quantiles)
    data = data_of(tuple(lengths), horizon, missing, seed=seed)
    model, record = looked(task, data)
    predicted = list(answers(model, task, Settings(), data))
    columns = {name: np.concatenate([piece[name] for piece in predicted]) for name in predicted[0]}
    for shown in record.sequences:
        number = list(data.ids).index(shown.name)
        told, values = changes(model, task, data, number), np.asarray(data.values[data.rows(number)])[:, 0]
        forecast = shown.answer.forecast
        assert forecast is not None
        assert [one.steps for one in forecast.aheads] == ([1] if horizon == 1 else [1, horizon])
        misses, naive = errors(values, told[..., task.median])
        for ahead in forecast.aheads:
            wanted = shifted(values, told, ahead.steps)
            np.testing.assert_allclose(ahead.median.mean, wanted[:, task.median], atol=1e-5)
            np.testing.assert_allclose(ahead.low, wanted[:, 0], atol=1e-5)
            np.testing.assert_allclose(ahead.high, wanted[:, -1], atol=1e-5)
        if misses:
            assert forecast.error == pytest.approx(np.mean(misses), abs=1e-5)
            assert forecast.naive_error == pytest.approx(np.mean(naive), abs=1e-5)
            assert f"({len(misses)} forecasts, " in shown.answer.told
        else:
            assert np.isnan(forecast.error)
            assert shown.answer.told == ""
        assert shown.answer.truth is not None
        np.testing.assert_allclose(shown.answer.truth.mean, values)
        beyond = forecast.beyond
        before = len(beyond.came) - horizon
        np.testing.assert_allclose(beyond.came, np.append(values[len(values) - before :], np.full(horizon, np.nan)))
        assert np.isnan(beyond.quantiles[:before]).all()
        mine = columns["id"] == shown.name
        np.testing.assert_allclose(beyond.median[before:], columns["prediction"][mine], atol=1e-5)
        for place, quantile in enumerate(quantiles):
            if place != task.median:
                wanted = columns[f"quantile_{quantile:g}"][mine]
                np.testing.assert_allclose(beyond.quantiles[before:, place], wanted, atol=1e-5)
        assert beyond.axis.bounds[-1] == len(values) + horizon
        np.testing.assert_array_equal(beyond.axis.middles, np.arange(len(values) - before, len(values) + horizon))


def test_long_sequences_and_far_forecasts_are_the_same_in_pieces_and_columns(monkeypatch):
    task = task_of(300)
    data = data_of((1000,), 300, 0.1)
    model, whole = looked(task, data)
    monkeypatch.setattr(looking, "_CHUNK", 90)
    cut = inspect(model, task, FACTS, data)
    (one,), (other,) = whole.sequences, cut.sequences
    assert one.answer.forecast is not None
    assert other.answer.forecast is not None
    assert other.answer.forecast.error == pytest.approx(one.answer.forecast.error, rel=1e-5)
    for mine, theirs in zip(one.answer.forecast.aheads, other.answer.forecast.aheads, strict=True):
        np.testing.assert_allclose(mine.median.mean, theirs.median.mean, atol=1e-4)
        np.testing.assert_allclose(mine.high, theirs.high, atol=1e-4)
    beyond, again = one.answer.forecast.beyond, other.answer.forecast.beyond
    np.testing.assert_allclose(beyond.median, again.median, atol=1e-4)
    assert len(beyond.came) <= 2 * looking.COLUMNS
    told = changes(model, task, data, 0)[-1] + known_at(np.asarray(data.values[:])[:, 0], 999)
    first = int(np.flatnonzero(~np.isnan(beyond.median))[0])
    steps = beyond.axis.bounds[first:] - 1000
    wanted = [told[low:high, 1].mean() for low, high in pairwise(steps)]
    np.testing.assert_allclose(beyond.median[first:], wanted, atol=1e-4)


def test_beyond_the_end_there_are_times_where_they_are_known():
    for times, title in (("even", "minutes from 2020-09-13"), ("uneven", "step"), ("none", "step")):
        _, record = looked(task_of(3), data_of((40, 6), 3, times=times))
        for shown in record.sequences:
            forecast = shown.answer.forecast
            assert forecast is not None
            axis = forecast.beyond.axis
            assert axis.title.startswith("seconds from" if (times, shown.axis.steps) == ("even", 6) else title) or (
                times == "even" and "from 2020-09-13" in axis.title
            )
            assert (np.diff(axis.middles) > 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# What is chosen, checked and said


def test_the_worst_are_those_with_the_largest_error():
    task, data = task_of(2), data_of((30, 30, 30, 30), 2)
    values = np.array(data.values[:])
    values[30:60, 0] *= 50
    data = with_change(with_target(sequences_of(list(values[:, :2].reshape(4, 30, 2))), "x0", 2), "x0")
    _, record = looked(task, data, sequences=3)
    why = {one.name: one.why for one in record.sequences}
    assert "the worst answers" in why["s1"]
    assert record.facts[-1][0] == "Mean error of 4 sequences here"
    forecasts = [one.answer.forecast for one in inspect(model_of(task, data), task, FACTS, data).sequences]
    mean = np.mean([one.error for one in forecasts if one is not None])
    assert len(forecasts) == 4
    assert float(record.facts[-1][1]) == pytest.approx(mean, rel=1e-3)


def test_the_check_is_of_the_last_forecast_in_units_of_the_naive_error():
    task, data = task_of(4), data_of((40, 35), 4)
    model = model_of(task, data)
    check = check_map(model, task, data, [0, 1])
    assert (check.unit, check.moment) == ("the naive forecast's mean error", "the forecast after the last step")
    values = torch.from_numpy(np.asarray(data.values[data.rows(0)]))[:, None]
    found = check.sequences[0]
    forgotten, remembered = parted(shares_of(model, task, data, 0))
    for columns, change in ((forgotten, found.forgotten_change), (remembered, found.remembered_change)):
        with torch.no_grad():
            effect = tg.counterfactual(Carrying(model), values, torch.from_numpy(columns), layer="model.layer")
        before, after = (task.told(one)[-1, 0, :, 1] for one in (effect.output, effect.output_without))
        assert change == pytest.approx(float((after - before).abs().mean()) / task.spread, abs=1e-6)
    assert "of the naive forecast's mean error on average" in verdict(check).sentence


def test_what_is_said_in_words():
    _, record = looked(task_of(4), data_of((40, 35), 4))
    assert question(record) == "forecasts one of its inputs, 4 steps ahead"
    one = record.sequences[0]
    forecast = one.answer.forecast
    assert forecast is not None
    text = summary(one)
    assert text.startswith("Next ")
    assert "; 4 steps ahead " in text
    assert f"mean absolute error {forecast.error:.4g}, the naive forecast's {forecast.naive_error:.4g}" in text
    ratio = forecast.error / forecast.naive_error
    assert rows(record)[0].said == f"MAE {forecast.error:.4g}, {ratio:.2f} of the naive forecast's"
    _, record = looked(task_of(1, (0.5,)), data_of((40,), 1))
    assert question(record) == "forecasts one of its inputs, 1 step ahead"
    assert "quantiles" not in summary(record.sequences[0])


# ---------------------------------------------------------------------------------------------------------------------
# Inputs that are made of others


def test_derived_inputs_are_shown_in_their_own_units():
    data = data_of((40, 300), 2, 0.0, "uneven")
    assert [feature.kind for feature in data.features] == ["number", "number", "change", "gap"]
    assert data.times is not None
    for number in range(2):
        bounds = looking.columns_of(int(data.lengths[number]))
        axis = time_axis(data, number, bounds, "at")
        lines = {line.name: line for line in shown_inputs(data, number, axis, np.zeros(4), np.zeros(4)).lines}
        assert list(lines) == ["x0", "x1", "change of x0", "time gap (s)"]
        gaps = np.append(np.nan, np.diff(data.times[data.rows(number)]))
        np.testing.assert_allclose(lines["time gap (s)"].values.mean, looking.reduced(gaps, bounds)[0], rtol=1e-6)
        for name in ("change of x0", "time gap (s)"):
            assert not lines[name].missing.any()  # the first step has none before it, and lacks nothing
    missing = data_of((40,), 2, 0.3, "uneven")
    axis = time_axis(missing, 0, looking.columns_of(40), "at")
    lines = {line.name: line for line in shown_inputs(missing, 0, axis, np.zeros(4), np.zeros(4)).lines}
    values = np.asarray(missing.values[:])
    np.testing.assert_array_equal(lines["change of x0"].missing[1:] > 0, np.isnan(values[1:, 2]))


def test_gaps_in_a_map_are_times_too():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(1, 9, 30))
    data = with_gaps(sequences_of([rng.normal(size=(30, 12))], times=times))
    shown = shown_inputs(data, 0, time_axis(data, 0, looking.columns_of(30), "at"), np.zeros(13), np.ones(13)).map
    assert shown is not None
    assert shown.names[-1] == GAP.name
    np.testing.assert_allclose(shown.values[-1], np.append(np.nan, np.diff(times)))
    assert isinstance(data.features[0], Feature)
