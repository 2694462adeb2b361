"""Forecasts: better than the last value where something can be known, and blind to what comes later."""

import csv
import json
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.parquet import read_table as read_parquet
from typer.testing import CliRunner

import tidegate as tg
from tests.refusals import assert_refused
from tests.train_helpers import fitting_settings, sequences_of
from tidegate.cli.app import app
from tidegate.data.sequences import Feature
from tidegate.errors import InputValueError
from tidegate.train.batches import Batches
from tidegate.train.card import model_card
from tidegate.train.fitting import evaluate, fit_model, new_model
from tidegate.train.forecast import Forecast, forecast_for, task_from, with_target
from tidegate.train.run import load_run, train
from tidegate.train.split import split_by_time

NAN = float("nan")
NUMBERS = st.floats(-1e3, 1e3)


def asked(horizon=3, quantiles=(0.1, 0.5, 0.9), spread=2.0, mean=1.0):
    return Forecast("forecast", "x0", "pinball", mean=mean, spread=spread, horizon=horizon, quantiles=quantiles)


def forecasting(**changed):
    return fitting_settings(**{"task": "forecast", "horizon": 4, "label": "x0", **changed})


def prepared(pieces, settings, **options):
    """Sequences with their target, the parts and the task."""
    assert settings.horizon is not None
    sequences = with_target(sequences_of(pieces, **options), settings.label, settings.horizon)
    parts = split_by_time(sequences, validation=0.2, test=0.2, horizon=settings.horizon)
    return sequences, parts, forecast_for(sequences, parts.train, settings)


def fitted(pieces, settings, **options):
    sequences, parts, task = prepared(pieces, settings, **options)
    return fit_model(new_model(sequences, parts, task, settings), sequences, parts, task, settings)


def sine(steps=600, period=20, phase=0.0):
    return 100 + 10 * np.sin(2 * np.pi * np.arange(steps) / period + phase)


# ---------------------------------------------------------------------------------------------------------------------
# loss, scores and answers


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS | st.just(NAN)), min_size=1, max_size=5))
def test_the_loss_is_pinball(rows):
    task = asked(horizon=1)
    answers, label = torch.tensor([row[:3] for row in rows]).double(), torch.tensor([row[3:] for row in rows]).double()
    wanted = []
    for *quantiles, came in rows:
        if not math.isnan(came):
            misses = [came / 2 - answer for answer in torch.tensor(quantiles).double().tolist()]
            weighed = [
                q * miss if miss > 0 else (q - 1) * miss for q, miss in zip((0.1, 0.5, 0.9), misses, strict=True)
            ]
            wanted.append(sum(weighed) / 3)
    torch.testing.assert_close(
        task.loss_of(answers, label), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-3
    )


@given(st.lists(NUMBERS, min_size=9, max_size=9), st.lists(NUMBERS, min_size=3, max_size=3))
def test_quantiles_never_cross_and_are_not_farther_for_it(numbers, came):
    task = asked(horizon=3)
    answers = torch.tensor(numbers, dtype=torch.float64)[None]
    told = task.told(answers)
    assert told.shape == (1, 3, 3)
    assert (told.diff(dim=-1) >= 0).all()
    label = torch.tensor(came, dtype=torch.float64)[None]
    in_order = (told / task.spread).reshape(1, 9)
    assert task.loss_of(in_order, label).sum() <= task.loss_of(answers, label).sum() + 1e-9


