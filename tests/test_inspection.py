"""Looking inside a trained network: its numbers are those of `gates`, its check finds who is honest and who is not."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tidegate as tg
from tests.train_helpers import first_symbol, sequences_of
from tidegate.data.sequences import Feature, Sequences
from tidegate.errors import InputTypeError, InputValueError
from tidegate.gates import counterfactual, gate_health, gradient_flow, trace
from tidegate.gates.trace import DirectionTrace
from tidegate.report.run_records import RunRecord
from tidegate.report.run_words import verdict
from tidegate.train import inspection, looking
from tidegate.train.honesty import LEAST, check_map, parted, shares_of
from tidegate.train.inspection import Asked, inspect
from tidegate.train.looking import Carrying, DirectionView, columns_of, look, pieces
from tidegate.train.model import ModelConfig, SequenceModel
from tidegate.train.showing import shown_inputs, time_axis
from tidegate.train.tasks import Task

FACTS = {"test": {"accuracy": 0.5, "loss": 1.0}, "validation": {}, "versions": {"tidegate": "0"}, "data": {"files": []}}
CLASSES = Task("classify", "answer", "cross-entropy", ("a", "b"))
STEPS = Task("label-steps", "answer", "cross-entropy", ("a", "b"))
NUMBER = Task("regress", "answer", "mse", mean=3.0, spread=2.0)
NUMBERS = Task("regress-steps", "answer", "mse", mean=3.0, spread=2.0)


def model_of(task: Task, width: int = 2, hidden: int = 5, **config) -> SequenceModel:
    torch.manual_seed(0)
    features = tuple(Feature(f"x{place}") for place in range(width))
    return SequenceModel(
        ModelConfig(features, (False,) * width, task.outputs, task.per_step, hidden_size=hidden, **config)
    ).eval()


def data_of(task: Task, lengths: tuple[int, ...] = (9, 14, 6), width: int = 2, **changed) -> Sequences:
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(length, width)) for length in lengths]
    count = sum(lengths) if task.per_step else len(lengths)
    label = rng.integers(2, size=count) if task.categories else rng.normal(size=count)
    return sequences_of(values, label=label, categories=task.categories, per_step=task.per_step, **changed)


def looked(task: Task, data: Sequences, asked: Asked | None = None, **config) -> tuple[SequenceModel, RunRecord]:
    model = model_of(task, data.values.shape[1], **config)
    return model, inspect(model, task, FACTS, data, asked or Asked())


def encoded(model: SequenceModel, data: Sequences, number: int) -> torch.Tensor:
    with torch.no_grad():
        encoded: torch.Tensor = model.encoder(torch.from_numpy(data.values[data.rows(number)]).unsqueeze(1))
    return encoded


# ---------------------------------------------------------------------------------------------------------------------
# The numbers are those of `gates`


@pytest.mark.parametrize("variant", ["gru", "update-only", "gru-reset-before", "gru-layer-norm", "rnn"])
def test_gates_memory_and_flow_are_those_of_gates(variant):
    data = data_of(CLASSES)
    model, record = looked(CLASSES, data, variant=variant)
    for shown in record.sequences:
        number = list(data.ids).index(shown.name)
        x = encoded(model, data, number)
        with torch.no_grad():
            seen = trace(model.layer, x)
        (found,) = shown.directions
        memory = seen.memory()[:, 0].double().numpy()
        np.testing.assert_allclose(found.share, memory[1:].mean(1), atol=1e-6)
        np.testing.assert_allclose(np.sort(found.memory, 1), np.sort(memory[1:], 1), atol=1e-6)
        assert found.initial == pytest.approx(memory[0].mean(), abs=1e-6)
        np.testing.assert_allclose(found.half_life, seen.half_life().double().numpy(), rtol=1e-4, atol=1e-6)
        for gate, name in ((found.update, "update"), (found.reset, "reset")):
            if gate is None:
                assert variant == "rnn" or (variant, name) == ("update-only", "reset")
                continue
            values = getattr(seen, name)[:, 0].double().numpy()
            np.testing.assert_allclose(gate.mean, values.mean(1), atol=1e-6)
            np.testing.assert_allclose(gate.low, np.quantile(values, 0.1, axis=1), atol=1e-6)
            np.testing.assert_allclose(gate.high, np.quantile(values, 0.9, axis=1), atol=1e-6)
        flow = gradient_flow(model.layer, x, norm="frobenius").log_norm[:, 0].numpy()
        assert found.flow is not None
        assert found.flow.followed == len(x)
        np.testing.assert_allclose(found.flow.log10.mean, (flow - flow[-1]) / np.log(10), atol=1e-6)


def test_units_are_sorted_by_how_far_back_they_remember():
    _, record = looked(CLASSES, data_of(CLASSES, (30, 30)), hidden=16)
    for shown in record.sequences:
        memory = shown.directions[0].memory
        age = np.arange(30, 0, -1.0) @ memory + 31 * (1 - memory.sum(0))
        assert (np.diff(age) <= 1e-9).all()


def test_both_directions_of_all_layers_are_there():
    data = data_of(CLASSES)
    model, record = looked(CLASSES, data, num_layers=2, bidirectional=True)
    shown = record.sequences[0]
    assert [one.place for one in shown.directions] == [
        "layer 0, forward",
        "layer 0, backward",
        "layer 1, forward",
        "layer 1, backward",
    ]
    x = encoded(model, data, list(data.ids).index(shown.name))
    with torch.no_grad():
        layers = trace(model.layer, x).layers
    for depth in (0, 1):
        forward, backward = layers[depth], layers[depth].reverse
        assert backward is not None
        for found, seen, end in (
            (shown.directions[2 * depth], forward, -1),
            (shown.directions[2 * depth + 1], backward, 0),
        ):
            np.testing.assert_allclose(found.share, seen.memory(end)[1:, 0].double().mean(1), atol=1e-6)
        flow = gradient_flow(model.layer, x, norm="frobenius", depth=depth, reverse=True).log_norm[:, 0].numpy()
        drawn = shown.directions[2 * depth + 1].flow
        assert drawn is not None
        np.testing.assert_allclose(drawn.log10.mean, (flow - flow[-1])[::-1] / np.log(10), atol=1e-6)
        assert (np.diff(drawn.places) > 0).all()
    assert shown.answer.shares is None  # read both ways, there is no answer on the way
    assert len(shown.answer.probabilities) == 2
    _, one = looked(CLASSES, data, Asked(layers=(1,)), num_layers=2)
    assert [direction.place for direction in one.sequences[0].directions] == ["layer 1"]


def test_memory_at_every_step_is_that_of_gates():
    data = data_of(STEPS)
    model, record = looked(STEPS, data)
    shown = record.sequences[0]
    with torch.no_grad():
        seen = trace(model.layer, encoded(model, data, list(data.ids).index(shown.name)))
    held = shown.directions[0].held
    assert held is not None
    for step in range(shown.axis.steps):
        np.testing.assert_allclose(held[step], seen.memory(step)[1:, 0].double().mean(1), atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_long_sequences_are_the_same_in_columns(monkeypatch, bidirectional):
    monkeypatch.setattr(looking, "_CHUNK", 100)
    data = data_of(STEPS, (531, 20))
    model, record = looked(STEPS, data, bidirectional=bidirectional)
    shown = record.sequences[0]
    bounds = shown.axis.bounds
    assert (shown.axis.columns, shown.axis.steps, shown.axis.steps_a_column) == (177, 531, 3)
    with torch.no_grad():
        layer = trace(model.layer, encoded(model, data, 0)).layers[0]
        answers = model(torch.from_numpy(data.values[:531]).unsqueeze(1))[0][:, 0].softmax(-1).numpy()
    directions = [layer] if layer.reverse is None else [layer, layer.reverse]
    for found, seen, end in zip(shown.directions, directions, (-1, 0), strict=False):
        memory = seen.memory(end)[1:, 0].double().numpy()
        np.testing.assert_allclose(found.share, np.add.reduceat(memory, bounds[:-1]).mean(1), atol=1e-6)
        assert found.tail is not None
        where = slice(0, 240) if seen.backward else slice(531 - 240, 531)
        np.testing.assert_allclose(found.tail, memory[where].mean(1), atol=1e-6)
        update = seen.update[:, 0].double().numpy()
        assert found.update is not None
        np.testing.assert_allclose(found.update.mean, np.add.reduceat(update.mean(1), bounds[:-1]) / 3, atol=1e-6)
        low = np.minimum.reduceat(np.quantile(update, 0.1, axis=1), bounds[:-1])
        np.testing.assert_allclose(found.update.low, low, atol=1e-6)
        assert found.flow is not None
        assert found.flow.followed <= 531
    assert shown.answer.shares is not None
    np.testing.assert_allclose(shown.answer.shares, (np.add.reduceat(answers, bounds[:-1]) / 3).T, atol=1e-5)


@given(st.data())
def test_pieces_of_any_sizes_give_the_same_view(data):
    steps = data.draw(st.integers(1, 40))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, steps - 1)))))
    backward = data.draw(st.booleans()) and not cuts
    update = np.random.default_rng(steps).random((steps, 1, 3))
    columns = data.draw(st.integers(1, steps))
    bounds = np.linspace(0, steps, columns + 1).round().astype(np.int64)

    def seen(start: int, stop: int) -> DirectionTrace:
        gate = torch.from_numpy(update[start:stop])
        return DirectionTrace(gate, gate, gate, gate, torch.zeros(1, 3), None, backward)

    view = DirectionView(bounds, 3, held=True)
    edges = [0, *[cut for cut in cuts if cut < steps], steps]
    for start, stop in pairwise(edges):
        view.add(seen(start, stop), start)
    memory = seen(0, steps).memory(0 if backward else -1)[:, 0].numpy()
    np.testing.assert_allclose(view.memory, np.add.reduceat(memory[1:], bounds[:-1]), atol=1e-12)
    np.testing.assert_allclose(view.initial, memory[0], atol=1e-12)
    np.testing.assert_allclose(view.memory.sum(0) + view.initial, 1)
    counts = np.diff(bounds)[:, None]
    np.testing.assert_allclose(view.update, np.add.reduceat(update[:, 0], bounds[:-1]) / counts)


def test_a_state_on_the_way_holds_what_gates_say():
    model, data = model_of(STEPS, bidirectional=True), data_of(STEPS, (11,))
    with torch.no_grad():
        layer = trace(model.layer, encoded(model, data, 0)).layers[0]
    assert layer.reverse is not None
    middle = (layer.memory(5)[1:, 0] + layer.reverse.memory(5)[1:, 0]).double().mean(1) / 2
    np.testing.assert_allclose(shares_of(model, STEPS, data, 0), middle, atol=1e-6)


@given(st.integers(1, 5000))
def test_columns_cover_every_step_once(steps):
    bounds = columns_of(steps)
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, steps)
    assert len(sizes) <= looking.COLUMNS
    assert set(sizes[1:]) <= {sizes.max()}
    assert 0 < sizes[0] <= sizes.max()


def test_health_is_that_of_gates():
    data = data_of(CLASSES, (30, 40))
    model, record = looked(CLASSES, data)
    batch = torch.nn.utils.rnn.pad_sequence([encoded(model, data, number) for number in (1, 0)])[:, :, 0]
    (health,) = gate_health(model.layer, batch, lengths=[40, 30])
    (found,) = record.health
    assert health.update is not None
    assert found.update == pytest.approx(health.update.mean)
    assert found.gradient == pytest.approx(health.gradient_per_step)
    assert found.findings == tuple((finding.sentence, finding.advice) for finding in health.findings)
    assert found.findings  # nobody trained it


# ---------------------------------------------------------------------------------------------------------------------
# Is the map honest?


def gated(*, honest: bool) -> SequenceModel:
    """One unit that keeps the value of the marked step: by its update gate, or from candidate to candidate.

    Inputs are a value and a mark. The second one's gate is always open: its map sees the last step alone.
    """
    model = model_of(CLASSES, hidden=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        weights = dict(model.layer.named_parameters())
        weights["bias_ih_l0"][0] = 40  # reset gate open
        if honest:
            weights["bias_ih_l0"][1] = 20  # PyTorch's z, 1 - Gu
            weights["weight_ih_l0"][1, 1] = -40
            weights["weight_ih_l0"][2, 0] = 5
        else:
            weights["bias_ih_l0"][1] = -40
            weights["weight_ih_l0"][2, 0] = 5
            weights["weight_hh_l0"][2, 0] = 4
        model.head.weight[:, 0] = torch.tensor([4.0, -4.0])
    return model


def marked(count: int = 12, steps: int = 10) -> Sequences:
    values = np.zeros((count, steps, 2))
    for number in range(count):
        values[number, 2] = (1 if number % 2 else -1), 1
    return sequences_of(list(values), label=[number % 2 == 0 for number in range(count)], categories=("a", "b"))


def test_an_honest_network_passes():
    model, data = gated(honest=True), marked()
    np.testing.assert_allclose(shares_of(model, CLASSES, data, 0), np.eye(10)[2], atol=1e-6)
    check = check_map(model, CLASSES, data, range(12))
    found = verdict(check)
    assert found.word == "honest"
    assert max(one.forgotten_change for one in check.sequences) < 1e-6
    assert min(one.remembered_change for one in check.sequences) > 0.4
    assert all(one.steps_share == 0.9 for one in check.sequences)
    assert "to another class in 0 of 12 sequences" in found.sentence


def test_a_dishonest_network_fails():
    model, data = gated(honest=False), marked()
    np.testing.assert_allclose(shares_of(model, CLASSES, data, 0), np.eye(10)[9], atol=1e-6)
    check = check_map(model, CLASSES, data, range(12))
    found = verdict(check)
    assert found.word == "not honest"
    assert min(one.forgotten_change for one in check.sequences) > 0.4
    assert "is not the whole story here" in found.sentence
    record = inspect(model, CLASSES, FACTS, data)
    assert verdict(record.check).word == "not honest"


def test_a_network_that_answers_always_the_same_has_nothing_to_tell():
    model, data = gated(honest=True), marked()
    with torch.no_grad():
        model.head.weight.zero_()
    assert verdict(check_map(model, CLASSES, data, range(4))).word == "nothing to tell"


def test_a_map_that_forgets_nothing_is_not_checked():
    model, data = gated(honest=True), marked(2, 10).only([0])
    one = sequences_of([data.values[2:3]], label=[0], categories=("a", "b"))
    check = check_map(model, CLASSES, one, [0])
    assert (check.sequences, check.without) == ((), 1)
    assert verdict(check).word == "not checked"
    assert verdict(None).word == "not checked"


@pytest.mark.parametrize("task", [CLASSES, STEPS, NUMBER, NUMBERS], ids=lambda task: task.name)
@pytest.mark.parametrize("config", [{}, {"num_layers": 2, "bidirectional": True}], ids=["one way", "both ways"])
def test_changes_are_those_of_counterfactual(task, config):
    model, data = model_of(task, **config), data_of(task, (12,))
    check = check_map(model, task, data, [0])
    (found,) = check.sequences
    shares = shares_of(model, task, data, 0)
    forgotten, remembered = parted(shares)
    values = torch.from_numpy(data.values).unsqueeze(1)
    step = 5 if task.per_step and config else 11
    for columns, change in ((forgotten, found.forgotten_change), (remembered, found.remembered_change)):
        with torch.no_grad():
            effect = counterfactual(Carrying(model), values, torch.from_numpy(columns), layer="model.layer")
        before, after = (
            task.told(one)[step, 0] if task.per_step else task.told(one)[0]
            for one in (effect.output, effect.output_without)
        )
        size = 2 if task.categories else task.spread
        assert change == pytest.approx(float((after - before).abs().sum()) / size, abs=1e-6)
    assert found.forgotten_share == pytest.approx(shares[forgotten].sum())
    assert found.forgotten_share <= LEAST


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_forgotten_and_remembered_are_apart(weights):
    shares = np.array(weights) / max(sum(weights), 1)
    forgotten, remembered = parted(shares)
    assert not set(forgotten) & set(remembered)
    assert shares[forgotten].sum() <= LEAST + 1e-9
    assert len(remembered) == min(len(forgotten), len(shares) - len(forgotten))
    if len(forgotten):
        assert shares[forgotten].max() <= shares[remembered].min()
    if len(forgotten) < len(shares) - 1:
        rest = np.delete(shares, forgotten)
        assert shares[forgotten].sum() + rest.min() > LEAST - 1e-9


def test_long_sequences_are_held_out_in_pieces(monkeypatch):
    model, data = model_of(CLASSES), data_of(CLASSES, (531,))
    whole = check_map(model, CLASSES, data, [0])
    monkeypatch.setattr(looking, "_CHUNK", 100)
    assert len(list(pieces(model, data, 0))) == 6
    (found,), (expected,) = check_map(model, CLASSES, data, [0]).sequences, whole.sequences
    assert found.forgotten_change == pytest.approx(expected.forgotten_change, abs=1e-6)
    assert found.remembered_change == pytest.approx(expected.remembered_change, abs=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Which sequences, and what is told of them


def test_the_longest_some_right_and_some_wrong_are_shown():
    data = first_symbol(40, 9)
    run = tg.fit(data, "answer", hidden_size=8, epochs=3, batch_size=8, threads=1, seed=1)
    record = run.inspect(data)
    assert len(record.sequences) == 6
    lengths = [one.axis.steps for one in record.sequences]
    assert lengths[0] == data.lengths.max()
    told = run.predict(data)
    for one in record.sequences:
        number = list(data.ids).index(one.name)
        assert one.answer.said == told["prediction"][number]
        assert dict(one.answer.probabilities)["a"] == pytest.approx(told["probability_a"][number], abs=1e-6)
        assert data.label is not None
        assert one.answer.label == "ab"[int(data.label.values[number])]
        assert one.answer.right == (one.answer.said == one.answer.label)
        assert one.answer.shares is not None
        np.testing.assert_allclose(
            one.answer.shares[:, -1], [dict(one.answer.probabilities)[c] for c in "ab"], atol=1e-6
        )
    rights = [one.answer.right for one in record.sequences]
    assert any(rights)
    assert data.label is not None
    truth = np.array(["a", "b"], object)[data.label.values.astype(int)]
    assert all(rights) == bool((told["prediction"] == truth).all())
    assert len(run.inspect(data, sequences=2).sequences) == 2
    assert len(run.inspect(data, sequences=2).check.sequences) + run.inspect(data, sequences=2).check.without == 40
    assert [one.name for one in run.inspect(data, ids=["s7", "s3", "s7"]).sequences] == ["s7", "s3"]


def test_answers_of_every_step_stand_beside_their_labels():
    model, data = model_of(NUMBERS), data_of(NUMBERS, (9, 14))
    record = inspect(model, NUMBERS, FACTS, data)
    shown = record.sequences[0]
    rows = data.rows(list(data.ids).index(shown.name))
    with torch.no_grad():
        scores = model(torch.from_numpy(data.values[rows]).unsqueeze(1))[0][:, 0]
    told = NUMBERS.told(scores).numpy()
    assert data.label is not None
    label = data.label.values[rows]
    assert shown.answer.numbers is not None
    assert shown.answer.truth is not None
    np.testing.assert_allclose(shown.answer.numbers.values.mean, told)
    np.testing.assert_allclose(shown.answer.truth.mean, label)
    assert shown.answer.told == f"mean absolute error {np.abs(told - label).mean():.4g} over 14 steps"
    steps = looked(STEPS, data_of(STEPS, (20,)))[1].sequences[0].answer
    assert steps.told.endswith("of 20 labelled steps")
    assert steps.shares is not None
    assert steps.truth is not None


def test_without_labels_there_are_answers_alone():
    data = replace(data_of(NUMBER), label=None)
    _, record = looked(NUMBER, data)
    assert [one.answer.label for one in record.sequences] == [None] * 3
    assert record.asked == 0
    assert record.check is not None
    assert len(record.check.sequences) == 3


def test_a_dense_network_says_that_it_has_none_of_it():
    _, record = looked(CLASSES, data_of(CLASSES), variant="dense")
    for one in record.sequences:
        assert one.directions[0].update is None
        assert one.directions[0].flow is None
        np.testing.assert_array_equal(one.directions[0].share, [*[0.0] * (one.axis.steps - 1), 1.0])
    assert not record.health
    assert "no gates" in record.health_note


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Asked(ids=("s11",)), r"there is no 's11': the nearest is 's1'"),
        (Asked(layers=(1,)), r"layer must lie in 0\.\.0; got 1"),
    ],
)
def test_what_is_not_there_is_refused(asked, told):
    with pytest.raises(InputValueError, match=told):
        looked(CLASSES, data_of(CLASSES), asked)


@pytest.mark.usefixtures("as_users_run_it")
def test_wrong_wishes_are_refused():
    with pytest.raises(InputValueError, match=r"sequences must be a whole number in 1\.\.24; got 0"):
        Asked(sequences=0)
    with pytest.raises(InputValueError, match="at most 24 sequences; got 25"):
        Asked(ids=tuple(map(str, range(25))))
    with pytest.raises(InputTypeError, match="layer must be an int; got str"):
        looked(CLASSES, data_of(CLASSES), Asked(layers=("0",)))  # type: ignore[arg-type]
    data = data_of(CLASSES)
    with pytest.raises(InputValueError, match="must hold sequences"):
        looked(CLASSES, data.only([]))


def test_many_sequences_are_not_all_asked(monkeypatch):
    monkeypatch.setattr(inspection, "_CANDIDATE_STEPS", 50)
    monkeypatch.setattr(inspection, "_CHECKED_STEPS", 40)
    _, record = looked(CLASSES, data_of(CLASSES, (10,) * 30), Asked(sequences=2))
    assert record.asked == 5
    assert record.check is not None
    assert len(record.check.sequences) == 4
    assert record.given == 30


# ---------------------------------------------------------------------------------------------------------------------
# Inputs over time


def shown_of(data: Sequences, number: int = 0):
    bounds = columns_of(int(data.lengths[number]))
    width = len(data.features)
    axis = time_axis(data, number, bounds, "at")
    return axis, shown_inputs(data, number, axis, np.zeros(width), np.ones(width))


def test_few_inputs_are_lines_in_their_own_units():
    values = np.array([[1.0, 0, 1], [np.nan, 1, 5], [7, np.nan, -1], [8, 1, 0]])
    features = [Feature("x"), Feature("kind", "category", ("a", "b")), Feature("open", "boolean")]
    _, shown = shown_of(sequences_of([values], features=features))
    x, open_, kind = shown.lines
    np.testing.assert_array_equal(x.values.mean, [1, np.nan, 7, 8])
    np.testing.assert_array_equal(x.missing, [0, 1, 0, 0])
    assert open_.boolean
    assert kind.categories == ("a", "b")
    np.testing.assert_array_equal(kind.values.mean, [0, 1, np.nan, 1])
    assert shown.map is None


def test_many_categories_are_the_frequent_and_the_others():
    names = tuple(f"c{code}" for code in range(40))
    codes = np.concatenate([np.repeat(np.arange(12), 3), [30.0], [-1.0]])
    _, shown = shown_of(sequences_of([codes[:, None]], features=[Feature("kind", "category", names)]))
    (line,) = shown.lines
    assert line.categories == (*names[:12], "other")
    assert line.values.mean[-2:].tolist() == [12, 12]


def test_many_inputs_are_a_map_of_those_that_vary():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 70)) * np.where(np.arange(70) < 6, 0, 1)
    values[0, 69] = np.nan
    axis, shown = shown_of(sequences_of([values]))
    assert shown.map is not None
    assert shown.map.names == tuple(f"x{place}" for place in range(6, 70))
    assert shown.map.values.shape == (64, axis.columns)
    assert "the 64 of 70 inputs" in shown.map.note
    assert shown.map.shades.min() >= 0
    assert shown.map.shades.max() <= 1


def test_frames_are_put_together_again():
    frames = np.random.default_rng(0).random((5, 2, 3, 3))
    features = [
        Feature(f"row{row}_column{column}_{colour}")
        for row in range(2)
        for column in range(3)
        for colour in ("red", "green", "blue")
    ]
    _, shown = shown_of(sequences_of([frames.reshape(5, -1)], features=features))
    assert shown.pictures is not None
    np.testing.assert_array_equal(shown.pictures.frames, (255 * frames).round().astype(np.uint8))
    np.testing.assert_array_equal(shown.pictures.steps, range(5))


def test_text_stands_as_it_is_read():
    text = "né\n\x00💧".encode() + b"\xff"
    names = tuple(f"0x{byte:02x}" for byte in range(256))
    codes = np.frombuffer(text, np.uint8)[:, None]
    _, shown = shown_of(sequences_of([codes], features=[Feature("byte", "category", names)]))
    assert shown.text == ("n", "é", "", "\n", "·", "💧", "", "", "", "·")
    letters = [Feature("character", "category", ("a", "b"))]
    _, shown = shown_of(sequences_of([np.array([[0], [1], [-1]])], features=letters))
    assert shown.text == ("a", "b", "�")
    _, shown = shown_of(sequences_of([np.zeros((2500, 1))], features=letters))
    assert (len(shown.text), shown.text_start) == (2000, 500)


def test_bands_of_sound_are_a_map_from_below():
    data = sequences_of([np.arange(80.0).reshape(4, 20)], features=[Feature(f"mel{band}") for band in range(20)])
    _, shown = shown_of(data)
    assert shown.map is not None
    assert shown.map.names[-1] == "mel0"
    np.testing.assert_array_equal(shown.map.values[-1], data.values[:, 0])


def test_the_axis_has_the_real_times():
    values = [np.zeros((4, 1))]

    def axis(*times: float):
        return shown_of(sequences_of(values, times=np.array(times, float)))[0]

    own = axis(0, 1, 3, 10)
    np.testing.assert_allclose(own.edges, [-0.5, 0.5, 2, 6.5, 13.5])
    np.testing.assert_allclose(own.middles, [0, 1, 3, 10])
    assert own.title == "at"
    stamps = axis(*(1.7e9 + 3600 * np.array([0, 1, 2, 9])))
    assert stamps.title == "minutes from 2023-11-14 22:13:20 UTC" or stamps.title.startswith("hours from 2023-11-14")
    assert stamps.middles[0] == 0
    assert axis(1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3).title == "at, from 1000000"
    assert axis(5, 5, 5, 5).title == "step"
    alike = axis(0, 0, 0, 1)
    assert (np.diff(alike.edges) >= 0).all()
    assert shown_of(sequences_of(values))[0].title == "step"


def test_looking_leaves_the_model_as_it_was():
    model, data = model_of(CLASSES, dropout=0.5), data_of(CLASSES)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    first = inspect(model, CLASSES, FACTS, data)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again = inspect(model.eval(), CLASSES, FACTS, data)
    for one, other in zip(first.sequences, again.sequences, strict=True):
        assert one.answer.probabilities == other.answer.probabilities
        np.testing.assert_array_equal(one.directions[0].share, other.directions[0].share)


def test_views_take_only_what_a_state_saw():
    model, data = model_of(STEPS), data_of(STEPS, (11,))
    views = {(0, False): DirectionView(columns_of(11), 5)}
    for piece in pieces(model, data, 0):
        look(views, piece, until=4)
    memory = views[0, False].memory
    assert (memory[5:] == 0).all()
    np.testing.assert_allclose(memory.sum(0) + views[0, False].initial, 1)