def test_the_scores_are_those_of_the_median_beside_the_last_value():
    task = asked(horizon=2, quantiles=(0.25, 0.5, 0.75), spread=10.0)
    answers = torch.tensor([[[0.3, -0.1, 0.1, 0.5, 0.2, 0.1]], [[0.0, 0.0, 0.0, 9.0, 9.0, 9.0]]])
    label = torch.tensor([[[2.0, -7.0]], [[NAN, 80.0]]], dtype=torch.float64)
    scores = task.metrics()
    task.judge(scores, answers, label)
    told = {name: float(value) for name, value in scores.compute().items()}
    assert told["mae"] == pytest.approx((1 + 9 + 10) / 3)
    assert told["rmse"] == pytest.approx(math.sqrt((1 + 81 + 100) / 3))
    assert told["naive_mae"] == pytest.approx((2 + 7 + 80) / 3)
    assert told["relative_mae"] == pytest.approx(20 / 89)
    assert told["coverage"] == pytest.approx(1 / 3)
    scores.reset()
    task.judge(scores, answers[:1], label[:1])
    task.judge(scores, answers[1:], label[1:])
    assert {name: float(value) for name, value in scores.compute().items()} == pytest.approx(told)
    alone = asked(quantiles=(0.5,))
    scores = alone.metrics()
    alone.judge(scores, torch.zeros(1, 1, 3), torch.ones(1, 1, 3))
    assert "coverage" not in scores.compute()


def test_the_task_is_json():
    task = asked()
    assert task_from(task.to_dict()) == task
    assert (task.per_step, task.outputs, task.median) == (True, 9, 1)


# ---------------------------------------------------------------------------------------------------------------------
# what is asked

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(LENGTHS, st.integers(1, 5), st.none() | st.integers(1, 9), st.integers(1, 4), st.integers(0, 9))
def test_labels_are_the_changes_that_a_loop_would_find(lengths, horizon, chunk, size, seed):
    rng = np.random.default_rng(seed)
    pieces = [np.where(rng.random((length, 2)) < 0.2, NAN, rng.normal(size=(length, 2))) for length in lengths]
    sequences = with_target(sequences_of(pieces), "x1", horizon)
    found = {number: np.empty((0, horizon)) for number in range(len(lengths))}
    for batch in Batches(sequences, range(len(lengths)), size, chunk=chunk, shuffle=seed):
        assert batch.label is not None
        for place, number in enumerate(batch.numbers.tolist()):
            count = int(batch.lengths[place])
            assert batch.label[count:, place].isnan().all()
            found[number] = np.concatenate([found[number], batch.label[:count, place].numpy()])
    for number, piece in enumerate(pieces):
        last = NAN
        for step, value in enumerate(piece[:, 1]):
            last = last if math.isnan(value) else value
            ahead = [piece[at, 1] - last if (at := step + k) < len(piece) else NAN for k in range(1, horizon + 1)]
            np.testing.assert_equal(found[number][step], ahead)


@given(st.lists(st.integers(12, 60), min_size=1, max_size=4), st.integers(1, 5), st.sampled_from(["1", "auto", "5"]))
def test_every_step_of_a_part_is_forecast_from_each_of_the_steps_before(lengths, horizon, lanes):
    """Once for each step ahead, in lanes too: all but the first steps of a sequence, which have fewer before them."""
    from tidegate.train.lanes import in_lanes  # noqa: PLC0415

    pieces = [np.arange(length, dtype=float)[:, None] for length in lengths]
    settings = forecasting(horizon=horizon, chunk=3, lanes=lanes)
    sequences, parts, task = prepared(pieces, settings)
    for part in (in_lanes(parts.train, task, settings)[0], parts.validation, parts.test):
        count = 0
        for batch in Batches(sequences, part, 4, chunk=3):
            assert batch.label is not None
            count += int((~batch.label.isnan()).sum())
        ends: dict[int, tuple[int, int]] = {
            int(number): (int(low), int(high))
            for number, low, high in zip(part.numbers, part.low, part.high, strict=True)
        }
        assert count == sum(min(step, horizon) for low, high in ends.values() for step in range(low, high))


# ---------------------------------------------------------------------------------------------------------------------
# nothing leaks


def test_what_comes_after_the_training_part_changes_nothing_in_it():
    settings = forecasting(epochs=3, horizon=5, chunk=7, lanes="3", hidden_size=4)
    rng = np.random.default_rng(0)
    one = rng.normal(size=(200, 2)).cumsum(0)
    other = one.copy()
    other[120:] = rng.normal(size=(80, 2)) * 1e6
    first, second = fitted([one], settings), fitted([other], settings)
    losses = [[record["train_loss"] for record in run.history] for run in (first, second)]
    assert losses[0] == losses[1]
    assert first.task == second.task
    for name in ("mean", "scale"):
        assert torch.equal(getattr(first.model.encoder, name), getattr(second.model.encoder, name))
    assert first.history != second.history, "the validation part must have noticed"


def test_what_comes_after_the_validation_part_changes_nothing_in_its_scores():
    settings = forecasting(epochs=3, horizon=5, hidden_size=4)
    one = np.random.default_rng(0).normal(size=(200, 2)).cumsum(0)
    other = one.copy()
    other[160:] = 1e6
    assert fitted([one], settings).history == fitted([other], settings).history


@pytest.mark.parametrize("chunk", [1, 6, 50])
def test_forecasts_of_a_later_part_follow_from_the_steps_before_it(chunk):
    """The state is warm: the scores are those of reading the sequence from its start."""
    settings = forecasting(chunk=chunk)
    sequences, parts, task = prepared([np.random.default_rng(0).normal(size=(300, 2)).cumsum(0)], settings)
    model = new_model(sequences, parts, task, settings).eval()
    found = evaluate(model, task, Batches(sequences, parts.test, 4, chunk=chunk), settings)
    with torch.no_grad():
        answers, _ = model(torch.from_numpy(sequences.values)[:, None])
    values = sequences.values[:, 0]
    label = np.full((300, 1, 4), NAN)
    for step in range(300):
        for ahead in range(1, 5):
            if 240 <= step + ahead < 300:
                label[step, 0, ahead - 1] = values[step + ahead] - values[step]
    losses = task.loss_of(answers, torch.from_numpy(label))
    assert len(losses) == 60 * 4
    assert found["loss"] == pytest.approx(float(losses.mean()), rel=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# it learns


@pytest.mark.parametrize("variant", ["gru", "update-only"])
@pytest.mark.usefixtures("as_users_run_it")
def test_a_sine_is_forecast_far_better_than_by_its_last_value(variant):
    settings = forecasting(
        horizon=10, epochs=60, hidden_size=16, variant=variant, chunk=40, memory_steps="40", quantiles="0.2,0.5,0.8"
    )
    run = fitted([sine()[:, None]], settings)
    assert run.validation["relative_mae"] < 0.15
    assert run.validation["naive_mae"] == pytest.approx(
        20 * 2 / np.pi * np.abs(np.sin(np.pi * np.arange(1, 11) / 20)).mean(), rel=0.02
    )


def test_many_short_series_with_a_missing_value_here_and_there():
    rng = np.random.default_rng(0)
    pieces = [sine(60, phase=rng.uniform(0, 6))[:, None] for _ in range(24)]
    for piece in pieces:
        piece[rng.integers(60, size=3)] = NAN
    run = fitted(pieces, forecasting(horizon=3, epochs=60, hidden_size=16, memory_steps="20"))
    assert run.validation["relative_mae"] < 0.5


def test_noise_is_covered_as_the_quantiles_say():
    noise = np.random.default_rng(0).normal(size=(4000, 1))
    run = fitted([noise], forecasting(horizon=2, epochs=12, hidden_size=8, chunk=50, memory_steps="0"))
    assert run.validation["coverage"] == pytest.approx(0.8, abs=0.06)
    assert run.validation["relative_mae"] == pytest.approx(1 / math.sqrt(2), abs=0.06)  # of the mean, and no better


# ---------------------------------------------------------------------------------------------------------------------
# refusals


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([np.ones((50, 1))], "label 'x0' must vary in the training part; it is always the same"),
        ([np.full((50, 1), NAN)], "label 'x0' must vary in the training part; no value with another ahead of it is kn"),
        ([np.append(np.ones(30), np.arange(20.0))[:, None]], "must vary in the training part; it is always the same"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(pieces, words):
    assert_refused(lambda: prepared(pieces, forecasting()), InputValueError, words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": None}, "horizon must say how many steps ahead to forecast; got None"),
        ({"horizon": 0}, r"horizon must be at least 1 and below 2\*\*31; got 0"),
        ({"task": "auto"}, "horizon must be given with task 'forecast' alone; got 4"),
        ({"bidirectional": True}, "bidirectional must be off with task 'forecast'"),
        ({"quantiles": ()}, "quantiles must be rising numbers between 0 and 1, with 0.5, .* got none"),
        ({"quantiles": "0.1,0.9"}, "with 0.5, the prediction, among them; got 0.1, 0.9"),
        ({"quantiles": (0.5, 0.1)}, "quantiles must be rising"),
        ({"quantiles": (0.5, 1.0)}, "quantiles must be rising"),
        ({"quantiles": (0.5, NAN)}, "quantiles must be rising"),
        ({"loss": "mse"}, "loss must be pinball for a forecast; got 'mse'"),
        ({"class_weights": "balanced"}, "class_weights must be 'none' for a label that is a number"),
        ({"label": None}, "label must name the feature that is to be forecast; got None"),
        ({"label": "x1"}, "label must name features of the data; 'x1' is none of 'x0'"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_what_does_not_go_with_a_forecast_is_refused(options, words):
    assert_refused(lambda: prepared([np.arange(50.0)[:, None]], forecasting(**options)), InputValueError, words)


def test_a_horizon_beyond_what_is_learned_from_is_refused():
    """Nothing would be known of its last steps."""
    words = "horizon must be below the steps to learn from, 30 in the longest sequence; got 30"
    assert_refused(lambda: prepared([np.arange(50.0)[:, None]], forecasting(horizon=30)), InputValueError, words)
    prepared([np.arange(50.0)[:, None]], forecasting(horizon=29))


def test_a_target_that_is_no_number_is_refused():
    for feature in (Feature("x0", "boolean"), Feature("x0", "category", ("a", "b"))):
        words = f"label must name a feature that is a number, to be forecast; 'x0' is a {feature.kind}"
        sequences = sequences_of([[[0.0], [1.0]]], features=[feature])
        assert_refused(partial(with_target, sequences, "x0", 1), InputValueError, words)


@pytest.mark.parametrize("given", ["0.1,0.5", ["0.1", "0.5"], [0.1, 0.5], (0.1, 0.5), ["0.1,0.5"]])
@pytest.mark.usefixtures("as_users_run_it")
def test_quantiles_may_be_written_in_many_ways(given):
    assert forecasting(quantiles=given).quantiles == (0.1, 0.5)


# ---------------------------------------------------------------------------------------------------------------------
# runs, from files to answers


def table(path, *, ids=(), steps=160, gap=3600.0, last=0.0):
    with path.open("w") as file:
        file.write("place,at,load,heat\n")
        for number, place in enumerate(ids):
            times = 1.6e9 + gap * np.arange(steps)
            times[-1] += last
            for time, value in zip(times, sine(steps, phase=number), strict=True):
                file.write(f"{place},{time},{value},{number}\n")
    return path


FORECAST = {"task": "forecast", "horizon": 6, "hidden_size": 8, "epochs": 3, "threads": 1, "memory_steps": "20"}
OPTIONS = {**FORECAST, "id": "place", "time": "at", "label": "load"}


def test_a_run_from_a_table_to_its_answers(tmp_path):
    data = table(tmp_path / "data.csv", ids=("north", "south"))
    run = tg.fit(str(data), out=tmp_path / "run", **OPTIONS)
    assert [feature.name for feature in run.model.config.features] == ["load", "heat", "change of load"]
    assert run.facts["data"]["train_steps"] == 2 * (160 - 24 - 24)
    assert run.facts["data"]["test_steps"] == 2 * 24
    loaded = load_run(tmp_path / "run")
    assert loaded.task == run.task
    told = loaded.predict(str(data))
    assert list(told) == ["id", "ahead", "time", "prediction", "quantile_0.1", "quantile_0.9"]
    assert told["id"].tolist() == ["north"] * 6 + ["south"] * 6
    assert told["ahead"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    np.testing.assert_allclose(told["time"], np.tile(1.6e9 + 3600.0 * np.arange(160, 166), 2))
    assert (told["quantile_0.1"] <= told["prediction"]).all()
    assert (told["prediction"] <= told["quantile_0.9"]).all()
    sequences = loaded.read(str(data))
    with torch.no_grad():
        for number, values in enumerate(sequences):
            answers, _ = loaded.model(torch.from_numpy(values)[:, None])
            wanted = values[-1, 0] + loaded.task.told(answers[-1])[0, :, 1].numpy()
            np.testing.assert_allclose(told["prediction"][6 * number : 6 * number + 6], wanted, rtol=1e-6)
    scores = loaded.score(str(data))
    assert scores.keys() == {"loss", "mae", "rmse", "naive_mae", "relative_mae", "coverage"}
    card = model_card(loaded, "run")
    assert "the next 6 values of `load`, the quantiles 0.1, 0.5, 0.9 of each" in card
    assert "Each sequence is cut in time" in card
    assert "The test part is one stretch of time: another could give another score." in card
    assert not re.search(r"\b1 (sequences|steps|seconds)\b|(\d+) to \2 steps", card)


@pytest.mark.usefixtures("as_users_run_it")
def test_a_test_part_in_which_nothing_changes_has_no_ratio(tmp_path):
    """The naive forecast is never wrong there."""
    flat = sine(160)
    flat[120:] = 7.0
    run = tg.fit([flat[:, None]], "x0", out=tmp_path / "run", **{**FORECAST, "epochs": 1})
    assert run.facts["test"]["naive_mae"] == 0
    loaded = load_run(tmp_path / "run")
    assert loaded.facts["test"]["relative_mae"] is None
    assert "| test | 1 | 24 |" in model_card(loaded, "run")
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "run"), str(tmp_path / "run")])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("steps", [7, 40, 10_000])
def test_long_and_short_sequences_are_forecast_alike(monkeypatch, steps):
    settings = forecasting()
    lengths = [30, 1, 9, 55]
    pieces = [np.random.default_rng(length).normal(size=(length, 1)).cumsum(0) for length in lengths]
    pieces[2][-3:], pieces[1][:] = NAN, NAN
    sequences, parts, task = prepared(pieces, settings)
    model = new_model(sequences, parts, task, settings).eval()
    from tidegate.train import predict  # noqa: PLC0415

    monkeypatch.setattr(predict, "_STEPS", steps)
    told = np.concatenate([one["prediction"] for one in predict.answers(model, task, settings, sequences)])
    wanted = []
    for number, values in enumerate(sequences):
        with torch.no_grad():
            answers, _ = model(torch.from_numpy(values)[:, None])
        known = values[~np.isnan(values)]
        last = known[-1] if number != 1 else task.mean
        wanted.append(last + task.told(answers[-1])[0, :, 1].numpy())
    np.testing.assert_allclose(told, np.concatenate(wanted), rtol=1e-5)


def test_the_time_ahead_is_not_made_up(tmp_path):
    data = table(tmp_path / "data.csv", ids=("a",))
    run = tg.fit(str(data), **OPTIONS)
    uneven = table(tmp_path / "uneven.csv", ids=("a",), last=7000.0)
    assert np.isnan(run.predict(str(uneven))["time"]).all()
    without = tg.fit([sine()[:, None]], "x0", task="forecast", horizon=2, hidden_size=4, epochs=1)
    assert "time" not in without.predict([sine()[:, None]])


def test_other_sequences_are_asked_from_their_first_step(tmp_path):
    data, other = table(tmp_path / "a.csv", ids=("a",)), table(tmp_path / "b.csv", ids=("b", "c"), steps=50)
    run = tg.fit(str(data), test_data=str(other), **OPTIONS)
    assert (run.facts["data"]["test"], run.facts["data"]["test_steps"]) == (2, 100)
    assert run.facts["data"]["train_steps"] == 160 - 24
    assert run.facts["test"] == pytest.approx(run.score(str(other)))


def test_what_is_forecast_is_an_input_even_if_it_is_not_named(tmp_path):
    data = table(tmp_path / "data.csv", ids=("a", "b"))
    run = tg.fit(str(data), features=("heat",), **OPTIONS)
    assert [feature.name for feature in run.model.config.features] == ["heat", "load", "change of load"]


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">i2"])
def test_a_file_of_one_long_series_stays_on_disk(tmp_path, dtype):
    np.save(tmp_path / "series.npy", sine(900)[None, :, None].astype(dtype))
    run = tg.fit(str(tmp_path / "series.npy"), "x0", **FORECAST)
    sequences = run.read(str(tmp_path / "series.npy"), label=True)
    assert sequences.label is not None
    assert isinstance(sequences.label.values, np.memmap)
    told = run.predict(str(tmp_path / "series.npy"))
    again = run.predict([sine(900).astype(dtype)[:, None]])
    np.testing.assert_array_equal(told["prediction"], again["prediction"])


def test_labels_beside_the_data_are_no_forecast():
    words = "label must name the feature that is to be forecast; got labels of their own or None"
    assert_refused(lambda: tg.fit(np.zeros((3, 9, 1)), np.zeros(3), task="forecast", horizon=2), InputValueError, words)


def test_interrupted_and_resumed_is_never_interrupted(tmp_path):
    data = table(tmp_path / "data.csv", ids=("a", "b"), gap=60.0)
    settings = forecasting(
        **{**OPTIONS, "data": (str(data),), "lanes": "4", "chunk": 9, "dropout": 0.2, "recurrent_dropout": 0.2,
           "gaps": "on"}
    )  # fmt: skip

    def interrupt(moment):
        if moment.epoch == 1 and moment.scores is None:
            raise KeyboardInterrupt

    whole = train(settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "cut", progress=interrupt)
    train(settings, tmp_path / "cut", resume=True)
    for name in ("model.safetensors", "checkpoints/last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert [one.name for one in whole.model.config.features] == ["load", "heat", "change of load", "time gap"]


@pytest.mark.usefixtures("as_users_run_it")
def test_the_command_line_from_end_to_end(tmp_path):
    data = table(tmp_path / "data.csv", ids=("north", "south"))
    words = [str(data), "--id", "place", "--time", "at", "--label", "load", "--task", "forecast", "--horizon", "6",
             "--quantiles", "0.05,0.5,0.95", "--hidden-size", "8", "--epochs", "2", "--threads", "1"]  # fmt: skip

    def tidegate(*given, code=0):
        done = CliRunner().invoke(app, [str(word) for word in given], env={"COLUMNS": "100", "NO_COLOR": "1"})
        assert done.exit_code == code, done.output
        return done

    told = tidegate("train", *words, "--out", tmp_path / "run").output
    assert "forecast: load" in told
    assert "relative_mae" in told
    tidegate("train", *words, "--out", tmp_path / "other", "--variant", "rnn")
    assert "12 rows written" in tidegate("predict", tmp_path / "run", data, "--out", tmp_path / "told.csv").output
    with (tmp_path / "told.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ahead"] for row in rows] == ["1", "2", "3", "4", "5", "6"] * 2
    assert list(rows[0]) == ["id", "ahead", "time", "prediction", "quantile_0.05", "quantile_0.95"]
    tidegate("predict", tmp_path / "run", data, "--out", tmp_path / "told.parquet")
    tidegate("predict", tmp_path / "run", data, "--out", tmp_path / "told.jsonl")
    columns = read_parquet(tmp_path / "told.parquet").to_pydict()
    lines = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        for name, text in row.items():
            value = text if name == "id" else pytest.approx(float(text))
            assert columns[name][number] == value
            assert lines[number][name] == value
    for words in ([], ["--unlabelled"]):  # what is forecast is an input: there is no data without it
        page = tmp_path / f"page{len(words)}.html"
        told = tidegate("inspect", tmp_path / "run", data, "--out", page, *words).output
        assert "the forecast after the last step by" in " ".join(told.split())
        assert "1 to 6 steps ahead" in page.read_text(encoding="utf-8")
    assert "forecast: load" in tidegate("compare", tmp_path / "run", tmp_path / "other").output
    assert "forecasts the next values" in tidegate("card", tmp_path / "run").output
    refused = tidegate("train", data, "--label", "load", "--task", "forecast", "--out", tmp_path / "none", code=2)
    assert refused.stderr.strip() == "tidegate: horizon must say how many steps ahead to forecast; got None"
    assert not (tmp_path / "none").exists()


# ---------------------------------------------------------------------------------------------------------------------
# the time between steps as an input


def late(path, *, uneven=True):
    """What a step says is how long the one before lasted, and nothing else tells it."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("who,at,x,slow\n")
        for who in range(60):
            now = 1.6e9
            for step in range(12):
                gap = float(rng.choice([60, 600])) if uneven else 60.0
                now += gap
                file.write(f"s{who},{now},{rng.normal()},{'' if not step else 'yes' if gap > 100 else 'no'}\n")
    return path


LATE = {"id": "who", "time": "at", "label": "slow", "hidden_size": 8, "epochs": 15, "threads": 1,
        "learning_rate": 0.02, "memory_steps": "0"}  # fmt: skip


def test_gaps_tell_what_only_they_can(tmp_path):
    data = late(tmp_path / "data.csv")
    run = tg.fit(str(data), out=tmp_path / "run", **LATE)
    assert [one.kind for one in run.model.config.features] == ["number", "gap"]
    assert run.facts["test"]["accuracy"] > 0.95
    blind = tg.fit(str(data), gaps="off", **LATE)
    assert blind.facts["test"]["accuracy"] < 0.7
    loaded = load_run(tmp_path / "run")
    assert loaded.score(str(data))["accuracy"] > 0.95
    assert (loaded.predict(str(data))["prediction"] == run.predict(str(data))["prediction"]).all()
    (tmp_path / "bare.csv").write_text("who,x,slow\na,1,yes\n")
    words = "time must name columns of the table; it has no column 'at'"
    assert_refused(lambda: loaded.predict(str(tmp_path / "bare.csv")), InputValueError, words)


def test_even_steps_have_no_gaps_unless_told(tmp_path):
    options = {**OPTIONS, "epochs": 1}
    data = str(table(tmp_path / "data.csv", ids=("a", "b")))
    assert len(tg.fit(data, **options).model.config.features) == 3
    assert len(tg.fit(data, gaps="on", **options).model.config.features) == 4
    words = "data must have times .*, since the time between steps is an input; they have none"
    settings = {"task": "forecast", "horizon": 2, "gaps": "on"}
    assert_refused(lambda: tg.fit([sine()[:, None]], "x0", **settings), InputValueError, words)


def test_only_the_gaps_of_the_training_part_decide(tmp_path):
    options = {**OPTIONS, "epochs": 1}
    uneven = table(tmp_path / "data.csv", ids=("a", "b"), last=90_000.0)  # in the last step, which is a test's
    assert len(tg.fit(str(uneven), **options).model.config.features) == 3
